//! A guest that speaks as hv_netvsc does.

use super::{Link, Nic, Progress, Settings, Wire};
use crate::buffer::{self, Buffer, Segment};
use crate::switch::port::{PortId, PortSettings};
use crate::switch::{Kind, Switch};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use vmbus::protocol::id::GpadlId;
use vmbus::protocol::network::nvsp::{self, MessageType, NO_PART, RndisChannel, Status, Version};
use vmbus::protocol::network::offload::{self, ObjectHeader, OffloadParameters, Setting};
use vmbus::protocol::network::oid::{Oid, PacketFilter};
use vmbus::protocol::network::packet_info::{self, Fragment, Info, InfoType};
use vmbus::protocol::network::{Mac, rndis};
use vmbus::ring::gpa::GpaRange;
use vmbus::ring::loopback::{self, Hand};
use vmbus::ring::{self, PacketFlags, PacketType};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

pub(super) const RECEIVE: GpadlId = GpadlId(0xe1e10);
pub(super) const SEND: GpadlId = GpadlId(0xe1e11);
/// Guest memory, from address 0 on, for packets that name pages.
pub(super) const RAM: usize = 128 << 10;

/// The bus of one guest: its memory, and what was asked of it.
pub(super) struct TestLink {
    pub(super) ram: Arc<Buffer>,
    pub(super) receive: Arc<Buffer>,
    pub(super) send: Arc<Buffer>,
    pub(super) signals: AtomicU32,
}

impl Link for TestLink {
    fn signal(&self) {
        self.signals.fetch_add(1, Ordering::Relaxed);
    }

    fn buffer(&self, pieces: &mut dyn Iterator<Item = (u64, usize)>) -> Option<Buffer> {
        let mut segments: Vec<Segment> = Vec::new();
        for (gpa, length) in pieces {
            let start = usize::try_from(gpa).ok()?;
            segments.push(self.ram.segments()[0].part(start, length)?);
        }
        Some(Buffer::new(segments, self.ram.clone()))
    }

    fn gpadl(&self, gpadl: GpadlId) -> Option<Arc<Buffer>> {
        match gpadl {
            RECEIVE => Some(self.receive.clone()),
            SEND => Some(self.send.clone()),
            _ => None,
        }
    }

    fn offer_sub_channels(&self, count: u16) -> u16 {
        count
    }
}

/// A frame, and what was beside it.
pub(super) type Received = (Vec<u8>, Vec<(InfoType, u32)>);

/// A guest with its card.
pub(super) struct Guest {
    pub(super) nic: Arc<Nic>,
    pub(super) link: Arc<TestLink>,
    pub(super) ring: ring::Channel,
    pub(super) hand: Hand,
    /// What came that is no completion: RNDIS messages.
    pub(super) heard: Vec<Vec<u8>>,
    /// Completions: transaction, message.
    pub(super) completed: Vec<(u64, Vec<u8>)>,
    /// Gives parts of the receive buffer back.
    pub(super) gives_back: bool,
}

pub(super) fn mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

impl Guest {
    pub(super) fn new(number: u8, queues: u16) -> Self {
        let nic = Arc::new(Nic::new(Settings {
            address: mac(number),
            name: "Ethernet".into(),
            queues,
        }));
        let link = Arc::new(TestLink {
            ram: buffer::owned(RAM),
            receive: buffer::owned(1 << 20),
            send: buffer::owned(64 << 10),
            signals: AtomicU32::new(0),
        });
        let (ring, host, hand) = loopback::channel(16).unwrap();
        nic.open(0, host, link.clone());
        Self {
            nic,
            link,
            ring,
            hand,
            heard: Vec::new(),
            completed: Vec::new(),
            gives_back: true,
        }
    }

    /// Up, as hv_netvsc brings it up.
    pub(super) fn up(number: u8, version: Version, mtu: u32) -> Self {
        let mut guest = Self::new(number, 4);
        guest.agree(version, mtu);
        guest.set(
            Oid::CURRENT_PACKET_FILTER,
            &(PacketFilter::DIRECTED | PacketFilter::BROADCAST).bits(),
        );
        guest
    }

    pub(super) fn agree(&mut self, version: Version, mtu: u32) {
        let answer: nvsp::InitComplete = self.ask(
            MessageType::INIT,
            &nvsp::Init {
                min: version,
                max: version,
            },
        );
        assert_eq!((answer.status, answer.version), (Status::SUCCESS, version));
        let configuration = nvsp::NdisConfiguration {
            frame_size: mtu + 14,
            reserved: 0,
            capabilities: nvsp::Capabilities::RSC.bits(),
            capabilities_high: 0,
        };
        self.send(
            MessageType::SEND_NDIS_CONFIGURATION,
            &configuration,
            PacketFlags::empty(),
        );
        let shared = |gpadl, id| nvsp::SharedBuffer {
            gpadl,
            id,
            padding: 0,
        };
        let receive: nvsp::ReceiveBufferComplete = self.ask(
            MessageType::SEND_RECEIVE_BUFFER,
            &shared(RECEIVE, nvsp::RECEIVE_BUFFER_ID),
        );
        assert_eq!(
            (receive.status, receive.sections, receive.offset),
            (Status::SUCCESS, 1, 0)
        );
        assert!(receive.part_size * receive.parts <= 1 << 20 && receive.part_size >= mtu + 14 + 44);
        let send: nvsp::SendBufferComplete =
            self.ask(MessageType::SEND_SEND_BUFFER, &shared(SEND, nvsp::SEND_BUFFER_ID));
        assert_eq!(
            (send.status, send.part_size),
            (Status::SUCCESS, crate::network::setup::SEND_PART)
        );
        let begin = rndis::Initialize {
            request: 1,
            major: 1,
            minor: 0,
            max_transfer: 0x4000,
        };
        self.control(rndis::MessageType::INITIALIZE, &begin, &[]);
        let (answer, body) = self.rndis_answer();
        assert_eq!(answer, rndis::MessageType::INITIALIZE_COMPLETE);
        assert_eq!(
            rndis::InitializeComplete::read_from_prefix(&body)
                .unwrap()
                .0
                .status,
            rndis::Status::SUCCESS
        );
    }

    /// Sends an NVSP message in band.
    pub(super) fn send(
        &mut self,
        message_type: MessageType,
        body: &(impl IntoBytes + Immutable),
        flags: PacketFlags,
    ) {
        let message = nvsp::message(message_type, body);
        let _ = self.ring.outgoing.send(77, flags, &[&message]).unwrap();
        self.run();
    }

    /// And waits for its completion.
    pub(super) fn ask<T: FromBytes>(
        &mut self,
        message_type: MessageType,
        body: &(impl IntoBytes + Immutable),
    ) -> T {
        self.send(message_type, body, PacketFlags::COMPLETION_REQUESTED);
        let (transaction, message) = self.completed.pop().expect("an answer");
        assert_eq!(transaction, 77);
        T::read_from_prefix(&message[4..]).unwrap().0
    }

    /// Sends an RNDIS message from pages of memory.
    pub(super) fn control(
        &mut self,
        message_type: rndis::MessageType,
        body: &(impl IntoBytes + Immutable),
        value: &[u8],
    ) {
        let message = rndis::Message::new(message_type, body, value).unwrap();
        self.send_from_pages(message.as_bytes(), RndisChannel::CONTROL);
        assert_eq!(self.completed.pop().unwrap().1[4], 1);
    }

    pub(super) fn send_from_pages(&mut self, message: &[u8], channel: RndisChannel) {
        let (offset, first) = (4000, 1);
        self.link.ram.copy_from(first * 4096 + offset, message).unwrap();
        let pages: Vec<u64> = (first as u64..)
            .take((offset + message.len()).div_ceil(4096))
            .collect();
        let body = nvsp::RndisPacket {
            channel,
            part: NO_PART,
            part_length: 0,
        };
        let range = GpaRange {
            byte_count: message.len() as u32,
            byte_offset: offset as u32,
            pages: &pages,
        };
        let payload = nvsp::message(MessageType::SEND_RNDIS_PACKET, &body);
        let mut batch = self.ring.outgoing.batch().unwrap();
        batch
            .push_gpa_direct(5, PacketFlags::COMPLETION_REQUESTED, &[range], &payload)
            .unwrap();
        let _ = batch.commit();
        self.run();
    }

    pub(super) fn send_from_part(&mut self, part: u32, message: &[u8]) {
        self.link.send.copy_from(part as usize * 6144, message).unwrap();
        let body = nvsp::RndisPacket {
            channel: RndisChannel::DATA,
            part,
            part_length: message.len() as u32,
        };
        self.send(
            MessageType::SEND_RNDIS_PACKET,
            &body,
            PacketFlags::COMPLETION_REQUESTED,
        );
    }

    pub(super) fn rndis_answer(&mut self) -> (rndis::MessageType, Vec<u8>) {
        let message = self.heard.pop().expect("an RNDIS answer");
        let (message_type, body) = rndis::split(&message).unwrap();
        (message_type, body.to_vec())
    }

    pub(super) fn request(&mut self, message_type: rndis::MessageType, oid: Oid, value: &[u8]) -> Vec<u8> {
        let request = rndis::Request {
            request: 9,
            oid,
            length: value.len() as u32,
            offset: 20,
            virtual_circuit: 0,
        };
        self.control(message_type, &request, value);
        self.rndis_answer().1
    }

    pub(super) fn query(&mut self, oid: Oid) -> Option<Vec<u8>> {
        let body = self.request(rndis::MessageType::QUERY, oid, &[]);
        let (answer, _) = rndis::QueryComplete::read_from_prefix(&body).unwrap();
        assert_eq!((answer.request, answer.offset), (9, 16));
        let value = rndis::value(&body, answer.offset, answer.length).unwrap();
        (answer.status == rndis::Status::SUCCESS).then(|| value.to_vec())
    }

    pub(super) fn set(&mut self, oid: Oid, value: &(impl IntoBytes + Immutable + ?Sized)) -> rndis::Status {
        let body = self.request(rndis::MessageType::SET, oid, value.as_bytes());
        rndis::SetComplete::read_from_prefix(&body).unwrap().0.status
    }

    /// Lets the card work, and takes what it sends.
    pub(super) fn run(&mut self) {
        while self.nic.process(0, 64, 0) == Progress::More {}
        self.listen();
        while self.nic.process(0, 64, 0) == Progress::More {}
    }

    pub(super) fn listen(&mut self) {
        let mut back = Vec::new();
        let mut batch = self.ring.incoming.batch();
        while let Some(packet) = batch.next().unwrap() {
            let mut message = vec![0; packet.payload_size()];
            packet.copy_payload(0, &mut message).unwrap();
            match packet.kind() {
                PacketType::COMPLETION => self.completed.push((packet.transaction(), message)),
                PacketType::TRANSFER_PAGES => {
                    let (set, ranges) = packet.transfer_ranges().unwrap();
                    assert_eq!((set, message[0]), (nvsp::RECEIVE_BUFFER_ID, 107));
                    assert!(packet.wants_completion() && packet.transaction() != 0);
                    for range in ranges {
                        let range = range.unwrap();
                        let mut bytes = vec![0; range.byte_count as usize];
                        self.link
                            .receive
                            .copy_to(range.byte_offset as usize, &mut bytes)
                            .unwrap();
                        self.heard.push(bytes);
                    }
                    back.push(packet.transaction());
                }
                other => panic!("{other:?}"),
            }
        }
        let _ = batch.finish();
        for transaction in back.into_iter().filter(|_| self.gives_back) {
            let answer = nvsp::RndisPacketComplete {
                status: Status::SUCCESS,
            };
            let message = nvsp::message(MessageType::SEND_RNDIS_PACKET_COMPLETE, &answer);
            let _ = self.ring.outgoing.complete(transaction, &[&message]).unwrap();
        }
    }

    /// Frames that came, each with what was beside it. Fragments are put together.
    pub(super) fn frames(&mut self) -> Vec<Received> {
        self.run();
        let mut frames: Vec<(Vec<u8>, Vec<_>)> = Vec::new();
        for message in self.heard.drain(..) {
            let (message_type, body) = rndis::split(&message).unwrap();
            assert_eq!(message_type, rndis::MessageType::PACKET);
            let (packet, _) = rndis::Packet::read_from_prefix(body).unwrap();
            let data = rndis::value(body, packet.data_offset, packet.data_length).unwrap();
            let infos = rndis::value(body, packet.info_offset, packet.info_length).unwrap();
            let infos: Vec<_> = packet_info::iter(infos).collect();
            let fragment = infos
                .iter()
                .find(|info| info.0 == InfoType::FRAGMENT)
                .map(|info| Fragment(info.1));
            match fragment {
                Some(fragment) if !fragment.has(Fragment::FIRST) => frames.last_mut().unwrap().0.extend(data),
                _ => frames.push((data.to_vec(), infos)),
            }
        }
        frames
    }

    pub(super) fn is_whole(&self) -> bool {
        self.free_parts().is_some_and(|(free, parts)| free == parts)
    }

    /// Free parts of the receive buffer, and all of them.
    pub(super) fn free_parts(&self) -> Option<(usize, usize)> {
        let pool = self.nic.state.lock().pool.clone()?;
        let pool = pool.lock();
        Some((pool.free(), pool.parts()))
    }
}

/// A message with one frame.
pub(super) fn packet(frame: &[u8], infos: &[Info]) -> Vec<u8> {
    let (header, packet) = crate::network::transmit::packet_header(frame.len(), infos);
    [header.as_bytes(), packet.as_bytes(), infos.as_bytes(), frame].concat()
}

pub(super) fn frame(to: Mac, from: Mac, length: usize) -> Vec<u8> {
    let mut bytes = [to.0, from.0].concat();
    bytes.extend([0x88, 0xb5]);
    bytes.extend((bytes.len()..length).map(|byte| byte as u8));
    bytes
}

/// Two guests on a wire; their addresses are `mac(1)` and `mac(2)`.
pub(super) fn pair(version: Version, mtu: u32) -> (Guest, Guest, Arc<Wire>) {
    let wire = Arc::new(Wire::new(Switch::new(Kind::External)));
    let guests = [1, 2].map(|number| {
        let guest = Guest::up(number, version, mtu);
        plug(&guest, &wire);
        guest
    });
    let [mut one, mut two] = guests;
    for guest in [&mut one, &mut two] {
        guest.run();
        assert_eq!(guest.rndis_answer().0, rndis::MessageType::INDICATE_STATUS);
    }
    (one, two, wire)
}

pub(super) fn plug(guest: &Guest, wire: &Arc<Wire>) -> PortId {
    let port = wire
        .attach(PortSettings::guest(guest.nic.address()), guest.nic.clone())
        .unwrap();
    guest.nic.plug(Some((wire.clone(), port)));
    port
}

pub(super) fn offloads(guest: &mut Guest, checksum: Setting, coalesce: Setting) {
    let parameters = OffloadParameters {
        header: ObjectHeader {
            object_type: offload::OBJECT_DEFAULT,
            revision: 3,
            size: 28,
        },
        tcp_4_checksum: checksum,
        tcp_6_checksum: checksum,
        large_send_4: Setting::ENABLED,
        large_send_6: Setting::ENABLED,
        coalesce_4: coalesce,
        coalesce_6: coalesce,
        ..OffloadParameters::new_zeroed()
    };
    assert_eq!(
        guest.set(Oid::OFFLOAD_PARAMETERS, &parameters),
        rndis::Status::SUCCESS
    );
}
