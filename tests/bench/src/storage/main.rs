//! Reads of 4 KiB, from the consumer over the ring to the provider and a disk of memory, and back, on one thread.
//!
//! `bench-storage count WHAT ROUNDS` makes so many and nothing else, for callgrind to count: `reads` one after the other, `batches` of
//! 32 at once, `copies` of 4 KiB as the disk of memory makes one for each read. `cargo xtask bench storage` compares with the target.

#[path = "../../../../vsc/tests/storage/world.rs"]
mod world;

use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use vsc::block::BlockDevice;
use vsc::memory::of_heap;
use vsc::storage::{Address, Disk};
use vsc::wait;
use vsp::storage::controller::Controller;
use vsp::storage::disk::SectorSize;
use vsp::storage::ram::RamDisk;
use vsp::storage::unit::LogicalUnit;
use world::World;

/// Bytes of a read.
const SIZE: usize = 4096;
/// Sectors of the disk, 16 MiB.
const SECTORS: u64 = 32768;
/// Reads of a batch.
const BATCH: usize = 32;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let rounds = arguments.get(2).and_then(|rounds| rounds.parse().ok());
    match (arguments.as_slice(), rounds) {
        (["count", "reads", _], Some(rounds)) => reads(rounds),
        (["count", "batches", _], Some(rounds)) => batches(rounds),
        (["count", "copies", _], Some(rounds)) => copies(rounds),
        _ => {
            eprintln!("usage: bench-storage count reads|batches|copies ROUNDS");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// A guest and the disk that it has opened.
fn guest() -> (World, Disk) {
    let provider = Arc::new(Controller::new(0));
    let disk = RamDisk::new(SECTORS, SectorSize::Bytes512);
    let unit = LogicalUnit::disk(disk, uuid::Uuid::from_u128(1), "bench".to_owned());
    provider.attach(None, unit).expect("the controller is empty");
    let world = World::new(&provider);
    let controller = world.connect().expect("the provider speaks the protocol");
    let address = Address {
        path: 0,
        target: 0,
        lun: 0,
    };
    let disk = world
        .run(Disk::open(&controller, address))
        .expect("the disk is there");
    (world, disk)
}

/// The block of the read `number`.
fn block(number: usize) -> u64 {
    (number as u64 * 8) % (SECTORS - 8)
}

fn reads(rounds: usize) {
    let (world, disk) = guest();
    let buffer = Arc::new(of_heap(SIZE));
    let all = async {
        for number in 0..rounds {
            disk.read(block(number), black_box(&buffer))
                .await
                .expect("the disk reads");
        }
    };
    wait::block_on(all, || world.step());
}

fn batches(rounds: usize) {
    let (world, disk) = guest();
    let buffers: Vec<_> = (0..BATCH).map(|_| Arc::new(of_heap(SIZE))).collect();
    for round in 0..rounds / BATCH {
        let mut reads: Vec<_> = buffers
            .iter()
            .enumerate()
            .map(|(index, buffer)| Some(Box::pin(disk.read(block(round * BATCH + index), buffer))))
            .collect();
        let all = poll_fn(|context| {
            for read in &mut reads {
                if let Some(running) = read
                    && let Poll::Ready(result) = running.as_mut().poll(context)
                {
                    result.expect("the disk reads");
                    *read = None;
                }
            }
            match reads.iter().all(Option::is_none) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        wait::block_on(all, || world.step());
    }
}

/// What the disk of memory copies for each read.
fn copies(rounds: usize) {
    let from = vec![0x5a; SIZE];
    let buffer = vsp::buffer::owned(SIZE);
    for _ in 0..rounds {
        buffer
            .copy_from(0, black_box(&from))
            .expect("the buffer is large enough");
    }
}
