//! A physical device of one's own: QEMU's `edu` (`docs/specs/edu.rst` of QEMU), which copies memory and raises an interrupt when it
//! has done so. Give it to the guest first, in the root's shell: `dev assign 0000:00:03.0 dma --no-reset`.
//!
//! The guest learns of the device from a word of its command line, `device=1234:11e8,bar0=0xe0000000+0x100000,vector=0x60`: the
//! registers are at the guest's own address, the device is told the guest's own addresses, and its interrupt comes to VP 0.
//!
//! Lines that tests may wait for: `dma: …` for each thing that was tried, and at the end `dma: done`, after which it powers off.
//!
//! | word | what else |
//! |---|---|
//! | `beyond=0x8000000` | also has the device write to that address and read from it, neither of which may do anything |
//! | `forever` | instead of the end: copies for good, and says `dma: N copies` now and then |
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vsc_runtime::boot::BootInfo;
use vsc_runtime::{interrupt, println};

/// Unused: the runtime is built with what the guests that have devices on the bus need.
#[global_allocator]
static HEAP: vsc_runtime::memory::heap::Heap = vsc_runtime::memory::heap::new();

vsc_runtime::guest_main!(main);

const ID: &str = "1234:11e8";
/// The lowest byte of the identification.
const IDENTITY: u32 = 0xed;
/// Copies between two lines of a guest that copies for ever.
const LINE: u64 = 10;

mod register {
    pub(super) const IDENTIFICATION: usize = 0x00;
    pub(super) const INTERRUPT_STATUS: usize = 0x24;
    pub(super) const RAISE: usize = 0x60;
    pub(super) const ACKNOWLEDGE: usize = 0x64;
    pub(super) const SOURCE: usize = 0x80;
    pub(super) const DESTINATION: usize = 0x88;
    pub(super) const COUNT: usize = 0x90;
    pub(super) const COMMAND: usize = 0x98;
}

/// Bits of the command: begin, from the device to memory, raise an interrupt at the end.
const START: u32 = 1 << 0;
const TO_MEMORY: u32 = 1 << 1;
const NOTIFY: u32 = 1 << 2;
/// Where the device has its buffer, in its own addresses.
const BUFFER: u32 = 0x4_0000;

const WORDS: usize = 512;

/// A page that the device reads or writes.
#[repr(align(4096))]
struct Page([AtomicU64; WORDS]);

impl Page {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// Its address, which is the guest physical one too.
    fn address(&self) -> u32 {
        self.0.as_ptr() as usize as u32
    }

    fn fill(&self, first: u64) {
        for (word, value) in self.0.iter().zip(first..) {
            word.store(value, Ordering::Relaxed);
        }
    }

    fn holds(&self, first: u64) -> bool {
        let mut words = self.0.iter().zip(first..);
        words.all(|(word, value)| word.load(Ordering::Relaxed) == value)
    }
}

static FROM: Page = Page::new();
static TO: Page = Page::new();
/// Interrupts that have come.
static CAME: AtomicU32 = AtomicU32::new(0);
/// Address of the registers, for the handler.
static REGISTERS: AtomicU64 = AtomicU64::new(0);

/// Why it ends early.
#[derive(Debug, thiserror::Error)]
enum DmaError<'a> {
    #[error("there is no device: 'dev assign DEVICE dma' in the root's shell gives it one")]
    NoDevice,
    #[error("the device is described by {0:?}, which lacks its BAR or its vector")]
    Description(&'a str),
    #[error("the device is {0}, not an edu ({ID})")]
    OtherDevice(&'a str),
    #[error("the device calls itself {0:#x}")]
    Identity(u32),
    #[error("the device did not copy memory as it was told")]
    Changed,
    #[error("the device has changed memory that is not the guest's, or what it read there")]
    Reached,
}

fn main(boot: &BootInfo) {
    match run(boot) {
        Ok(()) => println!("dma: done"),
        Err(error) => println!("dma: failed: {error}"),
    }
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// The device's registers.
struct Edu(u64);

#[allow(unsafe_code)]
fn register(base: u64, offset: usize) -> &'static AtomicU32 {
    // SAFETY: the root has mapped the device's registers there, and memory that is not RAM is mapped uncached. Registers are
    // read and written by plain 32-bit instructions only.
    unsafe { AtomicU32::from_ptr((base as usize + offset) as *mut u32) }
}

impl Edu {
    /// The device that the command line tells of.
    fn find(boot: &BootInfo) -> Result<Self, DmaError<'_>> {
        let word = boot.option("device").ok_or(DmaError::NoDevice)?;
        let mut parts = word.split(',');
        let id = parts.next().unwrap_or_default();
        if id != ID {
            return Err(DmaError::OtherDevice(id));
        }
        let part = |name| word.split(',').find_map(|part| part.strip_prefix(name));
        let base = part("bar0=").and_then(|bar| number(bar.split('+').next()?));
        let vector = part("vector=").and_then(number);
        let (Some(base), Some(vector)) = (base, vector) else {
            return Err(DmaError::Description(word));
        };
        let edu = Self(base);
        match edu.read(register::IDENTIFICATION) {
            identity if identity & 0xff == IDENTITY => {}
            identity => return Err(DmaError::Identity(identity)),
        }
        REGISTERS.store(base, Ordering::Release);
        interrupt::set_handler(vector as u8, |_| {
            let base = REGISTERS.load(Ordering::Acquire);
            let causes = register(base, register::INTERRUPT_STATUS).load(Ordering::Relaxed);
            register(base, register::ACKNOWLEDGE).store(causes, Ordering::Relaxed);
            CAME.fetch_add(1, Ordering::AcqRel);
        });
        println!("dma: device {word}");
        Ok(edu)
    }

    fn read(&self, offset: usize) -> u32 {
        register(self.0, offset).load(Ordering::Relaxed)
    }

    fn write(&self, offset: usize, value: u32) {
        register(self.0, offset).store(value, Ordering::Relaxed);
    }

    /// Does `what`, which ends with an interrupt, and sleeps until that has come.
    fn until_interrupt(&self, what: impl FnOnce(&Self)) {
        let before = CAME.load(Ordering::Acquire);
        what(self);
        x86_64::instructions::interrupts::disable();
        while CAME.load(Ordering::Acquire) == before {
            vsc_runtime::processor::instruction::wait();
            x86_64::instructions::interrupts::disable();
        }
        x86_64::instructions::interrupts::enable();
    }

    fn copy(&self, from: u32, to: u32, direction: u32) {
        self.until_interrupt(|edu| {
            edu.write(register::SOURCE, from);
            edu.write(register::DESTINATION, to);
            edu.write(register::COUNT, 4096);
            edu.write(register::COMMAND, START | NOTIFY | direction);
        });
    }

    /// From memory into the device.
    fn take(&self, address: u32) {
        self.copy(address, BUFFER, 0);
    }

    /// From the device into memory.
    fn put(&self, address: u32) {
        self.copy(BUFFER, address, TO_MEMORY);
    }
}

fn run(boot: &BootInfo) -> Result<(), DmaError<'_>> {
    let edu = Edu::find(boot)?;
    edu.until_interrupt(|edu| edu.write(register::RAISE, 1));
    println!("dma: its interrupt has come");
    FROM.fill(0x1000);
    edu.take(FROM.address());
    edu.put(TO.address());
    if !TO.holds(0x1000) {
        return Err(DmaError::Changed);
    }
    println!("dma: it read {:#x} and wrote {:#x}", FROM.address(), TO.address());
    if let Some(address) = boot.option("beyond").and_then(number) {
        beyond(&edu, address as u32)?;
    }
    if boot.has_option("forever") {
        for copies in 1u64.. {
            FROM.fill(copies);
            edu.take(FROM.address());
            edu.put(TO.address());
            if !TO.holds(copies) {
                return Err(DmaError::Changed);
            }
            if copies.is_multiple_of(LINE) {
                println!("dma: {copies} copies");
            }
        }
    }
    Ok(())
}

/// Has the device write where the guest has no memory, and read from there. Its buffer keeps what it had.
fn beyond(edu: &Edu, address: u32) -> Result<(), DmaError<'static>> {
    FROM.fill(0x2000);
    edu.take(FROM.address());
    edu.put(address);
    edu.take(address);
    // What could not be read is not the other's: the buffer holds what it did, or nothing.
    edu.put(TO.address());
    if !TO.holds(0x2000)
        && TO
            .0
            .iter()
            .any(|word| word.load(Ordering::Relaxed) != u64::MAX && word.load(Ordering::Relaxed) != 0)
    {
        return Err(DmaError::Reached);
    }
    println!("dma: it was told to write {address:#x} and to read it");
    Ok(())
}
