//! GDT, TSS and IDT. The IDT is one for all processors; GDT and TSS are each processor's own.
#![allow(unsafe_code)]

use super::interrupts::{DOUBLE_FAULT, NMI, entry_address};
use super::stacks::{Stack, Stacks};
use spin::Once;
use x86_64::PrivilegeLevel;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::idt::{Entry, EntryOptions, InterruptDescriptorTable};
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

static IDT: Once<InterruptDescriptorTable> = Once::new();

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
        IDT.call_once(build_idt).load();
    }
}

fn build_idt() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    // SAFETY: the table is an array of 256 gates of one form; the crate only types the handlers differently.
    let gates = unsafe { &mut *(&raw mut idt).cast::<[Entry<extern "C" fn()>; 256]>() };
    for (vector, gate) in gates.iter_mut().enumerate() {
        let vector = vector as u8;
        let stack = match vector {
            NMI => 1,
            DOUBLE_FAULT => 2,
            0..32 => 0,
            _ => 3,
        };
        // SAFETY: the address is of the vector's entry stub; its IST stack is set in every processor's TSS, and no
        // vector can interrupt another on the same stack: interrupts stay off, and a fault inside a fault ends in a
        // report.
        unsafe {
            let options: &mut EntryOptions = gate.set_handler_addr(VirtAddr::new(entry_address(vector)));
            options
                .set_code_selector(SegmentSelector(CODE_SELECTOR))
                .set_stack_index(stack);
        }
    }
    idt
}
