//! Every order in which two processors can run the code of `order`: nobody goes to sleep while there is something to do.

use super::super::order::{self, Control, FLOW_CONTROL, Word, filled, free};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use loom::thread;

/// Bytes of the ring in these tests. A packet takes 8.
const SIZE: u32 = 32;

struct Words {
    write_index: AtomicU32,
    read_index: AtomicU32,
    interrupt_mask: AtomicU32,
    pending_send_size: AtomicU32,
    feature_bits: AtomicU32,
}

impl Words {
    /// The control page of a ring that was written up to `write`.
    fn new(write: u32) -> Arc<Self> {
        Arc::new(Self {
            write_index: AtomicU32::new(write),
            read_index: AtomicU32::new(0),
            interrupt_mask: AtomicU32::new(0),
            pending_send_size: AtomicU32::new(0),
            feature_bits: AtomicU32::new(FLOW_CONTROL),
        })
    }
}

impl Word for AtomicU32 {
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }

    fn store(&self, value: u32, order: Ordering) {
        self.store(value, order);
    }
}

impl Control for Words {
    type Word = AtomicU32;

    fn write_index(&self) -> &AtomicU32 {
        &self.write_index
    }

    fn read_index(&self) -> &AtomicU32 {
        &self.read_index
    }

    fn interrupt_mask(&self) -> &AtomicU32 {
        &self.interrupt_mask
    }

    fn pending_send_size(&self) -> &AtomicU32 {
        &self.pending_send_size
    }

    fn feature_bits(&self) -> &AtomicU32 {
        &self.feature_bits
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// A writer of two packets against a reader that masks, reads what there is, gives it back, unmasks, looks again, and sleeps. If it
/// slept before all was read, a signal was sent that wakes it.
#[test]
fn a_reader_that_sleeps_is_signalled_for_what_it_has_not_seen() {
    // All orders take more than minutes: those with at most three preemptions find a missing fence.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (words, signalled) = (Words::new(0), Arc::new(AtomicBool::new(false)));
        let writer = {
            let (words, signalled) = (words.clone(), signalled.clone());
            thread::spawn(move || {
                for old in [0, 8] {
                    if order::publish_write(&*words, old, old + 8).is_needed() {
                        signalled.store(true, Ordering::SeqCst);
                    }
                }
            })
        };
        let mut read = 0;
        let mut passes = 0;
        loop {
            // Whoever was woken by a signal looks; it wakes nobody again.
            signalled.swap(false, Ordering::AcqRel);
            order::mask(&*words);
            let write = words.write_index.load(Ordering::Acquire);
            if write != read {
                let _ = order::publish_read(&*words, SIZE, read, write);
                read = write;
            }
            passes += 1;
            if order::unmask(&*words) == read {
                break;
            }
            assert!(passes < 4, "there are no more than two packets to find");
        }
        // It sleeps now, unless it is signalled.
        writer.join().unwrap();
        assert!(
            read == 16 || signalled.load(Ordering::SeqCst),
            "it sleeps for ever at {read}"
        );
    });
}

/// A reader that empties a full ring packet by packet against a writer that announces what it waits for, looks again, and sleeps.
#[test]
fn a_writer_that_waits_for_room_is_signalled_when_it_comes() {
    loom::model(|| {
        let (words, signalled) = (Words::new(24), Arc::new(AtomicBool::new(false)));
        let reader = {
            let (words, signalled) = (words.clone(), signalled.clone());
            thread::spawn(move || {
                for old in [0, 8, 16] {
                    if order::publish_read(&*words, SIZE, old, old + 8).is_needed() {
                        signalled.store(true, Ordering::SeqCst);
                    }
                }
            })
        };
        // 8 are free, and the second packet that is read makes it 24.
        let read = order::announce_wait(&*words, 16);
        let sleeps = free(SIZE, read, 24) <= 16;
        reader.join().unwrap();
        assert!(!sleeps || signalled.load(Ordering::SeqCst), "it sleeps for ever");
    });
}

/// A reader that sees an index sees what was written before it.
#[test]
fn what_a_packet_holds_is_seen_with_its_index() {
    loom::model(|| {
        let (words, data) = (Words::new(0), Arc::new(AtomicU32::new(0)));
        let writer = {
            let (words, data) = (words.clone(), data.clone());
            thread::spawn(move || {
                data.store(7, Ordering::Relaxed);
                let _ = order::publish_write(&*words, 0, 8);
            })
        };
        if filled(SIZE, 0, words.write_index.load(Ordering::Acquire)) != 0 {
            assert_eq!(data.load(Ordering::Relaxed), 7);
        }
        writer.join().unwrap();
    });
}
