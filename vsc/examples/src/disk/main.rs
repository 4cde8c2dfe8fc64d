//! Disks: lists the units of the SCSI controller and their partitions, checks a file, and proves that what was flushed is there after a
//! restart.
//!
//! The file is a whole read-only disk, as `source = "archive:FILE"` gives one: its CRC-32, zeroes up to the last sector's end
//! included. On the first disk that can be written, the guest makes a partition table if the disk begins with none, and in a partition of
//! its own kind it writes a pattern and a record of it, flushes, and resets the machine. When it finds the record again, it compares the
//! pattern, takes the record away, and is done. It writes nowhere else.
//!
//! Lines that tests may wait for: `disk: A:B:C is …`, `disk: A:B:C partition N: …`, `disk: A:B:C has CRC-32 …`, `disk: written`,
//! `disk: verified`, and at the end `disk: done`, after which it powers off. Words on the command line:
//!
//! | word | what it does |
//! |---|---|
//! | `off` | powers off after writing, instead of resetting |
//! | `read-only` | writes nothing |
//! | `channels` | opens as many channels as the host gives |
//! | `watch` | writes nothing, and says what there is whenever that has changed, for good: `disk: change N` |
//! | `sweep` | reads all of every disk, says what cannot be read, and goes on behind it: `disk: A:B:C swept: N pieces, M failed` |
//! | `load` | writes and reads all over the first disk, many requests at once, for good: `disk: load on A:B:C` |
//! | `chatter` | with `load`: says so after each 16 requests, `disk: round N on A:B:C` |
//! | `media` | says what is in the first DVD drive whenever that has changed, for good: `disk: A:B:C holds …`, `disk: A:B:C is empty` |
#![no_std]
#![no_main]

extern crate alloc;

mod load;
mod media;
mod record;

use alloc::sync::Arc;
use alloc::vec;
use record::Step;
use vmbus::protocol::guid::class;
use vsc::block::{BlockDevice, Blocking};
use vsc::bus::{Bus, BusError};
use vsc::checksum::Crc32;
use vsc::memory::Buffer;
use vsc::partition::{self, Partition, TableError};
use vsc::storage::{self, Controller, DeviceType, Disk, Found, Settings, StorageError};
use vsc_runtime::boot::BootInfo;
use vsc_runtime::hal::Kernel;
use vsc_runtime::memory::heap::{self, Heap};
use vsc_runtime::println;

#[global_allocator]
static HEAP: Heap = heap::new();

vsc_runtime::guest_main!(main);

/// Bytes that are read at once for a checksum.
const AT_ONCE: usize = 256 << 10;

/// Why it ends early.
#[derive(Debug, thiserror::Error)]
enum DiskError {
    #[error("there is no SCSI controller")]
    NoController,
    #[error("there is no DVD drive")]
    NoDrive,
    #[error("there is not enough memory")]
    NoMemory,
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Table(#[from] TableError<StorageError>),
    #[error("{0}")]
    Blocking(#[from] vsc::block::BlockingError<StorageError>),
    #[error("byte {0} of the pattern is not what was written")]
    Changed(usize),
    #[error("its partition table has no partition for this, and is not touched")]
    NotOurs,
}

fn main(boot: &BootInfo) {
    let Some(kernel) = Kernel::new() else {
        println!("disk: not under Partita");
        return;
    };
    let result = Bus::new(kernel)
        .map_err(DiskError::from)
        .and_then(|bus| run(&bus, boot));
    match result {
        Ok(()) => println!("disk: done"),
        Err(error) => println!("disk: failed: {error}"),
    }
}

fn run(bus: &Bus<Kernel>, boot: &BootInfo) -> Result<(), DiskError> {
    bus.block_on(bus.connect())?;
    let offered = bus.find(class::SCSI).ok_or(DiskError::NoController)?;
    let channels = if boot.has_option("channels") { u16::MAX } else { 1 };
    let settings = Settings {
        channels,
        ..Settings::default()
    };
    let controller = bus.block_on(storage::open(bus, &offered, settings))?;
    println!("disk: {} channels", controller.channels());
    if boot.has_option("watch") {
        return watch(bus, &controller);
    }
    if boot.has_option("media") {
        return media::watch(bus, &controller);
    }
    let mut writable = None;
    for found in bus.block_on(controller.scan())? {
        let disk = show(bus, &controller, &found)?;
        if boot.has_option("sweep") {
            load::sweep(bus, &disk)?;
        } else if disk.geometry().read_only {
            checksum(bus, &disk)?;
        } else {
            writable = writable.or(Some(disk));
        }
    }
    match writable.filter(|_| !boot.has_option("read-only")) {
        Some(disk) if boot.has_option("load") => load::run(bus, disk, boot.has_option("chatter")),
        Some(disk) => write_or_verify(bus, disk, boot),
        None => Ok(()),
    }
}

/// Says what there is, again and again.
fn watch(bus: &Bus<Kernel>, controller: &Arc<Controller>) -> Result<(), DiskError> {
    let mut change = 0;
    loop {
        for found in bus.block_on(controller.scan())? {
            show(bus, controller, &found)?;
        }
        println!("disk: change {change}");
        change = bus.block_on(controller.changed(change))?;
    }
}

/// Says what a unit is, and what partitions it has.
fn show(bus: &Bus<Kernel>, controller: &Arc<Controller>, found: &Found) -> Result<Disk, DiskError> {
    let disk = bus.block_on(Disk::open(controller, found.address))?;
    let geometry = disk.geometry();
    let kind = match found.device_type {
        DeviceType::DVD => ", a DVD",
        _ if geometry.read_only => ", read-only",
        _ => "",
    };
    println!(
        "disk: {} is {} {}: {} blocks of {} bytes{kind}",
        found.address, found.vendor, found.product, geometry.blocks, geometry.block_size
    );
    match bus.block_on(partition::read(&disk, allocate(bus))) {
        Ok(partitions) => {
            for Partition {
                number,
                first,
                blocks,
                name,
                ..
            } in partitions
            {
                println!(
                    "disk: {} partition {number}: {blocks} blocks from {first} on, '{name}'",
                    found.address
                );
            }
        }
        Err(error) => println!("disk: {}: {error}", found.address),
    }
    Ok(disk)
}

/// Says what the checksum of all of a disk is.
fn checksum(bus: &Bus<Kernel>, disk: &Disk) -> Result<(), DiskError> {
    let sum = checksum_of(bus, disk)?;
    println!("disk: {} has CRC-32 {sum:08x}", disk.address());
    Ok(())
}

fn checksum_of(bus: &Bus<Kernel>, disk: &Disk) -> Result<u32, DiskError> {
    let geometry = disk.geometry();
    let mut sum = Crc32::new();
    let mut copy = vec![0; AT_ONCE];
    let at_once = (AT_ONCE as u64) / u64::from(geometry.block_size);
    let mut block = 0;
    while block < geometry.blocks {
        let count = at_once.min(geometry.blocks - block);
        let length = (count * u64::from(geometry.block_size)) as usize;
        let buffer = Arc::new(allocate(bus)(length).ok_or(DiskError::NoMemory)?);
        bus.block_on(disk.read(block, &buffer))?;
        let bytes = copy.get_mut(..length).ok_or(DiskError::NoMemory)?;
        buffer.copy_to(0, bytes).map_err(|_| DiskError::NoMemory)?;
        sum.add(bytes);
        block += count;
    }
    Ok(sum.value())
}

/// Writes the pattern, or finds it as it was written before.
fn write_or_verify(bus: &Bus<Kernel>, disk: Disk, boot: &BootInfo) -> Result<(), DiskError> {
    let address = disk.address();
    let place = record::place(bus, &disk)?;
    let mut disk = Blocking::new(bus, disk, AT_ONCE).ok_or(DiskError::NoMemory)?;
    match record::step(&mut disk, &place)? {
        Step::Written { bytes } => {
            println!("disk: written: {bytes} bytes to {address}, flushed");
            if !boot.has_option("off") {
                vsc_runtime::power::reset();
            }
        }
        Step::Verified { bytes } => println!("disk: verified: {bytes} bytes on {address}"),
    }
    Ok(())
}

fn allocate(bus: &Bus<Kernel>) -> impl Fn(usize) -> Option<Buffer> + '_ {
    |length| Buffer::allocate(bus.hal(), length)
}
