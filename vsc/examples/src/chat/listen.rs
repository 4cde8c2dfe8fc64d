//! The one that listens.

use super::net::Net;
use super::pattern::Pattern;
use super::{BUFFER, ChatError, DISCARD, ECHO, GENERATE};
use alloc::vec;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Duration;
use vsc_runtime::boot::BootInfo;
use vsc_runtime::println;

/// When a silent talker is asked whether it is still there.
const STILL_THERE: Duration = Duration::from_secs(2);
/// When it counts as gone.
const VANISHED: Duration = Duration::from_secs(15);

/// A stream's end: the socket, and what has gone through.
struct Stream {
    socket: SocketHandle,
    port: u16,
    /// Bytes that came, or went.
    bytes: u64,
    /// Bytes that were asked for.
    wanted: Option<u64>,
    /// The first wrong byte, counted from one; 0: none.
    wrong: u64,
}

pub(super) fn socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket
}

pub(super) fn datagrams(port: u16) -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 64 << 10]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    // The port is not zero, and the socket is new.
    let _ = socket.bind(port);
    socket
}

pub(super) fn run(net: &mut Net, boot: &BootInfo) -> Result<(), ChatError> {
    let (stay, compare) = (boot.has_option("stay"), !boot.has_option("bench"));
    let pattern = Pattern::new();
    let udp = net.sockets.add(datagrams(ECHO));
    let mut streams = [ECHO, DISCARD, GENERATE].map(|port| {
        let mut socket = socket();
        // One that has vanished is not to keep the others waiting for good.
        socket.set_keep_alive(Some(STILL_THERE));
        socket.set_timeout(Some(VANISHED));
        Stream {
            socket: net.sockets.add(socket),
            port,
            bytes: 0,
            wanted: None,
            wrong: 0,
        }
    });
    println!("chat: listening");
    let mut ending = false;
    net.until(|net| {
        let socket: &mut udp::Socket<'_> = net.sockets.get_mut(udp);
        while let Ok((bytes, from)) = socket.recv().map(|(bytes, from)| (bytes.to_vec(), from)) {
            ending |= !stay && bytes == b"bye";
            // What finds no room is lost, as datagrams are.
            let _ = socket.send_slice(&bytes, from);
        }
        let sent = socket.send_queue() == 0;
        for stream in &mut streams {
            stream.serve(net.sockets.get_mut(stream.socket), &pattern, compare);
        }
        (ending && sent).then_some(())
    });
    Ok(())
}

impl Stream {
    fn serve(&mut self, socket: &mut tcp::Socket<'_>, pattern: &Pattern, compare: bool) {
        if !socket.is_open() {
            (self.bytes, self.wanted, self.wrong) = (0, None, 0);
            // The port is not zero, and the socket is closed.
            let _ = socket.listen(self.port);
            return;
        }
        match self.port {
            ECHO => {
                while socket.can_recv() && socket.can_send() {
                    let room = socket.send_capacity() - socket.send_queue();
                    let bytes = socket.recv(|bytes| {
                        let bytes = &bytes[..bytes.len().min(room)];
                        (bytes.len(), bytes.to_vec())
                    });
                    let _ = socket.send_slice(&bytes.unwrap_or_default());
                }
            }
            DISCARD => {
                while socket.can_recv() {
                    let (at, wrong) = (&mut self.bytes, &mut self.wrong);
                    let _ = socket.recv(|bytes| {
                        if compare && *wrong == 0 {
                            *wrong = pattern.first_wrong(*at, bytes).map_or(0, |byte| byte + 1);
                        }
                        *at += bytes.len() as u64;
                        (bytes.len(), ())
                    });
                }
                if !socket.may_recv() && socket.can_send() && self.wanted.is_none() {
                    let said = [self.bytes.to_le_bytes(), self.wrong.to_le_bytes()].concat();
                    let _ = socket.send_slice(&said);
                    self.wanted = Some(0);
                }
            }
            _ => {
                if self.wanted.is_none() && socket.recv_queue() >= 8 {
                    let mut wanted = [0; 8];
                    let _ = socket.recv_slice(&mut wanted);
                    self.wanted = Some(u64::from_le_bytes(wanted));
                }
                while let Some(left) = self
                    .wanted
                    .map(|wanted| wanted - self.bytes)
                    .filter(|left| *left > 0)
                {
                    let piece = pattern.piece(self.bytes, left.min(usize::MAX as u64) as usize);
                    match socket.send_slice(piece) {
                        Ok(sent) if sent > 0 => self.bytes += sent as u64,
                        _ => break,
                    }
                }
            }
        }
        let finished = match self.port {
            GENERATE => self.wanted == Some(self.bytes),
            _ => !socket.may_recv() && !socket.can_recv(),
        };
        if finished && socket.may_send() {
            socket.close();
        }
    }
}
