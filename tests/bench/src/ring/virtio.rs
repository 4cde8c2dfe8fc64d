//! `virtio-queue` of rust-vmm as the device, and a driver over the same guest memory: the payload lies in buffers that the driver
//! fills and names in descriptors.
#![allow(unsafe_code)]

use crate::contender::Contender;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Entries of the queue: about as many as packets of 64 bytes fit into our ring.
const ENTRIES: u16 = 1024;

const DESCRIPTORS: u64 = 0x1_0000;
const AVAILABLE: u64 = 0x2_0000;
const USED: u64 = 0x3_0000;
const BUFFERS: u64 = 0x4_0000;

pub(crate) struct Virtio;

/// The guest's end. A guest's driver writes to its own memory, without a translation of addresses.
pub(crate) struct Driver {
    /// What it writes to is kept here.
    _memory: Arc<GuestMemoryMmap<()>>,
    base: *mut u8,
    next: u16,
    /// The used index as it was last seen.
    used: u16,
}

// SAFETY: the memory is shared, lives as long as the driver, and is reached by atomics, and by copies that the index orders.
unsafe impl Send for Driver {}

impl Driver {
    fn word(&self, address: u64) -> &AtomicU16 {
        assert!(address < BUFFERS && address.is_multiple_of(2));
        // SAFETY: an aligned word inside the memory.
        unsafe { AtomicU16::from_ptr(self.base.add(address as usize).cast()) }
    }
}

/// The host's end.
pub(crate) struct Device {
    memory: Arc<GuestMemoryMmap<()>>,
    queue: Queue,
}

impl Contender for Virtio {
    type Writer = Driver;
    type Reader = Device;

    fn new() -> (Driver, Device) {
        let size = (BUFFERS + u64::from(ENTRIES) * 64) as usize;
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).expect("there is memory");
        let memory = Arc::new(memory);
        let mut queue = Queue::new(ENTRIES).expect("a power of two");
        queue.set_size(ENTRIES);
        queue.set_desc_table_address(Some(DESCRIPTORS as u32), None);
        queue.set_avail_ring_address(Some(AVAILABLE as u32), None);
        queue.set_used_ring_address(Some(USED as u32), None);
        queue.set_event_idx(true);
        queue.set_ready(true);
        assert!(queue.is_valid(&*memory));
        let driver = Driver {
            base: memory.get_host_address(GuestAddress(0)).expect("mapped"),
            _memory: memory.clone(),
            next: 0,
            used: 0,
        };
        (driver, Device { memory, queue })
    }

    #[inline(always)]
    fn write<const SIZE: usize, const COUNT: usize>(driver: &mut Driver, from: &[u8; SIZE]) -> bool {
        for _ in 0..COUNT {
            if driver.next.wrapping_sub(driver.used) == ENTRIES {
                driver.used = driver.word(USED + 2).load(Ordering::Acquire);
                if driver.next.wrapping_sub(driver.used) == ENTRIES {
                    return false;
                }
            }
            let slot = u64::from(driver.next % ENTRIES);
            let buffer = BUFFERS + slot * SIZE as u64;
            let descriptor = Descriptor::new(buffer, SIZE as u32, 0, 0);
            const { assert!(SIZE <= 64) };
            // SAFETY: both are inside the memory, aligned, and the driver's until it moves the index.
            unsafe {
                driver
                    .base
                    .add(buffer as usize)
                    .copy_from_nonoverlapping(from.as_ptr(), SIZE);
                let entry = driver.base.add((DESCRIPTORS + slot * 16) as usize);
                entry.cast::<Descriptor>().write_volatile(descriptor);
            }
            driver
                .word(AVAILABLE + 4 + slot * 2)
                .store(slot as u16, Ordering::Relaxed);
            driver.next = driver.next.wrapping_add(1);
            driver.word(AVAILABLE + 2).store(driver.next, Ordering::Release);
            fence(Ordering::SeqCst);
            let event = driver
                .word(USED + 4 + u64::from(ENTRIES) * 8)
                .load(Ordering::Relaxed);
            black_box(event == driver.next.wrapping_sub(1));
        }
        true
    }

    #[inline(always)]
    fn read<const SIZE: usize, const MOST: usize>(device: &mut Device, into: &mut [u8; SIZE]) -> usize {
        let memory = &*device.memory;
        let mut count = 0;
        while count < MOST
            && let Some(chain) = device.queue.pop_descriptor_chain(memory)
        {
            let head = chain.head_index();
            for descriptor in chain.readable() {
                memory.read_slice(into, descriptor.addr()).expect("mapped");
            }
            device
                .queue
                .add_used(memory, head, 0)
                .expect("it is one of the queue's");
            let _ = device.queue.needs_notification(memory).expect("mapped");
            count += 1;
        }
        count
    }
}
