//! Whether a hypervisor with the Hv#1 interface runs below, and what it offers (TLFS, "Feature and Interface Discovery").

use core::arch::x86_64::__cpuid;
use hypercall_api::cpuid::{
    Features, INTERFACE_HV1, LEAF_FEATURES, LEAF_INTERFACE, LEAF_RECOMMENDATIONS, LEAF_VENDOR,
    Recommendations, VENDOR,
};
use hypercall_api::privilege::Privileges;

/// CPUID 1, ECX: a hypervisor is present.
const HYPERVISOR_PRESENT: u32 = 1 << 31;

/// What the hypervisor offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// What this partition may use.
    pub privileges: Privileges,
    /// Features beyond those.
    pub features: Features,
    /// What it recommends.
    pub recommendations: Recommendations,
}

/// What the hypervisor offers; `None` where there is none, or one that is not Hv#1.
pub fn find() -> Option<Offer> {
    if __cpuid(1).ecx & HYPERVISOR_PRESENT == 0 {
        return None;
    }
    let vendor = __cpuid(LEAF_VENDOR);
    let is_ours = [vendor.ebx, vendor.ecx, vendor.edx] == VENDOR
        && vendor.eax >= LEAF_RECOMMENDATIONS
        && __cpuid(LEAF_INTERFACE).eax == INTERFACE_HV1;
    is_ours.then(|| {
        let features = __cpuid(LEAF_FEATURES);
        let recommendations = __cpuid(LEAF_RECOMMENDATIONS);
        Offer {
            privileges: Privileges::from_bits_retain(u64::from(features.ebx) << 32 | u64::from(features.eax)),
            features: Features::from_bits_retain(features.edx),
            recommendations: Recommendations::from_bits_retain(recommendations.eax),
        }
    })
}
