//! Synthetic MSRs (TLFS, "Synthetic MSRs") and the layout of those that have fields.

use crate::address::Gpfn;

macro_rules! msrs {
    ($($name:ident = $value:literal, $doc:literal;)*) => { $(#[doc = $doc] pub const $name: u32 = $value;)* };
}

msrs! {
    GUEST_OS_ID = 0x4000_0000, "Identity of the guest's system; the hypercall page needs it to be non-zero.";
    HYPERCALL = 0x4000_0001, "Hypercall page: bit 0 enable, bit 1 locked, bits 63:12 page.";
    VP_INDEX = 0x4000_0002, "Index of the VP.";
    RESET = 0x4000_0003, "Bit 0: reset the partition; the root's resets the machine.";
    VP_RUNTIME = 0x4000_0010, "Run time of the VP, in 100 ns.";
    TIME_REF_COUNT = 0x4000_0020, "Reference time, in 100 ns since the partition was created.";
    REFERENCE_TSC = 0x4000_0021, "Reference TSC page: bit 0 enable, bits 63:12 page.";
    TSC_FREQUENCY = 0x4000_0022, "TSC frequency, in Hz.";
    APIC_FREQUENCY = 0x4000_0023, "Frequency of the local APIC timer before its divider, in Hz.";
    EOI = 0x4000_0070, "APIC EOI.";
    ICR = 0x4000_0071, "APIC ICR, 64 bits.";
    TPR = 0x4000_0072, "APIC TPR.";
    VP_ASSIST_PAGE = 0x4000_0073, "VP assist page: bit 0 enable, bits 63:12 page.";
    SCONTROL = 0x4000_0080, "SynIC control: bit 0 enable.";
    SVERSION = 0x4000_0081, "SynIC version, 1.";
    SIEFP = 0x4000_0082, "SynIC event flags page: bit 0 enable, bits 63:12 page.";
    SIMP = 0x4000_0083, "SynIC message page: bit 0 enable, bits 63:12 page.";
    EOM = 0x4000_0084, "End of message: a slot was freed.";
    SIRBP = 0x4000_0085, "SynIC event ring page: bit 0 enable, bits 63:12 page. The root's alone.";
    SINT0 = 0x4000_0090, "First of the sixteen SINTs, a [`Sint`] each.";
    SINT15 = 0x4000_009f, "Last of the sixteen SINTs.";
    STIMER0_CONFIG = 0x4000_00b0, "Configuration of synthetic timer 0, a [`StimerConfig`]; a timer has two MSRs.";
    STIMER0_COUNT = 0x4000_00b1, "Count of synthetic timer 0: absolute reference time, or the period.";
    STIMER3_COUNT = 0x4000_00b7, "Count of synthetic timer 3, the last.";
    GUEST_IDLE = 0x4000_00f0, "Reading it waits until an interrupt is pending, whatever RFLAGS.IF says.";
    CRASH_P0 = 0x4000_0100, "First of the five parameters of a guest crash.";
    CRASH_P4 = 0x4000_0104, "Last of the five parameters of a guest crash.";
    CRASH_CTL = 0x4000_0105, "Guest crash: reads as what the hypervisor takes, writing notifies; see [`crash`].";
    REENLIGHTENMENT_CONTROL = 0x4000_0106, "Which vector and VP to tell of a migration.";
    TSC_EMULATION_CONTROL = 0x4000_0107, "Bit 0: RDTSC is emulated after a migration.";
    TSC_EMULATION_STATUS = 0x4000_0108, "Bit 0: RDTSC is being emulated.";
    TSC_INVARIANT_CONTROL = 0x4000_0118, "Bit 0: let the guest see the TSC as invariant.";
}

/// Bits of [`CRASH_CTL`] (TLFS, "Guest Crash Enlightenment").
pub mod crash {
    /// P3 is the GPA of a text and P4 its length in bytes.
    pub const NOTIFY_MESSAGE: u64 = 1 << 62;
    /// The guest has crashed, or the hypervisor takes such news.
    pub const NOTIFY: u64 = 1 << 63;
}

/// A page that a guest gives by an MSR: bit 0 enables, bits 63:12 are the page number, the bits between are kept.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(transparent)]
pub struct PageMsr(pub u64);

impl PageMsr {
    /// An MSR value that enables `page`.
    pub const fn enable(page: Gpfn) -> Self {
        Self(page.0 << 12 | 1)
    }

    /// Whether the page is in use.
    pub const fn is_enabled(self) -> bool {
        self.0 & 1 != 0
    }

    /// Which page.
    pub const fn page(self) -> Gpfn {
        Gpfn(self.0 >> 12)
    }
}

/// A SINT register (TLFS, "SINTx Registers").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Sint(pub u64);

impl Sint {
    /// After reset: masked, no vector.
    pub const RESET: Self = Self(0x1_0000);

    /// An unmasked SINT that raises `vector`.
    pub const fn new(vector: u8, auto_eoi: bool) -> Self {
        Self(vector as u64 | (auto_eoi as u64) << 17)
    }

    /// Vector that it raises, 16 to 255.
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// Whether it raises nothing.
    pub const fn is_masked(self) -> bool {
        self.0 & 1 << 16 != 0
    }

    /// Whether its vector needs no EOI.
    pub const fn is_auto_eoi(self) -> bool {
        self.0 & 1 << 17 != 0
    }

    /// Whether the guest polls instead of taking an interrupt.
    pub const fn is_polling(self) -> bool {
        self.0 & 1 << 18 != 0
    }
}

/// A synthetic timer's configuration (TLFS, "Synthetic Timer Configuration Register").
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(transparent)]
pub struct StimerConfig(pub u64);

impl StimerConfig {
    /// The timer runs.
    pub const ENABLED: u64 = 1 << 0;
    /// The count is a period.
    pub const PERIODIC: u64 = 1 << 1;
    /// Expiry waits until the VP runs; periods that pass meanwhile are not made up for.
    pub const LAZY: u64 = 1 << 2;
    /// Writing a non-zero count enables the timer.
    pub const AUTO_ENABLE: u64 = 1 << 3;
    /// Expiry raises a vector, not a message.
    pub const DIRECT: u64 = 1 << 12;
    /// Every bit that has a meaning; the others must be zero.
    pub const VALID: u64 = 0xf_1fff;

    /// A one-shot timer that a write of its count arms and that raises `vector`.
    pub const fn direct_one_shot(vector: u8) -> Self {
        Self(Self::AUTO_ENABLE | Self::DIRECT | (vector as u64) << 4)
    }

    /// Whether it runs.
    pub const fn is_enabled(self) -> bool {
        self.0 & Self::ENABLED != 0
    }

    /// Whether the count is a period.
    pub const fn is_periodic(self) -> bool {
        self.0 & Self::PERIODIC != 0
    }

    /// Whether it makes up for no period that was missed.
    pub const fn is_lazy(self) -> bool {
        self.0 & Self::LAZY != 0
    }

    /// Whether writing a count enables it.
    pub const fn is_auto_enable(self) -> bool {
        self.0 & Self::AUTO_ENABLE != 0
    }

    /// Whether expiry raises [`vector`](Self::vector).
    pub const fn is_direct(self) -> bool {
        self.0 & Self::DIRECT != 0
    }

    /// Vector of a direct timer.
    pub const fn vector(self) -> u8 {
        (self.0 >> 4) as u8
    }

    /// SINT of a timer that sends messages.
    pub const fn sint(self) -> u8 {
        (self.0 >> 16 & 0xf) as u8
    }

    /// The same timer, running or not.
    pub const fn with_enabled(self, enabled: bool) -> Self {
        Self(self.0 & !Self::ENABLED | enabled as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_timer_is_what_linux_writes() {
        assert_eq!(StimerConfig::direct_one_shot(0xed).0, 0x1ed8);
    }

    #[test]
    fn a_sint_after_reset_is_masked() {
        assert!(Sint::RESET.is_masked() && Sint::RESET.vector() == 0);
        assert_eq!(Sint::new(0xf3, true).0, 0x200f3);
    }
}
