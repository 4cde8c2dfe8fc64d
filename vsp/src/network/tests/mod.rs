//! Cards, a wire and guests that speak as hv_netvsc does, or worse.

use crate::network::guest::{Guest, frame, mac, offloads, packet, pair};
use crate::network::segment::tests::{checksums_hold, tcp};
use crate::network::{Endpoint, Frame, Progress};
use crate::switch::port::{Drop, PortId, PortSettings};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use spin::Mutex;
use vmbus::protocol::network::nvsp::{self, MessageType, RndisChannel, Status, Version};
use vmbus::protocol::network::offload::{ObjectHeader, Setting};
use vmbus::protocol::network::oid::{MEDIA_CONNECTED, Oid, PacketFilter};
use vmbus::protocol::network::packet_info::{Info, InfoType, LargeSend, ReceiveChecksum, SendChecksum};
use vmbus::protocol::network::scale::{
    HashInfo, OBJECT_PARAMETERS, ReceiveScaleCapabilities, ReceiveScaleParameters,
};
use vmbus::protocol::network::{Mac, rndis};
use vmbus::ring::PacketFlags;
use vmbus::ring::loopback::{self};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

#[test]
fn every_version_comes_up_and_an_unknown_one_is_refused() {
    for version in Version::ALL {
        let guest = Guest::up(1, version, 1500);
        assert!(guest.is_whole());
    }
    let mut guest = Guest::new(1, 1);
    let unknown = Version(0x70000);
    let answer: nvsp::InitComplete = guest.ask(
        MessageType::INIT,
        &nvsp::Init {
            min: unknown,
            max: unknown,
        },
    );
    assert_ne!(answer.status, Status::SUCCESS);
}

#[test]
fn what_linux_asks_is_answered() {
    let mut guest = Guest::up(1, Version::V6_1, 1500);
    assert_eq!(guest.query(Oid::PERMANENT_ADDRESS).unwrap(), mac(1).0);
    assert_eq!(
        guest.query(Oid::MAXIMUM_FRAME_SIZE).unwrap(),
        1500_u32.to_le_bytes()
    );
    assert_ne!(
        guest.query(Oid::MEDIA_CONNECT_STATUS).unwrap(),
        MEDIA_CONNECTED.to_le_bytes()
    );
    let offload = guest.query(Oid::OFFLOAD_CAPABILITIES).unwrap();
    assert_eq!(
        (offload.len(), offload[0], offload[1], offload[2]),
        (156, 0xa7, 3, 156)
    );
    let scale = guest.query(Oid::RECEIVE_SCALE_CAPABILITIES).unwrap();
    let scale = ReceiveScaleCapabilities::read_from_bytes(&scale).unwrap();
    assert_eq!((scale.queues, scale.table_entries), (4, 128));
    assert_eq!(guest.query(Oid(0x1234)), None);
    assert_eq!(guest.set(Oid(0x1234), &[0_u8; 4]), rndis::Status::NOT_SUPPORTED);
    for (version, size) in [(Version::V4, 144), (Version::V2, 112)] {
        let mut guest = Guest::up(1, version, 1500);
        assert_eq!(guest.query(Oid::OFFLOAD_CAPABILITIES).unwrap().len(), size);
        assert_eq!(guest.query(Oid::RECEIVE_SCALE_CAPABILITIES), None);
    }
}

#[test]
fn a_frame_crosses_send_from_pages_and_from_the_send_buffer() {
    let (mut one, mut two, _wire) = pair(Version::V5, 1500);
    for length in [60, 128, 129, 1514] {
        let sent = frame(mac(2), mac(1), length);
        one.send_from_pages(&packet(&sent, &[]), RndisChannel::DATA);
        one.send_from_part(3, &packet(&sent, &[]));
        assert_eq!(two.frames(), [(sent.clone(), vec![]), (sent, vec![])]);
    }
    assert!(
        one.completed
            .iter()
            .all(|(_, message)| message[..5] == [108, 0, 0, 0, 1])
    );
    assert!(two.is_whole());
}

#[test]
fn a_card_is_quiet_when_each_side_has_taken_and_given_back_what_it_got() {
    let (mut one, mut two, _wire) = pair(Version::V5, 1500);
    assert!(one.nic.is_quiet() && two.nic.is_quiet());
    let sent = frame(mac(2), mac(1), 60);
    one.send_from_part(3, &packet(&sent, &[]));
    assert!(one.nic.is_quiet() && !two.nic.is_quiet());
    two.gives_back = false;
    two.run();
    assert!(!two.nic.is_quiet());
    one.nic.plug(None);
    assert!(!one.nic.is_quiet());
    one.run();
    assert!(one.nic.is_quiet());
    let body = nvsp::message(MessageType(0), &[0_u8; 4]);
    let _ = one.ring.outgoing.send(1, PacketFlags::empty(), &[&body]).unwrap();
    assert!(!one.nic.is_quiet());
    one.nic.close(0);
    assert!(one.nic.is_quiet());
}

#[test]
fn several_frames_in_one_message_all_go() {
    let (mut one, mut two, _wire) = pair(Version::V5, 1500);
    let sent = [60, 61, 62].map(|length| frame(mac(2), mac(1), length));
    let message: Vec<u8> = sent.iter().flat_map(|frame| packet(frame, &[])).collect();
    one.send_from_part(0, &message);
    assert_eq!(
        two.frames().into_iter().map(|frame| frame.0).collect::<Vec<_>>(),
        sent
    );
}

#[test]
fn large_frames_go_with_a_large_mtu_only() {
    let (mut one, mut two, _wire) = pair(Version::V5, 9000);
    let sent = frame(mac(2), mac(1), 9014);
    one.send_from_pages(&packet(&sent, &[]), RndisChannel::DATA);
    assert_eq!(two.frames(), [(sent, vec![])]);
    let too_long = frame(mac(2), mac(1), 9100);
    one.completed.clear();
    one.send_from_pages(&packet(&too_long, &[]), RndisChannel::DATA);
    assert_eq!(one.completed[0].1[4], Status::INVALID_RNDIS_PACKET.0 as u8);
    assert!(two.frames().is_empty());
}

#[test]
fn a_checksum_that_is_left_out_is_taken_for_granted_or_filled_in() {
    let (mut one, mut two, _wire) = pair(Version::V5, 1500);
    let mut sent = tcp(false, &[7; 333]);
    let length = sent.len() as u16 - 14;
    sent[..12].copy_from_slice(&[mac(2).0, mac(1).0].concat());
    sent[16..18].copy_from_slice(&length.to_be_bytes());
    let checksum = SendChecksum::new(
        SendChecksum::IPV4 | SendChecksum::TCP | SendChecksum::IP_HEADER,
        34,
    );
    let message = packet(&sent, &[Info::new(InfoType::CHECKSUM, checksum.0)]);
    one.send_from_pages(&message, RndisChannel::DATA);
    let (bytes, infos) = two.frames().remove(0);
    assert!(checksums_hold(&bytes) && infos.is_empty());
    offloads(&mut two, Setting::BOTH_ENABLED, Setting::DISABLED);
    one.send_from_pages(&message, RndisChannel::DATA);
    let (_, infos) = two.frames().remove(0);
    assert_eq!(
        infos,
        [(
            InfoType::CHECKSUM,
            ReceiveChecksum::TCP_SUCCEEDED | ReceiveChecksum::IP_SUCCEEDED
        )]
    );
}

#[test]
fn a_large_packet_stays_whole_for_who_takes_it_and_is_cut_for_who_does_not() {
    for ipv6 in [false, true] {
        let (mut one, mut two, _wire) = pair(Version::V6_1, 1500);
        let data: Vec<u8> = (0..40_000_u32).map(|byte| (byte / 7) as u8).collect();
        let mut sent = tcp(ipv6, &data);
        sent[..12].copy_from_slice(&[mac(2).0, mac(1).0].concat());
        let header = sent.len() - data.len();
        let message = packet(
            &sent,
            &[Info::new(InfoType::LARGE_SEND, LargeSend::new(1400, 0, ipv6).0)],
        );
        one.send_from_pages(&message, RndisChannel::DATA);
        let frames = two.frames();
        assert_eq!(frames.len(), 40_000_usize.div_ceil(1400));
        assert!(frames.iter().all(|(bytes, _)| checksums_hold(bytes)));
        let joined: Vec<u8> = frames
            .iter()
            .flat_map(|(bytes, _)| bytes[header..].to_vec())
            .collect();
        assert_eq!(joined, data);
        offloads(&mut two, Setting::BOTH_ENABLED, Setting::ENABLED);
        one.send_from_pages(&message, RndisChannel::DATA);
        let (bytes, infos) = two.frames().remove(0);
        assert_eq!(bytes[header..], data);
        let length = u16::from_be_bytes(*bytes[if ipv6 { 18 } else { 16 }..].first_chunk().unwrap());
        assert_eq!(usize::from(length), bytes.len() - if ipv6 { 54 } else { 14 });
        assert_ne!(infos[0].1 & ReceiveChecksum::TCP_SUCCEEDED, 0);
        assert!(two.is_whole());
    }
}

#[test]
fn a_tag_travels_beside_the_frame() {
    use crate::switch::vlan::{VlanId, VlanMode, VlanSet};
    let (mut one, mut two, wire) = pair(Version::V5, 1500);
    let message = packet(&frame(mac(2), mac(1), 100), &[Info::new(InfoType::VLAN, 0x645)]);
    one.send_from_pages(&message, RndisChannel::DATA);
    assert!(two.frames().is_empty());
    for port in 0..2 {
        let trunk = VlanMode::Trunk {
            native: VlanId(0),
            allowed: VlanSet::all(),
        };
        wire.with(|switch| switch.configure(PortId(port), |settings| settings.vlan = trunk))
            .unwrap();
    }
    one.send_from_pages(&message, RndisChannel::DATA);
    assert_eq!(two.frames()[0].1, [(InfoType::VLAN, 0x645)]);
}

#[test]
fn a_guest_gets_what_its_filter_lets_through() {
    let (mut one, mut two, _wire) = pair(Version::V5, 1500);
    let send =
        |one: &mut Guest, to| one.send_from_pages(&packet(&frame(to, mac(1), 60), &[]), RndisChannel::DATA);
    let group = Mac([0x33, 0x33, 0, 0, 0, 1]);
    for (filter, expected) in [
        (PacketFilter::empty(), 0),
        (PacketFilter::DIRECTED, 1),
        (PacketFilter::DIRECTED | PacketFilter::BROADCAST, 2),
        (PacketFilter::ALL_MULTICAST, 1),
        (PacketFilter::PROMISCUOUS, 3),
    ] {
        two.set(Oid::CURRENT_PACKET_FILTER, &filter.bits());
        for to in [mac(2), Mac::BROADCAST, group] {
            send(&mut one, to);
        }
        assert_eq!(two.frames().len(), expected, "{filter:?}");
    }
}

#[test]
fn a_guest_without_room_loses_frames_and_nothing_else() {
    let (mut one, mut two, wire) = pair(Version::V5, 1500);
    two.gives_back = false;
    let (_, parts) = two.free_parts().unwrap();
    for _ in 0..parts + 10 {
        one.send_from_pages(&packet(&frame(mac(2), mac(1), 60), &[]), RndisChannel::DATA);
        two.listen();
    }
    assert_eq!(two.heard.len(), parts);
    let counters = wire.with(|switch| switch.port(PortId(1)).unwrap().counters);
    assert_eq!(
        (counters.dropped(Drop::NoRoom), counters.to_port.frames),
        (10, parts as u64)
    );
    assert_eq!(two.nic.counters.no_room.load(Ordering::Relaxed), 10);
}

#[test]
fn the_link_goes_down_and_up_and_the_guest_is_told() {
    let (mut one, _, wire) = pair(Version::V5, 1500);
    for (up, status) in [
        (false, rndis::Status::MEDIA_DISCONNECT),
        (true, rndis::Status::MEDIA_CONNECT),
    ] {
        one.nic.set_link(up);
        one.run();
        let (message_type, body) = one.rndis_answer();
        assert_eq!(message_type, rndis::MessageType::INDICATE_STATUS);
        assert_eq!(
            rndis::IndicateStatus::read_from_prefix(&body).unwrap().0.status,
            status
        );
        let state = u32::from(!up);
        assert_eq!(one.query(Oid::MEDIA_CONNECT_STATUS).unwrap(), state.to_le_bytes());
    }
    wire.detach(PortId(0));
    one.nic.plug(None);
    one.run();
    assert_eq!(one.rndis_answer().0, rndis::MessageType::INDICATE_STATUS);
}

#[test]
fn flows_are_spread_over_sub_channels() {
    let (mut one, mut two, _wire) = pair(Version::V5, 1500);
    let asked = nvsp::SubchannelRequest {
        operation: nvsp::SUBCHANNEL_ALLOCATE,
        count: 9,
    };
    let answer: nvsp::SubchannelComplete = two.ask(MessageType::SUBCHANNEL, &asked);
    assert_eq!((answer.status, answer.count), (Status::SUCCESS, 3));
    let mut subs: Vec<_> = (1..4)
        .map(|index| {
            let (guest, host, _) = loopback::channel(16).unwrap();
            two.nic.open(index, host, two.link.clone());
            guest
        })
        .collect();
    let parameters = ReceiveScaleParameters {
        header: ObjectHeader {
            object_type: OBJECT_PARAMETERS,
            revision: 2,
            size: 40,
        },
        hash: (HashInfo::TOEPLITZ | HashInfo::TCP_IPV4 | HashInfo::IPV4).bits(),
        table_size: 512,
        table_offset: 40,
        key_size: 40,
        key_offset: 552,
        ..ReceiveScaleParameters::new_zeroed()
    };
    let table: Vec<u32> = (0..128).map(|entry| entry % 4).collect();
    let key: Vec<u8> = (0..40)
        .map(|byte: u8| byte.wrapping_mul(37).wrapping_add(11))
        .collect();
    let value = [parameters.as_bytes(), table.as_bytes(), &key].concat();
    assert_eq!(
        two.set(Oid::RECEIVE_SCALE_PARAMETERS, value.as_slice()),
        rndis::Status::SUCCESS
    );
    for port in 0..40_u8 {
        let mut sent = tcp(false, &[1; 10]);
        sent[..12].copy_from_slice(&[mac(2).0, mac(1).0].concat());
        sent[35] = port;
        one.send_from_pages(&packet(&sent, &[]), RndisChannel::DATA);
    }
    two.listen();
    let mut spread = vec![two.heard.len()];
    for sub in &mut subs {
        let mut count = 0;
        let mut batch = sub.incoming.batch();
        while batch.next().unwrap().is_some() {
            count += 1;
        }
        spread.push(count);
    }
    assert_eq!(spread.iter().sum::<usize>(), 40);
    assert!(spread.iter().all(|&count| count > 2), "{spread:?}");
    // A table that names a channel which cannot be.
    let wrong = [parameters.as_bytes(), [9_u32; 128].as_bytes(), &key].concat();
    assert_eq!(
        two.set(Oid::RECEIVE_SCALE_PARAMETERS, wrong.as_slice()),
        rndis::Status::INVALID_DATA
    );
}

#[test]
fn what_a_guest_shared_is_let_go_when_it_closes() {
    let (one, two, wire) = pair(Version::V5, 1500);
    assert!(Arc::strong_count(&one.link.receive) > 1);
    one.nic.close(0);
    assert_eq!(Arc::strong_count(&one.link), 1);
    assert_eq!(
        (
            Arc::strong_count(&one.link.receive),
            Arc::strong_count(&one.link.send)
        ),
        (1, 1)
    );
    assert_eq!(one.nic.process(0, 1, 0), Progress::Closed);
    drop((two, wire));
}

#[test]
fn a_capped_guest_waits() {
    let (mut one, mut two, wire) = pair(Version::V5, 1500);
    let limit = Some(crate::switch::limit::Limit {
        bits_per_second: 8_000,
    });
    wire.with(|switch| switch.configure(PortId(0), |settings| settings.limit = limit))
        .unwrap();
    let now = 1 << 40;
    let mut arrived = 0;
    for _ in 0..4 {
        let body = nvsp::RndisPacket {
            channel: RndisChannel::DATA,
            part: 0,
            part_length: 1044,
        };
        one.link
            .send
            .copy_from(0, &packet(&frame(mac(2), mac(1), 1000), &[]))
            .unwrap();
        let message = nvsp::message(MessageType::SEND_RNDIS_PACKET, &body);
        let _ = one
            .ring
            .outgoing
            .send(1, PacketFlags::COMPLETION_REQUESTED, &[&message])
            .unwrap();
    }
    let mut tick = now;
    loop {
        let progress = one.nic.process(0, 64, tick);
        arrived += two.frames().len();
        match progress {
            _ if arrived == 4 => break,
            Progress::Until(until) => tick = until,
            other => assert_eq!(other, Progress::Idle),
        }
    }
    // 1000 bytes take a second, but for what flows at once.
    assert!(
        (now + 29_000_000..now + 31_000_000).contains(&tick),
        "{}",
        tick - now
    );
}

struct Collector(Mutex<Vec<Vec<u8>>>);

impl Endpoint for Collector {
    fn deliver(
        &self,
        frame: &Frame<'_>,
        tag: Option<u16>,
        cut_tag: bool,
    ) -> Result<(), crate::network::wire::NoRoom> {
        let _ = crate::network::segment::complete(frame, tag, cut_tag, |bytes| {
            self.0.lock().push(bytes.to_vec())
        });
        Ok(())
    }
}

#[test]
fn an_uplink_gets_frames_that_are_complete() {
    let (mut one, _two, wire) = pair(Version::V6_1, 1500);
    let uplink = Arc::new(Collector(Mutex::new(Vec::new())));
    wire.attach(PortSettings::uplink(), uplink.clone()).unwrap();
    let mut sent = tcp(false, &[3; 5000]);
    sent[..12].copy_from_slice(&[mac(9).0, mac(1).0].concat());
    let large = [Info::new(InfoType::LARGE_SEND, LargeSend::new(1448, 34, false).0)];
    one.send_from_pages(&packet(&sent, &large), RndisChannel::DATA);
    let seen = uplink.0.lock();
    assert_eq!(seen.len(), 4);
    assert!(
        seen.iter()
            .all(|bytes| checksums_hold(bytes) && bytes.len() <= 1514)
    );
}
