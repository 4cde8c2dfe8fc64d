//! Machine-wide calls of the root: sleep states, system properties, statistics pages.

use crate::address::Gpfn;
use crate::id::{LpIndex, PartitionId, VpIndex};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `S5`, soft off: the only sleep state that can be entered.
pub const SLEEP_STATE_S5: u32 = 5;

/// [`SetSleepState::property`]: what to write for a sleep state.
pub const PROPERTY_SLEEP_STATE: u32 = 3;
/// [`GetSystemProperty::property`]: the scheduler's kind.
pub const PROPERTY_SCHEDULER_TYPE: u32 = 15;
/// Value of [`PROPERTY_SCHEDULER_TYPE`]: the hypervisor schedules logical processors (classic).
pub const SCHEDULER_TYPE_LP: u64 = 1;

/// Input of `HvCallSetSystemProperty` for [`PROPERTY_SLEEP_STATE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SetSleepState {
    /// [`PROPERTY_SLEEP_STATE`].
    pub property: u32,
    /// Zero.
    pub reserved: u32,
    /// Which state, [`SLEEP_STATE_S5`].
    pub sleep_state: u32,
    /// `SLP_TYP` for the PM1a control register, from the ACPI package of the state.
    pub pm1a_slp_typ: u8,
    /// The same for PM1b.
    pub pm1b_slp_typ: u8,
    /// Zero.
    pub padding: [u8; 2],
}
const _: () = assert!(size_of::<SetSleepState>() == 16);

/// Input of `HvCallGetSystemProperty`; the output is one 64-bit value.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GetSystemProperty {
    /// Which property.
    pub property: u32,
    /// Zero.
    pub reserved: u32,
}

/// Input of `HvCallEnterSleepState`, which does not return where it succeeds.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EnterSleepState {
    /// Which state, [`SLEEP_STATE_S5`].
    pub sleep_state: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a statistics page tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct StatsObject(pub u32);

impl StatsObject {
    /// The hypervisor as a whole.
    pub const HYPERVISOR: Self = Self(1);
    /// A logical processor.
    pub const LOGICAL_PROCESSOR: Self = Self(2);
    /// A partition.
    pub const PARTITION: Self = Self(0x1_0001);
    /// A virtual processor.
    pub const VP: Self = Self(0x1_0002);
}

/// Input of `HvCallMapStatsPage` and `HvCallUnmapStatsPage` for a VP.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VpStatsPage {
    /// [`StatsObject::VP`].
    pub object: StatsObject,
    /// Zero.
    pub reserved: u32,
    /// Partition of the VP.
    pub partition: PartitionId,
    /// The VP.
    pub vp: VpIndex,
    /// Zero.
    pub flags: u32,
}
const _: () = assert!(size_of::<VpStatsPage>() == 24);

/// Input of `HvCallMapStatsPage` and `HvCallUnmapStatsPage` for a logical processor.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LpStatsPage {
    /// [`StatsObject::LOGICAL_PROCESSOR`].
    pub object: StatsObject,
    /// Zero.
    pub reserved: u32,
    /// The processor.
    pub lp: LpIndex,
    /// Zero.
    pub padding: [u32; 3],
}
const _: () = assert!(size_of::<LpStatsPage>() == 24);

/// Output of `HvCallMapStatsPage`: where the caller can read the page.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MappedStatsPage {
    /// Page number in the caller's own guest physical space, read-only.
    pub page: u64,
}

impl MappedStatsPage {
    /// The page number, typed.
    pub const fn gpfn(self) -> Gpfn {
        Gpfn(self.page)
    }
}
