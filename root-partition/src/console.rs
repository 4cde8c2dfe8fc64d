//! The console: the serial line, shared by the shell, the log and the last words of a root that stops.

use crate::drivers::serial;
use core::fmt;
use spin::Mutex;

static LOCK: Mutex<()> = Mutex::new(());

/// Sends `bytes` as they are, in one piece.
pub fn send(bytes: &[u8]) {
    let _lock = LOCK.lock();
    serial::send(bytes);
}

/// Prints one line in one piece.
pub fn line(text: fmt::Arguments<'_>) {
    let _lock = LOCK.lock();
    let _ = fmt::write(&mut Writer, text);
    serial::send(b"\r\n");
}

/// A writer that waits for nobody, for a root that stops: what another processor is saying may be cut short.
pub fn force() -> Writer {
    Writer
}

/// Writes text, with CRLF for each newline.
#[derive(Debug)]
pub struct Writer;

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, part) in text.split('\n').enumerate() {
            if index > 0 {
                serial::send(b"\r\n");
            }
            serial::send(part.as_bytes());
        }
        Ok(())
    }
}
