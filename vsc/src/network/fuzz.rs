//! Entry for fuzzers: a host that answers a card with what it likes, when it likes, or not at all. Nothing panics, nobody waits for a card
//! that is gone, and no frame is longer than what it was said to be.

use super::card::Card;
use super::offload::Beside;
use super::open::{Settings, Shared, connect};
use super::queue::Queue;
use super::slots::NO_SLOT;
use crate::bus::{Doorbell, Interrupt, RingPages};
use crate::memory::{Buffer, PAGE, of_heap};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Waker};
use vmbus::fuzz::Input;
use vmbus::protocol::id::GpadlId;
use vmbus::protocol::network::Mac;
use vmbus::protocol::network::nvsp::{self, MessageType, RndisChannel, Status};
use vmbus::protocol::network::offload::{OBJECT_OFFLOAD, Offload};
use vmbus::protocol::network::oid::{Oid, PacketFilter};
use vmbus::protocol::network::packet_info::{Fragment, Info, InfoType};
use vmbus::protocol::network::rndis::{self, Message, packet_header};
use vmbus::ring::gpa::TransferRange;
use vmbus::ring::loopback::{Which, channel};
use vmbus::ring::{self, PacketFlags, PacketType};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Data pages of each ring.
const RINGS: u16 = 4;
/// Pages of the receive buffer.
const RECEIVE: usize = 16;
/// Bytes of a part of it.
const PART: usize = 2048;
/// Tasks that run at once.
const TASKS: usize = 8;

struct Bell;

impl Doorbell for Bell {
    fn ring(&self) {}

    fn keep(&self, _: Vec<Arc<Buffer>>) {}
}

type Task = Pin<Box<dyn Future<Output = ()>>>;
type Slot = Rc<RefCell<Option<Arc<Card>>>>;

/// A host that lies, against a card. Returns how many frames came all the same.
pub fn host(data: &[u8]) -> usize {
    let mut input = Input::new(data);
    let Ok((guest, host, hand)) = channel(RINGS.into()) else {
        return 0;
    };
    let settings = Settings {
        rings: RingPages::both(RINGS),
        receive_bytes: RECEIVE * PAGE,
        send_bytes: 4 * PAGE,
        large_sends: 2,
        mtu: if input.byte() & 1 == 0 { 1500 } else { 9000 },
        ..Settings::default()
    };
    let known = Rc::new(RefCell::new(Vec::new()));
    let allocate = |length: usize| {
        let buffer = of_heap(length);
        known
            .borrow_mut()
            .extend_from_slice(buffer.pages(0, length).ok()?.1);
        Some(buffer)
    };
    let Ok(queue) = Queue::first(guest, Box::new(Bell), &settings, &allocate) else {
        return 0;
    };
    let shared = Shared {
        receive: Arc::new(of_heap(settings.receive_bytes)),
        receive_gpadl: GpadlId(1),
        send: Arc::new(of_heap(settings.send_bytes)),
        send_gpadl: GpadlId(2),
    };
    let mut liar = Liar {
        rings: host,
        asked: Vec::new(),
        shared: shared.clone(),
        transaction: 1,
        known: known.borrow().clone(),
    };
    let slot: Slot = Rc::default();
    let mut tasks = vec![open(&queue, &shared, settings, &slot)];
    let (mut frames, mut bytes) = (0, vec![0; 70_000]);
    let mut context = Context::from_waker(Waker::noop());
    while !input.is_empty() {
        match input.index(64) {
            0..2 if tasks.len() < TASKS => tasks.extend(task(&mut input, &slot)),
            2 if tasks.len() > 1 => drop(tasks.swap_remove(input.index(tasks.len()))),
            3 => {
                let which = [Which::FromGuest, Which::FromHost][input.index(2)];
                // One time in eight, a word of the control page; otherwise bytes of packets.
                let at = match input.index(8) {
                    0 => input.index(32),
                    _ => PAGE + input.word() as usize % PAGE,
                };
                hand.poke(which, at, input.byte());
            }
            4..16 => drop(queue.interrupt()),
            16..32 => {
                let card = slot.borrow().clone();
                if let Some(card) = card {
                    frames += usize::from(receive(&card, &mut bytes));
                }
            }
            _ => liar.answer(&mut input),
        }
        tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
    }
    queue.gone();
    tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
    assert!(tasks.is_empty(), "a task waits for a card that is gone");
    frames
}

fn receive(card: &Card, bytes: &mut [u8]) -> bool {
    let limit = card.largest_frame();
    let bytes = bytes.get_mut(..limit).unwrap_or_default();
    let received = card.receive(0, bytes);
    if let Ok(Some(received)) = received {
        assert!(received.length <= limit);
    }
    matches!(received, Ok(Some(_)))
}

fn open(queue: &Arc<Queue>, shared: &Shared, settings: Settings, slot: &Slot) -> Task {
    let (queue, shared, slot) = (queue.clone(), shared.clone(), slot.clone());
    Box::pin(async move {
        if let Ok(card) = connect(queue, shared, settings).await {
            *slot.borrow_mut() = Some(card);
        }
    })
}

/// Something that a guest does with its card, once it has it.
fn task(input: &mut Input<'_>, slot: &Slot) -> Option<Task> {
    let card = slot.borrow().clone()?;
    let length = input.word() as usize % 20_000;
    let beside = Beside {
        tag: (input.byte() & 1 != 0).then_some(0x2001),
        fill_checksums: input.byte() & 1 != 0,
        cut: input.byte() & 1 != 0,
    };
    Some(match input.index(6) {
        0 => Box::pin(async move {
            let _ = card.set_filter(PacketFilter::DIRECTED).await;
        }),
        1 => Box::pin(async move {
            let _ = card.link_changed(0).await;
        }),
        2 => Box::pin(async move { drop(card.query(Oid::LINK_SPEED).await) }),
        3 => Box::pin(async move {
            let _ = card.set_address(Mac([2, 0, 0, 0, 0, 1])).await;
        }),
        4 => Box::pin(async move {
            let _ = card.readable().await;
        }),
        _ => Box::pin(async move {
            while card.send(0, &mut vec![8; length], &beside).is_ok() {}
            let _ = card.writable(0).await;
        }),
    })
}

/// The host.
struct Liar {
    rings: ring::Channel,
    /// NVSP messages of the guest that were not answered, with what RNDIS message they carry.
    asked: Vec<(u64, Vec<u8>, Vec<u8>)>,
    shared: Shared,
    transaction: u64,
    /// Pages that the guest may name.
    known: Vec<u64>,
}

impl Liar {
    /// Takes what has come, and says something.
    fn answer(&mut self, input: &mut Input<'_>) {
        self.take();
        let which = match input.index(8) {
            0 => input.index(self.asked.len()),
            _ => 0,
        };
        if input.index(3) == 0 || self.asked.is_empty() {
            return self.frame(input);
        }
        let (mut transaction, message, carried) = self.asked.remove(which);
        let Some((message_type, _)) = nvsp::split(&message) else {
            return;
        };
        let mut answer = match message_type {
            MessageType::SEND_RNDIS_PACKET => {
                if !carried.is_empty() {
                    self.rndis(input, &carried);
                }
                let status = Status::SUCCESS;
                nvsp::message(
                    MessageType::SEND_RNDIS_PACKET_COMPLETE,
                    &nvsp::RndisPacketComplete { status },
                )
            }
            _ => agreed(message_type, &message),
        };
        let (mut kind, mut length) = (PacketType::COMPLETION, answer.len());
        match input.index(80) {
            0 => answer[input.index(32)] = input.byte(),
            1 => length = input.index(length),
            2 => transaction = transaction.wrapping_add(u64::from(input.byte()) << 16),
            3 => transaction ^= NO_SLOT,
            4 => kind = PacketType(input.byte().into()),
            _ => {}
        }
        let bytes = answer.get(..length).unwrap_or_default();
        if let Ok(mut batch) = self.rings.outgoing.batch() {
            // A full ring is left as it is.
            let _ = batch.push(kind, transaction, PacketFlags::empty(), &[bytes]);
            let _ = batch.commit();
        }
    }

    fn take(&mut self) {
        let mut batch = self.rings.incoming.batch();
        while let Ok(Some(packet)) = batch.next() {
            if packet.kind() == PacketType::COMPLETION || self.asked.len() > 64 {
                continue;
            }
            let mut message = vec![0; packet.payload_size().min(64)];
            packet.copy_most(&mut message);
            let mut ranges = packet.gpa_ranges().into_iter().flatten().flatten();
            // A hand may have been at the numbers meanwhile.
            let carried = ranges.next().and_then(|range| {
                let page = range.page(0).filter(|page| self.known.contains(page))?;
                let mut bytes = vec![0; (range.byte_count() as usize).min(rndis::MAX_CONTROL)];
                read(page, &mut bytes);
                Some(bytes)
            });
            // Only requests are answered by more than a completion.
            let control = message.get(4) == Some(&1);
            let carried = carried.filter(|_| control).unwrap_or_default();
            self.asked.push((packet.transaction(), message, carried));
        }
        let _ = batch.finish();
    }

    /// Answers a request, mostly well.
    fn rndis(&mut self, input: &mut Input<'_>, carried: &[u8]) {
        let Some((message_type, body)) = rndis::split(carried) else {
            return;
        };
        let Ok((request, _)) = rndis::Request::read_from_prefix(body) else {
            let Ok((number, _)) = u32::read_from_prefix(body) else {
                return;
            };
            let mut answer = rndis::InitializeComplete::new_zeroed();
            answer.request = number;
            let message = Message::new(rndis::MessageType::INITIALIZE_COMPLETE, &answer, &[]);
            return self.put(input, message);
        };
        let status = match input.index(24) {
            0 => rndis::Status(input.word()),
            _ => rndis::Status::SUCCESS,
        };
        let number = request.request;
        let message = match message_type {
            rndis::MessageType::QUERY => {
                let mut value = value(request.oid);
                match input.index(40) {
                    0 => value.truncate(input.index(8)),
                    1 if !value.is_empty() => {
                        let at = input.index(value.len());
                        value[at] = input.byte();
                    }
                    _ => {}
                }
                let mut wrong = || u32::from(input.index(40) == 0) * input.word();
                let answer = rndis::QueryComplete {
                    request: number,
                    status,
                    length: (value.len() as u32).wrapping_add(wrong()),
                    offset: 16_u32.wrapping_add(wrong()),
                };
                Message::new(rndis::MessageType::QUERY_COMPLETE, &answer, &value)
            }
            _ => {
                let answer = rndis::SetComplete {
                    request: number,
                    status,
                };
                Message::new(rndis::MessageType::SET_COMPLETE, &answer, &[])
            }
        };
        self.put(input, message);
    }

    fn put(&mut self, input: &mut Input<'_>, message: Option<Message>) {
        let Some(message) = message else { return };
        let at = input.index(RECEIVE) * PAGE;
        let _ = self.shared.receive.copy_from(at, message.as_bytes());
        let range = TransferRange {
            byte_count: message.as_bytes().len() as u32,
            byte_offset: at as u32,
        };
        self.tell(input, &[range], RndisChannel::CONTROL);
    }

    /// A frame, in one piece or in several, or what looks like one; or news of the link.
    fn frame(&mut self, input: &mut Input<'_>) {
        let count = 1 + input.index(4);
        let mut ranges = Vec::new();
        for number in 0..count {
            let first = if number == 0 { Fragment::FIRST } else { 0 };
            let last = if number + 1 == count { Fragment::LAST } else { 0 };
            let fragment = Fragment::new(first | last, 1);
            let infos = [
                Info::new(InfoType::FRAGMENT, fragment.0),
                Info::new(InfoType(input.index(10) as u32), input.byte().into()),
                Info::new(InfoType(input.word()), input.word()),
            ];
            let skip = usize::from(count == 1);
            let infos = &infos[skip..skip + input.index(3 - skip) + 1 - skip];
            let length = 14 + input.byte() as usize * 6;
            let (header, packet) = packet_header(length, infos);
            let mut bytes = [header.as_bytes(), packet.as_bytes(), infos.as_bytes()].concat();
            bytes.resize(bytes.len() + length, input.byte());
            if input.index(8) == 0 {
                let at = input.index(54);
                let lie = if input.byte() & 1 == 0 {
                    input.word()
                } else {
                    input.byte().into()
                };
                bytes[at..at + 4].copy_from_slice(&lie.to_le_bytes());
            }
            let at = input.index(RECEIVE * PAGE / PART) * PART;
            let _ = self.shared.receive.copy_from(at, &bytes);
            ranges.push(TransferRange {
                byte_count: bytes.len() as u32,
                byte_offset: at as u32,
            });
        }
        if input.index(16) == 0 {
            let lie = input.word();
            let range = &mut ranges[0];
            match input.byte() & 1 {
                0 => range.byte_count = lie,
                _ => range.byte_offset = lie,
            }
        }
        let channel = match input.index(16) {
            0 => RndisChannel::CONTROL,
            1 => {
                let told = rndis::IndicateStatus {
                    status: [rndis::Status::MEDIA_CONNECT, rndis::Status::MEDIA_DISCONNECT][input.index(2)],
                    length: 0,
                    offset: 0,
                };
                let message = Message::new(rndis::MessageType::INDICATE_STATUS, &told, &[]);
                return self.put(input, message);
            }
            _ => RndisChannel::DATA,
        };
        self.tell(input, &ranges, channel);
    }

    fn tell(&mut self, input: &mut Input<'_>, ranges: &[TransferRange], channel: RndisChannel) {
        let body = nvsp::RndisPacket {
            channel,
            part: nvsp::NO_PART,
            part_length: 0,
        };
        let message = nvsp::message(MessageType::SEND_RNDIS_PACKET, &body);
        let set = match input.index(64) {
            0 => input.byte().into(),
            _ => nvsp::RECEIVE_BUFFER_ID,
        };
        let flags = match input.index(16) {
            0 => PacketFlags::empty(),
            _ => PacketFlags::COMPLETION_REQUESTED,
        };
        self.transaction += 1;
        if let Ok(mut batch) = self.rings.outgoing.batch() {
            let _ = batch.push_transfer_pages(self.transaction, flags, set, ranges, &message);
            let _ = batch.commit();
        }
    }
}

/// What a host answers to an NVSP message.
fn agreed(message_type: MessageType, message: &[u8]) -> [u8; nvsp::MESSAGE_SIZE] {
    let body = message.get(4..).unwrap_or_default();
    match message_type {
        MessageType::INIT => {
            let asked = nvsp::Init::read_from_prefix(body).map(|(asked, _)| asked.max);
            let answer = nvsp::InitComplete {
                version: asked.unwrap_or(nvsp::Version::V1),
                max_chain: 1,
                status: Status::SUCCESS,
            };
            nvsp::message(MessageType::INIT_COMPLETE, &answer)
        }
        MessageType::SEND_RECEIVE_BUFFER => {
            let parts = (RECEIVE * PAGE / PART) as u32;
            let answer = nvsp::ReceiveBufferComplete {
                status: Status::SUCCESS,
                sections: 1,
                offset: 0,
                part_size: PART as u32,
                parts,
                end_offset: parts * PART as u32,
            };
            nvsp::message(MessageType::SEND_RECEIVE_BUFFER_COMPLETE, &answer)
        }
        _ => {
            let answer = nvsp::SendBufferComplete {
                status: Status::SUCCESS,
                part_size: PART as u32,
            };
            nvsp::message(MessageType::SEND_SEND_BUFFER_COMPLETE, &answer)
        }
    }
}

/// What a host tells when it is asked for something.
fn value(oid: Oid) -> Vec<u8> {
    match oid {
        Oid::PERMANENT_ADDRESS => vec![2, 0, 0, 0, 0, 1],
        Oid::OFFLOAD_CAPABILITIES => {
            let mut offload = Offload::new_zeroed();
            offload.header.object_type = OBJECT_OFFLOAD;
            (offload.checksum.send_4, offload.checksum.receive_4) = (0x155, 0x155);
            (offload.checksum.send_6, offload.checksum.receive_6) = (0x55, 0x55);
            (offload.large_send.encapsulation_4, offload.large_send.max_size_4) = (2, 60_000);
            (offload.large_send.encapsulation_6, offload.large_send.max_size_6) = (2, 60_000);
            (offload.coalesce_4, offload.coalesce_6) = (1, 1);
            offload.as_bytes().to_vec()
        }
        Oid::MAXIMUM_FRAME_SIZE => 9000_u32.as_bytes().to_vec(),
        _ => vec![0; 4],
    }
}

/// Reads a page of the guest's, whose addresses are those of this process.
#[allow(unsafe_code)]
fn read(page: u64, bytes: &mut [u8]) {
    let from = (page * PAGE as u64) as *const u8;
    // SAFETY: the page is one of those that the guest's queue keeps, and no request is longer than a page.
    unsafe { core::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmbus::fuzz::noise;

    #[test]
    fn a_host_that_lies_breaks_nothing() {
        let mut frames = 0;
        for seed in 1..400_u64 {
            frames += host(&noise(seed, 6000));
        }
        assert!(
            frames > 1000,
            "only {frames} frames came: the lies are too coarse"
        );
    }
}
