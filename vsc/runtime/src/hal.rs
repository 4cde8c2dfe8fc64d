//! What the driver library `vsc` needs, made of this kernel: [`Kernel`] is its [`Hal`].
#![allow(unsafe_code)]

use crate::hypervisor::{self, HypercallPage, synic, time, timer};
use crate::interrupt;
use crate::memory::pages;
use crate::processor::instruction;
use crate::processor::local::{MAX_PROCESSORS, current};
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hypercall_api::address::Gpa;
use hypercall_api::id::VpIndex;
use hypercall_api::message::Message;
use hypercall_api::msr::{Sint, StimerConfig};
use spin::Mutex;
use vsc::hal::Hal;

/// SINT of the bus, as the bus's protocol has it.
const SINT: usize = 2;
/// Its vector.
const BUS_VECTOR: u8 = 0xf3;
/// Vector of the timer that ends a wait.
const TIMER_VECTOR: u8 = 0xf2;
/// The timer.
const TIMER: u32 = 3;
/// Longest wait, in 100 ns.
const LONGEST_WAIT: u64 = time::milliseconds(10);

/// Processors to which something has come since they last waited.
static COME: [AtomicBool; MAX_PROCESSORS] = [const { AtomicBool::new(false) }; MAX_PROCESSORS];
/// When the timer of each processor expires that was set last.
static DUE: [AtomicU64; MAX_PROCESSORS] = [const { AtomicU64::new(0) }; MAX_PROCESSORS];

/// This kernel, as the driver library sees it. It uses SINT 2, synthetic timer 3, and vectors 0xf2 and 0xf3.
#[derive(Debug)]
pub struct Kernel {
    hypercalls: HypercallPage,
    /// Pages that came back, and how many in a row.
    freed: Mutex<Vec<(usize, usize)>>,
}

impl Kernel {
    /// Establishes the hypervisor's interface and takes the bus's interrupts on the running processor; `None` where there is no
    /// hypervisor.
    pub fn new() -> Option<Self> {
        let hypercalls = hypervisor::init()?;
        for vector in [BUS_VECTOR, TIMER_VECTOR] {
            interrupt::set_handler(vector, |_| come().store(true, Ordering::Release));
        }
        Self::init_processor();
        Some(Self {
            hypercalls,
            freed: Mutex::new(Vec::new()),
        })
    }

    /// Takes the bus's interrupts on the running processor too, for channels that are opened with its VP.
    pub fn init_processor() {
        synic::set_sint(SINT, Sint::new(BUS_VECTOR, false));
    }
}

fn index() -> usize {
    current().map_or(0, |processor| processor.index as usize) % MAX_PROCESSORS
}

fn come() -> &'static AtomicBool {
    &COME[index()]
}

// SAFETY: memory is mapped one to one for good, and a page is given to one taker until it comes back.
unsafe impl Hal for Kernel {
    type Hypercalls = HypercallPage;

    fn hypercalls(&self) -> &HypercallPage {
        &self.hypercalls
    }

    fn allocate_pages(&self, count: usize) -> Option<NonNull<u8>> {
        let mut freed = self.freed.lock();
        let found = freed.iter().position(|(pages, _)| *pages == count);
        let address = match found.map(|index| freed.swap_remove(index)) {
            Some((_, address)) => {
                let bytes = count * pages::SIZE as usize;
                // SAFETY: the pages were given back, so nobody uses them.
                unsafe { core::ptr::write_bytes(address as *mut u8, 0, bytes) };
                address
            }
            None => pages::allocate(count as u64)? as usize,
        };
        NonNull::new(address as *mut u8)
    }

    unsafe fn free_pages(&self, start: NonNull<u8>, count: usize) {
        self.freed.lock().push((count, start.as_ptr() as usize));
    }

    fn physical(&self, address: NonNull<u8>) -> Gpa {
        Gpa(address.as_ptr() as u64)
    }

    fn vp(&self) -> VpIndex {
        hypervisor::vp_index()
    }

    fn take_message(&self) -> Option<Message> {
        synic::take(SINT)
    }

    fn take_events(&self, word: usize) -> u64 {
        synic::take_events(SINT, word)
    }

    fn wait(&self) {
        x86_64::instructions::interrupts::disable();
        if !come().swap(false, Ordering::AcqRel) {
            let (now, due) = (time::now(), &DUE[index()]);
            // One that is still to expire will do: each setting leaves the guest twice.
            if due.load(Ordering::Relaxed) <= now {
                timer::configure(TIMER, StimerConfig::direct_one_shot(TIMER_VECTOR));
                timer::set_count(TIMER, now + LONGEST_WAIT);
                due.store(now + LONGEST_WAIT, Ordering::Relaxed);
            }
            // Interrupts go on and the processor halts in one step: none is missed between.
            instruction::wait();
        }
        x86_64::instructions::interrupts::enable();
    }

    fn now(&self) -> u64 {
        time::now()
    }
}
