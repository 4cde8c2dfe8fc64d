//! What each processor has of its own, reachable in one instruction by the GS base.
#![allow(unsafe_code)]

use super::descriptors::Descriptors;
use super::instruction::write_msr;
use crate::executor::{queue::RunQueue, timer::Timers};
use crate::hypervisor::parameters::ParameterPages;
use crate::memory::paging::PagingError;
use crate::memory::stack::Stack;
use alloc::boxed::Box;
use core::arch::asm;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use spin::Once;

/// Pages of a processor's stack.
const STACK_PAGES: usize = 64;
const GS_BASE: u32 = 0xc000_0101;

/// Where the entry points find the pending bits.
pub(super) const PENDING_OFFSET: usize = offset_of!(Local, pending);

static ALL: Once<Box<[&'static Local]>> = Once::new();
static BOOT: Once<&'static Local> = Once::new();

/// One processor.
#[repr(C)]
pub struct Local {
    this: *const Local,
    /// Interrupts that came and that the executor has not seen yet, a bit a vector.
    pending: [AtomicU64; 4],
    /// The processor's VP index.
    pub vp: u32,
    /// Its APIC id, once it runs.
    pub apic_id: AtomicU32,
    /// Whether it sleeps, or is about to, and needs an interrupt to see new work.
    pub idle: AtomicBool,
    /// Whether it has started.
    pub running: AtomicBool,
    /// Address of its SynIC message page, once there is one.
    pub message_page: AtomicU64,
    /// Address of its SynIC event flags page, once there is one.
    pub event_page: AtomicU64,
    /// Tasks that are ready to run here.
    pub queue: RunQueue,
    /// Tasks that wait for a time.
    pub timers: Timers,
    /// Pages for hypercall parameters.
    pub parameters: ParameterPages,
    stack: Stack,
    descriptors: &'static Descriptors,
}

// SAFETY: `this` points to the value itself, which is never moved or freed; everything else is Sync or only used by the
// processor that it belongs to (`parameters`, see there).
unsafe impl Sync for Local {}
// SAFETY: as above.
unsafe impl Send for Local {}

impl Local {
    /// The state of VP `vp`, which stays for good.
    pub fn allocate(vp: u32) -> Result<&'static Self, PagingError> {
        let local = Box::leak(Box::new(Self {
            this: ptr::null(),
            pending: Default::default(),
            vp,
            apic_id: AtomicU32::new(u32::MAX),
            idle: AtomicBool::new(false),
            running: AtomicBool::new(false),
            message_page: AtomicU64::new(0),
            event_page: AtomicU64::new(0),
            queue: RunQueue::new(),
            timers: Timers::new(),
            parameters: ParameterPages::allocate()?,
            stack: Stack::allocate(STACK_PAGES)?,
            descriptors: Descriptors::allocate()?,
        }));
        local.this = local;
        Ok(local)
    }

    /// Makes this the state of the running processor: descriptor tables and GS base.
    ///
    /// # Safety
    /// It must be no other processor's.
    pub unsafe fn load(&'static self) {
        self.descriptors.load();
        // SAFETY: GS is used for nothing else, and the value is never freed.
        unsafe { write_msr(GS_BASE, self as *const Self as u64) };
    }

    /// The processor's stack.
    pub const fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Its descriptor tables.
    pub const fn descriptors(&self) -> &'static Descriptors {
        self.descriptors
    }

    /// Takes the interrupts of vectors 64 · `word` and up that came since the last call.
    pub fn take_pending(&self, word: usize) -> u64 {
        match self.pending[word].load(Ordering::Relaxed) {
            0 => 0,
            _ => self.pending[word].swap(0, Ordering::AcqRel),
        }
    }

    /// Makes it seem that the interrupt `vector` has come.
    pub fn raise(&self, vector: u8) {
        self.pending[usize::from(vector / 64)].fetch_or(1 << (vector % 64), Ordering::AcqRel);
    }

    /// Whether an interrupt has come that the executor has not seen.
    pub fn has_pending(&self) -> bool {
        self.pending.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }
}

/// The running processor's state.
///
/// Only to be called once [`Local::load`] has run on this processor, which `start` does before anything else.
#[inline]
pub fn local() -> &'static Local {
    let local: *const Local;
    // SAFETY: the GS base is the address of a `Local` whose first field is its own address.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) local, options(nostack, preserves_flags, pure, readonly));
        &*local
    }
}

/// The running processor's state, or `None` before there is one.
pub fn current() -> Option<&'static Local> {
    BOOT.get().map(|_| local())
}

/// Notes the boot processor's state, which is loaded.
pub fn set_boot(boot: &'static Local) {
    BOOT.call_once(|| boot);
}

/// Notes the states of all processors.
pub fn set_all(all: Box<[&'static Local]>) {
    ALL.call_once(|| all);
}

/// All processors, by VP index; only the boot processor until the number is known.
pub fn all() -> &'static [&'static Local] {
    match ALL.get() {
        Some(all) => all,
        None => BOOT.get().map_or(&[], core::slice::from_ref),
    }
}
