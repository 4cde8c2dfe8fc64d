//! Partitions and their virtual processors.
//!
//! | file | holds |
//! |---|---|
//! | [`guest_memory`] | reading and writing a partition's memory, by GPA and by GVA |
//! | [`hypercall_page`] | the page that hypercalls go through |
//! | [`instruction`] | lengths of the instructions that exit, where the hardware does not tell them |
//! | [`synic`] | synthetic interrupt controller and synthetic timers |
//! | [`virtual_apic`] | the virtual local APIC |
//! | [`vp`] | virtual processors |
//! | this one | [`Partition`] |

pub mod guest_memory;
pub mod hypercall_page;
pub mod instruction;
pub mod synic;
pub mod virtual_apic;
pub mod vp;

use crate::memory::address::{Frame, Spa};
use crate::memory::nested::{Mapping, NestedTables, Npt};
use crate::platform::clock;
use crate::platform::registers::tsc;
use crate::virtualization::svm::permissions::Permissions;
use core::sync::atomic::{AtomicU64, Ordering};
use hypercall_api::address::{Gpa, Gpfn};
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::privilege::Privileges;
use hypercall_api::reference::ReferenceTsc;
use spin::{Mutex, Once};
use vp::VpSlot;

/// Most VPs of a partition.
pub const MAX_VPS: usize = 256;

/// The partition that owns the machine; set once at boot.
static ROOT: Once<&'static Partition> = Once::new();

/// A partition.
pub struct Partition {
    /// Its id.
    pub id: PartitionId,
    /// What it may use.
    pub privileges: Privileges,
    /// Its guest physical address space. Whoever changes it calls [`memory_changed`](Self::memory_changed).
    pub memory: Mutex<NestedTables<Npt>>,
    /// Counts the changes of `memory`.
    generation: AtomicU64,
    /// Which ports and MSRs pass through.
    pub permissions: Permissions,
    /// Its VPs.
    vps: [Once<&'static VpSlot>; MAX_VPS],
    /// HV_X64_MSR_GUEST_OS_ID.
    pub guest_os_id: AtomicU64,
    /// HV_X64_MSR_HYPERCALL.
    pub hypercall_msr: AtomicU64,
    /// HV_X64_MSR_REFERENCE_TSC.
    pub reference_tsc_msr: AtomicU64,
    /// The hypercall page that the hypervisor provides, as it does for the root (mapped read-only and executable).
    overlay: Option<Gpfn>,
    /// TSC when the partition was created; its reference time counts from there.
    created: u64,
}

impl Partition {
    /// A partition without VPs.
    pub fn new(
        id: PartitionId,
        privileges: Privileges,
        memory: NestedTables<Npt>,
        permissions: Permissions,
        overlay: Option<Gpfn>,
    ) -> Self {
        Self {
            id,
            privileges,
            memory: Mutex::new(memory),
            generation: AtomicU64::new(1),
            permissions,
            vps: [const { Once::new() }; MAX_VPS],
            guest_os_id: AtomicU64::new(0),
            hypercall_msr: AtomicU64::new(overlay.map_or(0, |page| page.0 << 12)),
            overlay,
            reference_tsc_msr: AtomicU64::new(0),
            created: tsc(),
        }
    }

    /// Makes this the root partition.
    pub fn make_root(&'static self) {
        ROOT.call_once(|| self);
    }

    /// The root partition, once there is one.
    pub fn root() -> Option<&'static Self> {
        ROOT.get().copied()
    }

    /// Gives the partition a VP. Its index must be free.
    pub fn add_vp(&self, vp: &'static VpSlot) {
        self.vps[vp.shared.index.0 as usize].call_once(|| vp);
    }

    /// A VP by its index.
    pub fn vp(&self, index: VpIndex) -> Option<&'static VpSlot> {
        self.vps.get(index.0 as usize)?.get().copied()
    }

    /// Every VP.
    pub fn vps(&self) -> impl Iterator<Item = &'static VpSlot> {
        self.vps.iter().filter_map(|vp| vp.get().copied())
    }

    /// Where a guest physical address is mapped.
    #[inline]
    pub fn translate(&self, gpa: Gpa) -> Option<Mapping> {
        self.memory.lock().translate(gpa)
    }

    /// Changes with every change of the address space.
    #[inline]
    pub fn memory_generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The address space has changed: what VPs remember of it is void.
    pub fn memory_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Reference time now, in 100 ns.
    #[inline]
    pub fn reference_time(&self) -> u64 {
        clock::reference_units(tsc().wrapping_sub(self.created))
    }

    /// The TSC at which reference time will be `time`; saturates.
    pub fn tsc_at(&self, time: u64) -> u64 {
        self.created.saturating_add(clock::tsc_ticks(time))
    }

    /// What the reference TSC page says.
    pub fn reference_tsc(&self) -> ReferenceTsc {
        let scale = clock::reference_scale();
        let offset = -(((self.created as u128 * scale as u128) >> 64) as i64);
        ReferenceTsc {
            sequence: 1,
            reserved: 0,
            scale,
            offset,
        }
    }

    /// Where a page that the guest has given for the hypervisor to write lies, if it is RAM that the guest itself may
    /// write.
    pub fn writable_page(&self, page: Gpfn) -> Option<Spa> {
        let mapping = self.translate(page.base()?)?;
        (mapping.access.write && mapping.is_ram()).then_some(mapping.spa)
    }

    /// The same, as a frame.
    pub fn writable_frame(&self, page: Gpfn) -> Option<Frame> {
        self.writable_page(page).and_then(Frame::starting_at)
    }

    /// Whether `page` is the hypercall page that the hypervisor provides.
    pub fn owns_overlay(&self, page: Gpfn) -> bool {
        self.overlay == Some(page)
    }

    /// Whether the hypercall page is in use.
    pub fn hypercalls_enabled(&self) -> bool {
        self.hypercall_msr.load(Ordering::Relaxed) & 1 != 0
    }
}
