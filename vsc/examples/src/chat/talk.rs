//! The one that talks.

use super::listen::{datagrams, socket};
use super::net::{Net, NetError};
use super::pattern::Pattern;
use super::{ChatError, DISCARD, ECHO, GENERATE};
use alloc::vec;
use alloc::vec::Vec;
use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress, Ipv4Address};
use vsc::network::{Beside, NetworkError};
use vsc_runtime::boot::BootInfo;
use vsc_runtime::println;
use vsc_runtime::processor::instruction::tsc;

/// Bytes of a stream, if nothing is said.
const BULK: u64 = 4 << 20;
/// Microseconds after which something is sent again.
const AGAIN: u64 = 500_000;
/// Seconds that the other may be silent, if nothing is said.
const PATIENCE: u64 = 60;
/// Round trips that are measured, if nothing is said.
const ROUNDS: usize = 101;
/// Bytes of each.
const SMALL: usize = 64;
/// Kind of payload of frames that nobody understands (IEEE 802, "Local Experimental Ethertype 1").
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// Frames of a flood between two looks at what came.
const FLOOD: usize = 256;
/// Name of echo requests.
const IDENT: u16 = 0x7061;

struct Talk<'a> {
    net: &'a mut Net,
    peer: Ipv4Address,
    patience: u64,
    /// The next port of a connection's own end.
    port: u16,
}

pub(super) fn run(net: &mut Net, boot: &BootInfo) -> Result<(), ChatError> {
    let peer = boot.option("peer").and_then(|text| text.parse().ok());
    let number = |name| boot.option(name).and_then(|text| text.parse().ok());
    let bytes = number("bulk").unwrap_or(BULK);
    let mut talk = Talk {
        net,
        peer: peer.ok_or(ChatError::NoPeer)?,
        patience: number("patience").unwrap_or(PATIENCE) * 1_000_000,
        port: 49152 + (tsc() % 8192) as u16,
    };
    talk.net.until(|net| net.address);
    if boot.has_option("flood") {
        return talk.flood();
    }
    if boot.has_option("pretend") {
        return talk.pretend();
    }
    talk.ping()?;
    if boot.has_option("bench") {
        talk.measure(number("rounds").map_or(ROUNDS, |rounds| rounds as usize), bytes)?;
    } else {
        talk.datagrams()?;
        talk.stream()?;
        let pattern = Pattern::new();
        let start = talk.net.now();
        talk.there(bytes, &pattern)?;
        println!(
            "chat: there: {bytes} bytes unharmed, in {} us",
            talk.net.now() - start
        );
        talk.back(bytes, &pattern, true)?;
        println!("chat: back: {bytes} bytes unharmed");
    }
    if boot.has_option("stay") {
        println!("chat: staying");
        talk.net.until(|_| None)
    }
    talk.bye()
}

impl Talk<'_> {
    /// Sends small frames to everybody as fast as the card takes them, for good.
    fn flood(&mut self) -> Result<(), ChatError> {
        let card = self.net.card().clone();
        let mut frame = [0; 60];
        let (to, rest) = frame.split_at_mut(6);
        to.fill(0xff);
        rest[..6].copy_from_slice(&card.address().0);
        rest[6..8].copy_from_slice(&EXPERIMENTAL);
        println!("chat: flooding");
        self.net.until(|_| {
            for _ in 0..FLOOD {
                match card.send(0, &mut frame, &Beside::default()) {
                    Ok(()) => {}
                    Err(NetworkError::Full) => break,
                    Err(error) => return Some(Err(NetError::from(error).into())),
                }
            }
            None
        })
    }

    /// Sends to everybody an answer of a DHCP server and an advertisement of a router of IPv6, again and again.
    fn pretend(&mut self) -> Result<(), ChatError> {
        let card = self.net.card().clone();
        let own = card.address().0;
        // As little as tells what they are: nobody is to hear them.
        let dhcp = [
            0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 67, 0, 68, 0, 8, 0,
            0,
        ];
        let mut router = [0; 56];
        router[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 16, 58, 255]);
        (router[24], router[25], router[39], router[40]) = (0xff, 2, 1, 134);
        let messages: [(&[u8; 6], [u8; 2], &[u8]); 2] = [
            (&[0xff; 6], [0x08, 0], &dhcp),
            (&[0x33, 0x33, 0, 0, 0, 1], [0x86, 0xdd], &router),
        ];
        println!("chat: pretending");
        let mut next = 0;
        self.net.until(|net| {
            let now = net.now();
            if now < next {
                return None;
            }
            next = now + AGAIN;
            for (to, kind, packet) in messages {
                let mut frame = [&to[..], &own, &kind, packet].concat();
                frame.resize(frame.len().max(60), 0);
                match card.send(0, &mut frame, &Beside::default()) {
                    Ok(()) | Err(NetworkError::Full) => {}
                    Err(error) => return Some(Err(NetError::from(error).into())),
                }
            }
            None
        })
    }

    fn ping(&mut self) -> Result<(), ChatError> {
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        // The socket is new.
        let _ = socket.bind(icmp::Endpoint::Ident(IDENT));
        let handle = self.net.sockets.add(socket);
        let peer = IpAddress::Ipv4(self.peer);
        let start = self.net.now();
        let (mut number, mut next) = (0, 0);
        let answered = self.net.until_for(self.patience, |net| {
            let now = net.now();
            let socket: &mut icmp::Socket<'_> = net.sockets.get_mut(handle);
            if let Ok((_, from)) = socket.recv() {
                return (from == peer).then_some(());
            }
            if now >= next {
                number += 1;
                next = now + AGAIN;
                let request = Icmpv4Repr::EchoRequest {
                    ident: IDENT,
                    seq_no: number,
                    data: b"are you there?",
                };
                if let Ok(bytes) = socket.send(request.buffer_len(), peer) {
                    request.emit(
                        &mut Icmpv4Packet::new_unchecked(bytes),
                        &ChecksumCapabilities::default(),
                    );
                }
            }
            None
        });
        self.net.sockets.remove(handle);
        answered.ok_or(ChatError::Silent("no answer to a ping"))?;
        println!(
            "chat: ping: {} answers, at {} us",
            self.peer,
            self.net.now() - start
        );
        Ok(())
    }

    /// Has a datagram come back; sends it again as long as it does not.
    fn echoed(&mut self, handle: SocketHandle, bytes: &[u8]) -> Result<(), ChatError> {
        let target = (IpAddress::Ipv4(self.peer), ECHO);
        let mut next = 0;
        let came = self.net.until_for(self.patience, |net| {
            let now = net.now();
            let socket: &mut udp::Socket<'_> = net.sockets.get_mut(handle);
            while let Ok((came, _)) = socket.recv() {
                // Others are late answers to what was sent twice.
                if came == bytes {
                    return Some(());
                }
            }
            if now >= next {
                next = now + AGAIN;
                let _ = socket.send_slice(bytes, target);
            }
            None
        });
        came.ok_or(ChatError::Silent("a datagram has not come back"))
    }

    fn datagrams(&mut self) -> Result<(), ChatError> {
        let handle = self.net.sockets.add(datagrams(2000));
        let largest = self.net.card().mtu() as usize - 28;
        let pattern = Pattern::new();
        let sizes = [1, 2, 17, 100, 512, 1000, largest - 1, largest];
        for size in sizes {
            self.echoed(handle, pattern.piece(size as u64, size))?;
        }
        self.net.sockets.remove(handle);
        println!(
            "chat: udp: {} datagrams came back, the largest of {largest} bytes",
            sizes.len()
        );
        Ok(())
    }

    fn bye(&mut self) -> Result<(), ChatError> {
        let handle = self.net.sockets.add(datagrams(2001));
        self.echoed(handle, b"bye")?;
        self.net.sockets.remove(handle);
        Ok(())
    }

    /// A connection; it is tried again while the other does not listen.
    fn connect(&mut self, port: u16) -> Result<SocketHandle, ChatError> {
        let handle = self.net.sockets.add(socket());
        let peer = (IpAddress::Ipv4(self.peer), port);
        let own = &mut self.port;
        let connected = self.net.until_for(self.patience, |net| {
            let socket: &mut tcp::Socket<'_> = net.sockets.get_mut(handle);
            if socket.may_send() {
                return Some(());
            }
            if !socket.is_open() {
                *own = own.checked_add(1).unwrap_or(49152);
                // The ports are not zero, and the socket is closed.
                let _ = socket.connect(net.interface.context(), peer, *own);
            }
            None
        });
        connected.ok_or(ChatError::Silent("no connection"))?;
        Ok(handle)
    }

    fn end(&mut self, handle: SocketHandle) {
        self.net.sockets.get_mut::<tcp::Socket<'_>>(handle).close();
        let limit = 2_000_000;
        let closed = self.net.until_for(limit, |net| {
            let socket: &tcp::Socket<'_> = net.sockets.get(handle);
            (!socket.is_active() || socket.state() == tcp::State::TimeWait).then_some(())
        });
        if closed.is_none() {
            self.net.sockets.get_mut::<tcp::Socket<'_>>(handle).abort();
        }
        self.net.sockets.remove(handle);
    }

    /// Bytes that go and come back on one connection.
    fn stream(&mut self) -> Result<(), ChatError> {
        let handle = self.connect(ECHO)?;
        let pattern = Pattern::new();
        let (total, mut sent, mut came) = (300_000, 0, 0);
        let mut wrong = None;
        let ended = self.net.until_for(self.patience, |net| {
            let socket: &mut tcp::Socket<'_> = net.sockets.get_mut(handle);
            while sent < total {
                match socket.send_slice(pattern.piece(sent, (total - sent) as usize)) {
                    Ok(count) if count > 0 => sent += count as u64,
                    _ => break,
                }
            }
            while socket.can_recv() {
                let _ = socket.recv(|bytes| {
                    wrong = wrong.or(pattern.first_wrong(came, bytes));
                    came += bytes.len() as u64;
                    (bytes.len(), ())
                });
            }
            (came >= total || wrong.is_some() || !socket.is_active()).then_some(())
        });
        self.end(handle);
        match (wrong, ended) {
            (Some(byte), _) => Err(ChatError::Changed(byte)),
            (None, Some(())) if came == total => {
                println!("chat: tcp: {total} bytes came back");
                Ok(())
            }
            _ => Err(ChatError::Silent("a stream does not come back")),
        }
    }

    /// Bytes that the other counts and compares.
    fn there(&mut self, total: u64, pattern: &Pattern) -> Result<(), ChatError> {
        let handle = self.connect(DISCARD)?;
        let mut sent = 0;
        let mut said = Vec::new();
        let mut last = self.net.now();
        let patience = self.patience;
        let ended = self.net.until(|net| {
            let now = net.now();
            let socket: &mut tcp::Socket<'_> = net.sockets.get_mut(handle);
            while sent < total {
                let most = (total - sent).min(usize::MAX as u64) as usize;
                match socket.send_slice(pattern.piece(sent, most)) {
                    Ok(count) if count > 0 => (sent, last) = (sent + count as u64, now),
                    _ => break,
                }
            }
            if sent == total && socket.may_send() {
                socket.close();
            }
            while socket.can_recv() {
                let _ = socket.recv(|bytes| {
                    said.extend_from_slice(bytes);
                    (bytes.len(), ())
                });
            }
            match said.len() >= 16 || !socket.is_active() {
                true => Some(true),
                false => (now - last > patience).then_some(false),
            }
        });
        self.end(handle);
        let number = |at: usize| Some(u64::from_le_bytes(*said.get(at..)?.first_chunk()?));
        match (number(0), number(8)) {
            (Some(came), Some(0)) if ended && came == total => Ok(()),
            (Some(came), Some(wrong)) => Err(ChatError::Lost {
                sent: total,
                came,
                wrong,
            }),
            _ => Err(ChatError::Silent("nobody says what came")),
        }
    }

    /// Bytes that the other sends.
    fn back(&mut self, total: u64, pattern: &Pattern, compare: bool) -> Result<(), ChatError> {
        let handle = self.connect(GENERATE)?;
        let _ = self
            .net
            .sockets
            .get_mut::<tcp::Socket<'_>>(handle)
            .send_slice(&total.to_le_bytes());
        let (mut came, mut wrong) = (0, None);
        let (mut last, patience) = (self.net.now(), self.patience);
        self.net.until(|net| {
            let now = net.now();
            let socket: &mut tcp::Socket<'_> = net.sockets.get_mut(handle);
            while socket.can_recv() {
                let _ = socket.recv(|bytes| {
                    if compare {
                        wrong = wrong.or(pattern.first_wrong(came, bytes));
                    }
                    came += bytes.len() as u64;
                    (bytes.len(), ())
                });
                last = now;
            }
            let ended = came >= total || wrong.is_some() || !socket.is_active();
            (ended || now - last > patience).then_some(())
        });
        self.end(handle);
        match wrong {
            Some(byte) => Err(ChatError::Changed(byte)),
            None if came == total => Ok(()),
            None => Err(ChatError::Silent("less comes than was asked for")),
        }
    }

    /// Round trips of a few bytes, and a stream, in TSC ticks.
    fn measure(&mut self, rounds: usize, bytes: u64) -> Result<(), ChatError> {
        let handle = self.connect(ECHO)?;
        let mut samples = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let start = tsc();
            let _ = self
                .net
                .sockets
                .get_mut::<tcp::Socket<'_>>(handle)
                .send_slice(&[7; SMALL]);
            let mut left = SMALL;
            let came = self.net.until_for(self.patience, |net| {
                let socket: &mut tcp::Socket<'_> = net.sockets.get_mut(handle);
                let _ = socket.recv(|bytes| {
                    left -= bytes.len().min(left);
                    (bytes.len(), ())
                });
                (left == 0).then_some(())
            });
            came.ok_or(ChatError::Silent("a round trip has not ended"))?;
            samples.push(tsc() - start);
        }
        self.end(handle);
        samples.sort_unstable();
        if let (Some(least), Some(median)) = (samples.first(), samples.get(rounds / 2)) {
            println!("bench: round-trip {least} {median}");
        }
        let pattern = Pattern::new();
        let start = tsc();
        self.there(bytes, &pattern)?;
        println!("bench: bulk {bytes} {}", tsc() - start);
        let start = tsc();
        self.back(bytes, &pattern, false)?;
        println!("bench: bulk-back {bytes} {}", tsc() - start);
        Ok(())
    }
}
