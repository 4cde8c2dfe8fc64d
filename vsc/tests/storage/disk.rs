//! The consumer against the provider, over disks of memory.

use crate::world::World;
use proptest::prelude::*;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use uuid::Uuid;
use vsc::block::{BlockDevice, Durability, Geometry};
use vsc::bus::RingPages;
use vsc::memory::{Buffer, SharedPage, of_heap};
use vsc::storage::{Address, Controller, DeviceType, Disk, Sense, StorageError};
use vsp::buffer::Buffer as HostBuffer;
use vsp::storage::controller::Controller as Provider;
use vsp::storage::disk::{
    Disk as HostDisk, DiskError, Durability as HostDurability, Geometry as HostGeometry, SectorSize,
};
use vsp::storage::ram::RamDisk;
use vsp::storage::unit::LogicalUnit;

const FIRST: Address = Address {
    path: 0,
    target: 0,
    lun: 0,
};

fn unit<D: HostDisk>(disk: D) -> LogicalUnit<D> {
    LogicalUnit::disk(disk, Uuid::from_u128(7), "serial".to_string())
}

fn ram(sectors: u64) -> RamDisk {
    RamDisk::new(sectors, SectorSize::Bytes512)
}

/// A host with `disk` as unit 0, and what a guest has of it.
fn with<D: HostDisk + 'static>(disk: D) -> (World, Arc<Provider<D>>, Arc<Controller>, Disk) {
    let provider = Arc::new(Provider::new(0));
    provider.attach(None, unit(disk)).unwrap();
    let world = World::new(&provider);
    let controller = world.connect().unwrap();
    let disk = world.run(Disk::open(&controller, FIRST)).unwrap();
    (world, provider, controller, disk)
}

fn filled(bytes: &[u8]) -> Arc<Buffer> {
    let buffer = of_heap(bytes.len());
    buffer.copy_from(0, bytes).unwrap();
    Arc::new(buffer)
}

fn bytes(buffer: &Buffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.size()];
    buffer.copy_to(0, &mut bytes).unwrap();
    bytes
}

fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 256 + seed) as u8).collect()
}

#[test]
fn a_disk_is_found_and_says_what_it_holds() {
    let (world, _, controller, disk) = with(ram(2048));
    let found = world.run(controller.scan()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (
            found[0].address,
            found[0].device_type,
            &*found[0].vendor,
            &*found[0].product
        ),
        (FIRST, DeviceType::DISK, "Msft", "Virtual Disk")
    );
    let geometry = Geometry {
        blocks: 2048,
        block_size: 512,
        read_only: false,
        write_cache: false,
        discard: true,
    };
    assert_eq!(disk.geometry(), geometry);
}

#[test]
fn what_is_written_is_read_back() {
    let (world, _, _, disk) = with(ram(2048));
    let data = filled(&pattern(1, 3 * 512));
    world.run(disk.write(2045, &data, Durability::Cached)).unwrap();
    world.run(disk.flush()).unwrap();
    let back = Arc::new(of_heap(3 * 512));
    world.run(disk.read(2045, &back)).unwrap();
    assert_eq!(bytes(&back), bytes(&data));
}

#[test]
fn the_last_block_is_there_and_the_next_is_not() {
    let (world, _, _, disk) = with(ram(2048));
    let block = Arc::new(of_heap(512));
    assert_eq!(world.run(disk.read(2047, &block)), Ok(()));
    for first in [2048, u64::MAX, u64::MAX / 512] {
        assert_eq!(world.run(disk.read(first, &block)), Err(StorageError::OutOfRange));
        assert_eq!(
            world.run(disk.write(first, &block, Durability::OnMedium)),
            Err(StorageError::OutOfRange)
        );
        assert_eq!(world.run(disk.discard(first, 1)), Err(StorageError::OutOfRange));
    }
    let two = Arc::new(of_heap(1024));
    assert_eq!(world.run(disk.read(2047, &two)), Err(StorageError::OutOfRange));
    let part = Arc::new(of_heap(511));
    assert_eq!(world.run(disk.read(0, &part)), Err(StorageError::NotBlocks(511)));
}

#[test]
fn a_transfer_larger_than_the_host_takes_goes_in_pieces() {
    let (world, _, controller, disk) = with(ram(1 << 16));
    let size = controller.max_transfer() as usize + 3 * 512;
    let data = filled(&pattern(5, size));
    world.run(disk.write(7, &data, Durability::Cached)).unwrap();
    let back = Arc::new(of_heap(size));
    world.run(disk.read(7, &back)).unwrap();
    assert!(bytes(&back) == bytes(&data));
}

#[test]
fn pages_anywhere_are_one_buffer() {
    let (world, _, _, disk) = with(ram(2048));
    let memory = Arc::new(of_heap(4 * 4096));
    let page = |index: usize| {
        let (_, numbers) = memory.pages(index * 4096, 4096).unwrap();
        let number = numbers[0];
        let address = std::ptr::NonNull::new((number * 4096) as *mut u8).unwrap();
        SharedPage { address, number }
    };
    let pages = [page(3), page(1), page(2)];
    // SAFETY: the pages are those of `memory`, which the buffer owns a share of.
    #[allow(unsafe_code)]
    let scattered = unsafe { Buffer::from_pages(&pages, 1000, 8192, memory.clone()) };
    let scattered = Arc::new(scattered.unwrap());
    scattered.copy_from(0, &pattern(3, 8192)).unwrap();
    world
        .run(disk.write(100, &scattered, Durability::Cached))
        .unwrap();
    let back = Arc::new(of_heap(8192));
    world.run(disk.read(100, &back)).unwrap();
    assert_eq!(bytes(&back), pattern(3, 8192));
    scattered.copy_from(0, &[0; 8192]).unwrap();
    world.run(disk.read(100, &scattered)).unwrap();
    assert_eq!(bytes(&scattered), pattern(3, 8192));
}

#[test]
fn blocks_that_are_given_up_read_as_zeroes_and_their_neighbours_stay() {
    let (world, _, _, disk) = with(ram(2048));
    let data = filled(&[0xaa; 4 * 512]);
    world.run(disk.write(10, &data, Durability::Cached)).unwrap();
    world.run(disk.discard(11, 2)).unwrap();
    let back = Arc::new(of_heap(4 * 512));
    world.run(disk.read(10, &back)).unwrap();
    let back = bytes(&back);
    assert!(back[..512].iter().chain(&back[1536..]).all(|byte| *byte == 0xaa));
    assert!(back[512..1536].iter().all(|byte| *byte == 0));
}

#[test]
fn a_disk_that_must_not_be_written_is_known_as_such() {
    let (world, _, _, disk) = with(ram(64).read_only());
    assert!(disk.geometry().read_only);
    let block = Arc::new(of_heap(512));
    assert_eq!(
        world.run(disk.write(0, &block, Durability::Cached)),
        Err(StorageError::ReadOnly)
    );
    assert_eq!(world.run(disk.read(0, &block)), Ok(()));
}

#[test]
fn large_blocks_are_counted_as_such() {
    let (world, _, _, disk) = with(RamDisk::new(16, SectorSize::Bytes4096));
    assert_eq!((disk.geometry().blocks, disk.geometry().block_size), (16, 4096));
    let data = filled(&pattern(9, 4096));
    world.run(disk.write(15, &data, Durability::Cached)).unwrap();
    let back = Arc::new(of_heap(8192));
    world.run(disk.read(14, &back)).unwrap();
    assert_eq!(bytes(&back)[4096..], bytes(&data));
}

/// Writes `count` blocks by as many requests at once, and reads them back.
fn at_once(world: &World, disk: &Disk, count: usize) {
    let buffers: Vec<_> = (0..count).map(|index| filled(&pattern(index, 512))).collect();
    let mut writes: Vec<_> = buffers
        .iter()
        .enumerate()
        .map(|(block, buffer)| Box::pin(disk.write(block as u64, buffer, Durability::Cached)))
        .collect();
    world.run(poll_fn(|context| {
        writes.retain_mut(|write| match write.as_mut().poll(context) {
            Poll::Ready(result) => {
                result.unwrap();
                false
            }
            Poll::Pending => true,
        });
        if writes.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }));
    let back = Arc::new(of_heap(count * 512));
    world.run(disk.read(0, &back)).unwrap();
    for (block, written) in bytes(&back).chunks(512).zip(&buffers) {
        assert_eq!(block, bytes(written));
    }
}

#[test]
fn more_requests_than_a_queue_has_slots_all_end() {
    let (world, _, _, disk) = with(ram(4096));
    at_once(&world, &disk, 600);
}

#[test]
fn more_requests_than_a_ring_holds_all_end() {
    let provider = Arc::new(Provider::new(0));
    provider.attach(None, unit(ram(4096))).unwrap();
    let world = World::with_rings(&provider, RingPages::both(1));
    let controller = world.connect().unwrap();
    let disk = world.run(Disk::open(&controller, FIRST)).unwrap();
    at_once(&world, &disk, 200);
}

#[test]
fn a_request_that_nobody_waits_for_keeps_its_memory_and_frees_its_slot() {
    let (world, _, _, disk) = with(ram(2048));
    for _ in 0..1000 {
        let buffer = Arc::new(of_heap(4096));
        let mut read = pin!(disk.read(0, &buffer));
        world.run(poll_fn(|context| {
            assert!(read.as_mut().poll(context).is_pending());
            Poll::Ready(())
        }));
        // The future goes here, and the caller's share of the buffer.
        world.step();
    }
    let buffer = Arc::new(of_heap(512));
    assert_eq!(world.run(disk.read(0, &buffer)), Ok(()));
    world.step();
    assert_eq!(Arc::strong_count(&buffer), 1);
}

#[test]
fn a_disk_that_comes_is_told_of_and_found() {
    let (world, provider, controller, _) = with(ram(64));
    let changed = controller.changed(0);
    provider.attach(Some(9), unit(ram(128))).unwrap();
    assert_eq!(world.run(changed), Ok(1));
    let found = world.run(controller.scan()).unwrap();
    let addresses: Vec<_> = found.iter().map(|found| found.address.lun).collect();
    assert_eq!(addresses, [0, 9]);
    let disk = world.run(Disk::open(&controller, found[1].address)).unwrap();
    assert_eq!(disk.geometry().blocks, 128);
}

#[test]
fn a_disk_that_goes_is_told_of_and_refuses() {
    let (world, provider, controller, disk) = with(ram(64));
    provider.attach(Some(1), unit(ram(64))).unwrap();
    let seen = world.run(controller.changed(0)).unwrap();
    provider.detach(0);
    assert_eq!(world.run(controller.changed(seen)), Ok(seen + 1));
    let block = Arc::new(of_heap(512));
    assert_eq!(world.run(disk.read(0, &block)), Err(StorageError::NoUnit));
    assert_eq!(world.run(controller.scan()).unwrap().len(), 1);
}

#[test]
fn another_medium_is_known_anew_before_it_is_read() {
    let provider = Arc::new(Provider::new(0));
    let image = |byte: u8, sectors| ram(sectors).with_contents(&[byte; 4096]);
    let drive = LogicalUnit::optical(Some(image(1, 64)), Uuid::from_u128(8), "drive".to_string());
    provider.attach(None, drive).unwrap();
    let world = World::new(&provider);
    let controller = world.connect().unwrap();
    let disk = world.run(Disk::open(&controller, FIRST)).unwrap();
    assert_eq!(
        (
            disk.geometry().blocks,
            disk.geometry().block_size,
            disk.geometry().read_only
        ),
        (16, 2048, true)
    );
    let block = Arc::new(of_heap(2048));
    world.run(disk.read(0, &block)).unwrap();
    assert_eq!(bytes(&block), [1; 2048]);
    provider.unit(0).unwrap().change_medium(Some(image(2, 128)));
    world.run(disk.read(0, &block)).unwrap();
    assert_eq!(bytes(&block), [2; 2048]);
    assert_eq!(disk.geometry().blocks, 32);
    provider.unit(0).unwrap().change_medium(None);
    assert!(matches!(
        world.run(disk.read(0, &block)),
        Err(StorageError::Sense(Sense {
            key: Sense::NOT_READY,
            ..
        }))
    ));
    assert_eq!(disk.geometry().blocks, 0);
}

#[test]
fn a_reset_is_answered_and_the_disk_goes_on() {
    let (world, _, controller, disk) = with(ram(64));
    assert_eq!(world.run(controller.reset()), Ok(()));
    let block = Arc::new(of_heap(512));
    assert_eq!(world.run(disk.read(0, &block)), Ok(()));
}

/// A disk that fails as it is told to, and counts its flushes and writes to the medium.
struct Failing {
    error: DiskError,
    flushes: Arc<AtomicUsize>,
    on_medium: Arc<AtomicUsize>,
}

impl HostDisk for Failing {
    fn geometry(&self) -> HostGeometry {
        HostGeometry {
            sectors: 100,
            sector_size: SectorSize::Bytes512,
            read_only: false,
            write_cache: true,
            discard: false,
        }
    }

    async fn read(&self, _: u64, _: &Arc<HostBuffer>) -> Result<(), DiskError> {
        Err(self.error)
    }

    async fn write(&self, _: u64, _: &Arc<HostBuffer>, durability: HostDurability) -> Result<(), DiskError> {
        let count = usize::from(durability == HostDurability::OnMedium);
        self.on_medium.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    async fn flush(&self) -> Result<(), DiskError> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn discard(&self, _: u64, _: u64) -> Result<(), DiskError> {
        Err(DiskError::Unsupported)
    }
}

#[test]
fn what_a_disk_fails_with_arrives_as_sense_data() {
    let sense = |key, code, qualifier, block| Sense {
        key,
        code,
        qualifier,
        block,
    };
    for (error, expected) in [
        (DiskError::Unreadable(5), sense(3, 0x11, 0, Some(5))),
        (DiskError::Gone, sense(2, 0x3a, 0, None)),
        (DiskError::Failed, sense(4, 0x44, 0, None)),
    ] {
        let (flushes, on_medium) = Default::default();
        let (world, _, _, disk) = with(Failing {
            error,
            flushes,
            on_medium,
        });
        let block = Arc::new(of_heap(512));
        assert_eq!(
            world.run(disk.read(0, &block)),
            Err(StorageError::Sense(expected))
        );
    }
}

#[test]
fn what_is_to_be_on_the_medium_is_asked_for_as_such() {
    let (flushes, on_medium) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (world, _, _, disk) = with(Failing {
        error: DiskError::Failed,
        flushes: flushes.clone(),
        on_medium: on_medium.clone(),
    });
    assert!(disk.geometry().write_cache && !disk.geometry().discard);
    let block = Arc::new(of_heap(512));
    world.run(disk.write(0, &block, Durability::Cached)).unwrap();
    assert_eq!(on_medium.load(Ordering::Relaxed), 0);
    world.run(disk.write(0, &block, Durability::OnMedium)).unwrap();
    assert_eq!(on_medium.load(Ordering::Relaxed), 1);
    world.run(disk.flush()).unwrap();
    assert_eq!(flushes.load(Ordering::Relaxed), 1);
    assert_eq!(world.run(disk.discard(0, 1)), Err(StorageError::Unsupported));
}

#[derive(Clone, Debug)]
enum Act {
    Write { block: u64, count: usize, seed: usize },
    Read { block: u64, count: usize },
    Discard { block: u64, count: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    let range = || (0..70_u64, 1..40_usize);
    prop_oneof![
        (range(), 0..256_usize).prop_map(|((block, count), seed)| Act::Write { block, count, seed }),
        range().prop_map(|(block, count)| Act::Read { block, count }),
        range().prop_map(|(block, count)| Act::Discard {
            block,
            count: count as u64
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_disk_is_an_array_of_blocks(acts in prop::collection::vec(act(), 1..40)) {
        let (world, _, _, disk) = with(ram(64));
        let mut model = vec![0_u8; 64 * 512];
        for act in acts {
            let (block, count) = match act {
                Act::Write { block, count, .. } | Act::Read { block, count } => (block, count),
                Act::Discard { block, count } => (block, count as usize),
            };
            let inside = block + count as u64 <= 64;
            let range = block as usize * 512..(block as usize + count) * 512;
            let result = match act {
                Act::Write { seed, .. } => {
                    let data = pattern(seed, count * 512);
                    if inside {
                        model[range].copy_from_slice(&data);
                    }
                    world.run(disk.write(block, &filled(&data), Durability::Cached))
                }
                Act::Read { .. } => {
                    let buffer = Arc::new(of_heap(count * 512));
                    let result = world.run(disk.read(block, &buffer));
                    if inside {
                        prop_assert_eq!(&bytes(&buffer), &model[range]);
                    }
                    result
                }
                Act::Discard { count, .. } => {
                    if inside {
                        model[range].fill(0);
                    }
                    world.run(disk.discard(block, count))
                }
            };
            prop_assert_eq!(result, if inside { Ok(()) } else { Err(StorageError::OutOfRange) });
        }
    }
}
