//! Entry for fuzzers: a host that answers a controller with what it likes, when it likes, or not at all. Nothing panics, and what a host
//! may still use is never freed.
#![allow(unsafe_code)]

use super::controller::{Address, Controller};
use super::disk::Disk;
use super::open::connect;
use super::queue::Queue;
use crate::block::{BlockDevice, Durability};
use crate::bus::{Doorbell, Interrupt, RingPages};
use crate::memory::{Buffer, PAGE, SharedPage, of_heap};
use crate::partition;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Waker};
use vmbus::fuzz::Input;
use vmbus::protocol::storage::{Operation, Packet, ScsiRequest, ScsiStatus, SrbStatus, Status};
use vmbus::ring::loopback::{Which, channel};
use vmbus::ring::{self, PacketFlags, PacketType};
use zerocopy::{FromZeros, IntoBytes};

/// Data pages of each ring.
const RINGS: u16 = 4;
/// Pages that the guest has for its requests.
const ARENA: usize = 64;
/// Tasks that run at once.
const TASKS: usize = 12;

/// Counts the buffers that a queue leaves to it.
struct Bell(Arc<AtomicUsize>);

impl Doorbell for Bell {
    fn ring(&self) {}

    fn keep(&self, buffers: Vec<Arc<Buffer>>) {
        self.0.fetch_add(buffers.len(), Ordering::Relaxed);
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Gives parts of one piece of memory, again and again, so that the host has something to write to whatever the guest has freed.
fn allocator(arena: Arc<Buffer>) -> impl Fn(usize) -> Option<Buffer> + Clone + Send + Sync + 'static {
    let next = Arc::new(AtomicUsize::new(0));
    move |length: usize| {
        let count = length.div_ceil(PAGE).max(1);
        let first = next.fetch_add(count, Ordering::Relaxed) % ARENA;
        if length == 0 || first + count > ARENA {
            return None;
        }
        let (_, numbers) = arena.pages(first * PAGE, count * PAGE).ok()?;
        let pages: Option<Vec<_>> = numbers
            .iter()
            .map(|number| {
                let address = NonNull::new((number * PAGE as u64) as *mut u8)?;
                Some(SharedPage {
                    address,
                    number: *number,
                })
            })
            .collect();
        // SAFETY: the pages are the arena's, which the buffer owns a share of.
        unsafe { Buffer::from_pages(&pages?, 0, length, arena.clone()) }.ok()
    }
}

/// A host that lies, against a controller and its disks. Returns how many disks were opened all the same.
pub fn host(data: &[u8]) -> usize {
    let mut input = Input::new(data);
    let Ok((guest, host, hand)) = channel(RINGS.into()) else {
        return 0;
    };
    let opened = Arc::new(AtomicUsize::new(0));
    let kept = Arc::new(AtomicUsize::new(0));
    let queue = Arc::new(Queue::new(guest, Box::new(Bell(kept.clone()))));
    let arena = Arc::new(of_heap(ARENA * PAGE));
    let allocate = allocator(arena.clone());
    let controller = Controller::new(
        [queue.clone()].into(),
        16 << PAGE.trailing_zeros(),
        Box::new(allocate.clone()),
    );
    let controller = Arc::new(controller);
    let mut liar = Liar {
        rings: host,
        asked: Vec::new(),
        arena,
    };
    let mut tasks: Vec<Task> = Vec::new();
    while !input.is_empty() {
        match input.index(64) {
            0..6 if tasks.len() < TASKS => {
                tasks.push(task(&mut input, &controller, &queue, &allocate, &opened))
            }
            6..8 if !tasks.is_empty() => drop(tasks.swap_remove(input.index(tasks.len()))),
            8 => {
                let which = [Which::FromGuest, Which::FromHost][input.index(2)];
                // One time in four, a word of the control page; otherwise bytes of packets.
                let at = match input.index(4) {
                    0 => input.index(32),
                    _ => PAGE + input.word() as usize % PAGE,
                };
                hand.poke(which, at, input.byte());
            }
            9..24 => drop(queue.interrupt()),
            _ => liar.answer(&mut input),
        }
        let mut context = Context::from_waker(Waker::noop());
        tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
    }
    queue.gone();
    let mut context = Context::from_waker(Waker::noop());
    tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
    assert!(tasks.is_empty(), "a task waits for a controller that is gone");
    opened.load(Ordering::Relaxed)
}

/// Something that a guest does with a controller.
fn task(
    input: &mut Input<'_>,
    controller: &Arc<Controller>,
    queue: &Arc<Queue>,
    allocate: &(impl Fn(usize) -> Option<Buffer> + Clone + Send + Sync + 'static),
    opened: &Arc<AtomicUsize>,
) -> Task {
    let (controller, queue, allocate) = (controller.clone(), queue.clone(), allocate.clone());
    let opened = opened.clone();
    let address = Address {
        path: 0,
        target: 0,
        lun: input.byte() & 7,
    };
    let (block, count) = (u64::from(input.byte()), 1 + input.index(40));
    match input.index(6) {
        0 => Box::pin(async move { drop(connect(queue, RingPages::both(RINGS), Box::new(allocate)).await) }),
        1 => Box::pin(async move { drop(controller.scan().await) }),
        2 => Box::pin(async move {
            let _ = controller.reset().await;
        }),
        3 => Box::pin(async move {
            let _ = controller.changed(0).await;
        }),
        4 => Box::pin(async move {
            if let Ok(disk) = Disk::open(&controller, address).await {
                opened.fetch_add(1, Ordering::Relaxed);
                drop(partition::read(&disk, allocate).await);
            }
        }),
        _ => Box::pin(async move {
            let Ok(disk) = Disk::open(&controller, address).await else {
                return;
            };
            let size = disk.geometry().block_size as usize;
            let Some(buffer) = allocate((count * size).min(8 * PAGE)).map(Arc::new) else {
                return;
            };
            let _ = disk.read(block, &buffer).await;
            let _ = disk.write(block, &buffer, Durability::OnMedium).await;
            let _ = disk.discard(block, count as u64).await;
            let _ = disk.flush().await;
        }),
    }
}

/// The host.
struct Liar {
    rings: ring::Channel,
    /// What was asked, with the pages of the data; answered or not.
    asked: Vec<(u64, Packet, Vec<u64>)>,
    arena: Arc<Buffer>,
}

impl Liar {
    /// Takes what has come, and says something.
    fn answer(&mut self, input: &mut Input<'_>) {
        let mut batch = self.rings.incoming.batch();
        while let Ok(Some(packet)) = batch.next() {
            let mut message = Packet::new_zeroed();
            packet.copy_most(message.as_mut_bytes());
            let ranges = packet.gpa_ranges().into_iter().flatten().flatten();
            let pages = ranges.flat_map(|range| range.pages()).collect();
            self.asked.push((packet.transaction(), message, pages));
        }
        let _ = batch.finish();
        let last = self.asked.len().saturating_sub(1);
        let which = match input.index(3) {
            0 => input.index(self.asked.len()),
            _ => last,
        };
        let (mut transaction, message, pages) = match self.asked.get(which) {
            Some(asked) => asked.clone(),
            None => (u64::from(input.word()), Packet::new_zeroed(), Vec::new()),
        };
        self.fill(input, &pages);
        let mut answer = Packet::new(Operation::COMPLETE_IO, 0, &message.body);
        if message.operation == Operation::EXECUTE_SRB {
            answer.set_body(&outcome(input, message.body()));
        }
        let (mut kind, mut length) = (PacketType::COMPLETION, size_of::<Packet>());
        match input.index(60) {
            0 => answer.status = Status(input.word()),
            1 => length = input.index(length),
            2 => transaction = transaction.wrapping_add(u64::from(input.byte()) << 16),
            3 => transaction = transaction.wrapping_add(u64::from(input.byte())),
            4 => {
                (kind, transaction) = (PacketType::IN_BAND, 0);
                answer.operation = Operation(input.index(14) as u32);
            }
            5 => kind = PacketType(input.byte().into()),
            6 => answer.operation = Operation(input.word()),
            7 => answer.body.iter_mut().for_each(|byte| *byte = input.byte()),
            _ => {}
        }
        let bytes = answer.as_bytes().get(..length).unwrap_or_default();
        if let Ok(mut batch) = self.rings.outgoing.batch() {
            // A full ring is left as it is.
            let _ = batch.push(kind, transaction, PacketFlags::empty(), &[bytes]);
            let _ = batch.commit();
        }
    }

    /// Writes to the data of a request, as far as it is the guest's.
    fn fill(&self, input: &mut Input<'_>, pages: &[u64]) {
        let first = self.arena.pages(0, PAGE).map_or(0, |(_, numbers)| numbers[0]);
        for page in pages.iter().take(1) {
            let at = page.wrapping_sub(first).wrapping_mul(PAGE as u64) as usize;
            // Twice 16 in a list of units, 512 bytes in a block, 200 blocks, or whatever it is taken for; and then lies.
            let mut bytes = [0; 48];
            (bytes[3], bytes[7], bytes[10]) = (16, 200, 2);
            for _ in 0..input.index(3) {
                bytes[input.index(48)] = input.byte();
            }
            // Somebody's memory, but not the arena's, is not written.
            let _ = self.arena.copy_from(at, &bytes);
        }
    }
}

/// How a command ended: often well.
fn outcome(input: &mut Input<'_>, mut request: ScsiRequest) -> ScsiRequest {
    request.srb_status = SrbStatus::SUCCESS;
    request.scsi_status = ScsiStatus::GOOD;
    match input.index(40) {
        0 => request.srb_status = SrbStatus(input.byte()),
        1 => request.scsi_status = ScsiStatus(input.byte()),
        2 => request.transfer_length = input.word(),
        3 => {
            request.srb_status = SrbStatus::ERROR.with_sense();
            request.sense_length = input.byte();
            request.cdb = [0; 20];
            (request.cdb[0], request.cdb[2]) = (0x70, input.byte());
        }
        _ => {}
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmbus::fuzz::noise;

    #[test]
    fn a_host_that_lies_breaks_nothing() {
        let mut opened = 0;
        for seed in 1..400_u64 {
            opened += host(&noise(seed, 4000));
        }
        assert!(
            opened > 200,
            "only {opened} disks were opened: the lies are too coarse"
        );
    }
}
