//! The other end of the wire that a machine's network card is on ([`Machine::wire`]): a host with a stack of its own, which gives the
//! machine its address by DHCP, answers questions for names, looks at every frame that comes, and can damage those that it sends.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, HardwareAddress,
    IpAddress, IpCidr, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket,
};
use tempfile::TempDir;
use xtask::Machine;

/// The host on the wire.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// What the machine is given by DHCP.
pub const GIVEN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The address of all names.
pub const NAMED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);

/// Bits of the network's part.
const PREFIX: u8 = 24;
/// Seconds that a lease holds.
const LEASE: u32 = 3600;
/// Largest IP packet that the host takes and sends.
const MTU: usize = 9000;
const ETHERNET_HEADER: usize = 14;
/// The longest datagram of the sockets.
const FRAME_ROOM: usize = 64 << 10;
const OWN_ADDRESS: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0x77]);
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const NAME_SERVER: u16 = 53;
/// Bytes of a header of DNS, and what stands behind a name in a question: kind and class.
const DNS_HEADER: usize = 12;
const DNS_QUESTION: usize = 4;
/// How long to wait for a frame before looking at what else there is to do.
const LOOK: Duration = Duration::from_millis(2);
/// What is sent to find out who has an address.
const GREETING: &[u8] = b"is anybody there?";
/// When a datagram is sent again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long the machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(240);

/// What the host has seen of the machine's frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Frames.
    pub frames: u64,
    /// Bytes of the longest.
    pub longest: usize,
    /// Packets of IPv4 with a wrong checksum: of their header, of TCP or of UDP.
    pub wrong: u64,
}

/// How a datagram is damaged on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// Its last byte is another: the checksum of UDP is wrong.
    Data,
    /// It has one hop more to go: the checksum of the IP header is wrong.
    Header,
}

/// The host. Its stack goes on in a thread of its own until it is dropped.
pub struct Wire {
    folder: TempDir,
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    interface: Interface,
    sockets: SocketSet<'static>,
    dhcp: SocketHandle,
    names: SocketHandle,
    device: Device,
    start: std::time::Instant,
    next_port: u16,
}

struct Device {
    socket: UnixDatagram,
    to: PathBuf,
    came: VecDeque<Vec<u8>>,
    seen: Seen,
    /// What is done to the next UDP datagram that is sent.
    damage: Option<Damage>,
}

/// A frame that came.
struct Came(Vec<u8>);

impl phy::RxToken for Came {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// The right to send one.
struct Goes<'a>(&'a mut Device);

impl phy::TxToken for Goes<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.send(frame);
        result
    }
}

impl phy::Device for Device {
    type RxToken<'a> = Came;
    type TxToken<'a> = Goes<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Came, Goes<'_>)> {
        let frame = self.came.pop_front()?;
        Some((Came(frame), Goes(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Goes<'_>> {
        Some(Goes(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU + ETHERNET_HEADER;
        capabilities
    }
}

impl Device {
    fn send(&mut self, mut frame: Vec<u8>) {
        let datagram = ipv4(&frame).is_some_and(|packet| packet.next_header() == IpProtocol::Udp);
        match self.damage.filter(|_| datagram) {
            Some(Damage::Data) => {
                if let Some(last) = frame.last_mut() {
                    *last ^= 1;
                }
            }
            Some(Damage::Header) => frame[ETHERNET_HEADER + 8] += 1,
            None => {}
        }
        self.damage = self.damage.filter(|_| !datagram);
        // Before the machine is there, frames are lost, as on any wire.
        let _ = self.socket.send_to(&frame, &self.to);
    }

    fn take(&mut self, frame: &[u8]) {
        self.seen.frames += 1;
        self.seen.longest = self.seen.longest.max(frame.len());
        self.seen.wrong += u64::from(!checksums_hold(frame));
        self.came.push_back(frame.to_vec());
    }
}

/// The IPv4 packet in a frame.
fn ipv4(frame: &[u8]) -> Option<Ipv4Packet<&[u8]>> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    (frame.ethertype() == EthernetProtocol::Ipv4)
        .then(|| Ipv4Packet::new_checked(frame.payload()).ok())
        .flatten()
}

/// Whether the checksums of a frame hold, as far as it has any.
fn checksums_hold(frame: &[u8]) -> bool {
    let Some(packet) = ipv4(frame) else { return true };
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    packet.verify_checksum()
        && match packet.next_header() {
            IpProtocol::Tcp => TcpPacket::new_checked(packet.payload())
                .is_ok_and(|segment| segment.verify_checksum(&from, &to)),
            IpProtocol::Udp => UdpPacket::new_checked(packet.payload())
                .is_ok_and(|datagram| datagram.verify_checksum(&from, &to)),
            _ => true,
        }
}

impl Wire {
    /// A host that waits for a machine.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = UnixDatagram::bind(folder.path().join("host"))?;
        socket.set_read_timeout(Some(LOOK))?;
        let mut device = Device {
            socket: socket.try_clone()?,
            to: folder.path().join("card"),
            came: VecDeque::new(),
            seen: Seen::default(),
            damage: None,
        };
        let config = Config::new(HardwareAddress::Ethernet(OWN_ADDRESS));
        let mut interface = Interface::new(config, &mut device, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room, as there is no other.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(HOST), PREFIX));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let [dhcp, names] = [DHCP_SERVER, NAME_SERVER].map(|port| sockets.add(datagrams(port)));
        let state = Arc::new(Mutex::new(State {
            interface,
            sockets,
            dhcp,
            names,
            device,
            start: std::time::Instant::now(),
            next_port: 50_000,
        }));
        let ends = Arc::new(AtomicBool::new(false));
        let (own, ended) = (state.clone(), ends.clone());
        let thread = thread::spawn(move || {
            let mut frame = vec![0; FRAME_ROOM];
            while !ended.load(Ordering::Acquire) {
                let came = socket.recv(&mut frame);
                let mut state = lock(&own);
                match came {
                    Ok(length) => state.device.take(&frame[..length]),
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(error) => panic!("the wire is cut: {error}"),
                }
                state.step();
            }
        });
        Ok(Self {
            folder,
            state,
            ends,
            thread: Some(thread),
        })
    }

    /// Puts a machine at the other end.
    pub fn with(&self, machine: Machine) -> Machine {
        let path = |name| self.folder.path().join(name);
        machine.wire(path("card"), path("host"))
    }

    /// What has been seen so far.
    pub fn seen(&self) -> Seen {
        lock(&self.state).device.seen
    }

    /// What the web server at `to` sends for `path`, without its headers.
    pub fn fetch(&self, to: (Ipv4Addr, u16), path: &str) -> Result<Vec<u8>> {
        let buffer = || tcp::SocketBuffer::new(vec![0; 256 << 10]);
        let (mut asked, mut answer) = (false, Vec::new());
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        let handle = {
            let state = &mut *lock(&self.state);
            state.next_port += 1;
            let mut socket = tcp::Socket::new(buffer(), buffer());
            let context = state.interface.context();
            socket.connect(context, (IpAddress::Ipv4(to.0), to.1), state.next_port)?;
            state.sockets.add(socket)
        };
        self.until(&format!("{path} has come"), |state| {
            let socket: &mut tcp::Socket<'_> = state.sockets.get_mut(handle);
            if !asked && socket.can_send() {
                socket.send_slice(request.as_bytes())?;
                asked = true;
            }
            while socket.can_recv() {
                socket.recv(|bytes| {
                    answer.extend_from_slice(bytes);
                    (bytes.len(), ())
                })?;
            }
            Ok((asked && !socket.may_recv() || !socket.is_open()).then_some(()))
        })?;
        lock(&self.state)
            .sockets
            .get_mut::<tcp::Socket<'_>>(handle)
            .close();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        Ok(answer.split_off(end.context("there is no answer")? + 4))
    }

    /// Sends datagrams to `to`, which echoes them, one after the other and some of them damaged, again and again until one comes back:
    /// that one.
    pub fn first_echo(&self, to: (Ipv4Addr, u16), sent: &[(&[u8], Option<Damage>)]) -> Result<Vec<u8>> {
        let handle = {
            let state = &mut *lock(&self.state);
            state.next_port += 1;
            let port = state.next_port;
            state.sockets.add(datagrams(port))
        };
        // What waits for the neighbour's address would go later, without its damage.
        let greeting: &[(&[u8], Option<Damage>)] = &[(GREETING, None)];
        let mut echo = Vec::new();
        for (sent, late) in [(greeting, None), (sent, Some(GREETING))] {
            let mut next = std::time::Instant::now();
            echo = self.until(&format!("{to:?} answers"), |state| {
                let socket: &mut udp::Socket<'_> = state.sockets.get_mut(handle);
                while let Ok((bytes, _)) = socket.recv() {
                    if late != Some(bytes) {
                        return Ok(Some(bytes.to_vec()));
                    }
                }
                if std::time::Instant::now() >= next {
                    next += AGAIN;
                    for (bytes, damage) in sent {
                        let socket: &mut udp::Socket<'_> = state.sockets.get_mut(handle);
                        socket.send_slice(bytes, (IpAddress::Ipv4(to.0), to.1))?;
                        state.device.damage = *damage;
                        state.step();
                    }
                }
                Ok(None)
            })?;
        }
        lock(&self.state).sockets.remove(handle);
        Ok(echo)
    }

    fn until<T>(&self, what: &str, mut done: impl FnMut(&mut State) -> Result<Option<T>>) -> Result<T> {
        let start = std::time::Instant::now();
        loop {
            if let Some(value) = done(&mut lock(&self.state))? {
                return Ok(value);
            }
            if start.elapsed() > PATIENCE {
                bail!("it did not come to pass that {what}: {:?}", self.seen());
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // That it panicked is on its own output.
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn datagrams(port: u16) -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 64 << 10]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    // The port is not zero, and the socket is new.
    let _ = socket.bind(port);
    socket
}

impl State {
    fn step(&mut self) {
        let now = Instant::from_micros(self.start.elapsed().as_micros() as i64);
        self.interface.poll(now, &mut self.device, &mut self.sockets);
        let dhcp: &mut udp::Socket<'_> = self.sockets.get_mut(self.dhcp);
        while let Ok((message, _)) = dhcp.recv() {
            if let Some(answer) = lease(message) {
                let _ = dhcp.send_slice(&answer, (IpAddress::Ipv4(Ipv4Addr::BROADCAST), DHCP_CLIENT));
            }
        }
        let names: &mut udp::Socket<'_> = self.sockets.get_mut(self.names);
        while let Ok((question, from)) = names.recv() {
            if let Some(answer) = name(question) {
                let _ = names.send_slice(&answer, from);
            }
        }
        self.interface.poll(now, &mut self.device, &mut self.sockets);
    }
}

/// The answer of a DHCP server that has one address.
fn lease(message: &[u8]) -> Option<Vec<u8>> {
    let packet = DhcpPacket::new_checked(message).ok()?;
    let request = DhcpRepr::parse(&packet).ok()?;
    let message_type = match request.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request => DhcpMessageType::Ack,
        _ => return None,
    };
    let mut answer = DhcpRepr {
        message_type,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: request.client_hardware_address,
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: GIVEN,
        server_ip: HOST,
        router: Some(HOST),
        subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: true,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(HOST),
        parameter_request_list: None,
        dns_servers: Some(Default::default()),
        max_size: None,
        lease_duration: Some(LEASE),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    if let Some(servers) = &mut answer.dns_servers {
        // There is room, as there is no other.
        let _ = servers.push(HOST);
    }
    let mut bytes = vec![0; answer.buffer_len()];
    answer.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).ok()?;
    Some(bytes)
}

/// The answer of a name server for which all names have the address [`NAMED`].
fn name(question: &[u8]) -> Option<Vec<u8>> {
    let name = question.get(DNS_HEADER..)?.iter().position(|&byte| byte == 0)? + 1;
    let asked = question.get(DNS_HEADER..DNS_HEADER + name + DNS_QUESTION)?;
    // An answer to one question, with one record: the name of the question, an address, a minute.
    let header = [&question[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
    let record = [0xc0, DNS_HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4];
    Some([&header, asked, &record, &NAMED.octets()].concat())
}
