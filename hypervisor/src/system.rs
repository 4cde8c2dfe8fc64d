//! What the machine and the hypervisor are: for the root's operators, and for reports.

use crate::memory::address::{Spa, SpaRange};
use crate::memory::frames::FrameAllocator;
use crate::memory::ownership::Ownership;
use crate::platform::io_apic;
use crate::virtualization::svm::permissions::Permissions;
use core::sync::atomic::{AtomicU64, Ordering};
use hypercall_api::operator::SystemInfo;
use spin::{Mutex, Once};

/// The hypervisor's own frames.
pub static FRAMES: Once<Mutex<FrameAllocator>> = Once::new();

static SYSTEM: Once<System> = Once::new();
/// TSC when the root was entered.
static ROOT_ENTERED: AtomicU64 = AtomicU64::new(0);

/// What was found at boot.
pub struct System {
    /// What the root is told.
    pub information: SystemInfo,
    /// The image.
    pub image: SpaRange,
    /// The reserve that its frames come from.
    pub reserve: SpaRange,
}

/// Takes note of what was found, once.
pub fn set(system: System) {
    SYSTEM.call_once(|| system);
}

/// Who uses the root's frames; set once.
static OWNERSHIP: Once<Ownership> = Once::new();

/// What children may reach without an exit: no port, and the MSRs that are switched with them.
static CHILD_PERMISSIONS: Once<Permissions> = Once::new();

/// Takes note of the maps that all children share.
pub fn set_child_permissions(permissions: Permissions) {
    CHILD_PERMISSIONS.call_once(|| permissions);
}

/// The maps that all children share.
pub fn child_permissions() -> Option<&'static Permissions> {
    CHILD_PERMISSIONS.get()
}

/// Takes note of where the state of the root's frames is kept.
pub fn set_ownership(ownership: Ownership) {
    OWNERSHIP.call_once(|| ownership);
}

/// Who uses the root's frames.
pub fn ownership() -> Option<&'static Ownership> {
    OWNERSHIP.get()
}

/// Whether `address` is in the image or the reserve.
pub fn is_hypervisors(address: Spa) -> bool {
    SYSTEM
        .get()
        .is_none_or(|system| system.image.contains(address) || system.reserve.contains(address))
}

/// Whether any of `range` is in the image or the reserve.
pub fn has_hypervisors(range: SpaRange) -> bool {
    SYSTEM
        .get()
        .is_none_or(|system| system.image.overlaps(range) || system.reserve.overlaps(range))
}

/// Takes note that the root begins to run.
pub fn root_entered(tsc: u64) {
    ROOT_ENTERED.store(tsc, Ordering::Relaxed);
}

/// What the root is told, with what has changed since boot.
pub fn information() -> Option<SystemInfo> {
    let mut information = SYSTEM.get()?.information;
    information.tsc_at_root = ROOT_ENTERED.load(Ordering::Relaxed);
    information.memory_hypervisor_free = FRAMES.get()?.lock().free_frames() * 4096;
    Some(information)
}

/// Who owns an address that the root may not touch.
pub fn owner_of(address: Spa) -> &'static str {
    const LOCAL_APIC: u64 = 0xfee0_0000;
    let Some(system) = SYSTEM.get() else {
        return "unknown memory";
    };
    let page = address.0 & !0xfff;
    let units = &system.information.iommu[..system.information.iommu_count as usize];
    if system.image.contains(address) || system.reserve.contains(address) {
        "the hypervisor's memory"
    } else if page == LOCAL_APIC {
        "the local APIC"
    } else if io_apic::is_at(page) {
        "an I/O APIC"
    } else if units.iter().any(|unit| unit.register_base & !0xfff == page) {
        "an IOMMU"
    } else {
        "an address where nothing is"
    }
}
