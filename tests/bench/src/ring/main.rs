//! Rings beside each other in one binary: ours, `virtio-queue`, `rtrb`, and two copies of memory.
//!
//! `bench-ring count CONTENDER SIZE ROUNDS` makes so many round trips and nothing else, for callgrind to count: the difference
//! between two numbers of rounds is free of what start and end cost. `bench-ring time` takes times and prints them as JSON.
//! `cargo xtask bench ring` runs both and compares with the targets.

mod contender;
mod copies;
mod ours;
mod rtrb_ring;
mod time;
mod virtio;

use contender::Contender;
use std::hint::black_box;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["count", contender, size, rounds] => match (size, rounds.parse()) {
            ("64", Ok(rounds)) => count(contender, rounds),
            _ => usage(),
        },
        ["time"] => {
            println!("{}", time::all());
            ExitCode::SUCCESS
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: bench-ring time | bench-ring count ours|virtio-queue|rtrb|copies 64 ROUNDS");
    ExitCode::FAILURE
}

fn count(contender: &str, rounds: usize) -> ExitCode {
    match contender {
        "ours" => trips::<ours::Ours, 64>(rounds),
        "virtio-queue" => trips::<virtio::Virtio, 64>(rounds),
        "rtrb" => trips::<rtrb_ring::Rtrb, 64>(rounds),
        "copies" => trips::<copies::Copies, 64>(rounds),
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

/// So many round trips of `SIZE` bytes.
fn trips<C: Contender, const SIZE: usize>(rounds: usize) {
    let (mut writer, mut reader) = C::new();
    let (from, mut into) = ([0x5a; SIZE], [0; SIZE]);
    for _ in 0..rounds {
        C::write::<_, 1>(&mut writer, black_box(&from));
        C::read::<_, 1>(&mut reader, black_box(&mut into));
    }
    assert_eq!(from, into);
}
