//! Power off and reset, by the registers that Partita's VM worker gives each machine (the same that its ACPI tables name).
#![allow(unsafe_code)]

use crate::processor::instruction;
use crate::serial;
use x86_64::instructions::port::Port;

/// Port of the ACPI sleep control register, 8 bits.
pub const SLEEP_CONTROL: u16 = 0x600;
/// Written there to power off: SLP_TYP 5 in bits 4:2, SLP_EN in bit 5.
pub const POWER_OFF: u8 = 5 << 2 | 1 << 5;
/// Port of the ACPI reset register, 8 bits.
pub const RESET: u16 = 0x602;
/// Written there to reset.
pub const RESET_VALUE: u8 = 1;
/// QEMU's `isa-debug-exit`, as the tests' machines have it, for guests that run there without a hypervisor.
const DEBUG_EXIT: u16 = 0xf4;

/// Powers the machine off.
pub fn off() -> ! {
    end(SLEEP_CONTROL, POWER_OFF)
}

/// Resets the machine.
pub fn reset() -> ! {
    end(RESET, RESET_VALUE)
}

fn end(port: u16, value: u8) -> ! {
    serial::flush();
    // SAFETY: the machine ends here, as asked; ports without a device ignore writes.
    unsafe {
        Port::new(port).write(value);
        Port::new(DEBUG_EXIT).write(0x10u32);
    }
    instruction::stop()
}
