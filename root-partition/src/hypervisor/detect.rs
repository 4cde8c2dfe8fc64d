//! Whether a hypervisor with the Hv#1 interface runs below.

use core::arch::x86_64::__cpuid;
use hypercall_api::cpuid::{INTERFACE_HV1, LEAF_INTERFACE, LEAF_VENDOR, VENDOR};

/// CPUID 1, ECX: a hypervisor is present.
const HYPERVISOR_PRESENT: u32 = 1 << 31;

/// Whether the hypervisor that this image needs is there.
pub fn is_present() -> bool {
    if __cpuid(1).ecx & HYPERVISOR_PRESENT == 0 {
        return false;
    }
    let vendor = __cpuid(LEAF_VENDOR);
    [vendor.ebx, vendor.ecx, vendor.edx] == VENDOR
        && vendor.eax >= LEAF_INTERFACE
        && __cpuid(LEAF_INTERFACE).eax == INTERFACE_HV1
}
