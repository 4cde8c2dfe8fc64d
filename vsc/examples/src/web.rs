//! A guest that answers HTTP: it asks for an address by DHCP, or is told one, and has a page about itself at port 80.
//!
//! | path | what it is |
//! |---|---|
//! | `/` | the page |
//! | `/bytes/N` | N bytes, each the low byte of its position times 31 |
//!
//! Lines that tests may wait for: `web: address …`, `web: listening`, `web: GET …`. It goes on for good. Words on the command line: those of
//! [`net`].
#![no_std]
#![no_main]

extern crate alloc;

mod net;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use net::{Net, NetError};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::time::Duration;
use vsc_runtime::boot::BootInfo;
use vsc_runtime::memory::heap::{self, Heap};
use vsc_runtime::println;

#[global_allocator]
static HEAP: Heap = heap::new();

vsc_runtime::guest_main!(main);

/// Microseconds after which something is said of an address that does not come.
const WAIT: u64 = 20_000_000;
const PORT: u16 = 80;
/// Browsers that are answered at once.
const AT_ONCE: usize = 4;
/// Bytes of a request at most.
const LONGEST_REQUEST: usize = 4096;
/// Bytes that a socket holds to be sent.
const OUTGOING: usize = 128 << 10;
/// Seconds after which a silent browser is hung up on.
const SILENCE: u64 = 30;

fn main(boot: &BootInfo) {
    if let Err(error) = serve(boot) {
        println!("web: failed: {error}");
    }
}

fn serve(boot: &BootInfo) -> Result<(), NetError> {
    let mut net = Net::open("web", boot)?;
    while net.until_for(WAIT, |net| net.address).is_none() {
        println!("web: nobody has given an address so far; is there a DHCP server on its switch?");
    }
    let mut browsers: Vec<Browser> = (0..AT_ONCE).map(|_| Browser::new(&mut net)).collect();
    println!("web: listening");
    let mut answered = 0_u64;
    net.until::<()>(|net| {
        let page = Page {
            address: net.address.map(|address| format!("{}", address.address())),
            card: format!("{}", net.card().address()),
            uptime: net.now() / 1_000_000,
            answered,
        };
        for browser in &mut browsers {
            let socket = net.sockets.get_mut(browser.socket);
            answered += u64::from(browser.serve(socket, &page));
        }
        None
    });
    Ok(())
}

/// What the page tells.
struct Page {
    address: Option<String>,
    card: String,
    uptime: u64,
    answered: u64,
}

impl Page {
    fn html(&self) -> String {
        format!(
            "<!doctype html><title>A guest of Partita</title>\n<h1>A guest of Partita</h1>\n<p>This page comes from a child partition \
             without any emulated device.</p>\n<ul><li>address {}<li>network card {}<li>up for {} s<li>requests before this one: \
             {}</ul>\n",
            self.address.as_deref().unwrap_or("none"),
            self.card,
            self.uptime,
            self.answered
        )
    }
}

/// A connection, or one that may come.
struct Browser {
    socket: SocketHandle,
    request: Vec<u8>,
    answer: Option<Answer>,
}

/// An answer that is being sent: text, and then so many bytes of the pattern.
struct Answer {
    text: Vec<u8>,
    sent: usize,
    bytes: u64,
}

impl Browser {
    fn new(net: &mut Net) -> Self {
        let buffer = |size| tcp::SocketBuffer::new(vec![0; size]);
        let mut socket = tcp::Socket::new(buffer(LONGEST_REQUEST), buffer(OUTGOING));
        socket.set_timeout(Some(Duration::from_secs(SILENCE)));
        Self {
            socket: net.sockets.add(socket),
            request: Vec::new(),
            answer: None,
        }
    }

    /// Takes what has come, and sends what there is; says whether a request was answered.
    fn serve(&mut self, socket: &mut tcp::Socket<'_>, page: &Page) -> bool {
        if !socket.is_open() {
            self.request.clear();
            self.answer = None;
            // The port is not zero, and the socket is closed.
            let _ = socket.listen(PORT);
            return false;
        }
        let mut answered = false;
        if self.answer.is_none() {
            while socket.can_recv() && self.request.len() < LONGEST_REQUEST {
                let request = &mut self.request;
                let _ = socket.recv(|bytes| {
                    request.extend_from_slice(bytes);
                    (bytes.len(), ())
                });
            }
            self.answer = answer(&self.request, page);
            answered = self.answer.is_some();
            // The browser has hung up. Before it is connected nothing may be received either, but nothing sent.
            if self.answer.is_none() && socket.may_send() && !socket.may_recv() {
                socket.close();
            }
        }
        if let Some(answer) = &mut self.answer
            && answer.send(socket)
        {
            socket.close();
        }
        answered
    }
}

impl Answer {
    fn new(status: &str, kind: &str, text: &str, bytes: u64) -> Self {
        let length = text.len() as u64 + bytes;
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        Self {
            text: [head.as_bytes(), text.as_bytes()].concat(),
            sent: 0,
            bytes,
        }
    }

    /// Sends what there is room for; says whether all is sent.
    fn send(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        while self.sent < self.text.len() {
            match socket.send_slice(&self.text[self.sent..]) {
                Ok(sent) if sent > 0 => self.sent += sent,
                _ => return !socket.may_send(),
            }
        }
        // The text is sent, and from here on `sent` counts on.
        while let Some(left) = (self.text.len() as u64 + self.bytes).checked_sub(self.sent as u64)
            && left > 0
        {
            let position = self.sent - self.text.len();
            let sent = socket.send(|room| {
                let count = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                for (index, byte) in room.iter_mut().take(count).enumerate() {
                    *byte = ((position + index) * 31) as u8;
                }
                (count, count)
            });
            match sent {
                Ok(sent) if sent > 0 => self.sent += sent,
                _ => return !socket.may_send(),
            }
        }
        true
    }
}

/// The answer to a request; `None` while it is not whole.
fn answer(bytes: &[u8], page: &Page) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let refused = |status, why| Some(Answer::new(status, "text/plain", why, 0));
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_REQUEST => return None,
        _ => return refused("400 Bad Request", "This is no request.\n"),
    }
    let (method, path) = (request.method.unwrap_or(""), request.path.unwrap_or(""));
    println!("web: {method} {path}");
    if method != "GET" {
        return refused("405 Method Not Allowed", "There is only GET.\n");
    }
    let count = path.strip_prefix("/bytes/").and_then(|count| count.parse().ok());
    match (path, count) {
        ("/", _) => Some(Answer::new("200 OK", "text/html", &page.html(), 0)),
        (_, Some(count)) => Some(Answer::new("200 OK", "application/octet-stream", "", count)),
        _ => refused("404 Not Found", "There is no such page.\n"),
    }
}
