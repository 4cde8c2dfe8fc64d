//! CPUID: the hypervisor's leaves (TLFS, "Feature and Interface Discovery") and what a guest must not see of the processor.

use crate::Context;
use crate::machine::{self, Work};
use crate::report::{equal, holds, skip};
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicU32, Ordering};
use hypercall_api::cpuid::{
    Features, INTERFACE_HV1, LEAF_FEATURES, LEAF_INTERFACE, LEAF_ISOLATION, LEAF_LIMITS,
    LEAF_STACK_PROPERTIES, LEAF_VENDOR, LEAF_VERSION, VENDOR,
};
use hypercall_api::privilege::Privileges;
use vsc_runtime::apic;
use x86_64::registers::control::{Cr4, Cr4Flags};

const NAME: &str = "CPUID";

/// Checks the leaves.
pub(crate) fn check(context: &Context) {
    hypervisor_leaves(context);
    hidden();
    topology();
}

fn words(leaf: u32) -> [u32; 4] {
    let result = __cpuid(leaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

fn hypervisor_leaves(context: &Context) {
    holds(NAME, "1.ECX[31] tells of a hypervisor", __cpuid(1).ecx >> 31 == 1);
    let [last, vendor @ ..] = words(LEAF_VENDOR);
    equal(NAME, "40000000 is 'Microsoft Hv'", vendor, VENDOR);
    holds(
        NAME,
        "40000000.EAX is the last leaf, 40000005 or more",
        (0x4000_0005..=0x4000_ffff).contains(&last),
    );
    equal(
        NAME,
        "40000001.EAX is 'Hv#1'",
        words(LEAF_INTERFACE)[0],
        INTERFACE_HV1,
    );
    holds(NAME, "40000002 tells a version", words(LEAF_VERSION)[0] != 0);
    let [low, high, ..] = words(LEAF_FEATURES);
    let privileges = Privileges::from_bits_retain(u64::from(high) << 32 | u64::from(low));
    let mandatory = Privileges::ACCESS_HYPERCALL_MSRS | Privileges::ACCESS_VP_INDEX;
    holds(
        NAME,
        "40000003.EAX has the hypercall and VP index MSRs",
        privileges.contains(mandatory),
    );
    let forbidden =
        Privileges::CREATE_PARTITIONS | Privileges::CPU_MANAGEMENT | Privileges::ACCESS_MEMORY_POOL;
    holds(
        NAME,
        "40000003.EBX has no privilege of a parent",
        !privileges.intersects(forbidden),
    );
    holds(NAME, "40000003.EBX[22] isolation is clear", high & 1 << 22 == 0);
    equal(
        NAME,
        "40000003.EDX[8] goes with EAX[11], the frequency MSRs",
        context.offer.features.contains(Features::FREQUENCY_MSRS),
        privileges.contains(Privileges::ACCESS_FREQUENCY_REGS),
    );
    let limits = words(LEAF_LIMITS);
    holds(
        NAME,
        "40000005 tells limits",
        limits[0] as usize >= vsc_runtime::processor::local::running(),
    );
    for leaf in [last + 1, LEAF_ISOLATION, LEAF_STACK_PROPERTIES, 0x4000_0100] {
        equal(
            NAME,
            format_args!("{leaf:08x} reads as zero"),
            words(leaf),
            [0; 4],
        );
    }
}

fn hidden() {
    let leaf = __cpuid(1);
    for (bit, what) in [(3, "MONITOR"), (5, "VMX"), (6, "SMX")] {
        holds(
            NAME,
            format_args!("1.ECX[{bit}] {what} is hidden"),
            leaf.ecx & 1 << bit == 0,
        );
    }
    let extended = __cpuid(0x8000_0001);
    holds(NAME, "80000001.ECX[2] SVM is hidden", extended.ecx & 1 << 2 == 0);
    holds(
        NAME,
        "6.EAX[2] the APIC timer never stops",
        __cpuid(6).eax & 1 << 2 != 0,
    );
    equal(
        NAME,
        "A.EAX there are no performance counters",
        __cpuid(0xa).eax & 0xff,
        0,
    );
    let visible = __cpuid(1).ecx & 1 << 27 != 0;
    let enabled = Cr4::read().contains(Cr4Flags::OSXSAVE);
    equal(NAME, "1.ECX[27] OSXSAVE is CR4's", visible, enabled);
}

fn topology() {
    let id = apic::id();
    equal(
        NAME,
        "1.EBX[31:24] is the APIC id",
        __cpuid(1).ebx >> 24,
        id & 0xff,
    );
    if __cpuid(0).eax >= 0xb {
        equal(NAME, "B.EDX is the x2APIC id", __cpuid_count(0xb, 0).edx, id);
    }
    let Some(other) = machine::other() else {
        skip(
            NAME,
            "each VP has an APIC id of its own",
            "there is one processor",
        );
        return;
    };
    static OTHER: AtomicU32 = AtomicU32::new(0);
    static WORK: Work = || OTHER.store(__cpuid(1).ebx >> 24, Ordering::Release);
    let done = machine::run_on(other, &WORK);
    let seen = OTHER.load(Ordering::Acquire);
    holds(
        NAME,
        "each VP has an APIC id of its own",
        done && seen == other.apic_id.load(Ordering::Acquire) && seen != id,
    );
}
