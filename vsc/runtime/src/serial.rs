//! The console: the 16550 UART at COM1, output polled.
#![allow(unsafe_code)]

use core::fmt;
use spin::Mutex;
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::instructions::port::Port;

/// First port of COM1.
pub const COM1: u16 = 0x3f8;

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;

const LINE_HOLDING_EMPTY: u8 = 1 << 5;
const LINE_IDLE: u8 = 1 << 6;
/// Polls of the line status before a byte is given up.
const PATIENCE: u32 = 1_000_000;

static CONSOLE: Mutex<()> = Mutex::new(());

/// Sets COM1 to 115,200 baud, 8 bits, no parity, no interrupts.
pub(crate) fn init() {
    for (register, value) in [
        (INTERRUPT_ENABLE, 0),
        (LINE_CONTROL, 0x80),
        (DATA, 1),
        (INTERRUPT_ENABLE, 0),
        (LINE_CONTROL, 0x03),
        (FIFO_CONTROL, 0xc7),
        (MODEM_CONTROL, 0x03),
    ] {
        write(register, value);
    }
}

/// Prints one piece of text as a whole, whatever the other processors print.
pub fn print(text: fmt::Arguments<'_>) {
    without_interrupts(|| {
        let _guard = CONSOLE.lock();
        let _ = fmt::write(&mut Uart, text);
    });
}

/// Prints from a processor that cannot wait for others: text may be torn.
pub(crate) fn force(text: fmt::Arguments<'_>) {
    let _ = fmt::write(&mut Uart, text);
}

/// Waits until everything has left the UART.
pub fn flush() {
    wait_for(LINE_IDLE);
}

struct Uart;

impl fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                send(b'\r');
            }
            send(byte);
        }
        Ok(())
    }
}

fn send(byte: u8) {
    wait_for(LINE_HOLDING_EMPTY);
    write(DATA, byte);
}

fn wait_for(bit: u8) {
    for _ in 0..PATIENCE {
        if read(LINE_STATUS) & bit != 0 {
            return;
        }
        core::hint::spin_loop();
    }
}

fn read(register: u16) -> u8 {
    // SAFETY: the ports are the UART's, which is this module's alone; reading them breaks no memory.
    unsafe { Port::new(COM1 + register).read() }
}

fn write(register: u16, value: u8) {
    // SAFETY: as above.
    unsafe { Port::new(COM1 + register).write(value) }
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::serial::print(format_args!($($argument)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => { $crate::serial::print(format_args!("{}\n", format_args!($($argument)*))) };
}
