//! The hypervisor's ABI: what a partition and the hypervisor say to each other.
//!
//! It is Hyper-V's own, as the Top-Level Functional Specification (TLFS) has it; each module cites the part that it
//! follows. The hypervisor, the root partition and guests all use these definitions, so that a layout is written once.
//!
//! | module | holds |
//! |---|---|
//! | [`access`] | translating a child's addresses, reading and writing its memory |
//! | [`address`] | guest physical addresses and page numbers |
//! | [`archive`] | the boot archive |
//! | [`call`] | issuing hypercalls from inside a partition |
//! | [`code`] | call codes |
//! | [`control`] | the hypercall input and result words |
//! | [`counter`] | the counters of a VP's statistics page |
//! | [`cpuid`] | hypervisor CPUID leaves |
//! | [`device`] | device domains: what devices reach |
//! | [`flush`] | TLB flushes, IPIs, sets of VPs |
//! | [`id`] | partition ids, VP and LP indexes |
//! | [`intercept`] | intercepts and their messages |
//! | [`interrupt`] | device interrupts, and those that a parent raises in its child |
//! | [`memory`] | memory pools, deposits, mapping of guest pages |
//! | [`message`] | SynIC message page and message types |
//! | [`msr`] | synthetic MSRs and their fields |
//! | [`operator`] | Partita's own calls: system information and the log |
//! | [`partition`] | creating and deleting partitions, their properties |
//! | [`port`] | ports, connections, messages and events |
//! | [`privilege`] | the partition privilege mask |
//! | [`processor`] | starting VPs, run times |
//! | [`pvh`] | the boot protocol of every image |
//! | [`mod@reference`] | the reference TSC page |
//! | [`register`] | VP registers by name |
//! | [`state`] | VP state: APIC, XSAVE, SynIC pages, timers |
//! | [`status`] | status codes |
//! | [`system`] | sleep states, system properties, statistics pages |
#![no_std]

pub mod access;
pub mod address;
pub mod archive;
pub mod call;
pub mod code;
pub mod control;
pub mod counter;
pub mod cpuid;
pub mod device;
pub mod flush;
pub mod id;
pub mod intercept;
pub mod interrupt;
pub mod memory;
pub mod message;
pub mod msr;
pub mod operator;
pub mod partition;
pub mod port;
pub mod privilege;
pub mod processor;
pub mod pvh;
pub mod reference;
pub mod register;
pub mod state;
pub mod status;
pub mod system;
