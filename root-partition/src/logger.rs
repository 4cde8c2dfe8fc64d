//! The root's own log: the `log` crate into a ring in memory; warnings and errors also wait as notices for the console.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll};
use embassy_sync::waitqueue::AtomicWaker;
use log::{Level, LevelFilter, Log, Metadata, Record};
use spin::Mutex;

/// Bytes of log that are kept.
const CAPACITY: usize = 64 << 10;
/// Notices that are kept until somebody shows them.
const NOTICES: usize = 16;

static RING: Mutex<Ring> = Mutex::new(Ring::new());
static WAITING: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
static READER: AtomicWaker = AtomicWaker::new();
/// Whether somebody shows notices; until then they go to the console at once.
static SHOWN: AtomicBool = AtomicBool::new(false);
static LOGGER: Logger = Logger;

/// Lets the `log` crate write here.
pub fn init(level: LevelFilter) {
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(level);
    }
}

/// Up to `limit` bytes of the log from `position` on: where they begin, and the bytes.
pub fn read(position: u64, limit: usize) -> (u64, Vec<u8>) {
    RING.lock().read(position, limit)
}

/// The next notice. From the first call on, notices wait for the caller.
pub fn poll_notice(context: &mut Context<'_>) -> Poll<String> {
    SHOWN.store(true, Ordering::Relaxed);
    READER.register(context.waker());
    match WAITING.lock().pop_front() {
        Some(notice) => Poll::Ready(notice),
        None => Poll::Pending,
    }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let time = crate::hypervisor::time::now() / 10;
        let line = format!(
            "[{:5}.{:06}] {:5} {}",
            time / 1_000_000,
            time % 1_000_000,
            record.level(),
            record.args()
        );
        {
            let mut ring = RING.lock();
            ring.push(line.as_bytes());
            ring.push(b"\n");
        }
        if record.level() <= Level::Warn {
            notice(line);
        }
    }

    fn flush(&self) {}
}

fn notice(line: String) {
    if !SHOWN.load(Ordering::Relaxed) {
        crate::console::line(format_args!("{line}"));
        return;
    }
    let mut waiting = WAITING.lock();
    if waiting.len() == NOTICES {
        // The log has it all; the console must not be flooded.
        waiting.pop_front();
    }
    waiting.push_back(line);
    drop(waiting);
    READER.wake();
}

/// The last bytes of a text that only grows; positions count from its beginning.
struct Ring {
    bytes: VecDeque<u8>,
    /// Position of the first byte that is kept.
    start: u64,
}

impl Ring {
    const fn new() -> Self {
        Self {
            bytes: VecDeque::new(),
            start: 0,
        }
    }

    fn push(&mut self, text: &[u8]) {
        let text = &text[..text.len().min(CAPACITY)];
        let excess = (self.bytes.len() + text.len()).saturating_sub(CAPACITY);
        self.bytes.drain(..excess);
        self.start += excess as u64;
        self.bytes.extend(text);
    }

    fn read(&self, position: u64, limit: usize) -> (u64, Vec<u8>) {
        let skip = position.saturating_sub(self.start);
        let skip = usize::try_from(skip).map_or(self.bytes.len(), |skip| skip.min(self.bytes.len()));
        let bytes = self.bytes.iter().skip(skip).take(limit).copied().collect();
        (self.start + skip as u64, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_go_on_where_the_ring_has_overwritten() {
        let mut ring = Ring::new();
        ring.push(&[1; CAPACITY - 2]);
        ring.push(&[2; 5]);
        assert_eq!(ring.start, 3);
        let (position, bytes) = ring.read(0, 4);
        assert_eq!((position, bytes), (3, vec![1; 4]));
        let end = ring.start + CAPACITY as u64;
        assert_eq!(ring.read(end - 5, 100), (end - 5, vec![2; 5]));
        assert_eq!(ring.read(u64::MAX, 100), (end, vec![]));
    }

    #[test]
    fn a_text_longer_than_the_ring_is_cut() {
        let mut ring = Ring::new();
        ring.push(&[1; CAPACITY + 7]);
        assert_eq!((ring.start, ring.bytes.len()), (0, CAPACITY));
    }
}
