//! GDT and TSS of a processor, and the one IDT of all.
#![allow(unsafe_code)]

use super::vectors;
use crate::memory::paging::PagingError;
use crate::memory::stack::Stack;
use alloc::boxed::Box;
use freestanding::exception::{VECTORS, idt};
use hypercall_api::processor::{InitialVpContext, SegmentRegister, TableRegister};
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::{lidt, load_tss};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

/// Stack pages of the IST entries: exceptions (with room for a report), NMI, double fault, interrupts.
const IST_PAGES: [usize; 4] = [4, 2, 4, 1];

static IDT: Once<[[u64; 2]; VECTORS]> = Once::new();

/// The descriptor tables of one processor; they stay for good.
#[derive(Debug)]
pub struct Descriptors {
    gdt: GlobalDescriptorTable,
    tss: &'static TaskStateSegment,
    code: SegmentSelector,
    data: SegmentSelector,
    task: SegmentSelector,
}

impl Descriptors {
    /// Tables with interrupt stacks of their own.
    pub fn allocate() -> Result<&'static Self, PagingError> {
        let mut tss = TaskStateSegment::new();
        for (index, pages) in IST_PAGES.into_iter().enumerate() {
            tss.interrupt_stack_table[index] = VirtAddr::new(Stack::allocate(pages)?.top);
        }
        let tss: &'static TaskStateSegment = Box::leak(Box::new(tss));
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let task = gdt.append(Descriptor::tss_segment(tss));
        Ok(Box::leak(Box::new(Self {
            gdt,
            tss,
            code,
            data,
            task,
        })))
    }

    /// Makes the tables those of the running processor.
    pub fn load(&'static self) {
        let idt = IDT.call_once(|| idt(self.code.0, vectors::entry));
        // SAFETY: the tables are never freed; the selectors are of this GDT; every vector has an entry point and a stack.
        unsafe {
            self.gdt.load_unsafe();
            CS::set_reg(self.code);
            DS::set_reg(self.data);
            ES::set_reg(self.data);
            SS::set_reg(self.data);
            load_tss(self.task);
            lidt(&pointer(idt.as_ptr() as u64, size_of_val(idt)));
        }
    }

    /// A context in which a processor starts with these tables. RIP, RSP, the GS base and the control registers are left.
    pub fn context(&self) -> InitialVpContext {
        let data = SegmentRegister {
            base: 0,
            limit: u32::MAX,
            selector: self.data.0,
            attributes: 0xc093,
        };
        let code = SegmentRegister {
            selector: self.code.0,
            attributes: 0xa09b,
            ..data
        };
        let task = SegmentRegister {
            base: self.tss as *const TaskStateSegment as u64,
            limit: size_of::<TaskStateSegment>() as u32 - 1,
            selector: self.task.0,
            attributes: 0x8b,
        };
        let entries = self.gdt.entries();
        InitialVpContext {
            rflags: 2,
            cs: code,
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ss: data,
            tr: task,
            ldtr: SegmentRegister {
                attributes: 0x82,
                ..SegmentRegister::default()
            },
            idtr: table(
                IDT.get().map_or(0, |idt| idt.as_ptr() as u64),
                size_of::<[[u64; 2]; VECTORS]>(),
            ),
            gdtr: table(entries.as_ptr() as u64, size_of_val(entries)),
            ..InitialVpContext::default()
        }
    }
}

fn table(base: u64, size: usize) -> TableRegister {
    TableRegister {
        reserved: [0; 3],
        limit: size as u16 - 1,
        base,
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
