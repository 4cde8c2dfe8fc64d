//! Names of registers.

use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Which register (`HV_REGISTER_NAME`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct RegisterName(pub u32);

macro_rules! registers {
    ($($name:ident = $value:literal, $doc:literal;)*) => {
        impl RegisterName {
            $(#[doc = $doc] pub const $name: Self = Self($value);)*

            /// Every register that has a name, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The register's name as it stands here.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

registers! {
    EXPLICIT_SUSPEND = 0x0, "Bit 0: the VP is suspended by its parent; a new VP is.";
    INTERCEPT_SUSPEND = 0x1, "Bit 0: the VP is suspended by an intercept that its parent has to answer.";
    INSTRUCTION_EMULATION_HINTS = 0x2, "Hints for who emulates an instruction.";
    DISPATCH_SUSPEND = 0x3, "Bit 0: the VP waits for its parent to dispatch it.";
    INTERNAL_ACTIVITY_STATE = 0x4, "What the VP waits for: bit 0 SIPI, bit 1 HLT, bit 2 idle.";
    HYPERVISOR_VERSION = 0x100, "As CPUID leaf 0x40000002.";
    PRIVILEGES_AND_FEATURES_INFO = 0x200, "As CPUID leaf 0x40000003.";
    FEATURES_INFO = 0x201, "As CPUID leaf 0x40000004.";
    IMPLEMENTATION_LIMITS_INFO = 0x202, "As CPUID leaf 0x40000005.";
    HARDWARE_FEATURES_INFO = 0x203, "As CPUID leaf 0x40000006.";
    GUEST_CRASH_P0 = 0x210, "Guest crash parameter 0.";
    GUEST_CRASH_P1 = 0x211, "Guest crash parameter 1.";
    GUEST_CRASH_P2 = 0x212, "Guest crash parameter 2.";
    GUEST_CRASH_P3 = 0x213, "Guest crash parameter 3.";
    GUEST_CRASH_P4 = 0x214, "Guest crash parameter 4.";
    GUEST_CRASH_CTL = 0x215, "Guest crash control.";
    PENDING_INTERRUPTION = 0x10002, "The event that was being delivered, a [`PendingInterruption`](super::PendingInterruption).";
    INTERRUPT_STATE = 0x10003, "Interrupt shadow and NMI mask, an [`InterruptState`](super::InterruptState).";
    PENDING_EVENT0 = 0x10004, "The event to deliver next, a [`PendingException`](super::PendingException).";
    PENDING_EVENT1 = 0x10005, "Second half of that event.";
    DELIVERABILITY_NOTIFICATIONS = 0x10006, "What the parent wants to be told of: bit 0 NMI, bit 1 interrupts, bits 63:48 SINTs.";
    RAX = 0x20000, "RAX.";
    RCX = 0x20001, "RCX.";
    RDX = 0x20002, "RDX.";
    RBX = 0x20003, "RBX.";
    RSP = 0x20004, "RSP.";
    RBP = 0x20005, "RBP.";
    RSI = 0x20006, "RSI.";
    RDI = 0x20007, "RDI.";
    R8 = 0x20008, "R8.";
    R9 = 0x20009, "R9.";
    R10 = 0x2000a, "R10.";
    R11 = 0x2000b, "R11.";
    R12 = 0x2000c, "R12.";
    R13 = 0x2000d, "R13.";
    R14 = 0x2000e, "R14.";
    R15 = 0x2000f, "R15.";
    RIP = 0x20010, "RIP.";
    RFLAGS = 0x20011, "RFLAGS.";
    XMM0 = 0x30000, "XMM0, 128 bits.";
    XMM1 = 0x30001, "XMM1, 128 bits.";
    XMM2 = 0x30002, "XMM2, 128 bits.";
    XMM3 = 0x30003, "XMM3, 128 bits.";
    XMM4 = 0x30004, "XMM4, 128 bits.";
    XMM5 = 0x30005, "XMM5, 128 bits.";
    XMM6 = 0x30006, "XMM6, 128 bits.";
    XMM7 = 0x30007, "XMM7, 128 bits.";
    XMM8 = 0x30008, "XMM8, 128 bits.";
    XMM9 = 0x30009, "XMM9, 128 bits.";
    XMM10 = 0x3000a, "XMM10, 128 bits.";
    XMM11 = 0x3000b, "XMM11, 128 bits.";
    XMM12 = 0x3000c, "XMM12, 128 bits.";
    XMM13 = 0x3000d, "XMM13, 128 bits.";
    XMM14 = 0x3000e, "XMM14, 128 bits.";
    XMM15 = 0x3000f, "XMM15, 128 bits.";
    FP_MMX0 = 0x30010, "ST(0) or MM0, 80 bits.";
    FP_MMX1 = 0x30011, "ST(1) or MM1, 80 bits.";
    FP_MMX2 = 0x30012, "ST(2) or MM2, 80 bits.";
    FP_MMX3 = 0x30013, "ST(3) or MM3, 80 bits.";
    FP_MMX4 = 0x30014, "ST(4) or MM4, 80 bits.";
    FP_MMX5 = 0x30015, "ST(5) or MM5, 80 bits.";
    FP_MMX6 = 0x30016, "ST(6) or MM6, 80 bits.";
    FP_MMX7 = 0x30017, "ST(7) or MM7, 80 bits.";
    FP_CONTROL_STATUS = 0x30018, "FCW 15:0, FSW 31:16, FTW 39:32, last opcode 63:48, last instruction 127:64.";
    XMM_CONTROL_STATUS = 0x30019, "Last data pointer 63:0, MXCSR 95:64, its mask 127:96.";
    CR0 = 0x40000, "CR0.";
    CR2 = 0x40001, "CR2.";
    CR3 = 0x40002, "CR3.";
    CR4 = 0x40003, "CR4.";
    CR8 = 0x40004, "CR8.";
    XFEM = 0x40005, "XCR0.";
    DR0 = 0x50000, "DR0.";
    DR1 = 0x50001, "DR1.";
    DR2 = 0x50002, "DR2.";
    DR3 = 0x50003, "DR3.";
    DR6 = 0x50004, "DR6.";
    DR7 = 0x50005, "DR7.";
    ES = 0x60000, "ES, a segment register.";
    CS = 0x60001, "CS, a segment register.";
    SS = 0x60002, "SS, a segment register.";
    DS = 0x60003, "DS, a segment register.";
    FS = 0x60004, "FS, a segment register.";
    GS = 0x60005, "GS, a segment register.";
    LDTR = 0x60006, "LDTR, a segment register.";
    TR = 0x60007, "TR, a segment register.";
    IDTR = 0x70000, "IDTR, a table register.";
    GDTR = 0x70001, "GDTR, a table register.";
    TSC = 0x80000, "MSR TSC.";
    EFER = 0x80001, "MSR EFER.";
    KERNEL_GS_BASE = 0x80002, "MSR KERNEL_GS_BASE.";
    APIC_BASE = 0x80003, "MSR APIC_BASE.";
    PAT = 0x80004, "MSR PAT.";
    SYSENTER_CS = 0x80005, "MSR SYSENTER_CS.";
    SYSENTER_EIP = 0x80006, "MSR SYSENTER_EIP.";
    SYSENTER_ESP = 0x80007, "MSR SYSENTER_ESP.";
    STAR = 0x80008, "MSR STAR.";
    LSTAR = 0x80009, "MSR LSTAR.";
    CSTAR = 0x8000a, "MSR CSTAR.";
    SFMASK = 0x8000b, "MSR SFMASK.";
    INITIAL_APIC_ID = 0x8000c, "APIC id after reset.";
    MTRR_CAP = 0x8000d, "MSR MTRRcap.";
    MTRR_DEF_TYPE = 0x8000e, "MSR MTRRdefType.";
    MTRR_PHYS_BASE0 = 0x80010, "First of sixteen variable MTRR bases.";
    MTRR_PHYS_MASK0 = 0x80040, "First of sixteen variable MTRR masks.";
    MTRR_FIX_64K_00000 = 0x80070, "First of eleven fixed MTRRs.";
    TSC_AUX = 0x8007b, "MSR TSC_AUX.";
    DEBUG_CTL = 0x8007d, "MSR DEBUGCTL.";
    SPEC_CTRL = 0x80084, "MSR SPEC_CTRL.";
    TSC_VIRTUAL_OFFSET = 0x80087, "Offset of the VP's TSC.";
    XSS = 0x8008b, "MSR XSS.";
    TSC_DEADLINE = 0x80095, "MSR TSC_DEADLINE.";
    TSC_ADJUST = 0x80096, "MSR TSC_ADJUST.";
    VP_RUNTIME = 0x90000, "Run time, in 100 ns.";
    HYPERCALL = 0x90001, "Hypercall page MSR.";
    GUEST_OS_ID = 0x90002, "Guest OS id MSR.";
    VP_INDEX = 0x90003, "Index of the VP.";
    TIME_REF_COUNT = 0x90004, "Reference time, in 100 ns.";
    EOI = 0x90010, "APIC EOI.";
    ICR = 0x90011, "APIC ICR.";
    TPR = 0x90012, "APIC TPR.";
    VP_ASSIST_PAGE = 0x90013, "VP assist page MSR.";
    VP_ROOT_SIGNAL_COUNT = 0x90014, "Signals of the root scheduler.";
    REFERENCE_TSC = 0x90017, "Reference TSC page MSR.";
    VP_CONFIG = 0x90018, "Configuration of the VP.";
    REFERENCE_TSC_SEQUENCE = 0x9001a, "Sequence number of the reference TSC page.";
    REGISTER_PAGE = 0x9001c, "Register page of the VP.";
    SINT0 = 0xa0000, "SINT0.";
    SINT1 = 0xa0001, "SINT1.";
    SINT2 = 0xa0002, "SINT2.";
    SINT3 = 0xa0003, "SINT3.";
    SINT4 = 0xa0004, "SINT4.";
    SINT5 = 0xa0005, "SINT5.";
    SINT6 = 0xa0006, "SINT6.";
    SINT7 = 0xa0007, "SINT7.";
    SINT8 = 0xa0008, "SINT8.";
    SINT9 = 0xa0009, "SINT9.";
    SINT10 = 0xa000a, "SINT10.";
    SINT11 = 0xa000b, "SINT11.";
    SINT12 = 0xa000c, "SINT12.";
    SINT13 = 0xa000d, "SINT13.";
    SINT14 = 0xa000e, "SINT14.";
    SINT15 = 0xa000f, "SINT15.";
    SCONTROL = 0xa0010, "SynIC control.";
    SVERSION = 0xa0011, "SynIC version.";
    SIEFP = 0xa0012, "SynIC event flags page.";
    SIMP = 0xa0013, "SynIC message page.";
    EOM = 0xa0014, "End of message.";
    SIRBP = 0xa0015, "SynIC event ring page.";
    STIMER0_CONFIG = 0xb0000, "Configuration of synthetic timer 0.";
    STIMER0_COUNT = 0xb0001, "Count of synthetic timer 0.";
    STIMER1_CONFIG = 0xb0002, "Configuration of synthetic timer 1.";
    STIMER1_COUNT = 0xb0003, "Count of synthetic timer 1.";
    STIMER2_CONFIG = 0xb0004, "Configuration of synthetic timer 2.";
    STIMER2_COUNT = 0xb0005, "Count of synthetic timer 2.";
    STIMER3_CONFIG = 0xb0006, "Configuration of synthetic timer 3.";
    STIMER3_COUNT = 0xb0007, "Count of synthetic timer 3.";
}

impl RegisterName {
    /// General-purpose register `index`, 0 to 15 in the order of instruction encoding.
    pub const fn general(index: u8) -> Option<Self> {
        if index < 16 {
            Some(Self(Self::RAX.0 + index as u32))
        } else {
            None
        }
    }

    /// XMM register `index`, 0 to 15.
    pub const fn xmm(index: u8) -> Option<Self> {
        if index < 16 {
            Some(Self(Self::XMM0.0 + index as u32))
        } else {
            None
        }
    }

    /// SINT `index`, 0 to 15.
    pub const fn sint(index: u8) -> Option<Self> {
        if index < 16 {
            Some(Self(Self::SINT0.0 + index as u32))
        } else {
            None
        }
    }
}

impl fmt::Debug for RegisterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "register {:#x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_so_that_none_stands_twice() {
        assert!(RegisterName::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn indexed_registers_are_the_named_ones() {
        assert_eq!(RegisterName::general(7), Some(RegisterName::RDI));
        assert_eq!(RegisterName::xmm(15), Some(RegisterName::XMM15));
        assert_eq!(RegisterName::sint(2), Some(RegisterName::SINT2));
        assert_eq!(RegisterName::general(16), None);
    }
}
