//! Turning the machine off and resetting it.
#![allow(unsafe_code)]

use crate::log as logger;
use core::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use x86_64::instructions::port::Port;

/// `SLP_EN` of a PM1 control register (ACPI 4.8.3.2.1).
const SLEEP_ENABLE: u16 = 1 << 13;
const SLEEP_TYPE_SHIFT: u32 = 10;
const SLEEP_TYPE: u16 = 7 << SLEEP_TYPE_SHIFT;

/// PM1a and PM1b control ports; 0 where there is none.
static PM1_CONTROL: [AtomicU16; 2] = [AtomicU16::new(0), AtomicU16::new(0)];
static RESET_PORT: AtomicU16 = AtomicU16::new(0);
static RESET_VALUE: AtomicU8 = AtomicU8::new(0);
/// SLP_TYP of S5 for both registers, in the low bytes; `NOT_SET` until the root has told it.
static S5_TYPES: AtomicU16 = AtomicU16::new(NOT_SET);
const NOT_SET: u16 = u16::MAX;

/// Takes note of what the FADT says.
pub fn set_ports(pm1a: Option<u16>, pm1b: Option<u16>, reset: Option<(u16, u8)>) {
    PM1_CONTROL[0].store(pm1a.unwrap_or(0), Ordering::Relaxed);
    PM1_CONTROL[1].store(pm1b.unwrap_or(0), Ordering::Relaxed);
    let (port, value) = reset.unwrap_or((0, 0));
    RESET_PORT.store(port, Ordering::Relaxed);
    RESET_VALUE.store(value, Ordering::Relaxed);
}

/// Takes note of what `\_S5` says. Returns whether the values can be.
pub fn set_off_types(pm1a: u8, pm1b: u8) -> bool {
    if pm1a > 7 || pm1b > 7 {
        return false;
    }
    S5_TYPES.store(u16::from_le_bytes([pm1a, pm1b]), Ordering::Relaxed);
    true
}

/// Turns the machine off. Returns only where it cannot: no PM1 control register, or `\_S5` was not told.
pub fn off() {
    let types = S5_TYPES.load(Ordering::Relaxed);
    if types == NOT_SET {
        return;
    }
    log::info!("power off");
    for (port, sleep_type) in PM1_CONTROL.iter().zip(types.to_le_bytes()) {
        let port = port.load(Ordering::Relaxed);
        if port != 0 {
            // SAFETY: the FADT says that this is a PM1 control register; the machine goes off.
            unsafe {
                let mut control = Port::<u16>::new(port);
                let kept = control.read() & !(SLEEP_TYPE | SLEEP_ENABLE);
                control.write(kept | (sleep_type as u16) << SLEEP_TYPE_SHIFT | SLEEP_ENABLE);
            }
        }
    }
    logger::flush_second();
}

/// Resets the machine: by the FADT's register, the chipset's, the keyboard controller's, and at last by a triple fault.
pub fn reset() -> ! {
    log::info!("reset");
    logger::flush_second();
    let port = RESET_PORT.load(Ordering::Relaxed);
    // SAFETY: each of these resets the machine, or does nothing.
    unsafe {
        if port != 0 {
            Port::new(port).write(RESET_VALUE.load(Ordering::Relaxed));
            settle();
        }
        Port::new(0xcf9).write(0x0eu8);
        settle();
        Port::new(0x64).write(0xfeu8);
        settle();
        let no_idt = x86_64::structures::DescriptorTablePointer {
            limit: 0,
            base: x86_64::VirtAddr::zero(),
        };
        x86_64::instructions::tables::lidt(&no_idt);
        core::arch::asm!("int3", options(noreturn));
    }
}

/// Gives a reset the time to happen.
fn settle() {
    for _ in 0..1_000_000 {
        core::hint::spin_loop();
    }
}
