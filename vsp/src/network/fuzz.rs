//! Entry for fuzzers: a guest that does anything.

use super::Progress;
use super::guest::{Guest, frame, mac, packet, pair, plug};
use alloc::sync::Arc;
use alloc::vec;
use vmbus::protocol::network::nvsp::{self, MessageType, NO_PART, RndisChannel, Version};
use vmbus::protocol::network::oid::Oid;
use vmbus::protocol::network::packet_info::{Info, InfoType};
use vmbus::protocol::network::rndis;
use vmbus::ring::PacketFlags;
use vmbus::ring::gpa::GpaRange;
use vmbus::ring::loopback::Which;

/// A guest that does anything with NVSP, RNDIS, its rings and buffers, as `data` says: nothing panics, nothing of its memory is kept
/// when it is gone, and its neighbours are not harmed.
#[allow(clippy::missing_panics_doc)] // that is what it is for
pub fn provider(data: &[u8]) {
    let (mut one, mut two, wire) = pair(Version::V6_1, 1500);
    let mut input = data;
    let mut take = |count: usize| {
        let (now, later) = input.split_at(count.min(input.len()));
        input = later;
        now
    };
    while let &[choice, a, b, c] = take(4) {
        let word = u32::from_le_bytes([a, b, 0, 0]);
        match choice % 8 {
            0 => {
                let mut message = vec![a, 0, 0, 0];
                message[0] = [1, 100, 101, 103, 104, 106, 107, 125, 133, 129][usize::from(a) % 10];
                message.extend(take(usize::from(b) % 36));
                let flags = PacketFlags::from_bits_retain(u16::from(c & 1));
                let _ = one.ring.outgoing.send(3, flags, &[&message]);
            }
            1 => {
                let mut message = packet(take(usize::from(c)), &[Info::new(InfoType(word % 9), word)]);
                if let Some(byte) = message.get_mut(usize::from(a) % 60) {
                    *byte ^= b;
                }
                one.link.send.copy_from(0, &message).unwrap();
                let body = nvsp::RndisPacket {
                    channel: RndisChannel(u32::from(b & 1)),
                    part: 0,
                    part_length: message.len() as u32,
                };
                let message = nvsp::message(MessageType::SEND_RNDIS_PACKET, &body);
                let _ = one
                    .ring
                    .outgoing
                    .send(3, PacketFlags::COMPLETION_REQUESTED, &[&message]);
            }
            2 => drop(
                one.ring
                    .outgoing
                    .complete(u64::from(word), &[&[108, 0, 0, 0, a, 0, 0, 0]]),
            ),
            3 => {
                let pages = [u64::from(word), u64::MAX, 1];
                let range = GpaRange {
                    byte_count: u32::from(c) * 48,
                    byte_offset: word,
                    pages: &pages,
                };
                let body = nvsp::RndisPacket {
                    channel: RndisChannel(u32::from(c & 1)),
                    part: NO_PART,
                    part_length: word,
                };
                let payload = nvsp::message(MessageType::SEND_RNDIS_PACKET, &body);
                if let Ok(mut batch) = one.ring.outgoing.batch() {
                    let _ = batch.push_gpa_direct(4, PacketFlags::COMPLETION_REQUESTED, &[range], &payload);
                    let _ = batch.commit();
                }
            }
            4 => {
                let value = take(usize::from(c));
                let oid = [
                    0x0001_010e,
                    0x0001_0204,
                    0x0001_021b,
                    0xfc01_020c,
                    0x0101_0101,
                    0x0001_0203,
                ][usize::from(a) % 6];
                let request = rndis::Request {
                    request: 1,
                    oid: Oid(oid),
                    length: value.len() as u32 + u32::from(b & 1) * word,
                    offset: 20 + u32::from(b & 2) * word,
                    virtual_circuit: 0,
                };
                let message_type = rndis::MessageType(u32::from(b % 9));
                if let Some(message) = rndis::Message::new(message_type, &request, value) {
                    one.link.send.copy_from(0, message.as_bytes()).unwrap();
                    let length = message.as_bytes().len() as u32;
                    let body = nvsp::RndisPacket {
                        channel: RndisChannel::CONTROL,
                        part: 0,
                        part_length: length,
                    };
                    let message = nvsp::message(MessageType::SEND_RNDIS_PACKET, &body);
                    let _ = one
                        .ring
                        .outgoing
                        .send(3, PacketFlags::COMPLETION_REQUESTED, &[&message]);
                }
            }
            5 if c == 0 => one.hand.poke_u32(Which::FromGuest, usize::from(a) % 16, word),
            5 => one.hand.poke(Which::FromGuest, 4096 + usize::from(a), b),
            _ => {
                let progress = one.nic.process(0, 16, 0);
                if c & 1 == 0 && !matches!(progress, Progress::Broken(_)) {
                    one.ring.incoming.batch().next().ok();
                }
            }
        }
        let _ = one.nic.process(0, 4, 0);
    }
    one.nic.close(0);
    assert_eq!(
        (
            Arc::strong_count(&one.link.receive),
            Arc::strong_count(&one.link.send)
        ),
        (1, 1)
    );
    two.heard.clear();
    let mut three = Guest::up(3, Version::V5, 1500);
    plug(&three, &wire);
    three.run();
    let sent = frame(mac(2), mac(3), 200);
    three.send_from_pages(&packet(&sent, &[]), RndisChannel::DATA);
    let frames = two.frames();
    assert_eq!(frames.last().unwrap().0, sent);
    assert!(two.is_whole());
    // A card and its wire hold each other for as long as it is plugged in.
    for guest in [&one, &two, &three] {
        guest.nic.plug(None);
    }
}

#[cfg(test)]
mod tests {
    use super::provider;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn a_hostile_guest_harms_nobody(data in prop::collection::vec(any::<u8>(), 0..1500)) {
            provider(&data);
        }
    }
}
