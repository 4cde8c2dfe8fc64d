//! Counters of a VP's statistics page: an array of 512 64-bit counters, each at the index that Linux's `mshv` driver
//! knows it by. Exits by the processor's own reason follow from [`EXIT_BASE`] on, which is Partita's addition.

/// Counters in a statistics page.
pub const COUNTERS: usize = 512;
/// First counter of exits by reason; counter `EXIT_BASE + n` counts reason `n` of [`EXIT_NAMES`].
pub const EXIT_BASE: usize = 384;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $index:literal;)*) => { $($(#[$doc])* pub const $name: usize = $index;)* };
}

counters! {
    /// Time inside the partition and in the hypervisor for it, in 100 ns.
    TOTAL_RUN_TIME = 1;
    /// Time in the hypervisor for this VP, in 100 ns.
    HYPERVISOR_RUN_TIME = 2;
    /// Hypercalls made.
    HYPERCALLS = 7;
    /// Moves to another logical processor.
    LP_MIGRATIONS = 45;
}

/// Exit reasons, in the order of their counters.
pub const EXIT_NAMES: [&str; 16] = [
    "cpuid",
    "hypercall",
    "msr-read",
    "msr-write",
    "io-port",
    "nested-fault",
    "interrupt",
    "interrupt-window",
    "halt",
    "control-register",
    "xsetbv",
    "exception",
    "nmi",
    "shutdown",
    "invalid-state",
    "other",
];
