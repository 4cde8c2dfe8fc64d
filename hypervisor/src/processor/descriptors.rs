//! GDT, TSS and IDT. The IDT is one for all processors; GDT and TSS are each processor's own.
#![allow(unsafe_code)]

use super::interrupts::entry_address;
use super::stacks::{Stack, Stacks};
use freestanding::exception::{VECTORS, idt};
use spin::Once;
use x86_64::PrivilegeLevel;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::{lidt, load_tss};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

/// Selector of the hypervisor's code segment.
pub const CODE_SELECTOR: u16 = 0x08;

/// IST indexes, counted from 0 as the `x86_64` crate does.
const IST: [(Stack, u16); 4] = [
    (Stack::Exception, 0),
    (Stack::Nmi, 1),
    (Stack::DoubleFault, 2),
    (Stack::Interrupt, 3),
];

static IDT: Once<[[u64; 2]; VECTORS]> = Once::new();

/// GDT and TSS of a processor.
pub struct Descriptors {
    gdt: GlobalDescriptorTable,
    tss: TaskStateSegment,
}

impl Default for Descriptors {
    fn default() -> Self {
        Self::new()
    }
}

impl Descriptors {
    /// Empty tables.
    pub fn new() -> Self {
        Self {
            gdt: GlobalDescriptorTable::new(),
            tss: TaskStateSegment::new(),
        }
    }

    /// Fills the tables for `stacks` and makes the processor use them.
    ///
    /// # Safety
    /// Runs once, on the processor that the tables are for, which must not move or drop them ever after.
    pub unsafe fn load(&'static mut self, stacks: &Stacks) {
        for (stack, index) in IST {
            self.tss.interrupt_stack_table[index as usize] = VirtAddr::new(stacks.top(stack));
        }
        let code = self.gdt.append(Descriptor::kernel_code_segment());
        let data = self.gdt.append(Descriptor::kernel_data_segment());
        let tss = self.gdt.append(Descriptor::tss_segment(&self.tss));
        debug_assert_eq!(code, SegmentSelector::new(1, PrivilegeLevel::Ring0));
        // SAFETY: the tables live for ever, and the selectors are of segments that were just made.
        unsafe {
            self.gdt.load_unsafe();
            CS::set_reg(code);
            DS::set_reg(data);
            ES::set_reg(data);
            SS::set_reg(data);
            load_tss(tss);
        }
        let idt = IDT.call_once(|| idt(CODE_SELECTOR, entry_address));
        let pointer = DescriptorTablePointer {
            limit: size_of_val(idt) as u16 - 1,
            base: VirtAddr::from_ptr(idt),
        };
        // SAFETY: the table lives for ever; every vector has an entry point and a stack, and none can interrupt another on the
        // same stack: interrupts stay off, and a fault inside a fault ends in a report.
        unsafe { lidt(&pointer) };
    }
}
