//! The hypervisor's log: a ring in memory that the root reads by hypercall, and the serial port until the root owns it.

use crate::platform::clock;
use crate::platform::registers::tsc;
use crate::platform::serial::Serial;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};
use hypercall_api::operator::{LOG_CHUNK, LogChunk};
use log::{Level, LevelFilter, Log, Metadata, Record};
use spin::Mutex;
use zerocopy::FromZeros;

/// Bytes that the ring keeps.
pub const RING_SIZE: usize = 64 * 1024;

/// The last bytes of an endless text.
struct Ring {
    bytes: [u8; RING_SIZE],
    /// Bytes written since the start; the newest is at `(written - 1) % RING_SIZE`.
    written: u64,
}

impl Ring {
    fn push(&mut self, text: &str) {
        for byte in text.bytes() {
            self.bytes[(self.written % RING_SIZE as u64) as usize] = byte;
            self.written += 1;
        }
    }

    /// Copies from `position` on, or from the oldest byte that is left, into `chunk`.
    fn read(&self, position: u64, chunk: &mut LogChunk) {
        let oldest = self.written.saturating_sub(RING_SIZE as u64);
        let start = position.clamp(oldest, self.written);
        let length = (self.written - start).min(LOG_CHUNK as u64) as usize;
        for (offset, byte) in chunk.data[..length].iter_mut().enumerate() {
            *byte = self.bytes[((start + offset as u64) % RING_SIZE as u64) as usize];
        }
        (chunk.position, chunk.next, chunk.length) = (start, start + length as u64, length as u32);
    }
}

struct Sink {
    ring: Ring,
    /// Takes each line, until the root owns the port.
    console: Option<Serial>,
    /// Takes each line for good.
    second: Option<Serial>,
}

static SINK: Mutex<Sink> = Mutex::new(Sink {
    ring: Ring {
        bytes: [0; RING_SIZE],
        written: 0,
    },
    console: None,
    second: None,
});

/// TSC at the first instruction in Rust; the log counts from it.
static START: AtomicU64 = AtomicU64::new(0);

struct Logger;
static LOGGER: Logger = Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            write_line(&mut SINK.lock(), record.level(), *record.args());
        }
    }

    fn flush(&self) {}
}

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.ring.push(text);
        for port in [&mut self.console, &mut self.second].into_iter().flatten() {
            port.write_str(text)?;
        }
        Ok(())
    }
}

fn write_line(sink: &mut Sink, level: Level, text: fmt::Arguments<'_>) {
    let since = ticks_since_start(tsc());
    let micros = match clock::tsc_frequency() {
        0 => 0,
        hz => (since as u128 * 1_000_000 / hz as u128) as u64,
    };
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    // The ring cannot fail, and a serial port swallows what it cannot send.
    let _ = writeln!(sink, "[{seconds:5}.{micros:06}] hv {level:5} {text}");
}

/// Starts logging to the ring and to `console`.
pub fn start(entry_tsc: u64, mut console: Serial) {
    START.store(entry_tsc, Ordering::Relaxed);
    console.initialize();
    SINK.lock().console = Some(console);
    // It fails only where a logger has been set before.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(LevelFilter::Info);
}

/// Moves the console, before anybody else owns the port.
pub fn set_console(mut console: Serial) {
    console.initialize();
    SINK.lock().console = Some(console);
}

/// Sends each line to `port` too, for good.
pub fn set_second(mut port: Serial) {
    port.initialize();
    SINK.lock().second = Some(port);
}

/// Gives the console to the root; from now on lines go to the ring and to the second port.
pub fn release_console() {
    if let Some(console) = &mut SINK.lock().console.take() {
        console.drain();
    }
}

/// TSC ticks from the first instruction to `now`.
pub fn ticks_since_start(now: u64) -> u64 {
    now.wrapping_sub(START.load(Ordering::Relaxed))
}

/// Waits until the second port has sent everything.
pub fn flush_second() {
    if let Some(port) = &mut SINK.lock().second {
        port.drain();
    }
}

/// Reads the log from `position` on.
pub fn read(position: u64) -> LogChunk {
    let mut chunk = LogChunk::new_zeroed();
    SINK.lock().ring.read(position, &mut chunk);
    chunk
}

/// Writes the last words of a hypervisor that stops: to the ring and to `console`, whoever owned it, even where the
/// log's lock is held by the processor that failed.
pub fn last_words(console: &mut Serial, text: fmt::Arguments<'_>) {
    // A lock that stays taken costs the ring its copy, nothing else.
    if let Some(mut sink) = SINK.try_lock() {
        sink.console = None;
        write_line(&mut sink, Level::Error, text);
    }
    let _ = writeln!(console, "hv ERROR {text}");
    console.drain();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> std::boxed::Box<Ring> {
        std::boxed::Box::new(Ring {
            bytes: [0; RING_SIZE],
            written: 0,
        })
    }

    fn read(ring: &Ring, position: u64) -> LogChunk {
        let mut chunk = LogChunk::new_zeroed();
        ring.read(position, &mut chunk);
        chunk
    }

    #[test]
    fn a_reader_follows_from_where_it_stopped() {
        let mut ring = ring();
        ring.push("one\n");
        let first = read(&ring, 0);
        assert_eq!((&first.data[..4], first.next), (&b"one\n"[..], 4));
        ring.push("two\n");
        let second = read(&ring, first.next);
        assert_eq!(
            (&second.data[..second.length as usize], second.next),
            (&b"two\n"[..], 8)
        );
        assert_eq!(read(&ring, second.next).length, 0);
    }

    #[test]
    fn what_was_overwritten_is_skipped_and_told() {
        let mut ring = ring();
        for _ in 0..RING_SIZE / 4 + 1 {
            ring.push("abc\n");
        }
        let chunk = read(&ring, 0);
        assert_eq!((chunk.position, chunk.length as usize), (4, LOG_CHUNK));
    }

    #[test]
    fn a_position_from_the_future_reads_nothing() {
        let mut ring = ring();
        ring.push("abc\n");
        let chunk = read(&ring, 1000);
        assert_eq!((chunk.position, chunk.next, chunk.length), (4, 4, 0));
    }
}
