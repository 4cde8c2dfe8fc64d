//! Partitions and their virtual processors.
//!
//! | file | holds |
//! |---|---|
//! | [`cpuid_policy`] | what a parent wants CPUID to say |
//! | [`guest_memory`] | reading and writing a partition's memory, by GPA and by GVA |
//! | [`hypercall_page`] | the page that hypercalls go through |
//! | [`installed_intercepts`] | what a parent has asked to hear of |
//! | [`instruction`] | lengths of the instructions that exit, where the hardware does not tell them |
//! | [`intercept_message`] | intercepts on their way to the parent |
//! | [`lazy_end`] | ends of interrupts that a guest need not tell |
//! | [`lifecycle`] | creating and deleting partitions and VPs |
//! | [`memory`] | deposits, and what children have mapped |
//! | [`message_queue`] | messages that wait at a port |
//! | [`mmio`] | decoding of plain moves to registers in memory |
//! | [`xapic`] | the APIC's page |
//! | [`id_table`] | things by ids of the caller's choice |
//! | [`port`] | ports and connections |
//! | [`registers`] | registers of a VP by name |
//! | [`shared`] | what everybody may touch of a VP |
//! | [`state`] | a VP's state as its parent saves it |
//! | [`statistics`] | a VP's counters |
//! | [`synic`] | synthetic interrupt controller and synthetic timers |
//! | [`synthetic_timer`] | when a periodic one expires next |
//! | [`table`] | partitions by their ids |
//! | [`virtual_apic`] | the virtual local APIC |
//! | [`vp`] | what its LP owns of a VP |
//! | this one | [`Partition`] |

pub mod cpuid_policy;
pub mod guest_memory;
pub mod hypercall_page;
pub mod id_table;
pub mod installed_intercepts;
pub mod instruction;
pub mod intercept_message;
pub mod lazy_end;
pub mod lifecycle;
pub mod memory;
pub mod message_queue;
pub mod mmio;
pub mod port;
pub mod registers;
pub mod shared;
pub mod state;
pub mod statistics;
pub mod synic;
mod synthetic_timer;
pub mod table;
pub mod virtual_apic;
pub mod vp;
pub mod xapic;

use crate::memory::address::Frame;
use crate::memory::nested::{Mapping, NestedTables, Npt};
use crate::memory::pool::Pool;
use crate::platform::clock;
use crate::platform::registers::tsc;
use crate::virtualization::svm::permissions::Permissions;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use hypercall_api::address::{Gpa, Gpfn, PAGE_SIZE};
use hypercall_api::id::PartitionId;
use hypercall_api::privilege::Privileges;
use hypercall_api::reference::ReferenceTsc;
use shared::VpSlot;
use spin::{Mutex, Once};

/// Most VPs of a partition: as many as a page has room for.
pub const MAX_VPS: usize = PAGE_SIZE as usize / size_of::<AtomicPtr<VpSlot>>();

/// The VPs of a partition, by index.
pub type VpTable = [AtomicPtr<VpSlot>; MAX_VPS];

/// The partition that owns the machine; set once at boot.
static ROOT: Once<&'static Partition> = Once::new();

/// How far a partition has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PartitionState {
    /// Created: it has no address space yet.
    Created = 0,
    /// Initialised: it has memory and VPs.
    Active = 1,
    /// Finalised: it has none any more, and waits to be deleted.
    Finalized = 2,
}

/// A partition.
pub struct Partition {
    /// Its id.
    pub id: PartitionId,
    /// What it may use.
    pub privileges: Privileges,
    state: AtomicU8,
    /// Its guest physical address space, while it is active. Whoever takes something away from it calls
    /// [`memory_changed`](Self::memory_changed).
    pub memory: Mutex<Option<NestedTables<Npt>>>,
    /// Counts the changes of `memory`.
    generation: AtomicU64,
    /// Number of the IOMMU's domain that follows `memory`; 0 while no device needs it.
    pub device_domain: AtomicU16,
    /// Its memory pool.
    pub pool: Mutex<Pool>,
    /// Frames deposited and not withdrawn, those in use included.
    pub deposited: AtomicU64,
    /// Its ports and connections. Locked before its pool.
    pub ports: Mutex<port::Ports>,
    /// What its parent has asked to hear of.
    pub intercepts: installed_intercepts::InstalledIntercepts,
    /// What its parent wants CPUID to say. Locked before its pool.
    pub cpuid: Mutex<cpuid_policy::CpuidPolicy>,
    /// Which ports and MSRs pass through.
    pub permissions: &'static Permissions,
    vps: &'static VpTable,
    /// One more than the highest index of a VP that there has been.
    vp_limit: AtomicU32,
    /// HV_X64_MSR_GUEST_OS_ID.
    pub guest_os_id: AtomicU64,
    /// HV_X64_MSR_HYPERCALL.
    pub hypercall_msr: AtomicU64,
    /// HV_X64_MSR_REFERENCE_TSC.
    pub reference_tsc_msr: AtomicU64,
    /// HV_X64_MSR_CRASH_P0 to P4, and CTL as it was last written.
    pub crash: [AtomicU64; 6],
    /// The hypercall page that the hypervisor provides, as it does for the root (mapped read-only and executable).
    overlay: Option<Gpfn>,
    /// The guest's page that the hypercall page lies over. Locked after its memory, before its pool.
    covered: Mutex<Option<hypercall_page::Covered>>,
    /// A frame for the table that laying it there may take. Locked after its pool.
    spare: Mutex<Option<Frame>>,
    /// TSC when the partition was created; its reference time counts from there.
    created: u64,
    /// Scheduler weight.
    pub weight: AtomicU64,
    /// Most of a processor that each VP gets, in per mille; 0 for no cap.
    pub cap: AtomicU64,
    /// Least of a processor that each VP gets, in per mille.
    pub reserve: AtomicU64,
}

/// What a partition is made of.
pub struct Parts {
    /// Its id.
    pub id: PartitionId,
    /// What it may use.
    pub privileges: Privileges,
    /// Which ports and MSRs pass through.
    pub permissions: &'static Permissions,
    /// Room for its VPs, all null.
    pub vps: &'static VpTable,
    /// The hypercall page that the hypervisor provides.
    pub overlay: Option<Gpfn>,
}

impl Partition {
    /// A partition without memory or VPs.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            id,
            privileges,
            permissions,
            vps,
            overlay,
        } = parts;
        Self {
            id,
            privileges,
            state: AtomicU8::new(PartitionState::Created as u8),
            memory: Mutex::new(None),
            generation: AtomicU64::new(1),
            device_domain: AtomicU16::new(0),
            pool: Mutex::new(Pool::new()),
            deposited: AtomicU64::new(0),
            ports: Mutex::new(port::Ports::new()),
            intercepts: installed_intercepts::InstalledIntercepts::new(),
            cpuid: Mutex::new(cpuid_policy::CpuidPolicy::new()),
            permissions,
            vps,
            vp_limit: AtomicU32::new(0),
            guest_os_id: AtomicU64::new(0),
            hypercall_msr: AtomicU64::new(overlay.map_or(0, |page| page.0 << 12)),
            reference_tsc_msr: AtomicU64::new(0),
            crash: [const { AtomicU64::new(0) }; 6],
            overlay,
            covered: Mutex::new(None),
            spare: Mutex::new(None),
            created: tsc(),
            weight: AtomicU64::new(crate::scheduler::DEFAULT_WEIGHT),
            cap: AtomicU64::new(0),
            reserve: AtomicU64::new(0),
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

    /// Whether this is the root partition.
    pub fn is_root(&self) -> bool {
        self.id == table::ROOT_ID
    }

    /// Where its VPs are listed.
    pub fn vp_table(&self) -> &'static VpTable {
        self.vps
    }

    /// How far it has come.
    pub fn state(&self) -> PartitionState {
        match self.state.load(Ordering::Acquire) {
            0 => PartitionState::Created,
            1 => PartitionState::Active,
            _ => PartitionState::Finalized,
        }
    }

    /// It has come further.
    fn set_state(&self, state: PartitionState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Gives it its address space: it is active.
    pub fn activate(&self, memory: NestedTables<Npt>) {
        *self.memory.lock() = Some(memory);
        self.set_state(PartitionState::Active);
    }

    /// Whether its VPs begin in x2APIC mode, as the root's do; a child's begin as a processor does.
    pub fn starts_in_x2apic_mode(&self) -> bool {
        self.is_root()
    }

    /// Whether ports and memory that nobody has given it are its parent's to answer.
    pub fn has_parent(&self) -> bool {
        !self.is_root()
    }

    /// Where a guest physical address is mapped.
    #[inline]
    pub fn translate(&self, gpa: Gpa) -> Option<Mapping> {
        self.memory.lock().as_ref()?.translate(gpa)
    }

    /// Changes with every change of the address space.
    #[inline]
    pub fn memory_generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The address space has changed: what VPs remember of it is void.
    pub fn memory_changed(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
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

    /// Whether `page` is the hypercall page that the hypervisor provides.
    pub fn owns_overlay(&self, page: Gpfn) -> bool {
        self.overlay == Some(page)
    }

    /// Whether the hypercall page is in use.
    #[inline]
    pub fn hypercalls_enabled(&self) -> bool {
        self.hypercall_msr.load(Ordering::Relaxed) & 1 != 0
    }
}
