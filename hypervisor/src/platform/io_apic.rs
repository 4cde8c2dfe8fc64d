//! The physical I/O APICs (82093AA data sheet): all pins masked at start, then programmed for the owner of each.
#![allow(unsafe_code)]

use spin::Mutex;
use x86_64::instructions::port::Port;

/// Most I/O APICs that are used.
pub const MAX_IO_APICS: usize = 8;
const MASKED: u64 = 1 << 16;
const REDIRECTION_TABLE: u32 = 0x10;

#[derive(Clone, Copy)]
struct IoApic {
    id: u8,
    address: u64,
    pins: u8,
}

static IO_APICS: Mutex<[Option<IoApic>; MAX_IO_APICS]> = Mutex::new([None; MAX_IO_APICS]);

impl IoApic {
    fn access<R>(&self, register: u32, data: impl FnOnce(*mut u32) -> R) -> R {
        // SAFETY: `address` is an I/O APIC's page, mapped as device memory; the lock around `IO_APICS` keeps the
        // index and data registers together.
        unsafe {
            (self.address as *mut u32).write_volatile(register);
        }
        data((self.address + 0x10) as *mut u32)
    }

    fn read(&self, register: u32) -> u32 {
        // SAFETY: the data register of the I/O APIC.
        self.access(register, |data| unsafe { data.read_volatile() })
    }

    fn write(&self, register: u32, value: u32) {
        // SAFETY: as in `read`.
        self.access(register, |data| unsafe { data.write_volatile(value) })
    }

    fn set_entry(&self, pin: u8, entry: u64) {
        let register = REDIRECTION_TABLE + 2 * pin as u32;
        // Masked first: the halves must not be seen half-changed.
        self.write(register, MASKED as u32);
        self.write(register + 1, (entry >> 32) as u32);
        self.write(register, entry as u32);
    }
}

/// Takes over the I/O APIC with `id` at `address` and masks all its pins. Returns whether there was room for it.
///
/// # Safety
/// `address` must be an I/O APIC's page, mapped as device memory, and nobody else may touch it from now on.
pub unsafe fn take(id: u8, address: u64) -> bool {
    let mut io_apics = IO_APICS.lock();
    let Some(slot) = io_apics.iter_mut().find(|slot| slot.is_none()) else {
        return false;
    };
    let mut io_apic = IoApic { id, address, pins: 0 };
    io_apic.pins = ((io_apic.read(1) >> 16) as u8).min(239) + 1;
    for pin in 0..io_apic.pins {
        io_apic.set_entry(pin, MASKED);
    }
    *slot = Some(io_apic);
    true
}

/// Masks the two 8259s: nobody takes interrupts from them.
pub fn mask_8259() {
    // SAFETY: the MADT says that they are there; these are their mask registers.
    unsafe {
        Port::new(0x21).write(0xffu8);
        Port::new(0xa1).write(0xffu8);
    }
}

/// Whether `page` holds an I/O APIC.
pub fn is_at(page: u64) -> bool {
    IO_APICS
        .lock()
        .iter()
        .flatten()
        .any(|io_apic| io_apic.address & !0xfff == page)
}

/// Writes the redirection entry of a pin. Returns whether there is such a pin.
pub fn set_entry(id: u8, pin: u8, entry: u64) -> bool {
    let io_apics = IO_APICS.lock();
    match io_apics
        .iter()
        .flatten()
        .find(|io_apic| io_apic.id == id && pin < io_apic.pins)
    {
        Some(io_apic) => {
            io_apic.set_entry(pin, entry);
            true
        }
        None => false,
    }
}

/// Masks or unmasks a pin, leaving the rest of its entry.
pub fn set_masked(id: u8, pin: u8, masked: bool) {
    let io_apics = IO_APICS.lock();
    if let Some(io_apic) = io_apics
        .iter()
        .flatten()
        .find(|io_apic| io_apic.id == id && pin < io_apic.pins)
    {
        let register = REDIRECTION_TABLE + 2 * pin as u32;
        let low = io_apic.read(register) & !(MASKED as u32);
        io_apic.write(register, low | if masked { MASKED as u32 } else { 0 });
    }
}

/// Changes the vector of a pin, leaving the rest of its entry: in one write, so that no edge is lost.
pub fn set_vector(id: u8, pin: u8, vector: u8) {
    let io_apics = IO_APICS.lock();
    if let Some(io_apic) = io_apics
        .iter()
        .flatten()
        .find(|io_apic| io_apic.id == id && pin < io_apic.pins)
    {
        let register = REDIRECTION_TABLE + 2 * pin as u32;
        let low = io_apic.read(register) & !0xff;
        io_apic.write(register, low | u32::from(vector));
    }
}

/// Whether there is such a pin.
pub fn has_pin(id: u8, pin: u8) -> bool {
    IO_APICS
        .lock()
        .iter()
        .flatten()
        .any(|io_apic| io_apic.id == id && pin < io_apic.pins)
}
