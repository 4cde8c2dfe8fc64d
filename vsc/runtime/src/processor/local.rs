//! What each processor has of its own, reachable in one instruction by the GS base.
#![allow(unsafe_code)]

use super::descriptors::{IST_STACKS, SEGMENTS};
use super::instruction::write_msr;
use crate::memory::pages;
use core::arch::asm;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use x86_64::VirtAddr;
use x86_64::structures::tss::TaskStateSegment;

/// Most processors.
pub const MAX_PROCESSORS: usize = 64;
/// Pages of a processor's stack.
const STACK_PAGES: u64 = 16;
const GS_BASE: u32 = 0xc000_0101;

static ALL: [AtomicPtr<Processor>; MAX_PROCESSORS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_PROCESSORS];

/// One processor.
#[repr(C)]
pub struct Processor {
    this: *const Processor,
    /// Index in the order in which processors came up; 0 is the one that booted.
    pub index: u32,
    /// APIC id.
    pub apic_id: AtomicU32,
    /// Whether it runs.
    pub running: AtomicBool,
    /// Address of a page for the input of hypercalls; the page behind it is for their output.
    pub(crate) parameters: u64,
    /// Address of a page for SynIC messages.
    pub(crate) message_page: u64,
    /// Address of a page for SynIC event flags.
    pub(crate) event_page: u64,
    pub(super) stack_top: u64,
    pub(super) gdt: [AtomicU64; SEGMENTS],
    pub(super) tss: TaskStateSegment,
}

// SAFETY: `this` points to the value itself, which is never moved or freed; everything else is Sync or constant.
unsafe impl Sync for Processor {}

impl Processor {
    /// The state of processor `index`, which stays for good; `None` where memory or room is short.
    pub(super) fn allocate(index: u32) -> Option<&'static Self> {
        let slot = ALL.get(index as usize)?;
        let mut tss = TaskStateSegment::new();
        for (index, count) in IST_STACKS.into_iter().enumerate() {
            tss.interrupt_stack_table[index] = VirtAddr::new(pages::allocate(count)? + count * pages::SIZE);
        }
        let place = pages::allocate(1)? as *mut Self;
        const { assert!(size_of::<Processor>() <= pages::SIZE as usize) };
        let processor = Self {
            this: place,
            index,
            apic_id: AtomicU32::new(u32::MAX),
            running: AtomicBool::new(false),
            parameters: pages::allocate(2)?,
            message_page: pages::allocate(1)?,
            event_page: pages::allocate(1)?,
            stack_top: pages::allocate(STACK_PAGES)? + STACK_PAGES * pages::SIZE,
            gdt: [const { AtomicU64::new(0) }; SEGMENTS],
            tss,
        };
        // SAFETY: the page was just allocated, is large enough and aligned, and is never freed.
        let processor = unsafe {
            place.write(processor);
            &*place
        };
        processor.fill_gdt();
        slot.store(place, Ordering::Release);
        Some(processor)
    }

    /// Makes this the state of the running processor: descriptor tables and GS base.
    ///
    /// # Safety
    /// It must be no other processor's.
    pub(super) unsafe fn load(&'static self) {
        self.load_descriptors();
        // SAFETY: GS is used for nothing else, and the value is never freed.
        unsafe { write_msr(GS_BASE, ptr::from_ref(self) as u64) };
    }
}

/// The running processor.
#[inline]
pub fn processor() -> &'static Processor {
    let processor: *const Processor;
    // SAFETY: the GS base is the address of a `Processor` whose first field is its own address: `load` runs on each
    // processor before anything that could call this.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) processor, options(nostack, preserves_flags, pure, readonly));
        &*processor
    }
}

/// The running processor, or `None` before there is one.
pub fn current() -> Option<&'static Processor> {
    all().next().map(|_| processor())
}

/// The processors that there are, by index; those that do not run (yet) included.
pub fn all() -> impl Iterator<Item = &'static Processor> {
    // SAFETY: what stands in a slot was written before and is never freed.
    ALL.iter()
        .map_while(|slot| unsafe { slot.load(Ordering::Acquire).as_ref() })
}

/// Processors that run.
pub fn running() -> usize {
    all()
        .filter(|processor| processor.running.load(Ordering::Acquire))
        .count()
}
