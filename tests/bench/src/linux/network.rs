//! The load of two guests with a network card each: one listens, the other asks it, over TCP.
//!
//! The first byte of a connection says what it is for; a count of bytes follows, 8 of them, the lower first.

use super::{load_modules, mount, ticks};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

const CARD: &[u8] = b"eth0";
const LISTENS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 7);
const TALKS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// Times that the card is looked for, and the other guest, 10 ms apart.
const PATIENCE: u32 = 3000;
/// Bytes of a question, and of its answer.
const SMALL: usize = 64;
/// Bytes that are written or read at once in a stream.
const CHUNK: usize = 128 << 10;
/// Bytes that go before those of a stream that are counted, so that its window is open.
const WARM_UP: usize = 2 << 20;
/// Answers each question with itself.
const ECHO: u8 = b'e';
/// Takes a stream, and says when it has it all.
const TAKE: u8 = b't';
/// Gives a stream.
const GIVE: u8 = b'g';

/// Serves whoever connects, one after the other.
pub(crate) fn listen() -> io::Result<()> {
    up(*LISTENS.ip())?;
    let listener = TcpListener::bind(LISTENS)?;
    println!("linux: listening");
    loop {
        let (mut peer, _) = listener.accept()?;
        if let Err(error) = serve(&mut peer) {
            println!("linux: a connection failed: {error}");
        }
    }
}

fn serve(peer: &mut TcpStream) -> io::Result<()> {
    peer.set_nodelay(true)?;
    let mut kind = [0];
    let mut count = [0; 8];
    peer.read_exact(&mut kind)?;
    peer.read_exact(&mut count)?;
    let bytes = u64::from_le_bytes(count) as usize;
    match kind[0] {
        ECHO => {
            let mut question = [0; SMALL];
            for _ in 0..bytes / SMALL {
                peer.read_exact(&mut question)?;
                peer.write_all(&question)?;
            }
            Ok(())
        }
        TAKE => take(peer, bytes).and_then(|()| peer.write_all(&kind)),
        GIVE => give(peer, bytes),
        _ => Err(io::Error::other("it says something else")),
    }
}

/// Measures so many round trips, and streams of so many bytes in each direction.
pub(crate) fn talk(rounds: usize, bytes: usize) -> io::Result<()> {
    up(TALKS)?;
    let mut peer = connect(ECHO, rounds * SMALL)?;
    let mut times = Vec::with_capacity(rounds);
    let mut answer = [0; SMALL];
    for round in 0..rounds {
        let question = [round as u8; SMALL];
        let start = ticks();
        peer.write_all(&question)?;
        peer.read_exact(&mut answer)?;
        times.push(ticks() - start);
        if answer != question {
            return Err(io::Error::other("the answer is another"));
        }
    }
    times.sort_unstable();
    println!("bench: round-trip {} {}", times[0], times[rounds / 2]);

    let mut peer = connect(TAKE, WARM_UP + bytes)?;
    give(&mut peer, WARM_UP)?;
    let start = ticks();
    give(&mut peer, bytes)?;
    peer.read_exact(&mut [0])?;
    println!("bench: bulk {bytes} {}", ticks() - start);

    let mut peer = connect(GIVE, WARM_UP + bytes)?;
    take(&mut peer, WARM_UP)?;
    let start = ticks();
    take(&mut peer, bytes)?;
    println!("bench: bulk-back {bytes} {}", ticks() - start);
    println!("linux: done");
    Ok(())
}

/// Bytes of a stream, told apart by where they are.
fn give(peer: &mut TcpStream, bytes: usize) -> io::Result<()> {
    let chunk: Vec<u8> = (0..CHUNK).map(|at| (at % 251) as u8).collect();
    let mut left = bytes;
    while left > 0 {
        let now = left.min(CHUNK);
        peer.write_all(&chunk[..now])?;
        left -= now;
    }
    Ok(())
}

fn take(peer: &mut TcpStream, bytes: usize) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let most = left.min(CHUNK);
        match peer.read(&mut chunk[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => left -= count,
        }
    }
    Ok(())
}

fn connect(kind: u8, bytes: usize) -> io::Result<TcpStream> {
    for _ in 0..PATIENCE {
        let Ok(mut peer) = TcpStream::connect(LISTENS) else {
            sleep(Duration::from_millis(10));
            continue;
        };
        peer.set_nodelay(true)?;
        peer.write_all(&[kind])?;
        peer.write_all(&(bytes as u64).to_le_bytes())?;
        return Ok(peer);
    }
    Err(io::Error::other("nobody listens"))
}

/// Whom the kernel is asked by for the settings of cards.
struct Settings(OwnedFd);

impl Settings {
    fn open() -> io::Result<Self> {
        // SAFETY: it makes a descriptor, or fails.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) };
        match socket {
            // SAFETY: it was just made, and nobody else has it.
            0.. => Ok(Self(unsafe { OwnedFd::from_raw_fd(socket) })),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn ask(&self, request: libc::c_ulong, what: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: the requests of this file read or write an `ifreq`, which this is, and what it points to.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, &raw mut *what) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Loads the modules, waits for the card, and gives it an address.
fn up(address: Ipv4Addr) -> io::Result<()> {
    mount("devtmpfs", "/dev")?;
    load_modules()?;
    let settings = Settings::open()?;
    let ask = |request, what: &mut libc::ifreq| settings.ask(request, what);
    let mut tries = 0;
    while ask(libc::SIOCGIFFLAGS, &mut request()).is_err() {
        tries += 1;
        if tries == PATIENCE {
            return Err(io::Error::other("there is no network card"));
        }
        sleep(Duration::from_millis(10));
    }
    ask(libc::SIOCSIFADDR, &mut with_address(address))?;
    ask(libc::SIOCSIFNETMASK, &mut with_address(NETMASK))?;
    let mut flags = request();
    flags.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    ask(libc::SIOCSIFFLAGS, &mut flags)
}

fn request() -> libc::ifreq {
    // SAFETY: all its bytes may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(CARD) {
        *to = *from as libc::c_char;
    }
    request
}

fn with_address(address: Ipv4Addr) -> libc::ifreq {
    let mut family_and_address = libc::sockaddr {
        sa_family: libc::AF_INET as u16,
        sa_data: [0; 14],
    };
    // It stands behind the port.
    for (to, from) in family_and_address.sa_data[2..].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    let mut request = request();
    request.ifr_ifru.ifru_addr = family_and_address;
    request
}
