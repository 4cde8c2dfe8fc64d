//! AMD-V: the SVM backend (APM 2, chapter 15). Nothing here needs NRIPS, decode assists, flush-by-ASID or VMCB clean
//! bits.
//!
//! | file | holds |
//! |---|---|
//! | [`vmcb`] | layout of the VMCB |
//! | [`permissions`] | MSR and I/O permission maps |
//! | [`run`] | the instructions around VMRUN |
//! | this one | detection, turning SVM on, [`Svm`] |
#![allow(unsafe_code)]

pub mod permissions;
mod run;
pub mod vmcb;

use super::general::{RAX, RSP};
use super::{
    Access, Event, Exception, Exit, GuestRegisters, IoAccess, Missing, NestedFault, Paging, Register,
    Segment, VirtualProcessor,
};
use crate::memory::address::{Frame, Spa};
use crate::platform::emulator;
use crate::platform::registers::{EFER, cpuid, read_msr, write_msr};
use crate::processor::local::Processor;
use hypercall_api::address::Gpa;
use hypercall_api::operator::HardwareSupport;
use hypercall_api::processor::{InitialVpContext, SegmentRegister, TableRegister};
use permissions::Permissions;
use vmcb::{Vmcb, VmcbSegment, exit_code, intercept_1, intercept_2, virtual_interrupt};

const VM_CR: u32 = 0xc001_0114;
const VM_CR_SVMDIS: u64 = 1 << 4;
const VM_HSAVE_PA: u32 = 0xc001_0117;
const EFER_SVME: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;
const EFER_LME: u64 = 1 << 8;
/// EFER bits that a guest may set: SCE, LME, LMA, NXE, FFXSR, TCE.
const EFER_GUEST: u64 = 1 << 15 | 1 << 14 | 1 << 11 | EFER_LMA | EFER_LME | 1;
const CR0_PG: u64 = 1 << 31;
const RFLAGS_IF: u64 = 1 << 9;
const TLB_FLUSH_ALL: u32 = 1;
/// #DB and #AC can be made to repeat for ever inside their own delivery, without an exit (XSA-156); #MC is the machine's.
const ALWAYS_INTERCEPTED: u32 =
    1 << Exception::DEBUG | 1 << Exception::ALIGNMENT_CHECK | 1 << Exception::MACHINE_CHECK;
/// PAT after reset.
const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// What the processor offers, or why it cannot run guests by SVM.
pub(super) fn detect() -> Result<HardwareSupport, Missing> {
    let extended = cpuid(0x8000_0000, 0).eax;
    let features = if extended >= 0x8000_0001 {
        cpuid(0x8000_0001, 0).ecx
    } else {
        0
    };
    if features & 1 << 2 == 0 {
        return Err(if cpuid(1, 0).ecx & 1 << 5 != 0 {
            Missing::VmxOnly
        } else {
            Missing::Virtualization
        });
    }
    // SAFETY: a processor with SVM has VM_CR.
    if unsafe { read_msr(VM_CR) } & VM_CR_SVMDIS != 0 {
        return Err(Missing::DisabledByFirmware);
    }
    let svm = cpuid(0x8000_000a, 0).edx;
    if svm & 1 == 0 {
        return Err(Missing::NestedPaging);
    }
    Ok([
        (0, HardwareSupport::NESTED_PAGING),
        (3, HardwareSupport::NEXT_RIP),
        (4, HardwareSupport::TSC_SCALING),
        (5, HardwareSupport::VMCB_CLEAN),
        (6, HardwareSupport::FLUSH_BY_ASID),
        (7, HardwareSupport::DECODE_ASSISTS),
        (10, HardwareSupport::PAUSE_FILTER),
        (13, HardwareSupport::VIRTUAL_APIC),
        (16, HardwareSupport::VIRTUAL_GIF),
    ]
    .into_iter()
    .filter(|(bit, _)| svm & 1 << bit != 0)
    .fold(HardwareSupport::empty(), |all, (_, flag)| all | flag))
}

/// Turns SVM on on this processor and saves what VMLOAD will bring back after each run.
pub fn enable(processor: &Processor) {
    // SAFETY: `detect` found SVM; the frames are the processor's own.
    unsafe {
        write_msr(EFER, read_msr(EFER) | EFER_SVME);
        write_msr(VM_HSAVE_PA, processor.host_area.start().0);
        run::save_host_state(processor.host_state.start());
    }
}

/// Number of address space ids, the hypervisor's own included; at least 2.
pub(super) fn address_space_ids() -> u32 {
    cpuid(0x8000_000a, 0).ebx.max(2)
}

/// A VP's processor under SVM.
pub struct Svm {
    vmcb: &'static mut Vmcb,
    address: Spa,
    has_next_rip: bool,
    /// Interrupts of a kernel are injected as if by `INT n`.
    injects_as_software: bool,
}

impl Svm {
    /// A processor in its state after INIT, with its VMCB in `frame`.
    ///
    /// # Safety
    /// The frame must be zeroed and belong to nobody else for as long as this lives; so must the permission maps live.
    pub unsafe fn new(frame: Frame, permissions: &Permissions) -> Self {
        // SAFETY: the caller gives us the frame; zeroes are a valid VMCB.
        let vmcb = unsafe { &mut *(frame.start().0 as *mut Vmcb) };
        vmcb.intercept_1 = intercept_1::INTR
            | intercept_1::NMI
            | intercept_1::INIT
            | intercept_1::CPUID
            | intercept_1::INVD
            | intercept_1::HLT
            | intercept_1::INVLPGA
            | intercept_1::IOIO
            | intercept_1::MSR
            | intercept_1::SHUTDOWN;
        vmcb.intercept_2 = intercept_2::VMRUN
            | intercept_2::VMMCALL
            | intercept_2::VMLOAD
            | intercept_2::VMSAVE
            | intercept_2::STGI
            | intercept_2::CLGI
            | intercept_2::SKINIT
            | intercept_2::MONITOR
            | intercept_2::MWAIT
            | intercept_2::MWAIT_ARMED
            | intercept_2::XSETBV;
        vmcb.intercept_exceptions = ALWAYS_INTERCEPTED;
        vmcb.iopm_base = permissions.io.start().0;
        vmcb.msrpm_base = permissions.msr.start().0;
        vmcb.asid = 1;
        vmcb.tlb_control = TLB_FLUSH_ALL;
        vmcb.nested_control = 1;
        vmcb.virtual_interrupt = virtual_interrupt::V_INTR_MASKING;
        vmcb.g_pat = PAT_RESET;
        vmcb.efer = EFER_SVME;
        vmcb.dr6 = 0xffff_0ff0;
        vmcb.dr7 = 0x400;
        let has_next_rip = cpuid(0x8000_000a, 0).edx & 1 << 3 != 0;
        Self {
            vmcb,
            address: frame.start(),
            has_next_rip,
            injects_as_software: emulator::repeats_injected_interrupts(),
        }
    }

    #[inline]
    fn decode(&self) -> Exit {
        let vmcb = &*self.vmcb;
        match vmcb.exit_code {
            exit_code::CPUID => Exit::Cpuid,
            exit_code::VMMCALL => Exit::Hypercall,
            exit_code::MSR if vmcb.exit_info_1 & 1 == 0 => Exit::MsrRead,
            exit_code::MSR => Exit::MsrWrite,
            exit_code::INTR => Exit::Interrupt,
            exit_code::HLT => Exit::Halt,
            exit_code::IOIO => Exit::IoPort(decode_io(vmcb)),
            // No exit changes this bit. Where it is gone, an emulator has saved its host's state as the guest's.
            exit_code::NESTED_PAGE_FAULT
                if vmcb.virtual_interrupt & virtual_interrupt::V_INTR_MASKING == 0 =>
            {
                Exit::InvalidState
            }
            exit_code::NESTED_PAGE_FAULT => Exit::NestedFault(decode_nested_fault(vmcb)),
            exit_code::VINTR => Exit::InterruptWindow,
            exit_code::XSETBV => Exit::SetXcr,
            code @ exit_code::EXCEPTION..=exit_code::EXCEPTION_LAST => {
                Exit::Exception(decode_exception(vmcb, code), vmcb.exit_info_2)
            }
            exit_code::NMI => Exit::Nmi,
            exit_code::SHUTDOWN => Exit::Shutdown,
            exit_code::INVD => Exit::InvalidateCaches,
            exit_code::INVLPGA
            | exit_code::VMRUN
            | exit_code::VMLOAD..=exit_code::SKINIT
            | exit_code::MONITOR
            | exit_code::MWAIT
            | exit_code::MWAIT_ARMED => Exit::Undefined,
            // VMEXIT_INVALID is −1; QEMU writes only its low half.
            u64::MAX | 0xffff_ffff => Exit::InvalidState,
            other => Exit::Other(other),
        }
    }
}

/// Where the VMCB keeps what: written once, for reading and for writing.
macro_rules! vmcb_fields {
    ($enumeration:ident => $field_type:ty, $read:ident, $write:ident: $($name:ident $field:ident),*) => {
        fn $read(vmcb: &Vmcb, which: $enumeration) -> &$field_type {
            match which { $($enumeration::$name => &vmcb.$field,)* }
        }
        fn $write(vmcb: &mut Vmcb, which: $enumeration) -> &mut $field_type {
            match which { $($enumeration::$name => &mut vmcb.$field,)* }
        }
    };
}
vmcb_fields!(Register => u64, register_slot, register_slot_mut:
    Rflags rflags, Cr0 cr0, Cr2 cr2, Cr3 cr3, Cr4 cr4, Dr6 dr6, Dr7 dr7, Star star, Lstar lstar, Cstar cstar, Sfmask sfmask, KernelGsBase kernel_gs_base, SysenterCs sysenter_cs, SysenterEsp sysenter_esp, SysenterEip sysenter_eip);
vmcb_fields!(Segment => VmcbSegment, segment_slot, segment_slot_mut:
    Es es, Cs cs, Ss ss, Ds ds, Fs fs, Gs gs, Ldtr ldtr, Tr tr, Idtr idtr, Gdtr gdtr);

fn decode_io(vmcb: &Vmcb) -> IoAccess {
    let information = vmcb.exit_info_1;
    IoAccess {
        port: (information >> 16) as u16,
        size: (information >> 4 & 7) as u8,
        write: information & 1 == 0,
        string: information & 1 << 2 != 0,
        repeated: information & 1 << 3 != 0,
        next_rip: vmcb.exit_info_2,
    }
}

fn decode_nested_fault(vmcb: &Vmcb) -> NestedFault {
    let information = vmcb.exit_info_1;
    NestedFault {
        gpa: Gpa(vmcb.exit_info_2),
        gva: None,
        access: match information {
            information if information & 1 << 4 != 0 => Access::Execute,
            information if information & 1 << 1 != 0 => Access::Write,
            _ => Access::Read,
        },
        present: information & 1 != 0,
        page_walk: information & 1 << 33 != 0,
    }
}

fn decode_exception(vmcb: &Vmcb, code: u64) -> Exception {
    let vector = (code - exit_code::EXCEPTION) as u8;
    let has_error_code = matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30);
    Exception {
        vector,
        error_code: has_error_code.then_some(vmcb.exit_info_1 as u32),
    }
}

impl VirtualProcessor for Svm {
    #[inline]
    fn enter(&mut self, registers: &mut GuestRegisters) -> Exit {
        self.vmcb.rax = registers.general[RAX];
        self.vmcb.rsp = registers.general[RSP];
        // SAFETY: the VMCB is ours and valid, or VMRUN refuses it; the host state was saved by `enable`.
        unsafe { run::run(self.address, registers, Processor::current().host_state.start()) };
        registers.general[RAX] = self.vmcb.rax;
        registers.general[RSP] = self.vmcb.rsp;
        self.vmcb.tlb_control = 0;
        self.vmcb.event_injection = 0;
        self.decode()
    }

    fn rip(&self) -> u64 {
        self.vmcb.rip
    }

    fn set_rip(&mut self, rip: u64) {
        self.vmcb.rip = rip;
    }

    fn instruction_length(&self) -> Option<u8> {
        // nRIP is 0 where the exit was none of an instruction's.
        let length = self.vmcb.next_rip.wrapping_sub(self.vmcb.rip);
        (self.has_next_rip && (1..=15).contains(&length)).then_some(length as u8)
    }

    fn privilege_level(&self) -> u8 {
        self.vmcb.cpl & 3
    }

    fn is_64_bit(&self) -> bool {
        self.vmcb.efer & EFER_LMA != 0 && self.vmcb.cs.attributes & 1 << 9 != 0
    }

    fn code_base(&self) -> u64 {
        self.vmcb.cs.base
    }

    fn paging(&self) -> Paging {
        let Vmcb {
            cr0, cr3, cr4, efer, ..
        } = *self.vmcb;
        Paging { cr0, cr3, cr4, efer }
    }

    fn efer(&self) -> u64 {
        self.vmcb.efer & !EFER_SVME
    }

    fn set_efer(&mut self, efer: u64) {
        let active = efer & EFER_LME != 0 && self.vmcb.cr0 & CR0_PG != 0;
        self.vmcb.efer = efer & EFER_GUEST & !EFER_LMA | EFER_SVME | if active { EFER_LMA } else { 0 };
    }

    fn pat(&self) -> u64 {
        self.vmcb.g_pat
    }

    fn set_pat(&mut self, pat: u64) {
        self.vmcb.g_pat = pat;
    }

    fn context(&self, registers: &GuestRegisters) -> InitialVpContext {
        let vmcb = &*self.vmcb;
        InitialVpContext {
            rip: vmcb.rip,
            rsp: registers.general[RSP],
            rflags: vmcb.rflags,
            cs: vmcb.cs.into(),
            ds: vmcb.ds.into(),
            es: vmcb.es.into(),
            fs: vmcb.fs.into(),
            gs: vmcb.gs.into(),
            ss: vmcb.ss.into(),
            tr: vmcb.tr.into(),
            ldtr: vmcb.ldtr.into(),
            idtr: table(vmcb.idtr),
            gdtr: table(vmcb.gdtr),
            efer: self.efer(),
            cr0: vmcb.cr0,
            cr3: vmcb.cr3,
            cr4: vmcb.cr4,
            pat: vmcb.g_pat,
        }
    }

    fn set_context(&mut self, context: &InitialVpContext, registers: &mut GuestRegisters) {
        *registers = GuestRegisters::default();
        registers.general[RSP] = context.rsp;
        let vmcb = &mut *self.vmcb;
        vmcb.rip = context.rip;
        vmcb.rflags = context.rflags | 2;
        vmcb.cs = context.cs.into();
        vmcb.ds = context.ds.into();
        vmcb.es = context.es.into();
        vmcb.fs = context.fs.into();
        vmcb.gs = context.gs.into();
        vmcb.ss = context.ss.into();
        vmcb.tr = context.tr.into();
        vmcb.ldtr = context.ldtr.into();
        vmcb.idtr = table_segment(context.idtr);
        vmcb.gdtr = table_segment(context.gdtr);
        vmcb.cr0 = context.cr0;
        vmcb.cr2 = 0;
        vmcb.cr3 = context.cr3;
        vmcb.cr4 = context.cr4;
        vmcb.g_pat = context.pat;
        vmcb.cpl = (SegmentRegister::from(vmcb.ss).attributes >> 5 & 3) as u8;
        (
            vmcb.star,
            vmcb.lstar,
            vmcb.cstar,
            vmcb.sfmask,
            vmcb.kernel_gs_base,
        ) = (0, 0, 0, 0, 0);
        (vmcb.sysenter_cs, vmcb.sysenter_esp, vmcb.sysenter_eip) = (0, 0, 0);
        (vmcb.dr6, vmcb.dr7) = (0xffff_0ff0, 0x400);
        vmcb.virtual_interrupt |= virtual_interrupt::V_INTR_MASKING;
        vmcb.interrupt_shadow = 0;
        vmcb.event_injection = 0;
        vmcb.exit_interrupt_info = 0;
        self.set_efer(context.efer);
        self.flush_tlb();
    }

    #[inline]
    fn can_take_interrupt(&self) -> bool {
        self.vmcb.rflags & RFLAGS_IF != 0 && self.vmcb.interrupt_shadow & 1 == 0
    }

    fn intercept_exceptions(&mut self, vectors: u32) {
        self.vmcb.intercept_exceptions = vectors | ALWAYS_INTERCEPTED;
    }

    fn interrupt_shadow(&self) -> bool {
        self.vmcb.interrupt_shadow & 1 != 0
    }

    fn register(&self, register: Register) -> u64 {
        *register_slot(self.vmcb, register)
    }

    fn set_register(&mut self, register: Register, value: u64) {
        *register_slot_mut(self.vmcb, register) = value;
    }

    fn segment(&self, segment: Segment) -> SegmentRegister {
        (*segment_slot(self.vmcb, segment)).into()
    }

    fn set_segment(&mut self, segment: Segment, value: SegmentRegister) {
        if segment == Segment::Ss {
            self.vmcb.cpl = (value.attributes >> 5 & 3) as u8;
        }
        *segment_slot_mut(self.vmcb, segment) = value.into();
    }

    fn frame(&self) -> Frame {
        Frame::containing(self.address)
    }

    fn clear_shadow(&mut self) {
        self.vmcb.interrupt_shadow = 0;
    }

    fn inject(&mut self, event: Event) {
        const VALID: u64 = 1 << 31;
        self.vmcb.event_injection = match event {
            // Only where it comes to the same: a program may not enter most vectors by `INT n`.
            Event::Interrupt(vector) if self.injects_as_software && self.vmcb.cpl == 0 => {
                vector as u64 | 4 << 8 | VALID
            }
            Event::Interrupt(vector) => vector as u64 | VALID,
            Event::Nmi => 2 | 2 << 8 | VALID,
            Event::Exception(Exception {
                vector,
                error_code: None,
            }) => vector as u64 | 3 << 8 | VALID,
            Event::Exception(Exception {
                vector,
                error_code: Some(code),
            }) => vector as u64 | 3 << 8 | 1 << 11 | VALID | (code as u64) << 32,
            Event::Again(information) => information,
        };
    }

    #[inline]
    fn interrupted_event(&self) -> Option<Event> {
        // Only with the valid bit does the rest mean anything.
        let information = self.vmcb.exit_interrupt_info;
        (information & 1 << 31 != 0).then_some(Event::Again(information))
    }

    fn forget_interrupted_event(&mut self) {
        self.vmcb.exit_interrupt_info = 0;
    }

    #[inline]
    fn request_window(&mut self, priority: Option<u8>) {
        use virtual_interrupt::{V_IRQ, V_PRIORITY, V_PRIORITY_SHIFT};
        self.vmcb.virtual_interrupt &= !(V_IRQ | V_PRIORITY);
        match priority {
            Some(priority) => {
                self.vmcb.virtual_interrupt |= V_IRQ | (priority as u64) << V_PRIORITY_SHIFT & V_PRIORITY;
                self.vmcb.intercept_1 |= intercept_1::VINTR;
            }
            None => self.vmcb.intercept_1 &= !intercept_1::VINTR,
        }
    }

    #[inline]
    fn task_priority(&self) -> u8 {
        (self.vmcb.virtual_interrupt & virtual_interrupt::V_TPR) as u8
    }

    fn set_task_priority(&mut self, priority: u8) {
        self.vmcb.virtual_interrupt =
            self.vmcb.virtual_interrupt & !virtual_interrupt::V_TPR | priority as u64 & 0xf;
    }

    fn set_nested_root(&mut self, root: Spa) {
        self.vmcb.nested_cr3 = root.0;
        self.flush_tlb();
    }

    fn flush_tlb(&mut self) {
        self.vmcb.tlb_control = TLB_FLUSH_ALL;
    }

    fn set_address_space(&mut self, id: u32) {
        self.vmcb.asid = id;
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.vmcb.tsc_offset = offset;
    }
}

fn table(segment: VmcbSegment) -> TableRegister {
    TableRegister {
        reserved: [0; 3],
        limit: segment.limit as u16,
        base: segment.base,
    }
}

fn table_segment(table: TableRegister) -> VmcbSegment {
    VmcbSegment {
        limit: table.limit as u32,
        base: table.base,
        ..VmcbSegment::default()
    }
}
