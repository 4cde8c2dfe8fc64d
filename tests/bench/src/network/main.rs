//! Small frames on the host, on one thread: from the driver of a card over the ring and the provider to the switch, and from there to a
//! driver; and through the switch alone.
//!
//! `bench-network count WHAT ROUNDS` sends so many and does nothing else, for callgrind to count: `there` from a guest to a port that
//! drops, `back` from a port to a guest, `across` from guest to guest, `switch` from port to port. `cargo xtask bench net` compares with
//! the targets.

#[path = "../../../../vsc/tests/network/world.rs"]
mod world;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use vmbus::protocol::network::Mac;
use vsc::network::{Beside, Card, Settings};
use vsp::network::wire::NoRoom;
use vsp::network::{Endpoint, Frame};
use vsp::switch::port::{PortId, PortSettings};
use world::{World, mac, up};

/// Bytes of a frame.
const SIZE: usize = 64;
/// Frames that are sent before the other side has its turn.
const BATCH: usize = 8;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let rounds = arguments.get(2).and_then(|rounds| rounds.parse().ok());
    match (arguments.as_slice(), rounds) {
        (["count", "there", _], Some(rounds)) => there(rounds),
        (["count", "back", _], Some(rounds)) => back(rounds),
        (["count", "across", _], Some(rounds)) => across(rounds),
        (["count", "switch", _], Some(rounds)) => switch(rounds),
        _ => {
            eprintln!("usage: bench-network count there|back|across|switch ROUNDS");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Drops what comes.
struct Sink;

impl Endpoint for Sink {
    fn deliver(&self, frame: &Frame<'_>, _: Option<u16>, _: bool) -> Result<(), NoRoom> {
        black_box(frame.length);
        Ok(())
    }
}

fn frame(to: Mac, from: Mac) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[..6].copy_from_slice(&to.0);
    bytes[6..12].copy_from_slice(&from.0);
    (bytes[12], bytes[13]) = (0x88, 0xb5);
    bytes
}

/// Adds a port that drops, and has the switch know of its address.
fn sink(world: &World, number: u8) -> PortId {
    let port = world
        .wire
        .attach(PortSettings::guest(mac(number)), Arc::new(Sink))
        .expect("the switch has room");
    let hello = frame(Mac::BROADCAST, mac(number));
    world.wire.transmit(port, &Frame::of_bytes(&hello), 0);
    port
}

fn receive(card: &Card, bytes: &mut [u8]) -> usize {
    let mut count = 0;
    while let Ok(Some(received)) = card.receive(0, bytes) {
        black_box(received.length);
        count += 1;
    }
    count
}

fn there(rounds: usize) {
    let (world, [card]) = up([Settings::default()]);
    sink(&world, 9);
    let mut bytes = frame(mac(9), mac(1));
    for _ in 0..rounds / BATCH {
        for _ in 0..BATCH {
            card.send(0, black_box(&mut bytes), &Beside::default())
                .expect("there is room");
        }
        world.step();
    }
}

fn back(rounds: usize) {
    let (world, [card]) = up([Settings::default()]);
    let port = sink(&world, 9);
    let bytes = frame(mac(1), mac(9));
    let mut place = vec![0; card.largest_frame()];
    receive(&card, &mut place);
    let mut came = 0;
    for _ in 0..rounds / BATCH {
        for _ in 0..BATCH {
            world.wire.transmit(port, &Frame::of_bytes(black_box(&bytes)), 0);
        }
        world.step();
        came += receive(&card, &mut place);
    }
    assert_eq!(came, rounds / BATCH * BATCH);
}

fn across(rounds: usize) {
    let (world, [one, two]) = up([Settings::default(); 2]);
    let mut bytes = frame(mac(2), mac(1));
    let mut place = vec![0; two.largest_frame()];
    let mut came = 0;
    for _ in 0..rounds / BATCH {
        for _ in 0..BATCH {
            one.send(0, black_box(&mut bytes), &Beside::default())
                .expect("there is room");
        }
        world.step();
        came += receive(&two, &mut place);
    }
    assert_eq!(came, rounds / BATCH * BATCH);
}

fn switch(rounds: usize) {
    let world = World::new(&[]);
    let (from, _) = (sink(&world, 8), sink(&world, 9));
    let bytes = frame(mac(9), mac(8));
    for _ in 0..rounds {
        world.wire.transmit(from, &Frame::of_bytes(black_box(&bytes)), 0);
    }
}
