//! Per-processor state. GS points to the processor's own [`Processor`], whose first field is its address, so that
//! finding it takes one instruction.
#![allow(unsafe_code)]

use super::descriptors::Descriptors;
use super::interrupts::{FIRST_DEVICE_VECTOR, LAST_DEVICE_VECTOR};
use super::stacks::Stacks;
use crate::memory::address::Frame;
use crate::platform::registers::{GS_BASE, write_msr};
use crate::scheduler::RunQueue;
use crate::virtualization::AddressSpaces;
use core::arch::asm;
use core::cell::{Cell, UnsafeCell};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use hypercall_api::address::PAGE_SIZE;
use hypercall_api::id::LpIndex;
use spin::Mutex;

/// Most logical processors that are used; the firmware may list more.
pub const MAX_PROCESSORS: usize = 256;

/// Bytes of a page.
pub type Page = [u8; PAGE_SIZE as usize];

/// Vectors that devices can be given on one processor.
pub const DEVICE_VECTORS: usize = LAST_DEVICE_VECTOR as usize - FIRST_DEVICE_VECTOR as usize + 1;

/// Contiguous frames that a processor's state takes.
pub const BLOCK_FRAMES: u64 = 2;

/// One logical processor.
#[repr(C)]
pub struct Processor {
    /// Address of this structure, read through GS.
    this: *const Processor,
    /// Index of the processor.
    pub index: LpIndex,
    /// Its APIC id.
    pub apic_id: u32,
    /// Its stacks.
    pub stacks: Stacks,
    /// GDT and TSS.
    descriptors: UnsafeCell<Descriptors>,
    /// The frame for the host state that the vendor's instructions want (SVM: VM_HSAVE_PA, VMX: VMXON region).
    pub host_area: Frame,
    /// The frame for what the hypervisor saves by VMSAVE.
    pub host_state: Frame,
    /// Pages that hypercall input is copied into and output is composed in.
    parameter_pages: [Frame; 2],
    parameters_in_use: Cell<bool>,
    /// Where the device interrupts that this processor takes go, a route a vector from
    /// [`FIRST_DEVICE_VECTOR`](super::interrupts::FIRST_DEVICE_VECTOR) on.
    pub routes: [AtomicU64; DEVICE_VECTORS],
    /// Set by whoever wants this processor to look at its work again.
    pub poked: AtomicBool,
    /// TSC ticks spent halted.
    pub idle_ticks: AtomicU64,
    /// The vector last taken in the interrupt window.
    pub last_vector: Cell<u8>,
    /// The deadline that the alarm is set to.
    pub alarm: Cell<u64>,
    /// Odd while a guest runs here, and changed by each entry and each exit: who has taken memory away from a guest waits for
    /// it to change.
    pub guest_epoch: AtomicU64,
    /// Set while it sleeps.
    pub sleeping: AtomicBool,
    /// The VPs that run here.
    pub queue: Mutex<RunQueue>,
    /// VPs that it has to run, when it last looked.
    pub runnable: AtomicUsize,
    /// TSC at which it looks next whether others have more to do.
    pub next_look: Cell<u64>,
    /// Least virtual time of the VPs that have run by their weights; who wakes up does not start from further back.
    pub virtual_now: AtomicU64,
    /// Address space ids given out here.
    pub address_spaces: AddressSpaces,
}

// SAFETY: `Cell` fields and `descriptors` are touched by the processor itself only; the rest is read-only or atomic.
unsafe impl Sync for Processor {}

static PROCESSORS: [AtomicPtr<Processor>; MAX_PROCESSORS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_PROCESSORS];
static COUNT: AtomicU32 = AtomicU32::new(0);

impl Processor {
    /// Places a processor's state in the [`BLOCK_FRAMES`] from `block` on.
    ///
    /// # Safety
    /// The frames must belong to nobody else, now and later.
    pub unsafe fn prepare(
        block: Frame,
        index: LpIndex,
        apic_id: u32,
        stacks: Stacks,
        pages: [Frame; 4],
    ) -> &'static Self {
        const { assert!(size_of::<Self>() <= BLOCK_FRAMES as usize * PAGE_SIZE as usize) };
        let [host_area, host_state, input_page, output_page] = pages;
        let pointer = block.start().0 as *mut Self;
        // SAFETY: the caller gives us this page for good.
        unsafe {
            pointer.write(Self {
                this: pointer,
                index,
                apic_id,
                stacks,
                descriptors: UnsafeCell::new(Descriptors::new()),
                host_area,
                host_state,
                parameter_pages: [input_page, output_page],
                parameters_in_use: Cell::new(false),
                routes: [const { AtomicU64::new(0) }; DEVICE_VECTORS],
                poked: AtomicBool::new(false),
                idle_ticks: AtomicU64::new(0),
                last_vector: Cell::new(0),
                alarm: Cell::new(u64::MAX),
                guest_epoch: AtomicU64::new(0),
                sleeping: AtomicBool::new(false),
                queue: Mutex::new(RunQueue::new()),
                runnable: AtomicUsize::new(0),
                next_look: Cell::new(0),
                virtual_now: AtomicU64::new(0),
                address_spaces: AddressSpaces::new(),
            });
            &*pointer
        }
    }

    /// Lists the processor: it runs. Processors are listed in the order of their indexes.
    pub fn list(&'static self) {
        PROCESSORS[self.index.0 as usize].store(self.this.cast_mut(), Ordering::Release);
        COUNT.fetch_max(self.index.0 + 1, Ordering::Release);
    }

    /// Whether the processor has been listed: one that has not runs no guests.
    pub fn is_listed(&self) -> bool {
        Self::get(self.index).is_some()
    }

    /// Loads this processor's descriptor tables and points GS to its state. Runs on the processor itself, once.
    ///
    /// # Safety
    /// Only the processor that `self` describes may call this.
    pub unsafe fn load(&'static self) {
        // SAFETY: nobody else touches `descriptors`, and `self` lives for ever.
        unsafe {
            (*self.descriptors.get()).load(&self.stacks);
            write_msr(GS_BASE, self.this as u64);
        }
    }

    /// Lends the pages for a hypercall's input and output to `work`. They hold whatever the last call left.
    pub fn with_parameter_pages<R>(&self, work: impl FnOnce(&mut Page, &mut Page) -> R) -> R {
        assert!(
            !self.parameters_in_use.replace(true),
            "a hypercall inside a hypercall"
        );
        let [input, output] = self.parameter_pages.map(|frame| frame.start().0 as *mut Page);
        // SAFETY: the two frames are this processor's alone, and only one borrower has them at a time.
        let result = unsafe { work(&mut *input, &mut *output) };
        self.parameters_in_use.set(false);
        result
    }

    /// The processor that runs this.
    #[inline]
    pub fn current() -> &'static Self {
        let this: *const Self;
        // SAFETY: GS points to this processor's state from `load` on, and that state lives for ever.
        unsafe {
            asm!("mov {}, gs:[0]", out(reg) this, options(nostack, preserves_flags, readonly, pure));
            &*this
        }
    }

    /// A processor by its index.
    pub fn get(index: LpIndex) -> Option<&'static Self> {
        let pointer = PROCESSORS.get(index.0 as usize)?.load(Ordering::Acquire);
        // SAFETY: a listed processor lives for ever.
        unsafe { pointer.as_ref() }
    }

    /// Every processor that has been started.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        (0..Self::count()).filter_map(|index| Self::get(LpIndex(index)))
    }

    /// Number of processors that have been started.
    pub fn count() -> u32 {
        COUNT.load(Ordering::Acquire)
    }
}
