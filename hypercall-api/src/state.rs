//! State of a VP that is more than registers (TLFS, "Virtual Processor State"; layouts as Linux's `mshv` root uses them):
//! local APIC, XSAVE area, SynIC pages, synthetic timers; and pages that the hypervisor shares with the parent.

use crate::address::Gpfn;
use crate::id::{PartitionId, VpIndex};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A page of a VP that its parent can map (`HV_VP_STATE_PAGE_TYPE`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct VpStatePage(pub u32);

impl VpStatePage {
    /// Registers.
    pub const REGISTERS: Self = Self(0);
    /// The message of the intercept that suspends the VP, a [`crate::message::Message`].
    pub const INTERCEPT_MESSAGE: Self = Self(1);
}

/// Input of `HvCallMapVpStatePage` (the output is the page's number, a [`Gpfn`] of the caller) and `HvCallUnmapVpStatePage`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MapVpStatePage {
    /// Partition of the VP.
    pub partition: PartitionId,
    /// The VP.
    pub vp: VpIndex,
    /// Which page.
    pub page: VpStatePage,
}
const _: () = assert!(size_of::<MapVpStatePage>() == 16);

/// Which state (`HV_GET_SET_VP_STATE_TYPE`). Bit 31: the state is in pages whose numbers the input lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct VpStateType(pub u32);

impl VpStateType {
    /// Local APIC, a [`InterruptControllerState`]; one page.
    pub const LOCAL_INTERRUPT_CONTROLLER: Self = Self(0x8000_0000);
    /// XSAVE area in its compacted form; as many pages as it needs.
    pub const XSAVE: Self = Self(0x8000_0001);
    /// SynIC message page; one page.
    pub const SYNIC_MESSAGE_PAGE: Self = Self(0x8000_0002);
    /// SynIC event flags page; one page.
    pub const SYNIC_EVENT_FLAGS_PAGE: Self = Self(0x8000_0003);
    /// Synthetic timers, a [`SyntheticTimersState`]; in the call's own blocks.
    pub const SYNTHETIC_TIMERS: Self = Self(4);

    /// Whether the state is in pages.
    pub const fn is_in_pages(self) -> bool {
        self.0 & 1 << 31 != 0
    }
}

/// Header of the input of `HvCallGetVpState` and `HvCallSetVpState`. A variable header follows: page numbers of the caller,
/// or the state itself for `HvCallSetVpState` of a type that is not in pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VpState {
    /// Partition of the VP.
    pub partition: PartitionId,
    /// The VP.
    pub vp: VpIndex,
    /// Zero.
    pub input_vtl: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Which state.
    pub state: VpStateType,
    /// Zero.
    pub padding: u32,
    /// Zero.
    pub xsave_flags: u64,
    /// Of [`VpStateType::XSAVE`]: which components, as in XCR0.
    pub xsave_states: u64,
}
const _: () = assert!(size_of::<VpState>() == 40);

/// State of a local APIC (`HV_X64_INTERRUPT_CONTROLLER_STATE`): its registers, in this order and without gaps.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[allow(missing_docs)] // the names are the registers'
pub struct InterruptControllerState {
    pub id: u32,
    pub version: u32,
    pub ldr: u32,
    pub dfr: u32,
    pub spurious: u32,
    pub isr: [u32; 8],
    pub tmr: [u32; 8],
    pub irr: [u32; 8],
    pub esr: u32,
    pub icr_high: u32,
    pub icr_low: u32,
    pub lvt_timer: u32,
    pub lvt_thermal: u32,
    pub lvt_performance: u32,
    pub lvt_lint0: u32,
    pub lvt_lint1: u32,
    pub lvt_error: u32,
    pub lvt_cmci: u32,
    pub error_status: u32,
    pub initial_count: u32,
    pub current_count: u32,
    pub divide_configuration: u32,
    pub remote_read: u32,
}
const _: () = assert!(size_of::<InterruptControllerState>() == 176);

/// State of one synthetic timer (`HV_STIMER_STATE`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct StimerState {
    /// Bit 0: an expiry message could not be delivered yet.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// Configuration, a [`crate::msr::StimerConfig`].
    pub config: u64,
    /// Count.
    pub count: u64,
    /// When a periodic timer expires next, in 100 ns of reference time.
    pub adjustment: u64,
    /// Expiry time of the message that is not delivered yet.
    pub undelivered_expiration: u64,
}
const _: () = assert!(size_of::<StimerState>() == 40);

/// State of a VP's synthetic timers (`HV_SYNTHETIC_TIMERS_STATE`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SyntheticTimersState {
    /// The timers.
    pub timers: [StimerState; 4],
    /// Zero.
    pub reserved: [u64; 5],
}
const _: () = assert!(size_of::<SyntheticTimersState>() == 200);

/// Output of `HvCallMapVpStatePage`.
pub type MappedVpStatePage = Gpfn;
