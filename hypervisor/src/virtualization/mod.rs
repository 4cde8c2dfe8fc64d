//! Processor virtualisation: the one trait between the hypervisor and AMD-V (SVM) or Intel VT-x (VMX).
//!
//! Nothing above this module knows the vendor. [`Exit`] is what a guest did; [`VirtualProcessor`] is how a guest is run
//! and what may be asked of and done to its processor state between two runs.

pub mod svm;

use crate::memory::address::{Frame, Spa};
use core::cell::Cell;
use hypercall_api::address::{Gpa, Gva};
use hypercall_api::operator::HardwareSupport;
use hypercall_api::processor::{InitialVpContext, SegmentRegister};

/// The guest's general registers, in the order of their encoding, and its XMM registers: what the hypervisor's own code
/// would overwrite.
///
/// RAX and RSP are copied in by [`VirtualProcessor::enter`] where the hardware keeps them elsewhere.
#[repr(C, align(16))]
#[derive(Clone, Default)]
pub struct GuestRegisters {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 … R15.
    pub general: [u64; 16],
    /// XMM0 … XMM15.
    pub xmm: [u128; 16],
}

/// Indexes into [`GuestRegisters::general`].
#[allow(missing_docs)] // the names are the registers'
pub mod general {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
    pub const R8: usize = 8;
}

impl GuestRegisters {
    /// EDX:EAX as one value.
    pub fn edx_eax(&self) -> u64 {
        self.general[general::RDX] << 32 | self.general[general::RAX] & 0xffff_ffff
    }

    /// Sets EDX and EAX from one value, as RDMSR does.
    pub fn set_edx_eax(&mut self, value: u64) {
        self.general[general::RAX] = value & 0xffff_ffff;
        self.general[general::RDX] = value >> 32;
    }
}

/// Registers that the hardware keeps and that are neither general nor segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the names are the registers'
pub enum Register {
    Rflags,
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    Dr6,
    Dr7,
    Star,
    Lstar,
    Cstar,
    Sfmask,
    KernelGsBase,
    SysenterCs,
    SysenterEsp,
    SysenterEip,
}

/// Segment registers and descriptor tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the names are the registers'
pub enum Segment {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
    Ldtr,
    Tr,
    Idtr,
    Gdtr,
}

/// Why a guest stopped running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// CPUID.
    Cpuid,
    /// VMMCALL or VMCALL.
    Hypercall,
    /// RDMSR of an MSR that does not pass through.
    MsrRead,
    /// WRMSR of an MSR that does not pass through.
    MsrWrite,
    /// IN, OUT, INS or OUTS of a port that does not pass through.
    IoPort(IoAccess),
    /// An access that the nested page tables do not allow.
    NestedFault(NestedFault),
    /// A physical interrupt is pending.
    Interrupt,
    /// The guest can take an interrupt now.
    InterruptWindow,
    /// HLT.
    Halt,
    /// XSETBV.
    SetXcr,
    /// INVD, which would lose what others have in their caches.
    InvalidateCaches,
    /// An instruction that this guest does not have: a virtualisation instruction, MONITOR, MWAIT.
    Undefined,
    /// An exception that is intercepted, and the address that a page fault is about.
    Exception(Exception, u64),
    /// A physical NMI; its handler has run.
    Nmi,
    /// Triple fault.
    Shutdown,
    /// The processor refused the guest's state.
    InvalidState,
    /// A reason that is not expected; the vendor's code for it.
    Other(u64),
}

impl Exit {
    /// Index of the exit's counter, as [`hypercall_api::counter::EXIT_NAMES`] lists them.
    #[inline]
    pub const fn counter(&self) -> usize {
        match self {
            Self::Cpuid => 0,
            Self::Hypercall => 1,
            Self::MsrRead => 2,
            Self::MsrWrite => 3,
            Self::IoPort(_) => 4,
            Self::NestedFault(_) => 5,
            Self::Interrupt => 6,
            Self::InterruptWindow => 7,
            Self::Halt => 8,
            Self::SetXcr => 10,
            Self::Exception(..) => 11,
            Self::Nmi => 12,
            Self::Shutdown => 13,
            Self::InvalidState => 14,
            Self::InvalidateCaches | Self::Undefined | Self::Other(_) => 15,
        }
    }
}

/// An access to an I/O port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoAccess {
    /// The port.
    pub port: u16,
    /// Bytes: 1, 2 or 4.
    pub size: u8,
    /// Whether the guest writes.
    pub write: bool,
    /// INS or OUTS.
    pub string: bool,
    /// With a REP prefix.
    pub repeated: bool,
    /// Address of the next instruction.
    pub next_rip: u64,
}

/// What an access wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// A nested page fault (SVM) or EPT violation (VMX).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NestedFault {
    /// Where.
    pub gpa: Gpa,
    /// The linear address, where the hardware tells it.
    pub gva: Option<Gva>,
    /// What.
    pub access: Access,
    /// Whether something is mapped there that forbids the access.
    pub present: bool,
    /// Whether the guest's own page walk made the access.
    pub page_walk: bool,
}

/// An exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    /// Its vector, 0 to 31.
    pub vector: u8,
    /// Its error code, where it has one.
    pub error_code: Option<u32>,
}

impl Exception {
    /// #UD.
    pub const INVALID_OPCODE: Self = Self {
        vector: 6,
        error_code: None,
    };
    /// #GP(0).
    pub const GENERAL_PROTECTION: Self = Self {
        vector: 13,
        error_code: Some(0),
    };
    /// #AC, the vector.
    pub const ALIGNMENT_CHECK: u8 = 17;
    /// #DB, the vector.
    pub const DEBUG: u8 = 1;
    /// #MC, the vector.
    pub const MACHINE_CHECK: u8 = 18;
}

/// What is injected into a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// An external interrupt.
    Interrupt(u8),
    /// An NMI.
    Nmi,
    /// An exception.
    Exception(Exception),
    /// An event whose delivery an exit interrupted, in the vendor's own form, to be injected again as it was.
    Again(u64),
}

/// How a guest's addresses are translated: the registers that a page walk needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the names are the registers'
pub struct Paging {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
}

impl Paging {
    /// Whether paging is on.
    pub const fn is_on(&self) -> bool {
        self.cr0 & 1 << 31 != 0
    }

    /// Whether the processor is in long mode (EFER.LMA).
    pub const fn is_long(&self) -> bool {
        self.efer & 1 << 10 != 0
    }
}

/// The processor of one VP: SVM's VMCB or VMX's VMCS behind one interface. Every method but
/// [`enter`](Self::enter) is called between two runs, on the logical processor that runs the VP.
///
/// | method | SVM | VMX |
/// |---|---|---|
/// | `enter` | VMRUN; EXITCODE and EXITINFO decoded | VMLAUNCH or VMRESUME; exit reason and qualification decoded |
/// | `rip`, `rflags`, `paging`, `context` | VMCB save area | VMREAD and VMWRITE of the guest-state area |
/// | `instruction_length` | nRIP − RIP, where the processor has NRIPS | VM-exit instruction length |
/// | `can_take_interrupt` | RFLAGS.IF and the interrupt shadow | RFLAGS.IF and the interruptibility state |
/// | `interrupt_shadow`, `clear_shadow` | INTERRUPT_SHADOW | blocking by STI and MOV SS |
/// | `inject` | EVENTINJ | VM-entry interruption information |
/// | `interrupted_event`, `forget_interrupted_event` | EXITINTINFO | IDT-vectoring information |
/// | `request_window` | V_IRQ with the VINTR intercept and V_INTR_PRIO | interrupt-window exiting, TPR threshold |
/// | `task_priority` | V_TPR | TPR shadow |
/// | `set_nested_root` | N_CR3 | EPT pointer |
/// | `flush_tlb` | TLB_CONTROL | INVEPT, INVVPID |
/// | `intercept_exceptions` | exception intercepts | exception bitmap |
/// | `set_address_space` | ASID | VPID |
/// | `set_tsc_offset` | TSC_OFFSET | TSC offset |
pub trait VirtualProcessor {
    /// Runs the guest until it exits. Interrupts are off before and after; while the guest runs, a physical interrupt
    /// makes it exit. Events injected before are delivered first.
    fn enter(&mut self, registers: &mut GuestRegisters) -> Exit;

    /// Address of the next instruction, within CS.
    fn rip(&self) -> u64;

    /// Sets the address of the next instruction.
    fn set_rip(&mut self, rip: u64);

    /// Length of the instruction that exited, where the hardware tells it.
    fn instruction_length(&self) -> Option<u8>;

    /// Current privilege level, 0 to 3.
    fn privilege_level(&self) -> u8;

    /// Whether code runs in 64-bit mode (long mode and CS.L).
    fn is_64_bit(&self) -> bool;

    /// Base of CS, which is added to `rip` outside 64-bit mode.
    fn code_base(&self) -> u64;

    /// The registers that a page walk needs.
    fn paging(&self) -> Paging;

    /// EFER as the guest sees it.
    fn efer(&self) -> u64;

    /// Sets EFER, but for the bits that are the hypervisor's. LMA stays as the processor has it.
    fn set_efer(&mut self, efer: u64);

    /// PAT.
    fn pat(&self) -> u64;

    /// Sets PAT; the value has been checked.
    fn set_pat(&mut self, pat: u64);

    /// A register that is neither general nor a segment.
    fn register(&self, register: Register) -> u64;

    /// Sets such a register. What the processor does not take is found out at the next entry.
    fn set_register(&mut self, register: Register, value: u64);

    /// A segment register.
    fn segment(&self, segment: Segment) -> SegmentRegister;

    /// Sets a segment register.
    fn set_segment(&mut self, segment: Segment, value: SegmentRegister);

    /// The frame in which the hardware keeps the guest's state.
    fn frame(&self) -> Frame;

    /// The registers in which a VP starts, as they are now.
    fn context(&self, registers: &GuestRegisters) -> InitialVpContext;

    /// Puts the processor into the state in which a VP starts. Registers that the context does not name get their values
    /// after INIT.
    fn set_context(&mut self, context: &InitialVpContext, registers: &mut GuestRegisters);

    /// Whether an external interrupt can be delivered now.
    fn can_take_interrupt(&self) -> bool;

    /// Makes the exceptions whose bits are set exit, besides those that always do.
    fn intercept_exceptions(&mut self, vectors: u32);

    /// Whether interrupts are held off for one instruction.
    fn interrupt_shadow(&self) -> bool;

    /// Ends the interrupt shadow, as an instruction does that was skipped.
    fn clear_shadow(&mut self);

    /// Delivers `event` at the next entry; at most one an entry.
    fn inject(&mut self, event: Event);

    /// The event whose delivery the last exit interrupted, if any.
    fn interrupted_event(&self) -> Option<Event>;

    /// Drops that event: something else takes its place.
    fn forget_interrupted_event(&mut self);

    /// Asks for [`Exit::InterruptWindow`] as soon as the guest can take an interrupt of `priority` (a vector's upper
    /// half), or for none.
    fn request_window(&mut self, priority: Option<u8>);

    /// The guest's task priority (CR8), 0 to 15.
    fn task_priority(&self) -> u8;

    /// Sets the guest's task priority.
    fn set_task_priority(&mut self, priority: u8);

    /// The root of the nested page tables.
    fn set_nested_root(&mut self, root: Spa);

    /// Forgets the guest's translations before it runs again.
    fn flush_tlb(&mut self);

    /// Gives the guest an address space id (ASID or VPID), under which the processor keeps its translations apart.
    fn set_address_space(&mut self, id: u32);

    /// What is added to the TSC that the guest reads.
    fn set_tsc_offset(&mut self, offset: u64);
}

/// Address space ids of one logical processor. Id 0 is the hypervisor's own.
pub struct AddressSpaces {
    next: Cell<u32>,
    /// Changes when ids begin to be given anew.
    generation: Cell<u64>,
}

/// An address space id that counts on one processor for one generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AddressSpace {
    processor: u32,
    generation: u64,
}

impl Default for AddressSpaces {
    fn default() -> Self {
        Self::new()
    }
}

impl AddressSpaces {
    /// None given out.
    pub const fn new() -> Self {
        Self {
            next: Cell::new(1),
            generation: Cell::new(1),
        }
    }

    /// Sees to it that `held` counts on this processor, which is number `processor`: otherwise gives the guest a new id and
    /// makes it forget its translations.
    pub fn renew(&self, processor: u32, held: &mut AddressSpace, hardware: &mut dyn VirtualProcessor) {
        if held.processor == processor && held.generation == self.generation.get() {
            return;
        }
        if self.next.get() >= svm::address_space_ids() {
            self.next.set(1);
            self.generation.set(self.generation.get() + 1);
        }
        let id = self.next.get();
        self.next.set(id + 1);
        *held = AddressSpace {
            processor,
            generation: self.generation.get(),
        };
        hardware.set_address_space(id);
        hardware.flush_tlb();
    }
}

/// Why this processor cannot run guests, for a person.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Missing {
    /// Neither SVM nor VMX.
    #[error(
        "this processor has no AMD-V (SVM): choose a processor model that has it (QEMU: `-cpu max`), or turn it on in \
         the firmware set-up"
    )]
    Virtualization,
    /// The firmware has turned it off and locked it.
    #[error("AMD-V (SVM) is turned off by the firmware (VM_CR.SVMDIS): turn it on in the firmware set-up")]
    DisabledByFirmware,
    /// VMX, which has no backend yet.
    #[error("this processor has Intel VT-x, which this version cannot use yet: choose one with AMD-V (SVM)")]
    VmxOnly,
    /// No nested paging.
    #[error("this processor has no nested paging (NPT): choose a model that has it (QEMU: `-cpu max`)")]
    NestedPaging,
    /// A feature of the processor that the hypervisor's own code needs.
    #[error("this processor has no {0}, which the hypervisor needs")]
    Feature(&'static str),
}

/// What this processor offers, or why it cannot run guests.
pub fn detect() -> Result<HardwareSupport, Missing> {
    svm::detect()
}
