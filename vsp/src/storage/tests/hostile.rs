//! Guests that send what they like.

use super::*;
use proptest::prelude::*;
use vmbus::protocol::scsi::operation;

proptest! {
    #[test]
    fn any_command_is_answered_and_breaks_nothing(
        requests in prop::collection::vec(
            (any::<[u8; 52]>(), prop::collection::vec(any::<u64>().prop_map(|page| page % 400), 0..5), 0_u32..20000, 0_u32..4096, any::<bool>()),
            1..40,
        )
    ) {
        let (controller, bus) = (controller(), bus());
        controller.attach(None, LogicalUnit::optical(Some(RamDisk::new(40, SectorSize::Bytes512)), id(), "3".to_string())).unwrap();
        controller.take_change();
        let mut world = World::ready(&controller, &bus);
        for (bytes, pages, byte_count, byte_offset, likely) in requests {
            let mut request = zerocopy::transmute!(bytes);
            let ScsiRequest { path, target, lun, cdb, cdb_length, transfer_length, .. } = &mut request;
            if likely {
                (*path, *target, *lun, *cdb_length) = (0, 0, *lun % 3, 16);
                cdb[0] = operation::ALL[usize::from(cdb[0]) % operation::ALL.len()];
                *transfer_length %= 65536;
            }
            world.execute(request, GpaRange { byte_count, byte_offset, pages: &pages });
        }
        prop_assert!(world.broken.is_none());
        prop_assert!(world.command(0, &[0x12, 0, 0, 0, 0, 0]).is_ok());
    }

    #[test]
    fn packets_of_any_kind_leave_the_channel_alive(
        packets in prop::collection::vec((any::<u16>(), any::<u64>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..100)), 1..40)
    ) {
        let (controller, bus) = (controller(), bus());
        let mut world = World::ready(&controller, &bus);
        for (kind, transaction, ask, payload) in packets {
            let mut batch = world.rings.outgoing.batch().unwrap();
            let flags = if ask { PacketFlags::COMPLETION_REQUESTED } else { PacketFlags::empty() };
            batch.push(PacketType(kind % 16), transaction, flags, &[&payload]).unwrap();
            let _ = batch.commit();
            world.step();
            world.come();
        }
        prop_assert!(world.broken.is_none());
        prop_assert_eq!(world.ask(Operation::RESET_BUS, &0_u32).status, Status::SUCCESS);
    }
}
