//! The partition privilege mask (TLFS, "Partition Privilege Flags"): CPUID leaf 0x40000003, EAX in the low half and
//! EBX in the high half.

bitflags::bitflags! {
    /// What a partition may use.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Privileges: u64 {
        /// VP run time MSR (0x40000010).
        const ACCESS_VP_RUN_TIME = 1 << 0;
        /// Reference counter MSR (0x40000020).
        const ACCESS_PARTITION_REFERENCE_COUNTER = 1 << 1;
        /// SynIC MSRs.
        const ACCESS_SYNIC_REGS = 1 << 2;
        /// Synthetic timer MSRs.
        const ACCESS_SYNTHETIC_TIMER_REGS = 1 << 3;
        /// APIC access by synthetic MSRs, and the VP assist page.
        const ACCESS_INTR_CTRL_REGS = 1 << 4;
        /// Guest OS id and hypercall MSRs.
        const ACCESS_HYPERCALL_MSRS = 1 << 5;
        /// VP index MSR.
        const ACCESS_VP_INDEX = 1 << 6;
        /// Reset MSR.
        const ACCESS_RESET_REG = 1 << 7;
        /// Statistics pages.
        const ACCESS_STATS_REG = 1 << 8;
        /// Reference TSC page.
        const ACCESS_PARTITION_REFERENCE_TSC = 1 << 9;
        /// Guest idle MSR.
        const ACCESS_GUEST_IDLE_REG = 1 << 10;
        /// TSC and APIC frequency MSRs.
        const ACCESS_FREQUENCY_REGS = 1 << 11;
        /// Debug MSRs.
        const ACCESS_DEBUG_REGS = 1 << 12;
        /// Reenlightenment MSRs.
        const ACCESS_REENLIGHTENMENT_CONTROLS = 1 << 13;
        /// Invariant TSC control MSR (0x40000118).
        const ACCESS_TSC_INVARIANT_CONTROLS = 1 << 15;
        /// Create child partitions.
        const CREATE_PARTITIONS = 1 << 32;
        /// Read its own partition id.
        const ACCESS_PARTITION_ID = 1 << 33;
        /// Deposit, withdraw and query memory.
        const ACCESS_MEMORY_POOL = 1 << 34;
        /// Change how many message buffers a port has.
        const ADJUST_MESSAGE_BUFFERS = 1 << 35;
        /// Post messages.
        const POST_MESSAGES = 1 << 36;
        /// Signal events.
        const SIGNAL_EVENTS = 1 << 37;
        /// Create ports.
        const CREATE_PORT = 1 << 38;
        /// Connect to ports.
        const CONNECT_PORT = 1 << 39;
        /// Map statistics pages.
        const ACCESS_STATS = 1 << 40;
        /// Debugging calls.
        const DEBUGGING = 1 << 43;
        /// Manage physical processors, devices and power.
        const CPU_MANAGEMENT = 1 << 44;
        /// Get and set registers of its own VPs.
        const ACCESS_VP_REGISTERS = 1 << 49;
        /// Extended hypercalls (0x8001 and up).
        const ENABLE_EXTENDED_HYPERCALLS = 1 << 52;
        /// Start a VP directly (`HvCallStartVirtualProcessor`).
        const START_VIRTUAL_PROCESSOR = 1 << 53;
    }
}

impl Privileges {
    /// EAX and EBX of CPUID leaf 0x40000003.
    pub const fn cpuid_words(self) -> (u32, u32) {
        (self.bits() as u32, (self.bits() >> 32) as u32)
    }
}
