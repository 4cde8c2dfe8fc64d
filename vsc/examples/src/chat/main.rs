//! Two guests that talk to each other: one listens, the other pings it, and exchanges datagrams and streams with it, both ways.
//!
//! The one that listens echoes datagrams and streams (port 7), swallows streams and says how much came (port 9), and sends as much as it
//! is asked for (port 19). Every byte is compared with what it should be. It ends when it gets the datagram `bye`.
//!
//! Lines that tests may wait for: `chat: address …`, `chat: ping: …`, `chat: udp: …`, `chat: tcp: …`, `chat: there: …`, `chat: back: …`,
//! and at the end `chat: done`, after which it powers off. Words on the command line, beside those of [`net`]:
//!
//! | word | what it does |
//! |---|---|
//! | `listen` | is the one that listens |
//! | `peer=10.0.0.1` | talks to the guest there |
//! | `bulk=4194304` | bytes of the streams |
//! | `patience=60` | seconds that the other may be silent |
//! | `bench` | measures round trips and streams in TSC ticks, and compares no bytes |
//! | `flood` | sends small frames to everybody, as many as the card takes, for good |
//! | `pretend` | sends to everybody what only DHCP servers and routers send, for good |
//! | `rounds=101` | round trips that are measured |
//! | `stay` | goes on listening after `bye`; or says `chat: staying` and does not say `bye` |
#![no_std]
#![no_main]

extern crate alloc;

mod listen;
#[path = "../net.rs"]
mod net;
mod pattern;
mod talk;

use core::sync::atomic::Ordering;
use net::{Net, NetError};
use vsc_runtime::boot::BootInfo;
use vsc_runtime::memory::heap::{self, Heap};
use vsc_runtime::println;

#[global_allocator]
static HEAP: Heap = heap::new();

vsc_runtime::guest_main!(main);

/// Ports, as RFC 862 to 864 have them.
const ECHO: u16 = 7;
const DISCARD: u16 = 9;
const GENERATE: u16 = 19;
/// Bytes that a socket holds in each direction.
const BUFFER: usize = 512 << 10;

/// Why it ends early.
#[derive(Debug, thiserror::Error)]
enum ChatError {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("say 'listen' or 'peer=ADDRESS' on the command line")]
    NoPeer,
    #[error("the other is silent: {0}")]
    Silent(&'static str),
    #[error("byte {0} is not what it should be")]
    Changed(u64),
    #[error("the other says that {came} of {sent} bytes came, and {wrong} were wrong")]
    Lost { sent: u64, came: u64, wrong: u64 },
}

fn main(boot: &BootInfo) {
    let result = Net::open("chat", boot)
        .map_err(ChatError::from)
        .and_then(|mut net| {
            let result = match boot.has_option("listen") {
                true => listen::run(&mut net, boot),
                false => talk::run(&mut net, boot),
            };
            report(&net);
            result
        });
    match result {
        Ok(()) => println!("chat: done"),
        Err(error) => println!("chat: failed: {error}"),
    }
}

/// Says what went through the card.
fn report(net: &Net) {
    if let Some(counters) = net.card().counters() {
        println!(
            "chat: {} frames sent, {} received, {} bad messages, {} bad checksums, {} without room",
            counters.sent.load(Ordering::Relaxed),
            counters.received.load(Ordering::Relaxed),
            counters.bad_messages.load(Ordering::Relaxed),
            counters.bad_checksums.load(Ordering::Relaxed),
            counters.no_room.load(Ordering::Relaxed),
        );
    }
}
