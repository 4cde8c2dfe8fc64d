//! The driver against a controller made of memory.

use super::command::{Purpose, Status};
use super::controller::{Controller, ControllerError};
use super::fake::{FakeHardware, Fault, Settings, pattern, poll_once, run};
use super::namespace::Namespace;
use crate::memory::dma;
use proptest::prelude::*;
use std::pin::pin;
use std::sync::Arc;
use vsp::buffer::{Buffer, owned};
use vsp::storage::disk::{Disk, DiskError, Durability};

type Fake = Controller<FakeHardware>;

fn controller(settings: Settings) -> Arc<Fake> {
    let hardware = FakeHardware::new(settings);
    Arc::new(Controller::new(hardware, String::from("nvme0"), 3).unwrap())
}

/// A controller that runs, and its namespace.
fn world(settings: Settings) -> (Arc<Fake>, Namespace<FakeHardware>) {
    let controller = controller(settings);
    run(&controller, controller.start(2)).unwrap();
    let found = run(&controller, controller.namespaces()).unwrap();
    let (id, identity) = found[0];
    let namespace = Namespace::new(controller.clone(), id, &identity.unwrap());
    (controller, namespace)
}

fn buffer_with(bytes: &[u8]) -> Arc<Buffer> {
    let buffer = dma::buffer(bytes.len()).unwrap();
    buffer.copy_from(0, bytes).unwrap();
    buffer
}

fn contents(buffer: &Buffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.size()];
    buffer.copy_to(0, &mut bytes).unwrap();
    bytes
}

fn io_commands(controller: &Fake, opcode: u8) -> usize {
    let commands = controller.hardware.commands();
    commands.iter().filter(|command| command.opcode == opcode).count()
}

#[test]
fn what_is_written_is_read_again() {
    for shift in [9, 12] {
        let (controller, disk) = world(Settings {
            shift,
            ..Settings::default()
        });
        let bytes = pattern(8192);
        run(
            &controller,
            disk.write(16, &buffer_with(&bytes), Durability::Cached),
        )
        .unwrap();
        let read = dma::buffer(8192).unwrap();
        run(&controller, disk.read(16, &read)).unwrap();
        assert_eq!(contents(&read), bytes);
        controller
            .hardware
            .medium(|medium| assert_eq!(medium[16 << shift..][..8192], bytes));
    }
}

#[test]
fn transfers_are_split_as_the_controller_wants() {
    let (controller, disk) = world(Settings {
        mdts: 1,
        ..Settings::default()
    });
    let bytes = pattern(20480);
    run(
        &controller,
        disk.write(0, &buffer_with(&bytes), Durability::OnMedium),
    )
    .unwrap();
    assert_eq!(io_commands(&controller, 1), 3);
    assert!(
        controller
            .hardware
            .commands()
            .iter()
            .all(|command| command.words[2] & 1 << 30 != 0)
    );
    controller
        .hardware
        .medium(|medium| assert_eq!(medium[..20480], bytes));
}

#[test]
fn a_buffer_at_an_odd_address_is_bounced() {
    let (controller, disk) = world(Settings::default());
    let whole = owned(8192 + 8);
    let odd = Arc::new(odd_part(&whole, 4096 + 512));
    let bytes = pattern(4096 + 512);
    odd.copy_from(0, &bytes).unwrap();
    run(&controller, disk.write(3, &odd, Durability::Cached)).unwrap();
    controller
        .hardware
        .medium(|medium| assert_eq!(medium[3 * 512..][..4608], bytes));
    odd.copy_from(0, &vec![0; 4608]).unwrap();
    run(&controller, disk.read(3, &odd)).unwrap();
    assert_eq!(contents(&odd), bytes);
}

/// A part of `whole` that begins at an odd address.
#[allow(unsafe_code)]
fn odd_part(whole: &Arc<Buffer>, length: usize) -> Buffer {
    let address = whole.segments()[0].physical() + 1;
    let pointer = std::ptr::NonNull::new(address as *mut u8).unwrap();
    // SAFETY: it is part of the memory of `whole`, which is its owner.
    let segment = unsafe { vsp::buffer::Segment::new(pointer, address, length) };
    Buffer::new(vec![segment], whole.clone())
}

#[test]
fn requests_outside_the_disk_or_of_odd_sizes_do_not_reach_the_controller() {
    let (controller, disk) = world(Settings::default());
    let sectors = disk.geometry().sectors;
    let sector = dma::buffer(512).unwrap();
    for start in [sectors, u64::MAX] {
        assert_eq!(
            run(&controller, disk.read(start, &sector)),
            Err(DiskError::OutOfRange)
        );
        assert_eq!(
            run(&controller, disk.discard(start, 1)),
            Err(DiskError::OutOfRange)
        );
    }
    assert_eq!(
        run(&controller, disk.read(0, &dma::buffer(100).unwrap())),
        Err(DiskError::BufferSize)
    );
    assert_eq!(controller.hardware.commands().len(), 0);
    assert_eq!(run(&controller, disk.read(sectors - 1, &sector)), Ok(()));
}

#[test]
fn a_flush_is_a_command_only_where_there_is_a_write_cache() {
    for write_cache in [true, false] {
        let (controller, disk) = world(Settings {
            write_cache,
            ..Settings::default()
        });
        run(&controller, disk.flush()).unwrap();
        assert_eq!(io_commands(&controller, 0), usize::from(write_cache));
        assert_eq!(disk.geometry().write_cache, write_cache);
    }
}

#[test]
fn discarded_sectors_are_given_up() {
    let (controller, disk) = world(Settings::default());
    run(
        &controller,
        disk.write(0, &buffer_with(&pattern(4096)), Durability::Cached),
    )
    .unwrap();
    run(&controller, disk.discard(2, 3)).unwrap();
    controller.hardware.medium(|medium| {
        assert_eq!(medium[1024..2560], [0; 1536]);
        assert_ne!(medium[2560..4096], [0; 1536]);
    });
}

#[test]
fn more_requests_than_slots_wait_for_their_turn() {
    let (controller, disk) = world(Settings {
        entries: 3,
        shuffles: true,
        ..Settings::default()
    });
    let buffers: Vec<_> = (0..40).map(|_| buffer_with(&pattern(512))).collect();
    let mut writes: Vec<_> = buffers
        .iter()
        .enumerate()
        .map(|(sector, buffer)| Box::pin(disk.write(sector as u64, buffer, Durability::Cached)))
        .collect();
    let mut ended = 0;
    run(&controller, async {
        while !writes.is_empty() {
            writes.retain_mut(|write| {
                let outcome = poll_once(write.as_mut());
                ended += usize::from(outcome == Some(Ok(())));
                outcome.is_none()
            });
            let mut once = false;
            std::future::poll_fn(|_| match std::mem::replace(&mut once, true) {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            })
            .await;
        }
    });
    assert_eq!(ended, 40);
    for (sector, buffer) in buffers.iter().enumerate() {
        controller
            .hardware
            .medium(|medium| assert_eq!(medium[sector * 512..][..512], contents(buffer)));
    }
}

#[test]
fn a_request_that_nobody_waits_for_keeps_its_buffer_until_the_device_is_done() {
    let (controller, disk) = world(Settings::default());
    let buffer = buffer_with(&pattern(4096));
    {
        let mut write = pin!(disk.write(0, &buffer, Durability::Cached));
        assert_eq!(poll_once(write.as_mut()), None);
    }
    assert_eq!(Arc::strong_count(&buffer), 2);
    controller.hardware.work();
    controller.process_all();
    assert_eq!(Arc::strong_count(&buffer), 1);
}

#[test]
fn a_controller_that_babbles_confuses_nobody() {
    let (controller, disk) = world(Settings {
        fault: Fault::Babble,
        ..Settings::default()
    });
    for sector in 0..100 {
        let bytes = pattern(512);
        run(
            &controller,
            disk.write(sector, &buffer_with(&bytes), Durability::Cached),
        )
        .unwrap();
        let read = dma::buffer(512).unwrap();
        run(&controller, disk.read(sector, &read)).unwrap();
        assert_eq!(contents(&read), bytes);
    }
    assert!(controller.troubles().2 >= 400);
}

#[test]
fn every_status_ends_a_request_with_its_error() {
    let (controller, disk) = world(Settings::default());
    let sector = dma::buffer(512).unwrap();
    for status in [
        Status::UNRECOVERED_READ,
        Status::CAPACITY_EXCEEDED,
        Status::WRITE_PROTECTED,
        Status(0x1ff),
    ] {
        controller
            .hardware
            .set(|settings| settings.fault = Fault::Refuse(status));
        let expected = status.error(Purpose::Read(9)).unwrap();
        assert_eq!(run(&controller, disk.read(9, &sector)), Err(expected));
    }
}

/// Runs `future` beside the controller's watchdog.
fn watched<T>(controller: &Fake, future: impl Future<Output = T>) -> T {
    let watch = pin!(controller.watch());
    let future = pin!(future);
    let both = embassy_futures::select::select(future, watch);
    match run(controller, both) {
        embassy_futures::select::Either::First(value) => value,
        embassy_futures::select::Either::Second(()) => panic!("the watchdog gave up first"),
    }
}

#[test]
fn a_late_command_is_given_up_and_made_again() {
    let (controller, disk) = world(Settings {
        fault: Fault::Swallow,
        ..Settings::default()
    });
    let sector = dma::buffer(512).unwrap();
    assert_eq!(watched(&controller, disk.read(0, &sector)), Err(DiskError::Reset));
    assert_eq!((io_commands(&controller, 2), controller.troubles().0), (3, 0));
    controller.hardware.set(|settings| settings.fault = Fault::None);
    assert_eq!(run(&controller, disk.read(0, &sector)), Ok(()));
}

#[test]
fn a_controller_that_does_not_give_up_a_command_is_reset_and_the_command_made_again() {
    let (controller, disk) = world(Settings {
        fault: Fault::SwallowOnce,
        ..Settings::default()
    });
    let bytes = pattern(4096);
    controller
        .hardware
        .set(|settings| settings.fault = Fault::SwallowForGood);
    let buffer = buffer_with(&bytes);
    let mut write = pin!(disk.write(8, &buffer, Durability::Cached));
    assert_eq!(poll_once(write.as_mut()), None);
    controller.hardware.work();
    controller
        .hardware
        .set(|settings| settings.fault = Fault::SwallowOnce);
    assert!(watched(&controller, controller.reset()));
    assert_eq!(run(&controller, write), Ok(()));
    assert_eq!(controller.troubles().0, 1);
    controller
        .hardware
        .medium(|medium| assert_eq!(medium[4096..8192], bytes));
}

#[test]
fn a_command_that_no_reset_helps_ends_with_an_error_and_others_go_on() {
    let (controller, disk) = world(Settings {
        fault: Fault::SwallowForGood,
        ..Settings::default()
    });
    let sector = dma::buffer(512).unwrap();
    watched(&controller, async {
        assert_eq!(disk.read(0, &sector).await, Err(DiskError::Reset));
        controller.hardware.set(|settings| settings.fault = Fault::None);
        assert_eq!(disk.read(0, &sector).await, Ok(()));
    });
    assert_eq!(controller.troubles().0, 3);
    assert_eq!(Arc::strong_count(&sector), 1);
}

/// A read under way when the controller gets `fault`, and its outcome once the watchdog has given the controller up.
fn given_up_with(fault: Fault) -> (Arc<Fake>, Namespace<FakeHardware>, Result<(), DiskError>) {
    let (controller, disk) = world(Settings {
        fault: Fault::SwallowForGood,
        ..Settings::default()
    });
    let sector = dma::buffer(512).unwrap();
    let outcome = {
        let mut read = pin!(disk.read(0, &sector));
        assert_eq!(poll_once(read.as_mut()), None);
        controller.hardware.work();
        controller.hardware.set(|settings| settings.fault = fault);
        controller
            .reset_wanted
            .store(true, std::sync::atomic::Ordering::Relaxed);
        run(&controller, controller.watch());
        assert!(controller.is_dead() && *controller.hardware.cut_off.lock());
        run(&controller, read)
    };
    assert_eq!(Arc::strong_count(&sector), 1);
    (controller, disk, outcome)
}

#[test]
fn a_controller_that_cannot_be_turned_off_is_cut_off_from_memory() {
    let (controller, disk, outcome) = given_up_with(Fault::Stuck);
    assert_eq!(outcome, Err(DiskError::Failed));
    assert_eq!(run(&controller, disk.flush()), Err(DiskError::Failed));
}

#[test]
fn a_controller_that_does_not_come_back_fails_its_disks() {
    assert_eq!(given_up_with(Fault::NeverReady).2, Err(DiskError::Failed));
}

#[test]
fn a_controller_that_is_gone_says_so() {
    let (controller, disk, outcome) = given_up_with(Fault::Gone);
    assert_eq!(outcome, Err(DiskError::Gone));
    let sector = dma::buffer(512).unwrap();
    assert_eq!(run(&controller, disk.read(0, &sector)), Err(DiskError::Gone));
}

#[test]
fn a_controller_that_was_shut_down_works_again_where_the_machine_goes_on() {
    let (controller, disk) = world(Settings::default());
    controller.shut_down();
    assert!(controller.status().shut_down());
    assert!(watched(&controller, controller.reset()));
    assert_eq!(run(&controller, disk.read(0, &dma::buffer(512).unwrap())), Ok(()));
}

#[test]
fn a_controller_that_never_becomes_ready_does_not_start() {
    let controller = controller(Settings {
        fault: Fault::NeverReady,
        ..Settings::default()
    });
    assert_eq!(
        run(&controller, controller.start(1)),
        Err(ControllerError::Stuck("ready"))
    );
}

#[test]
fn as_many_pairs_are_used_as_processors_interrupts_window_and_controller_allow() {
    for (settings, wanted, pairs) in [
        (Settings::default(), 8, 2),
        (Settings::default(), 1, 1),
        (
            Settings {
                pairs: 1,
                ..Settings::default()
            },
            2,
            1,
        ),
        (
            Settings {
                window: 0x1010,
                ..Settings::default()
            },
            2,
            1,
        ),
    ] {
        let controller = controller(settings);
        run(&controller, controller.start(wanted)).unwrap();
        assert_eq!(controller.pairs().len(), pairs, "{settings:?}");
    }
    let small = controller(Settings {
        window: 0x1008,
        ..Settings::default()
    });
    assert_eq!(run(&small, small.start(1)), Err(ControllerError::Window(0x1008)));
}

#[test]
fn each_processor_has_its_own_queues() {
    let (controller, disk) = world(Settings::default());
    let sector = dma::buffer(512).unwrap();
    for processor in 0..4 {
        *controller.hardware.processor.lock() = processor;
        let mut read = pin!(disk.read(0, &sector));
        assert_eq!(poll_once(read.as_mut()), None);
        assert_eq!(controller.pairs()[processor % 2].under_way(), 1);
        run(&controller, read).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Requests of all sizes, in any order, some given up: what is read is what was written last, and no slot is lost.
    #[test]
    fn requests_side_by_side_do_not_mix(
        requests in proptest::collection::vec((0u64..60, 1usize..4, any::<bool>(), any::<bool>()), 1..40),
        entries in 2u16..10, shuffles: bool,
    ) {
        let (controller, disk) = world(Settings { entries, shuffles, mdts: 1, ..Settings::default() });
        let mut expected = vec![0; 64 * 4096];
        for (page, pages, writes, gives_up) in requests {
            let range = page as usize * 4096..(page as usize + pages) * 4096;
            let bytes = pattern(pages * 4096);
            let buffer = buffer_with(&bytes);
            if gives_up {
                let mut read = pin!(disk.read(page * 8, &buffer));
                prop_assert_eq!(poll_once(read.as_mut()), None);
                continue;
            }
            if writes {
                run(&controller, disk.write(page * 8, &buffer, Durability::Cached)).unwrap();
                expected[range].copy_from_slice(&bytes);
            } else {
                run(&controller, disk.read(page * 8, &buffer)).unwrap();
                prop_assert_eq!(&contents(&buffer)[..], &expected[range]);
            }
        }
        controller.hardware.work();
        controller.process_all();
        prop_assert_eq!(controller.pairs()[0].under_way(), 0);
    }
}
