//! A card made of memory, for tests on the host: it reads and writes the rings by the addresses that it is given, as a device
//! does, and cuts and completes frames as the datasheet says.
#![allow(unsafe_code)]

use super::hardware::Hardware;
use super::registers::{
    CTRL, CTRL_RESET, ICR, IMC, IMS, RAH, RAL, RDBA, RDLEN, RDT, STATUS, TDBA, TDLEN, TDT, WINDOW,
};
use crate::drivers::pci::device;
use core::future::Future;
use core::ops::Range;
use spin::Mutex;
use std::collections::BTreeMap;

/// What the card does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Fault {
    #[default]
    None,
    /// A reset never ends.
    StuckReset,
    /// It answers nothing.
    Gone,
    /// It has no address.
    NoAddress,
}

#[derive(Default)]
struct Device {
    registers: BTreeMap<u64, u32>,
    fault: Fault,
    cut_off: bool,
    head: usize,
    sent: usize,
    mask: u32,
}

/// The fake.
pub(super) struct FakeHardware(Mutex<Device>);

/// The address of the card.
pub(super) const ADDRESS: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

impl FakeHardware {
    pub(super) fn new(fault: Fault) -> Self {
        let mut device = Device {
            fault,
            ..Device::default()
        };
        if fault != Fault::NoAddress {
            device.registers.insert(RAL, 0x1200_5452);
            device.registers.insert(RAH, 0x8000_5634);
        }
        device.registers.insert(STATUS, 0x82);
        Self(Mutex::new(device))
    }

    pub(super) fn set(&self, register: u64, value: u32) {
        self.0.lock().registers.insert(register, value);
    }

    pub(super) fn break_down(&self, fault: Fault) {
        self.0.lock().fault = fault;
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.0.lock().cut_off
    }

    pub(super) fn mask(&self) -> u32 {
        self.0.lock().mask
    }

    /// Writes a descriptor's part and what is said of it: bytes, the length that is told, status and errors.
    pub(super) fn receive_part(&self, bytes: &[u8], length: u16, state: u16) -> bool {
        let mut device = self.0.lock();
        let entries = (device.get(RDLEN) / 16) as usize;
        if device.head == device.get(RDT) as usize {
            return false;
        }
        let at = device.address(RDBA) + device.head as u64 * 16;
        let buffer = read_u64(at);
        bytes
            .iter()
            .enumerate()
            .for_each(|(offset, &byte)| write(buffer + offset as u64, byte));
        write(at + 8, length);
        write(at + 12, state);
        device.head = (device.head + 1) % entries;
        true
    }

    /// A whole frame comes, in as many parts as it needs, with `state` beside it.
    pub(super) fn receive(&self, frame: &[u8], state: u16) -> bool {
        let parts = frame.chunks(2048);
        let last = parts.len() - 1;
        parts.enumerate().all(|(number, part)| {
            let end = if number == last { 3 | state } else { 1 };
            self.receive_part(part, part.len() as u16, end)
        })
    }

    /// Sends what is in the ring; returns the frames as they are on the wire.
    pub(super) fn send(&self) -> Vec<Vec<u8>> {
        let mut device = self.0.lock();
        let entries = (device.get(TDLEN) / 16) as usize;
        let (mut context, mut frame, mut frames) = ([0; 2], Vec::new(), Vec::new());
        while device.sent != device.get(TDT) as usize {
            let at = device.address(TDBA) + device.sent as u64 * 16;
            let [first, second] = [read_u64(at), read_u64(at + 8)];
            let is_data = second >> 20 & 0xf == 1;
            assert!(second & 1 << 29 != 0, "descriptors are extended ones");
            if is_data {
                let length = second & 0xf_ffff;
                assert!(length <= 2048);
                frame.extend((0..length).map(|offset| read(first + offset)));
                if second & 1 << 24 != 0 {
                    complete(core::mem::take(&mut frame), context, second, &mut frames);
                    context = [0; 2];
                }
            } else {
                context = [first, second];
            }
            if second & 1 << 27 != 0 {
                write(at + 12, (second >> 32) as u32 | 1);
            }
            device.sent = (device.sent + 1) % entries;
        }
        frames
    }
}

/// Does with a frame what its descriptors say.
fn complete(frame: Vec<u8>, [places, command]: [u64; 2], data: u64, frames: &mut Vec<Vec<u8>>) {
    let options = data >> 40 & 3;
    let (ip, transport, checksum) = (
        places as usize & 0xff,
        (places >> 32) as usize & 0xff,
        (places >> 40) as usize & 0xff,
    );
    if data & 1 << 26 == 0 {
        let mut frame = frame;
        if options & 2 != 0 {
            fill(&mut frame, transport, checksum);
        }
        frames.push(frame);
        return;
    }
    let (payload, headers, mss) = (
        command as usize & 0xf_ffff,
        (command >> 40) as usize & 0xff,
        (command >> 48) as usize,
    );
    assert_eq!(frame.len(), headers + payload);
    let ipv4 = command & 1 << 25 != 0;
    for (number, part) in frame[headers..].chunks(mss).enumerate() {
        let mut segment = [&frame[..headers], part].concat();
        let length = segment.len();
        if ipv4 {
            put(&mut segment, ip + 2, (length - ip) as u16);
            fill(&mut segment[..transport], ip, ip + 10);
        } else {
            put(&mut segment, ip + 4, (length - ip - 40) as u16);
        }
        let sequence = u32::from_be_bytes(frame[transport + 4..transport + 8].try_into().unwrap());
        let sequence = sequence.wrapping_add((number * mss) as u32);
        segment[transport + 4..transport + 8].copy_from_slice(&sequence.to_be_bytes());
        // The sum of the pseudo header lacks the length.
        let seed = u16::from_be_bytes([segment[checksum], segment[checksum + 1]]);
        let sum = u32::from(seed) + (length - transport) as u32;
        put(&mut segment, checksum, (sum & 0xffff) as u16 + (sum >> 16) as u16);
        fill(&mut segment, transport, checksum);
        frames.push(segment);
    }
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Puts the checksum of the bytes from `from` on, what lies at its place included, to `at`.
fn fill(bytes: &mut [u8], from: usize, at: usize) {
    let sum = ones_sum(&bytes[from..]);
    put(bytes, at, !sum);
}

/// The one's complement sum of 16-bit words.
pub(super) fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

impl Device {
    fn get(&self, register: u64) -> u32 {
        self.registers.get(&register).copied().unwrap_or(0)
    }

    fn address(&self, register: u64) -> u64 {
        u64::from(self.get(register)) | u64::from(self.get(register + 4)) << 32
    }
}

impl device::Device for FakeHardware {
    fn window(&self) -> u64 {
        WINDOW
    }

    fn read(&self, offset: u64) -> u32 {
        let mut device = self.0.lock();
        match (device.fault, offset) {
            (Fault::Gone, _) => u32::MAX,
            (_, ICR) => device.registers.remove(&ICR).unwrap_or(0),
            _ => device.get(offset),
        }
    }

    fn write(&self, offset: u64, value: u32) {
        let mut device = self.0.lock();
        match offset {
            IMS => device.mask |= value,
            IMC => device.mask &= !value,
            CTRL if value & CTRL_RESET != 0 => {
                (device.head, device.sent) = (0, 0);
                let stuck = device.fault == Fault::StuckReset;
                let value = if stuck { value } else { value & !CTRL_RESET };
                device.registers.insert(CTRL, value);
            }
            _ => _ = device.registers.insert(offset, value),
        }
    }

    fn cut_off(&self) {
        self.0.lock().cut_off = true;
    }
}

impl Hardware for FakeHardware {
    fn sleep_a_millisecond(&self) -> impl Future<Output = ()> + Send {
        core::future::ready(())
    }
}

fn read(address: u64) -> u8 {
    // SAFETY: the address is one that the driver gave to the card, of memory that it keeps.
    unsafe { (address as *const u8).read_volatile() }
}

fn read_u64(address: u64) -> u64 {
    let bytes: Range<u64> = address..address + 8;
    u64::from_le_bytes(bytes.map(read).collect::<Vec<_>>().try_into().unwrap())
}

fn write<T>(address: u64, value: T) {
    // SAFETY: as for `read`, and aligned as descriptors are.
    unsafe { (address as *mut T).write_volatile(value) };
}
