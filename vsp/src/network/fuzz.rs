//! Entry for fuzzers: a guest that does anything.

use super::Progress;
use super::guest::{Guest, frame, mac, packet, pair, plug};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use vmbus::protocol::network::nvsp::{self, MessageType, NO_PART, RndisChannel, Version};
use vmbus::protocol::network::oid::Oid;
use vmbus::protocol::network::packet_info::{Info, InfoType};
use vmbus::protocol::network::rndis;
use vmbus::ring::PacketFlags;
use vmbus::ring::gpa::GpaRange;
use vmbus::ring::loopback::Which;

/// A guest that does anything with NVSP, RNDIS, its rings and buffers, as `data` says: nothing panics, nothing of its memory is kept
/// when it is gone, and its neighbours are not harmed. Returns how many frames its neighbour has got.
pub fn provider(data: &[u8]) -> usize {
    let (mut one, mut two, wire) = pair(Version::V6_1, 1500);
    let mut input = Input(data);
    let mut reached = 0;
    while let &[choice, a, b, c] = input.take(4) {
        one.act(choice, [a, b, c], &mut input);
        let _ = one.nic.process(0, 4, 0);
        reached += two.frames().len();
    }
    one.nic.close(0);
    assert_nothing_is_kept(&one);
    two.heard.clear();
    let mut three = Guest::up(3, Version::V5, 1500);
    plug(&three, &wire);
    assert_frames_go(&mut three, &mut two);
    // A card and its wire hold each other for as long as it is plugged in.
    for guest in [&one, &two, &three] {
        guest.nic.plug(None);
    }
    reached
}

/// What the fuzzer gives.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// The next bytes, as far as there are any.
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (now, later) = self.0.split_at(count.min(self.0.len()));
        self.0 = later;
        now
    }
}

/// What a hostile guest does.
impl Guest {
    fn act(&mut self, choice: u8, bytes: [u8; 3], input: &mut Input<'_>) {
        let [a, b, c] = bytes;
        let word = u32::from_le_bytes([a, b, 0, 0]);
        match choice % 8 {
            0 => self.send_nvsp(bytes, input),
            1 => self.send_from_buffer(bytes, input),
            2 => drop(
                self.ring
                    .outgoing
                    .complete(u64::from(word), &[&[108, 0, 0, 0, a, 0, 0, 0]]),
            ),
            3 => self.send_from_anywhere(bytes),
            4 => self.send_control(bytes, input),
            6 => self.send_lying(bytes, input),
            // A ring that is broken is the end: it comes seldom.
            5 if choice >= 64 => self.send_lying(bytes, input),
            5 if c == 0 => self.hand.poke_u32(Which::FromGuest, usize::from(a) % 16, word),
            5 => self.hand.poke(Which::FromGuest, 4096 + usize::from(a), b),
            _ => {
                let progress = self.nic.process(0, 16, 0);
                if c & 1 == 0 && !matches!(progress, Progress::Broken(_)) {
                    self.ring.incoming.batch().next().ok();
                }
            }
        }
    }

    /// An NVSP message of a type that there is, and with any body.
    fn send_nvsp(&mut self, [a, b, c]: [u8; 3], input: &mut Input<'_>) {
        let message_type = [1, 100, 101, 103, 104, 106, 107, 125, 133, 129][usize::from(a) % 10];
        let mut message = vec![message_type, 0, 0, 0];
        message.extend(input.take(usize::from(b) % 36));
        let flags = PacketFlags::from_bits_retain(u16::from(c & 1));
        let _ = self.ring.outgoing.send(3, flags, &[&message]);
    }

    /// A frame of which one byte is wrong, maybe sent as a control message.
    fn send_from_buffer(&mut self, [a, b, c]: [u8; 3], input: &mut Input<'_>) {
        let word = u32::from_le_bytes([a, b, 0, 0]);
        let infos = [Info::new(InfoType(word % 9), word)];
        let mut message = packet(input.take(usize::from(c)), &infos);
        if let Some(byte) = message.get_mut(usize::from(a) % 60) {
            *byte ^= b;
        }
        self.send_first_part(&message, RndisChannel(u32::from(b & 1)));
    }

    /// A frame that the guest's port lets through, and beside it what may not be true of it.
    fn send_lying(&mut self, [a, b, c]: [u8; 3], input: &mut Input<'_>) {
        let frame = lying(a, input.take(c.into()));
        let message = packet(&frame, &beside(input.take(usize::from(b % 4) * 5)));
        self.send_first_part(&message, RndisChannel::DATA);
    }

    /// A control message whose lengths may lie.
    fn send_control(&mut self, [a, b, c]: [u8; 3], input: &mut Input<'_>) {
        let word = u32::from_le_bytes([a, b, 0, 0]);
        let value = input.take(usize::from(c));
        let oids = [
            0x0001_010e,
            0x0001_0204,
            0x0001_021b,
            0xfc01_020c,
            0x0101_0101,
            0x0001_0203,
        ];
        let request = rndis::Request {
            request: 1,
            oid: Oid(oids[usize::from(a) % oids.len()]),
            length: value.len() as u32 + u32::from(b & 1) * word,
            offset: 20 + u32::from(b & 2) * word,
            virtual_circuit: 0,
        };
        let message_type = rndis::MessageType(u32::from(b % 9));
        if let Some(message) = rndis::Message::new(message_type, &request, value) {
            self.send_first_part(message.as_bytes(), RndisChannel::CONTROL);
        }
    }

    /// Sends what the first part of the send buffer then holds.
    fn send_first_part(&mut self, message: &[u8], channel: RndisChannel) {
        let written = self.link.send.copy_from(0, message);
        assert!(written.is_ok(), "the send buffer holds {} bytes", message.len());
        let body = nvsp::RndisPacket {
            channel,
            part: 0,
            part_length: message.len() as u32,
        };
        let message = nvsp::message(MessageType::SEND_RNDIS_PACKET, &body);
        let flags = PacketFlags::COMPLETION_REQUESTED;
        let _ = self.ring.outgoing.send(3, flags, &[&message]);
    }

    /// A message in pages that the guest may not have.
    fn send_from_anywhere(&mut self, [a, b, c]: [u8; 3]) {
        let word = u32::from_le_bytes([a, b, 0, 0]);
        let range = GpaRange {
            byte_count: u32::from(c) * 48,
            byte_offset: word,
            pages: &[u64::from(word), u64::MAX, 1],
        };
        let body = nvsp::RndisPacket {
            channel: RndisChannel(u32::from(c & 1)),
            part: NO_PART,
            part_length: word,
        };
        let payload = nvsp::message(MessageType::SEND_RNDIS_PACKET, &body);
        if let Ok(mut batch) = self.ring.outgoing.batch() {
            let flags = PacketFlags::COMPLETION_REQUESTED;
            let _ = batch.push_gpa_direct(4, flags, &[range], &payload);
            let _ = batch.commit();
        }
    }
}

/// A frame of the guest's own to its neighbour, which says that it is IPv4 or IPv6, and mostly TCP or UDP, and goes on with anything.
fn lying(how: u8, rest: &[u8]) -> Vec<u8> {
    let (kind, protocol): (&[u8], usize) = match how & 1 {
        0 => (&[0x08, 0, 0x45], 23),
        _ => (&[0x86, 0xdd, 0x60], 20),
    };
    let mut bytes = [&mac(2).0[..], &mac(1).0, kind, rest].concat();
    if let Some(byte) = bytes.get_mut(protocol) {
        *byte = [6, 17, 6, *byte][usize::from(how >> 1 & 3)];
    }
    bytes
}

/// Anything beside a frame.
fn beside(bytes: &[u8]) -> Vec<Info> {
    let (infos, _) = bytes.as_chunks::<5>();
    infos
        .iter()
        .map(|&[which, a, b, c, d]| {
            let value = u32::from_le_bytes([a, b, c, d]);
            match which % 8 {
                0 | 1 => Info::new(InfoType::LARGE_SEND, value),
                2 | 3 => Info::new(InfoType::CHECKSUM, value),
                4 => Info::new(InfoType::VLAN, value),
                // A priority and no more, with which the frame is let in.
                5 => Info::new(InfoType::VLAN, value & 0xe000),
                _ => Info::new(InfoType::HASH_VALUE, value),
            }
        })
        .collect()
}

/// Nobody has the buffers of a guest any more but itself.
fn assert_nothing_is_kept(gone: &Guest) {
    let buffers = [&gone.link.receive, &gone.link.send];
    assert_eq!(buffers.map(Arc::strong_count), [1, 1]);
}

/// A frame of `from`, which is guest 3, comes to `to`, which is guest 2, and nothing else is wrong with that one.
fn assert_frames_go(from: &mut Guest, to: &mut Guest) {
    from.run();
    let sent = frame(mac(2), mac(3), 200);
    from.send_from_pages(&packet(&sent, &[]), RndisChannel::DATA);
    let frames = to.frames();
    assert_eq!(frames.last().map(|last| &last.0), Some(&sent));
    assert!(to.is_whole());
}

#[cfg(test)]
mod tests {
    use super::provider;
    use proptest::prelude::*;
    use vmbus::fuzz::noise;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn a_hostile_guest_harms_nobody(data in prop::collection::vec(any::<u8>(), 0..1500)) {
            let _ = provider(&data);
        }
    }

    #[test]
    fn what_a_hostile_guest_sends_is_not_only_thrown_away() {
        let reached: usize = (1..40).map(|seed| provider(&noise(seed, 3000))).sum();
        assert!(
            reached > 60,
            "only {reached} frames came: the lies are too coarse"
        );
    }
}
