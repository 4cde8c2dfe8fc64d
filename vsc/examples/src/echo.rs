//! A channel of one's own, the guest's end: opens the echo device twice, has packets of many sizes come back, and closes it. The
//! host's end is `root-partition/src/vm/bus/echo.rs`.
//!
//! What a driver of one's own needs is all here: find the offer, open the channel, write packets and signal where the ring says so,
//! read packets when the interrupt has come, drop the handle.
//!
//! Lines that tests may wait for: `echo: version …`, `echo: round N: …` and at the end `echo: done`, after which it powers off. With
//! `forever` on the command line it keeps the channel busy for good, and says `echo: N packets` now and then.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use hypercall_api::id::VpIndex;
use vmbus::protocol::body::OPEN_USER_DATA;
use vmbus::protocol::guid::class;
use vmbus::ring::{Channel, PacketFlags, RingError};
use vsc::bus::{Bus, BusError, ChannelHandle, Interrupt, RingPages};
use vsc_runtime::boot::BootInfo;
use vsc_runtime::hal::Kernel;
use vsc_runtime::memory::heap::{self, Heap};
use vsc_runtime::println;

#[global_allocator]
static HEAP: Heap = heap::new();

vsc_runtime::guest_main!(main);

/// Times that the channel is opened.
const ROUNDS: usize = 2;
/// Packets of a round.
const PACKETS: u64 = 500;
/// Packets that are under way at once.
const AT_ONCE: u64 = 16;
/// Longest packet.
const LONGEST: usize = 3000;
/// Packets between two lines of a guest that echoes for ever.
const LINE: u64 = 1000;

/// Why it ends early.
#[derive(Debug, thiserror::Error)]
enum EchoError {
    #[error("there is no echo device")]
    NoDevice,
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("packet {0} came back changed")]
    Changed(u64),
    #[error("the device is gone")]
    Gone,
}

fn main(boot: &BootInfo) {
    let Some(kernel) = Kernel::new() else {
        println!("echo: not under Partita");
        return;
    };
    let result = Bus::new(kernel)
        .map_err(EchoError::from)
        .and_then(|bus| run(&bus, boot));
    match result {
        Ok(()) => println!("echo: done"),
        Err(error) => println!("echo: failed: {error}"),
    }
}

fn run(bus: &Bus<Kernel>, boot: &BootInfo) -> Result<(), EchoError> {
    println!("echo: version {}", bus.block_on(bus.connect())?);
    let packets = if boot.has_option("forever") {
        u64::MAX
    } else {
        PACKETS
    };
    for round in 1..=ROUNDS {
        let echo = Echo::open(bus)?;
        let bytes = echo.exchange(packets)?;
        println!("echo: round {round}: {packets} packets, {bytes} bytes came back");
    }
    Ok(())
}

/// Whether the host has signalled, and whether the device is there.
#[derive(Default)]
struct Line {
    signalled: AtomicBool,
    gone: AtomicBool,
}

impl Interrupt for Line {
    fn interrupt(&self) -> bool {
        self.signalled.store(true, Ordering::Release);
        false
    }

    fn gone(&self) {
        self.gone.store(true, Ordering::Release);
    }
}

/// The open channel. Dropping it closes the channel.
struct Echo {
    rings: Channel,
    handle: ChannelHandle<Kernel>,
    line: Arc<Line>,
}

impl Echo {
    fn open(bus: &Bus<Kernel>) -> Result<Self, EchoError> {
        let offered = bus.find(class::ECHO).ok_or(EchoError::NoDevice)?;
        let opening = bus.open(&offered, RingPages::both(4), VpIndex(0), &[0; OPEN_USER_DATA]);
        let (rings, handle) = bus.block_on(opening)?;
        let line = Arc::new(Line::default());
        handle.listen(&line);
        Ok(Self { rings, handle, line })
    }

    /// Sends packets, has them come back in their order, and returns their bytes.
    fn exchange(mut self, packets: u64) -> Result<u64, EchoError> {
        let (mut sent, mut back, mut bytes) = (0, 0, 0);
        while back < packets {
            while sent < packets && sent - back < AT_ONCE && self.send(sent)? {
                sent += 1;
            }
            match self.receive(back)? {
                Some(size) => {
                    bytes += size as u64;
                    back += 1;
                    if back % LINE == 0 {
                        println!("echo: {back} packets");
                    }
                }
                None => self.wait()?,
            }
        }
        Ok(bytes)
    }

    /// Sends packet `number`; every other one wants a completion. False where it does not fit now.
    fn send(&mut self, number: u64) -> Result<bool, EchoError> {
        let flags = match number % 2 {
            0 => PacketFlags::empty(),
            _ => PacketFlags::COMPLETION_REQUESTED,
        };
        match self.rings.outgoing.send(number, flags, &[&contents(number)]) {
            Ok(signal) => {
                if signal.is_needed() {
                    self.handle.signal();
                }
                Ok(true)
            }
            Err(RingError::Full { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Receives packet `number`, if it is there, and returns its size. Payloads come padded to 8 bytes.
    fn receive(&mut self, number: u64) -> Result<Option<usize>, EchoError> {
        let mut batch = self.rings.incoming.batch();
        let Some(packet) = batch.next()? else {
            return Ok(None);
        };
        let expected = contents(number);
        let mut found = alloc::vec![0; packet.payload_size()];
        packet.copy_most(&mut found);
        if packet.transaction() != number || found.get(..expected.len()) != Some(&expected[..]) {
            return Err(EchoError::Changed(number));
        }
        if batch.finish().is_needed() {
            self.handle.signal();
        }
        Ok(Some(expected.len()))
    }

    /// Waits for the host's signal.
    fn wait(&self) -> Result<(), EchoError> {
        let bus = self.handle.bus();
        let line = &self.line;
        bus.block_on(core::future::poll_fn(|context| {
            if line.signalled.swap(false, Ordering::AcqRel) || line.gone.load(Ordering::Acquire) {
                return core::task::Poll::Ready(());
            }
            // Looked at after each poll of the bus.
            context.waker().wake_by_ref();
            core::task::Poll::Pending
        }));
        match line.gone.load(Ordering::Acquire) {
            true => Err(EchoError::Gone),
            false => Ok(()),
        }
    }
}

/// What packet `number` holds: its size differs from its neighbours', and so do its bytes.
fn contents(number: u64) -> Vec<u8> {
    let size = (number.wrapping_mul(797) % LONGEST as u64) as usize;
    (0..size).map(|index| (index as u64 ^ number) as u8).collect()
}
