//! Issuing hypercalls from inside a partition: one unsafe primitive that an image provides, typed calls on top of it.
//!
//! | trait | calls |
//! |---|---|
//! | [`Hypercalls`] | the primitive; calls about the machine and the caller itself |
//! | [`DeviceCalls`] | what devices reach, and where their interrupts go |
//! | [`GuestCalls`] | what any guest uses: messages, events, IPIs, TLB flushes |
//! | [`PartitionCalls`] | what a parent uses: partitions, their memory, ports |
//! | [`VpCalls`] | what a parent uses: VPs, their registers and state, intercepts, interrupts |
//!
//! The others come with the first.
#![allow(unsafe_code)]

mod device;
mod guest;
mod partition;
mod rep;
mod vp;

pub use device::DeviceCalls;
pub use guest::GuestCalls;
pub use partition::PartitionCalls;
pub use rep::Incomplete;
pub use vp::VpCalls;

use crate::address::Gpfn;
use crate::code::HypercallCode as Code;
use crate::control::{HypercallInput, HypercallResult};
use crate::id::{LpIndex, PartitionId, VpIndex};
use crate::interrupt::{MapDeviceInterrupt, MappedDeviceInterrupt, UnmapDeviceInterrupt};
use crate::operator::{LogChunk, ReadLog, SystemInfo};
use crate::processor::{
    GetLogicalProcessorRunTime, InitialVpContext, LogicalProcessorRunTime, StartVirtualProcessor,
};
use crate::status::HvStatus;
use crate::system::{
    EnterSleepState, MappedStatsPage, PROPERTY_SLEEP_STATE, SetSleepState, StatsObject, VpStatsPage,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes of a parameter page.
const PAGE: usize = 4096;
/// Input that needs no buffer of a page.
const FEW_BYTES: usize = 192;

/// A way to issue hypercalls. An image implements the two required methods over its hypercall page and its parameter
/// pages; the typed calls come with them.
pub trait Hypercalls {
    /// Issues a call whose parameters are in memory: copies `input` into a parameter page, makes the call, copies
    /// `output.len()` bytes of the output page back.
    ///
    /// # Safety
    /// Some calls give memory away or change what runs; the caller must mean what the call does.
    unsafe fn issue(&self, control: HypercallInput, input: &[u8], output: &mut [u8]) -> HypercallResult;

    /// As [`issue`](Self::issue), with the input in parts that follow one another. An image that can copy them into its
    /// parameter page one by one does so, and saves the copy that is made here.
    ///
    /// # Safety
    /// As for [`issue`](Self::issue).
    unsafe fn issue_parts(
        &self,
        control: HypercallInput,
        parts: [&[u8]; 3],
        output: &mut [u8],
    ) -> HypercallResult {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        // Few bytes are the rule, and a page takes its time to clear.
        let (mut few, mut many);
        let block: &mut [u8] = if length <= FEW_BYTES {
            few = [0; FEW_BYTES];
            &mut few[..length]
        } else {
            many = [0; PAGE];
            &mut many[..length]
        };
        let mut rest = &mut *block;
        for part in parts {
            let (place, behind) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = behind;
        }
        // SAFETY: the caller vouches for what the call does.
        unsafe { self.issue(control, block, output) }
    }

    /// Issues a fast call: both parameter words are in registers, and there is no output.
    ///
    /// # Safety
    /// As for [`issue`](Self::issue).
    unsafe fn issue_fast(&self, control: HypercallInput, first: u64, second: u64) -> HypercallResult;

    /// A simple call with typed input and output.
    ///
    /// # Safety
    /// As for [`issue`](Self::issue).
    unsafe fn simple<I, O>(&self, code: Code, input: &I) -> Result<O, HvStatus>
    where
        I: IntoBytes + Immutable,
        O: FromBytes + IntoBytes,
    {
        let mut output = O::new_zeroed();
        // SAFETY: the caller vouches for what the call does.
        let result = unsafe {
            self.issue(
                HypercallInput::simple(code),
                input.as_bytes(),
                output.as_mut_bytes(),
            )
        };
        result.status().ok().map(|()| output)
    }

    /// `HvCallGetPartitionId`: the caller's own id.
    fn partition_id(&self) -> Result<PartitionId, HvStatus> {
        // SAFETY: the call only reads.
        unsafe { self.simple(Code::GET_PARTITION_ID, &()) }
    }

    /// `HvCallPartitaQuerySystem`: what the machine and the hypervisor are.
    fn query_system(&self) -> Result<SystemInfo, HvStatus> {
        // SAFETY: the call only reads.
        unsafe { self.simple(Code::PARTITA_QUERY_SYSTEM, &()) }
    }

    /// `HvCallPartitaReadLog`: a piece of the hypervisor's log, from `position` on.
    fn read_log(&self, position: u64) -> Result<LogChunk, HvStatus> {
        // SAFETY: the call only reads.
        unsafe { self.simple(Code::PARTITA_READ_LOG, &ReadLog { position }) }
    }

    /// `HvCallGetLogicalProcessorRunTime`.
    fn lp_run_time(&self, lp: LpIndex) -> Result<LogicalProcessorRunTime, HvStatus> {
        // SAFETY: the call only reads.
        unsafe {
            self.simple(
                Code::GET_LOGICAL_PROCESSOR_RUN_TIME,
                &GetLogicalProcessorRunTime { lp, reserved: 0 },
            )
        }
    }

    /// `HvCallMapStatsPage` for a VP: the page with its counters ([`crate::counter`]), readable by the caller.
    fn map_vp_stats(&self, partition: PartitionId, vp: VpIndex) -> Result<Gpfn, HvStatus> {
        let input = VpStatsPage {
            object: StatsObject::VP,
            reserved: 0,
            partition,
            vp,
            flags: 0,
        };
        // SAFETY: the call only makes a page of the hypervisor's readable.
        unsafe { self.simple::<_, MappedStatsPage>(Code::MAP_STATS_PAGE, &input) }.map(MappedStatsPage::gpfn)
    }

    /// `HvCallMapDeviceInterrupt`: what to write into the device so that it raises the interrupt.
    fn map_device_interrupt(&self, input: &MapDeviceInterrupt) -> Result<MappedDeviceInterrupt, HvStatus> {
        // SAFETY: an interrupt at a vector of the caller's own choice.
        unsafe { self.simple(Code::MAP_DEVICE_INTERRUPT, input) }
    }

    /// `HvCallUnmapDeviceInterrupt`.
    fn unmap_device_interrupt(&self, input: &UnmapDeviceInterrupt) -> Result<(), HvStatus> {
        // SAFETY: the call only ends interrupts.
        unsafe { self.simple(Code::UNMAP_DEVICE_INTERRUPT, input) }
    }

    /// `HvCallStartVirtualProcessor`: lets a VP of the caller's partition run from `context`.
    ///
    /// # Safety
    /// `context` must lead to code that is sound to run, on a stack that is nobody else's.
    unsafe fn start_vp(&self, vp: VpIndex, context: InitialVpContext) -> Result<(), HvStatus> {
        let input = StartVirtualProcessor {
            partition: PartitionId::SELF,
            vp,
            target_vtl: 0,
            reserved: [0; 3],
            context,
        };
        // SAFETY: the caller vouches for the context.
        unsafe { self.simple(Code::START_VIRTUAL_PROCESSOR, &input) }
    }

    /// `HvCallSetSystemProperty` for a sleep state: what ACPI's `\_Sx` package says to write.
    fn set_sleep_state(&self, sleep_state: u32, pm1a_slp_typ: u8, pm1b_slp_typ: u8) -> Result<(), HvStatus> {
        let input = SetSleepState {
            property: PROPERTY_SLEEP_STATE,
            reserved: 0,
            sleep_state,
            pm1a_slp_typ,
            pm1b_slp_typ,
            padding: [0; 2],
        };
        // SAFETY: the call only records two values.
        unsafe { self.simple(Code::SET_SYSTEM_PROPERTY, &input) }
    }

    /// `HvCallEnterSleepState`: returns only where it fails.
    fn enter_sleep_state(&self, sleep_state: u32) -> HvStatus {
        let input = EnterSleepState {
            sleep_state,
            reserved: 0,
        };
        // SAFETY: turning the machine off breaks no memory.
        match unsafe { self.simple::<_, ()>(Code::ENTER_SLEEP_STATE, &input) } {
            Ok(()) => HvStatus::OPERATION_FAILED,
            Err(status) => status,
        }
    }
}
