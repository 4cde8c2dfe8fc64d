//! The serial port of the log: a polled 16550. The hypervisor's only device driver.
#![allow(unsafe_code)]

use x86_64::instructions::port::Port;

/// A 16550 at an I/O port.
pub struct Serial {
    base: u16,
}

const LINE_STATUS_TRANSMIT_EMPTY: u8 = 1 << 5;
const LINE_STATUS_IDLE: u8 = 1 << 6;
/// Polls before a port that never drains is given up, so that a missing UART cannot hang the machine.
const PATIENCE: u32 = 1_000_000;

impl Serial {
    /// Sets the port at `base` to 115200 baud, 8 data bits, no parity, FIFOs on, interrupts off.
    ///
    /// # Safety
    /// `base` must be the first of the eight ports of a UART, or of ports where nothing is, and nobody else may drive it.
    pub const unsafe fn new(base: u16) -> Self {
        Self { base }
    }

    fn write(&mut self, register: u16, value: u8) {
        // SAFETY: `new`'s caller gave us this port and its seven successors.
        unsafe { Port::new(self.base + register).write(value) }
    }

    fn line_status(&mut self) -> u8 {
        // SAFETY: as in `write`.
        unsafe { Port::new(self.base + 5).read() }
    }

    /// Programs the port.
    pub fn initialize(&mut self) {
        for (register, value) in [
            (1, 0x00),
            (3, 0x80),
            (0, 1),
            (1, 0),
            (3, 0x03),
            (2, 0xc7),
            (4, 0x0b),
        ] {
            self.write(register, value);
        }
    }

    /// Sends one byte as it is.
    pub fn send(&mut self, byte: u8) {
        self.wait(LINE_STATUS_TRANSMIT_EMPTY);
        self.write(0, byte);
    }

    /// Waits until the last byte has left, so that power-off loses nothing.
    pub fn drain(&mut self) {
        self.wait(LINE_STATUS_IDLE);
    }

    fn wait(&mut self, bits: u8) {
        for _ in 0..PATIENCE {
            if self.line_status() & bits != 0 {
                return;
            }
            core::hint::spin_loop();
        }
    }
}

impl core::fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.send(b'\r');
            }
            self.send(byte);
        }
        Ok(())
    }
}
