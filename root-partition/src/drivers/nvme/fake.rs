//! A controller made of memory, for tests on the host: it reads commands and writes completions by the addresses that it
//! is given, as a device does. Time passes by polling: a sleep is over the second time it is looked at.
#![allow(unsafe_code)]

use super::command::{COMMAND, COMPLETION, Command, Range, Status};
use super::controller::Controller;
use super::hardware::Hardware;
use super::registers::{ACQ, AQA, ASQ, CAP, CC, CSTS, DOORBELLS, VS};
use crate::drivers::pci::device;
use core::cell::Cell;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use spin::Mutex;
use std::collections::{BTreeMap, VecDeque};
use zerocopy::{FromBytes, IntoBytes};

/// What it does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Fault {
    #[default]
    None,
    /// I/O commands are not completed, unless aborted.
    Swallow,
    /// Neither are aborts of use.
    SwallowForGood,
    /// I/O commands are not completed until the next reset.
    SwallowOnce,
    /// I/O completions come twice, and with ids out of nowhere between them.
    Babble,
    /// I/O commands end with this status.
    Refuse(Status),
    /// It never becomes disabled.
    Stuck,
    /// It never becomes ready.
    NeverReady,
    /// It answers nothing any more.
    Gone,
}

/// Settings of the fake.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) fault: Fault,
    pub(super) mdts: u8,
    pub(super) pairs: u16,
    pub(super) entries: u16,
    pub(super) window: u64,
    pub(super) shift: u8,
    pub(super) sectors: u64,
    pub(super) write_cache: bool,
    /// Commands are done in the order of their ids' low bits, not as they come.
    pub(super) shuffles: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fault: Fault::None,
            mdts: 5,
            pairs: 8,
            entries: 64,
            window: 0x2000,
            shift: 9,
            sectors: 1 << 12,
            write_cache: true,
            shuffles: false,
        }
    }
}

#[derive(Default)]
struct Queue {
    address: u64,
    entries: u16,
    head: u16,
    tail: u16,
}

struct Device {
    settings: Settings,
    registers: BTreeMap<u64, u32>,
    submission: BTreeMap<u16, Queue>,
    completion: BTreeMap<u16, (Queue, bool)>,
    waiting: Vec<(u16, Command)>,
    medium: Vec<u8>,
    log: VecDeque<Command>,
}

/// The fake. Its device works when [`FakeHardware::work`] is called.
pub(super) struct FakeHardware {
    device: Mutex<Device>,
    time: Mutex<u64>,
    pub(super) processor: Mutex<usize>,
    pub(super) cut_off: Mutex<bool>,
    window: u64,
}

impl FakeHardware {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            device: Mutex::new(Device {
                medium: vec![0; (settings.sectors << settings.shift) as usize],
                settings,
                registers: BTreeMap::new(),
                submission: BTreeMap::new(),
                completion: BTreeMap::new(),
                waiting: Vec::new(),
                log: VecDeque::new(),
            }),
            time: Mutex::new(0),
            processor: Mutex::new(0),
            cut_off: Mutex::new(false),
            window: settings.window,
        }
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.device.lock().settings);
    }

    /// The I/O commands that it has got so far.
    pub(super) fn commands(&self) -> Vec<Command> {
        self.device.lock().log.iter().copied().collect()
    }

    pub(super) fn medium<T>(&self, look: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        look(&mut self.device.lock().medium)
    }

    /// Lets the device do what it has been told.
    pub(super) fn work(&self) {
        if !*self.cut_off.lock() {
            self.device.lock().work();
        }
    }
}

impl device::Device for FakeHardware {
    fn window(&self) -> u64 {
        self.window
    }

    fn read(&self, offset: u64) -> u32 {
        assert!(offset + 4 <= self.window && offset.is_multiple_of(4));
        self.device.lock().read(offset)
    }

    fn write(&self, offset: u64, value: u32) {
        assert!(offset + 4 <= self.window && offset.is_multiple_of(4));
        self.device.lock().write(offset, value);
    }

    fn cut_off(&self) {
        *self.cut_off.lock() = true;
    }
}

impl Hardware for FakeHardware {
    fn now(&self) -> u64 {
        *self.time.lock()
    }

    fn sleep(&self, ticks: u64) -> impl Future<Output = ()> + Send {
        let mut polled = false;
        poll_fn(move |_| {
            if core::mem::replace(&mut polled, true) {
                *self.time.lock() += ticks;
                return Poll::Ready(());
            }
            Poll::Pending
        })
    }

    fn processor(&self) -> usize {
        *self.processor.lock()
    }
}

/// Runs `future` while the device works and its interrupts come.
pub(super) fn run<T>(controller: &Controller<FakeHardware>, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..200_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
        controller.hardware.work();
        (0..=controller.pairs().len()).for_each(|line| controller.interrupt(line));
    }
    panic!("the future does not end");
}

/// Polls `future` once.
pub(super) fn poll_once<T>(future: core::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

impl Device {
    fn read(&self, offset: u64) -> u32 {
        if self.settings.fault == Fault::Gone {
            return u32::MAX;
        }
        match offset {
            CAP => u32::from(self.settings.entries - 1) | 1 << 16 | 20 << 24,
            4 => 1 << 5,
            VS => 0x1_0400,
            _ => self.registers.get(&offset).copied().unwrap_or(0),
        }
    }

    fn write(&mut self, offset: u64, value: u32) {
        match offset {
            CC => self.configure(value),
            DOORBELLS.. => self.doorbell((offset - DOORBELLS) / 4, value as u16),
            _ => drop(self.registers.insert(offset, value)),
        }
    }

    fn configure(&mut self, value: u32) {
        let was = self.registers.insert(CC, value).unwrap_or(0);
        let fault = self.settings.fault;
        if value & 1 == 0 && fault != Fault::Stuck {
            self.registers.insert(CSTS, 0);
            self.submission.clear();
            self.completion.clear();
            self.waiting.clear();
            if fault == Fault::SwallowOnce {
                self.settings.fault = Fault::None;
            }
        }
        if value & 1 != 0 && was & 1 == 0 && fault != Fault::NeverReady {
            self.registers.insert(CSTS, 1);
            let sizes = self.read(AQA);
            let address =
                |device: &Self, at| u64::from(device.read(at + 4)) << 32 | u64::from(device.read(at));
            let queue = |address, entries: u32| Queue {
                address,
                entries: entries as u16 + 1,
                ..Queue::default()
            };
            let submission = queue(address(self, ASQ), sizes & 0xfff);
            let completion = queue(address(self, ACQ), sizes >> 16);
            self.submission.insert(0, submission);
            self.completion.insert(0, (completion, true));
        }
        if value >> 14 & 3 == 1 {
            self.registers.insert(CSTS, 1 | 2 << 2);
        }
    }

    fn doorbell(&mut self, number: u64, value: u16) {
        let queue = (number / 2) as u16;
        if number.is_multiple_of(2) {
            let queue = self.submission.get_mut(&queue).expect("a queue that was made");
            assert!(
                value < queue.entries,
                "the doorbell says {value} of {}",
                queue.entries
            );
            queue.tail = value;
        } else {
            let (queue, _) = self.completion.get_mut(&queue).expect("a queue that was made");
            assert!(value < queue.entries);
            queue.head = value;
        }
    }

    fn work(&mut self) {
        if self.settings.fault == Fault::Gone {
            return;
        }
        let ids: Vec<u16> = self.submission.keys().copied().collect();
        for id in ids {
            while let Some(command) = self.fetch(id) {
                self.waiting.push((id, command));
                if id != 0 {
                    self.log.push_back(command);
                }
            }
        }
        let mut waiting = core::mem::take(&mut self.waiting);
        if self.settings.shuffles {
            waiting.sort_by_key(|(_, command)| command.id.wrapping_mul(0x9e37));
        }
        for (queue, command) in waiting {
            match queue {
                0 => self.admin(&command),
                _ => self.io(queue, command),
            }
        }
    }

    fn fetch(&mut self, id: u16) -> Option<Command> {
        let queue = self.submission.get_mut(&id)?;
        if queue.head == queue.tail {
            return None;
        }
        let bytes = read_memory(queue.address + u64::from(queue.head) * COMMAND as u64, COMMAND);
        queue.head = (queue.head + 1) % queue.entries;
        Command::read_from_bytes(&bytes).ok()
    }

    fn complete(&mut self, id: u16, command: u16, status: Status, result: u32) {
        let Some((queue, phase)) = self.completion.get_mut(&id) else {
            return;
        };
        let mut bytes = [0; COMPLETION];
        bytes[..4].copy_from_slice(&result.to_le_bytes());
        bytes[12..14].copy_from_slice(&command.to_le_bytes());
        bytes[14..].copy_from_slice(&(status.0 << 1 | u16::from(*phase)).to_le_bytes());
        write_memory(queue.address + u64::from(queue.tail) * COMPLETION as u64, &bytes);
        queue.tail = (queue.tail + 1) % queue.entries;
        *phase ^= queue.tail == 0;
    }

    fn admin(&mut self, command: &Command) {
        let words = command.words;
        let (status, result) = match command.opcode {
            0x06 => {
                write_memory(command.prp1, &self.identify(words[0], command.namespace));
                (Status::SUCCESS, 0)
            }
            0x09 => {
                let granted = u32::from(self.settings.pairs.min(words[1] as u16 + 1) - 1);
                (Status::SUCCESS, granted << 16 | granted)
            }
            0x05 | 0x01 => {
                let (id, entries) = (words[0] as u16, (words[0] >> 16) as u16 + 1);
                let queue = Queue {
                    address: command.prp1,
                    entries,
                    ..Queue::default()
                };
                match command.opcode {
                    0x05 => drop(self.completion.insert(id, (queue, true))),
                    _ => drop(self.submission.insert(id, queue)),
                }
                (Status::SUCCESS, 0)
            }
            0x08 => {
                let (queue, id) = (words[0] as u16, (words[0] >> 16) as u16);
                let found = self
                    .waiting
                    .iter()
                    .position(|(at, waiting)| (*at, waiting.id) == (queue, id));
                if let Some(index) = found.filter(|_| self.settings.fault != Fault::SwallowForGood) {
                    self.waiting.remove(index);
                    self.complete(queue, id, Status::ABORT_REQUESTED, 0);
                }
                (Status::SUCCESS, u32::from(found.is_none()))
            }
            _ => (Status::INVALID_OPCODE, 0),
        };
        self.complete(0, command.id, status, result);
    }

    fn identify(&self, kind: u32, namespace: u32) -> [u8; 4096] {
        let mut answer = [0; 4096];
        match kind {
            0 if namespace == 1 => {
                answer[..8].copy_from_slice(&self.settings.sectors.to_le_bytes());
                answer[130] = self.settings.shift;
            }
            1 => {
                answer[4..12].copy_from_slice(b"serial  ");
                answer[24..29].copy_from_slice(b"model");
                answer[77] = self.settings.mdts;
                answer[512..514].copy_from_slice(&[0x66, 0x44]);
                answer[516] = 1;
                answer[520] = 4;
                answer[525] = u8::from(self.settings.write_cache);
            }
            2 => answer[0] = 1,
            _ => {}
        }
        answer
    }

    fn io(&mut self, queue: u16, command: Command) {
        match self.settings.fault {
            Fault::Swallow
            | Fault::SwallowForGood
            | Fault::SwallowOnce
            | Fault::Stuck
            | Fault::NeverReady => self.waiting.push((queue, command)),
            Fault::Refuse(status) => self.complete(queue, command.id, status, 0),
            Fault::Babble => {
                self.execute(&command);
                // No more than the queue holds before the driver looks.
                for id in [command.id ^ 0x40, command.id, command.id, u16::MAX] {
                    self.complete(queue, id, Status::SUCCESS, 0);
                }
            }
            _ => {
                let status = self.execute(&command);
                self.complete(queue, command.id, status, 0);
            }
        }
    }

    fn execute(&mut self, command: &Command) -> Status {
        let words = command.words;
        let shift = self.settings.shift;
        let start = (u64::from(words[1]) << 32 | u64::from(words[0])) << shift;
        let length = ((words[2] & 0xffff) as usize + 1) << shift;
        let limit = 4096usize << self.settings.mdts;
        match command.opcode {
            0x01 | 0x02 if self.settings.mdts != 0 && length > limit => Status::INVALID_FIELD,
            0x01 | 0x02 if start as usize + length > self.medium.len() => Status::OUT_OF_RANGE,
            0x01 => {
                let mut at = start as usize;
                for (address, length) in pages(command, length) {
                    self.medium[at..at + length].copy_from_slice(&read_memory(address, length));
                    at += length;
                }
                Status::SUCCESS
            }
            0x02 => {
                let mut at = start as usize;
                for (address, length) in pages(command, length) {
                    write_memory(address, &self.medium[at..at + length]);
                    at += length;
                }
                Status::SUCCESS
            }
            0x09 => {
                let bytes = read_memory(command.prp1, 16);
                let range = Range::read_from_bytes(&bytes).expect("16 bytes");
                let start = (range.first as usize) << shift;
                self.medium[start..start + ((range.sectors as usize) << shift)].fill(0);
                Status::SUCCESS
            }
            0x00 => Status::SUCCESS,
            _ => Status::INVALID_OPCODE,
        }
    }
}

/// Where a command's data lies, as its pointers say.
fn pages(command: &Command, length: usize) -> Vec<(u64, usize)> {
    let first = (4096 - command.prp1 as usize % 4096).min(length);
    let mut pages = vec![(command.prp1, first)];
    let left = length - first;
    let count = left.div_ceil(4096);
    for index in 0..count {
        let address = match count {
            1 => command.prp2,
            _ => {
                let bytes = read_memory(command.prp2 + 8 * index as u64, 8);
                u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
            }
        };
        assert!(address.is_multiple_of(4096), "{address:#x} is not a page");
        pages.push((address, (left - index * 4096).min(4096)));
    }
    pages
}

fn read_memory(address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    // SAFETY: the driver gave the address for the device to read, and keeps the memory; no test runs it in two threads.
    unsafe { core::ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), length) };
    bytes
}

fn write_memory(address: u64, bytes: &[u8]) {
    // SAFETY: as above, to write.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_bytes().as_ptr(), address as *mut u8, bytes.len()) };
}

thread_local! {
    /// A number that differs from call to call, for patterns.
    static NEXT: Cell<u8> = const { Cell::new(1) };
}

/// `length` bytes that no other call gives.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    let seed = NEXT.with(|next| next.replace(next.get().wrapping_add(1)));
    (0..length)
        .map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ seed)
        .collect()
}
