//! GDT and TSS of a processor, and the one IDT of all.
#![allow(unsafe_code)]

use super::Processor;
use super::exception;
use core::sync::atomic::Ordering;
use freestanding::exception::{VECTORS, idt};
use spin::Once;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::{lgdt, lidt, load_tss};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::SegmentSelector;
use x86_64::structures::tss::TaskStateSegment;
use x86_64::{PrivilegeLevel, VirtAddr};

/// Entries of the GDT: null, code, data, TSS in two.
pub(super) const SEGMENTS: usize = 5;
/// Pages of the stacks of the interrupt stack table: exceptions, NMI, double fault, interrupts.
pub(super) const IST_STACKS: [u64; 4] = [4, 2, 2, 4];

const CODE: SegmentSelector = SegmentSelector::new(1, PrivilegeLevel::Ring0);
const DATA: SegmentSelector = SegmentSelector::new(2, PrivilegeLevel::Ring0);
const TASK: SegmentSelector = SegmentSelector::new(3, PrivilegeLevel::Ring0);

static IDT: Once<[[u64; 2]; VECTORS]> = Once::new();

impl Processor {
    pub(super) fn fill_gdt(&'static self) {
        let tss = core::ptr::from_ref(&self.tss) as u64;
        let limit = size_of::<TaskStateSegment>() as u64 - 1;
        let low = limit | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56;
        let entries = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, low, tss >> 32];
        for (entry, value) in self.gdt.iter().zip(entries) {
            entry.store(value, Ordering::Relaxed);
        }
    }

    /// Makes the tables those of the running processor.
    pub(super) fn load_descriptors(&'static self) {
        let idt = IDT.call_once(|| idt(CODE.0, exception::entry));
        // SAFETY: the tables are never freed; the selectors are of this GDT; every vector has an entry point and a stack.
        unsafe {
            lgdt(&pointer(self.gdt.as_ptr() as u64, size_of_val(&self.gdt)));
            CS::set_reg(CODE);
            DS::set_reg(DATA);
            ES::set_reg(DATA);
            SS::set_reg(DATA);
            load_tss(TASK);
            lidt(&pointer(idt.as_ptr() as u64, size_of_val(idt)));
        }
    }
}

fn pointer(base: u64, size: usize) -> DescriptorTablePointer {
    DescriptorTablePointer {
        limit: size as u16 - 1,
        base: VirtAddr::new(base),
    }
}

/// Makes the next exception a triple fault.
///
/// # Safety
/// The processor does not survive it.
pub unsafe fn load_null_idt() {
    // SAFETY: the caller wants exactly that.
    unsafe { lidt(&pointer(0, 1)) };
}
