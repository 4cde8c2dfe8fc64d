//! Several units and segments, and reserved memory, by tables that no machine here has: QEMU gives one unit, one segment, no region.

use super::*;
use crate::iommu::pci::tests::{bridge_and_devices, with_function};
use crate::memory::address::FRAME_SIZE;
use crate::memory::frames::FrameSource;
use crate::memory::frames::tests::TestFrames;
use crate::platform::dmar::tests::{bytes, drhd_of, read, rmrr};
use std::vec::Vec;

/// QEMU's capabilities, with 48-bit addresses; the same without interrupt remapping.
const CAP: u64 = 0xd2_008c_222f_0606;
const ECAP: u64 = 0xf0_0f5a;
const ECAP_WITHOUT_REMAPPING: u64 = ECAP & !(1 << 3 | 1 << 4);

/// A unit's registers in memory, which say what it can do.
fn registers(test: &mut TestFrames, extended: u64) -> u64 {
    let place = test.allocator.allocate().unwrap().start().0;
    for (offset, value) in [(offset::CAPABILITY, CAP), (offset::EXTENDED_CAPABILITY, extended)] {
        // SAFETY: the frame was just allocated for this.
        unsafe { ((place + offset) as *mut u64).write_volatile(value) };
    }
    place
}

/// The scope of an I/O APIC: its id, and the bus, device and function that it names itself by.
fn io_apic(id: u8, bus: u8, device: u8) -> [u8; 8] {
    [3, 8, 0, 0, id, bus, device, 0]
}

fn built(test: &mut TestFrames, structures: &[Vec<u8>]) -> Result<Iommu, Problem> {
    let dmar = read(bytes(structures)).unwrap();
    let abilities = abilities(&dmar).ok_or(Problem::NoUnit)?;
    build(&dmar, abilities, true, &mut test.allocator)
}

#[test]
fn units_of_one_segment_share_its_tables_and_each_segment_has_its_own() {
    let mut test = TestFrames::new(64);
    let units = [(0, 0), (0, 1), (7, 1)].map(|(segment, flags)| {
        let place = registers(&mut test, ECAP);
        drhd_of(segment, flags, place, &io_apic(segment + flags, 0xf0, 0x1f))
    });
    let iommu = built(&mut test, &units).unwrap();
    let segments: Vec<u16> = iommu.units.iter().map(|unit| unit.segment).collect();
    assert_eq!(segments, [0, 0, 7]);
    let [first, second] = iommu.segments.as_slice() else {
        panic!("{} segments", iommu.segments.len())
    };
    assert_eq!((first.number, second.number), (0, 7));
    assert_ne!(first.contexts.root(), second.contexts.root());
    let tables = [first, second].map(|segment| segment.interrupts.as_ref().unwrap().place().0);
    assert_ne!(tables[0], tables[1]);
    let names = [(0, 0), (1, 0), (8, 7)].map(|(id, segment)| (id, DeviceName { segment, rid: 0xf0f8 }));
    assert_eq!(iommu.io_apics.as_slice(), names);
    assert!(iommu.segment(7).is_some() && iommu.segment(1).is_none());
}

#[test]
fn what_one_unit_cannot_do_is_not_done_by_the_others_either() {
    let mut test = TestFrames::new(64);
    let units = [ECAP, ECAP_WITHOUT_REMAPPING].map(|extended| registers(&mut test, extended));
    let units = [drhd_of(0, 0, units[0], &[]), drhd_of(0, 1, units[1], &[])];
    let iommu = built(&mut test, &units).unwrap();
    assert!(!iommu.abilities.remaps_interrupts && !iommu.abilities.extended_interrupts);
    assert!(iommu.segments[0].interrupts.is_none());
    assert_eq!(iommu.abilities.levels, Some(4));
}

#[test]
fn more_segments_than_are_kept_account_of_are_refused() {
    let mut test = TestFrames::new(128);
    let units: Vec<_> = (0..=crate::iommu::MAX_SEGMENTS as u8)
        .map(|segment| {
            let place = registers(&mut test, ECAP);
            drhd_of(segment, 1, place, &[])
        })
        .collect();
    assert!(matches!(built(&mut test, &units), Err(Problem::TooManySegments)));
}

#[test]
fn without_frames_nothing_is_built() {
    let mut test = TestFrames::new(3);
    let place = registers(&mut test, ECAP);
    let problem = built(&mut test, &[drhd_of(0, 1, place, &[])]);
    assert!(matches!(problem, Err(Problem::OutOfFrames)));
}

#[test]
fn devices_with_reserved_memory_are_found_behind_bridges_and_once() {
    // Function 0:2.1, function 5:3.0 behind the bridge 0:1.0, one that is behind nothing, and a bridge, which is no device.
    let plain = [1, 8, 0, 0, 0, 0, 2, 1];
    let behind = [1, 10, 0, 0, 0, 0, 1, 0, 3, 0];
    let nowhere = [1, 10, 0, 0, 0, 0, 9, 0, 3, 0];
    let bridge = [2, 8, 0, 0, 0, 0, 1, 0];
    let scopes = [&plain[..], &behind, &nowhere, &bridge, &plain].concat();
    // RMRRs of these helpers are of segment 1: as firmware would, in segment 0.
    let mut region = rmrr(FRAME_SIZE * 16, FRAME_SIZE * 18 - 1, &scopes);
    region[6] = 0;
    let dmar = read(bytes(&[region])).unwrap();
    let mut config = with_function(bridge_and_devices(), 0x0518);
    let found = reserved_devices(&dmar, &mut config);
    let names = [0x0011, 0x0518].map(|rid| DeviceName { segment: 0, rid });
    assert_eq!(found.as_slice(), names);
    // In segments whose configuration space the hypervisor does not reach, none is.
    let other = read(bytes(&[rmrr(FRAME_SIZE * 16, FRAME_SIZE * 18 - 1, &plain)])).unwrap();
    assert!(reserved_devices(&other, &mut config).is_empty());
}
