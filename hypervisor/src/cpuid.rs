//! What a guest's CPUID tells: the processor's own leaves without what the guest does not have, and the hypervisor's.

use crate::partition::instruction::Kind;
use crate::partition::vp::{Resume, Vp};
use crate::platform::registers;
use crate::processor::local::MAX_PROCESSORS;
use crate::virtualization::VirtualProcessor;
use crate::virtualization::general::{RAX, RBX, RCX, RDX};
use core::arch::x86_64::CpuidResult;
use hypercall_api::cpuid as hv;
use hypercall_api::cpuid::{Features, HardwareFeatures, Recommendations};

/// Leaf 1, ECX: VMX, SMX, EST, MONITOR, TSC deadline, PDCM, x2APIC, OSXSAVE, hypervisor present.
mod leaf_1_ecx {
    pub(super) const MONITOR: u32 = 1 << 3;
    pub(super) const VMX: u32 = 1 << 5;
    pub(super) const SMX: u32 = 1 << 6;
    pub(super) const POWER: u32 = 1 << 7 | 1 << 8;
    pub(super) const PDCM: u32 = 1 << 15;
    pub(super) const X2APIC: u32 = 1 << 21;
    pub(super) const TSC_DEADLINE: u32 = 1 << 24;
    pub(super) const OSXSAVE: u32 = 1 << 27;
    pub(super) const HYPERVISOR: u32 = 1 << 31;
}

const CR4_OSXSAVE: u64 = 1 << 18;
/// Leaf 0x80000001, ECX: SVM, SKINIT, and the performance counters of AMD.
const EXTENDED_HIDDEN: u32 = 1 << 2 | 1 << 12 | 1 << 23 | 1 << 24 | 1 << 28;

/// CPUID.
#[inline]
pub fn execute(vp: &mut Vp) -> Resume {
    let leaf = vp.registers.general[RAX] as u32;
    let subleaf = vp.registers.general[RCX] as u32;
    let result = values(vp, leaf, subleaf);
    if vp.partition.intercepts.wants_leaf(leaf) {
        return vp.intercept_cpuid(result);
    }
    let general = &mut vp.registers.general;
    general[RAX] = result.eax as u64;
    general[RBX] = result.ebx as u64;
    general[RCX] = result.ecx as u64;
    general[RDX] = result.edx as u64;
    vp.advance(Kind::TwoBytes);
    Resume::Guest
}

/// What CPUID says to a VP.
#[inline]
pub fn values(vp: &Vp, leaf: u32, subleaf: u32) -> CpuidResult {
    let mut result = match leaf {
        0x4000_0000..0x4001_0000 => hypervisor_leaf(vp, leaf),
        _ => processor_leaf(vp, leaf, subleaf),
    };
    vp.partition
        .apply_cpuid_policy(vp.shared.index.0, leaf, subleaf, &mut result);
    result
}

fn processor_leaf(vp: &Vp, leaf: u32, subleaf: u32) -> CpuidResult {
    let mut result = registers::cpuid(leaf, subleaf);
    let apic_id = vp.shared.apic_id;
    match leaf {
        1 => {
            use leaf_1_ecx::*;
            result.ebx = result.ebx & 0x00ff_ffff | apic_id << 24;
            result.ecx &= !(MONITOR | VMX | SMX | POWER | PDCM | TSC_DEADLINE | OSXSAVE);
            result.ecx |= HYPERVISOR | X2APIC;
            if vp.hardware.paging().cr4 & CR4_OSXSAVE != 0 {
                result.ecx |= OSXSAVE;
            }
        }
        // Power management: only that the APIC timer never stops.
        6 => {
            result = CpuidResult {
                eax: 1 << 2,
                ebx: 0,
                ecx: 0,
                edx: 0,
            }
        }
        // MONITOR, performance counters, RDT, SGX, trace, crystal clock.
        5 | 0xa | 0xf | 0x10 | 0x12 | 0x14 | 0x15 | 0x16 => {
            result = CpuidResult {
                eax: 0,
                ebx: 0,
                ecx: 0,
                edx: 0,
            }
        }
        0xb | 0x1f => result.edx = apic_id,
        // XSAVES and XSS are not offered.
        0xd if subleaf == 1 => result.eax &= 0b0111,
        0x8000_0001 => result.ecx &= !EXTENDED_HIDDEN,
        // Machine checks that can be recovered from.
        0x8000_0007 => result.ebx = 0,
        0x8000_000a => {
            result = CpuidResult {
                eax: 0,
                ebx: 0,
                ecx: 0,
                edx: 0,
            }
        }
        0x8000_001e => result.eax = apic_id,
        _ => {}
    }
    result
}

fn hypervisor_leaf(vp: &Vp, leaf: u32) -> CpuidResult {
    let (eax, ebx, ecx, edx) = match leaf {
        hv::LEAF_VENDOR => (hv::LEAF_LAST, hv::VENDOR[0], hv::VENDOR[1], hv::VENDOR[2]),
        hv::LEAF_INTERFACE => (hv::INTERFACE_HV1, 0, 0, 0),
        hv::LEAF_VERSION => (
            hv::BUILD,
            crate::VERSION[0] << 16 | crate::VERSION[1],
            0,
            crate::VERSION[2],
        ),
        hv::LEAF_FEATURES => {
            let (low, high) = vp.partition.privileges.cpuid_words();
            let features =
                Features::FREQUENCY_MSRS | Features::DIRECT_SYNTHETIC_TIMERS | Features::GUEST_CRASH_MSRS;
            (low, high, 0, features.bits())
        }
        hv::LEAF_RECOMMENDATIONS => {
            let mut recommended = Recommendations::REMOTE_TLB_FLUSH
                | Recommendations::RELAXED_TIMING
                | Recommendations::DEPRECATE_AUTO_EOI
                | Recommendations::CLUSTER_IPI
                | Recommendations::EX_PROCESSOR_MASKS;
            if vp.partition.has_parent() {
                recommended |= Recommendations::APIC_MSRS;
            }
            (recommended.bits(), u32::MAX, 0, 0)
        }
        hv::LEAF_LIMITS => (crate::partition::MAX_VPS as u32, MAX_PROCESSORS as u32, 0, 0),
        hv::LEAF_HARDWARE => {
            let used = HardwareFeatures::MSR_BITMAPS | HardwareFeatures::SECOND_LEVEL_ADDRESS_TRANSLATION;
            (used.bits(), 0, 0, 0)
        }
        // Linux reads 0x40000082 without asking: what is not there must read as zero.
        _ => (0, 0, 0, 0),
    };
    CpuidResult { eax, ebx, ecx, edx }
}

/// Name of this processor, as the extended leaves tell it.
pub fn brand() -> [u8; 48] {
    let mut brand = [0; 48];
    if registers::cpuid(0x8000_0000, 0).eax >= 0x8000_0004 {
        for (leaf, text) in (0x8000_0002u32..).zip(brand.chunks_exact_mut(16)) {
            let CpuidResult { eax, ebx, ecx, edx } = registers::cpuid(leaf, 0);
            for (word, bytes) in [eax, ebx, ecx, edx].into_iter().zip(text.chunks_exact_mut(4)) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
    }
    brand
}

/// Vendor of this processor.
pub fn vendor() -> [u8; 12] {
    let CpuidResult { ebx, ecx, edx, .. } = registers::cpuid(0, 0);
    let mut vendor = [0; 12];
    for (word, bytes) in [ebx, edx, ecx].into_iter().zip(vendor.chunks_exact_mut(4)) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    vendor
}

/// Bits in a physical address.
pub fn physical_address_bits() -> u32 {
    match registers::cpuid(0x8000_0000, 0).eax {
        0x8000_0008.. => (registers::cpuid(0x8000_0008, 0).eax & 0xff).clamp(36, 52),
        _ => 36,
    }
}

/// Whether 1 GiB pages are there.
pub fn has_gib_pages() -> bool {
    registers::cpuid(0x8000_0000, 0).eax >= 0x8000_0001 && registers::cpuid(0x8000_0001, 0).edx & 1 << 26 != 0
}

/// Whether the TSC runs at one rate in every power state.
pub fn has_invariant_tsc() -> bool {
    registers::cpuid(0x8000_0000, 0).eax >= 0x8000_0007 && registers::cpuid(0x8000_0007, 0).edx & 1 << 8 != 0
}

/// Whether XSAVE is there.
pub fn has_xsave() -> bool {
    registers::cpuid(1, 0).ecx & 1 << 26 != 0
}
