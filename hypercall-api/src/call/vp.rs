//! Calls of a parent about its children's VPs.

use super::{Hypercalls, Incomplete, rep};
use crate::access::{
    AccessResult, MAX_ACCESS, ReadGpa, ReadGpaResult, TranslateFlags, TranslateVirtualAddress,
    TranslatedVirtualAddress, WriteGpa, WriteGpaResult,
};
use crate::address::{Gpa, Gpfn, Gva, PAGE_SIZE};
use crate::code::HypercallCode as Code;
use crate::control::HypercallInput;
use crate::cpuid::{CpuidLeaf, CpuidValues, GetVpCpuidValues};
use crate::id::{PartitionId, VpIndex};
use crate::intercept::{AccessMask, InstallIntercept, InterceptType, RegisterCpuidResult};
use crate::interrupt::{AssertVirtualInterrupt, ClearVirtualInterrupt};
use crate::memory::ProximityDomainInfo;
use crate::processor::{CreateVp, DeleteVp};
use crate::register::{RegisterAssociation, RegisterName, RegisterValue, VpRegisters};
use crate::state::{MapVpStatePage, SyntheticTimersState, VpState, VpStatePage, VpStateType};
use crate::status::HvStatus;
use zerocopy::{FromZeros, IntoBytes};

/// Bytes that follow the header of a call about a VP's state at most.
const MAX_STATE_BYTES: usize = 1024;

/// Calls of a parent about its children's VPs.
///
/// They are safe because the hypervisor lets a caller change VPs of its children alone, and a child reaches no memory of
/// the caller's but what [`map_gpa_pages`](super::PartitionCalls::map_gpa_pages), which is not safe, gave it.
pub trait VpCalls: Hypercalls {
    /// `HvCallCreateVp`: a VP of a child, explicitly suspended.
    fn create_vp(&self, partition: PartitionId, vp: VpIndex) -> Result<(), HvStatus> {
        let input = CreateVp {
            partition,
            vp,
            padding: [0; 3],
            subnode_type: 0,
            subnode: 0,
            proximity: ProximityDomainInfo::ANY,
            flags: 0,
        };
        // SAFETY: the VP runs in the child only.
        unsafe { self.simple(Code::CREATE_VP, &input) }
    }

    /// `HvCallDeleteVp`.
    fn delete_vp(&self, partition: PartitionId, vp: VpIndex) -> Result<(), HvStatus> {
        let input = DeleteVp {
            partition,
            vp,
            reserved: 0,
        };
        // SAFETY: a VP that does not exist does no harm.
        unsafe { self.simple(Code::DELETE_VP, &input) }
    }

    /// `HvCallGetVpRegisters`: the values of `names`, in their order, into `values`, which must be as long.
    fn get_vp_registers(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        names: &[RegisterName],
        values: &mut [RegisterValue],
    ) -> Result<(), Incomplete> {
        let header = VpRegisters::of(partition, vp);
        // SAFETY: the call only reads.
        unsafe { rep::output(self, Code::GET_VP_REGISTERS, &header, names, values) }
    }

    /// `HvCallGetVpRegisters` for one register.
    fn get_vp_register(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        name: RegisterName,
    ) -> Result<RegisterValue, HvStatus> {
        let mut value = [RegisterValue::default()];
        self.get_vp_registers(partition, vp, &[name], &mut value)?;
        Ok(value[0])
    }

    /// `HvCallSetVpRegisters`: sets registers of a child's VP in the order given. On an error those done stay set.
    fn set_vp_registers(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        registers: &[RegisterAssociation],
    ) -> Result<(), Incomplete> {
        let header = VpRegisters::of(partition, vp);
        // SAFETY: see the trait.
        unsafe { rep::input(self, Code::SET_VP_REGISTERS, |_| header, registers) }
    }

    /// `HvCallSetVpRegisters` for one register.
    fn set_vp_register(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        name: RegisterName,
        value: impl Into<RegisterValue>,
    ) -> Result<(), HvStatus>
    where
        Self: Sized,
    {
        let register = RegisterAssociation::new(name, value);
        Ok(self.set_vp_registers(partition, vp, &[register])?)
    }

    /// `HvCallMapVpStatePage`: where the caller can read a page of a child's VP.
    fn map_vp_state_page(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        page: VpStatePage,
    ) -> Result<Gpfn, HvStatus> {
        let input = MapVpStatePage { partition, vp, page };
        // SAFETY: the call only makes a page of the hypervisor's readable.
        unsafe { self.simple(Code::MAP_VP_STATE_PAGE, &input) }
    }

    /// `HvCallUnmapVpStatePage`.
    ///
    /// # Safety
    /// Nothing may read the page any more.
    unsafe fn unmap_vp_state_page(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        page: VpStatePage,
    ) -> Result<(), HvStatus> {
        let input = MapVpStatePage { partition, vp, page };
        // SAFETY: the caller does not use the page.
        unsafe { self.simple(Code::UNMAP_VP_STATE_PAGE, &input) }
    }

    /// `HvCallGetVpState` for a state that is in pages: writes it to `pages` of the caller. `xsave_states` counts for
    /// [`VpStateType::XSAVE`] only.
    ///
    /// # Safety
    /// The pages must be the caller's, and nothing else may use them.
    unsafe fn get_vp_state_pages(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        state: VpStateType,
        xsave_states: u64,
        pages: &[Gpfn],
    ) -> Result<(), HvStatus> {
        let header = state_header(partition, vp, state, xsave_states);
        // SAFETY: the caller owns the pages.
        unsafe { state_call(self, Code::GET_VP_STATE, &header, pages.as_bytes()) }
    }

    /// `HvCallSetVpState` for a state that is in pages: takes it from `pages` of the caller.
    fn set_vp_state_pages(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        state: VpStateType,
        xsave_states: u64,
        pages: &[Gpfn],
    ) -> Result<(), HvStatus> {
        let header = state_header(partition, vp, state, xsave_states);
        // SAFETY: the call reads pages of the caller and changes a child's VP.
        unsafe { state_call(self, Code::SET_VP_STATE, &header, pages.as_bytes()) }
    }

    /// `HvCallGetVpState` for the synthetic timers.
    fn vp_timers(&self, partition: PartitionId, vp: VpIndex) -> Result<SyntheticTimersState, HvStatus> {
        let header = state_header(partition, vp, VpStateType::SYNTHETIC_TIMERS, 0);
        // SAFETY: the call only reads.
        unsafe { self.simple(Code::GET_VP_STATE, &header) }
    }

    /// `HvCallSetVpState` for the synthetic timers.
    fn set_vp_timers(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        timers: &SyntheticTimersState,
    ) -> Result<(), HvStatus> {
        let header = state_header(partition, vp, VpStateType::SYNTHETIC_TIMERS, 0);
        // SAFETY: the call changes a child's VP.
        unsafe { state_call(self, Code::SET_VP_STATE, &header, timers.as_bytes()) }
    }

    /// `HvCallInstallIntercept`: what the child does so comes to the caller; no access at all removes the intercept.
    fn install_intercept(
        &self,
        partition: PartitionId,
        intercept: InterceptType,
        access: AccessMask,
        parameter: u64,
    ) -> Result<(), HvStatus> {
        let input = InstallIntercept {
            partition,
            access: access.bits(),
            intercept,
            parameter,
        };
        // SAFETY: the call changes what stops the child.
        unsafe { self.simple(Code::INSTALL_INTERCEPT, &input) }
    }

    /// `HvCallRegisterInterceptResult`: what a CPUID leaf of the child reads as.
    fn register_cpuid_result(&self, input: &RegisterCpuidResult) -> Result<(), HvStatus> {
        // SAFETY: the call changes what the child reads.
        unsafe { self.simple(Code::REGISTER_INTERCEPT_RESULT, input) }
    }

    /// `HvCallGetVpCpuidValues`: what `leaves` read as in a child's VP, into `values`, which must be as long.
    fn vp_cpuid_values(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        flags: u32,
        leaves: &[CpuidLeaf],
        values: &mut [CpuidValues],
    ) -> Result<(), Incomplete> {
        let header = GetVpCpuidValues {
            partition,
            vp,
            flags,
            reserved: 0,
        };
        // SAFETY: the call only reads.
        unsafe { rep::output(self, Code::GET_VP_CPUID_VALUES, &header, leaves, values) }
    }

    /// `HvCallTranslateVirtualAddress`: where a virtual address of a child's VP leads.
    fn translate(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        flags: TranslateFlags,
        address: Gva,
    ) -> Result<TranslatedVirtualAddress, HvStatus> {
        let input = TranslateVirtualAddress {
            partition,
            vp,
            reserved: 0,
            flags: flags.bits(),
            page: address.0 / PAGE_SIZE,
        };
        // SAFETY: the call changes accessed and dirty bits of the child's tables at most.
        unsafe { self.simple(Code::TRANSLATE_VIRTUAL_ADDRESS, &input) }
    }

    /// `HvCallReadGpa`: the child's memory at `gpa` into `data`, at most [`MAX_ACCESS`] bytes, inside one page.
    fn read_gpa(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        gpa: Gpa,
        data: &mut [u8],
    ) -> Result<AccessResult, HvStatus> {
        let input = access(partition, vp, gpa, data.len())?;
        // SAFETY: the call only reads.
        let output: ReadGpaResult = unsafe { self.simple(Code::READ_GPA, &input) }?;
        data.copy_from_slice(&output.data[..data.len()]);
        Ok(output.result)
    }

    /// `HvCallWriteGpa`: `data` into the child's memory at `gpa`, at most [`MAX_ACCESS`] bytes, inside one page.
    fn write_gpa(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        gpa: Gpa,
        data: &[u8],
    ) -> Result<AccessResult, HvStatus> {
        let mut input = WriteGpa {
            target: access(partition, vp, gpa, data.len())?,
            data: [0; MAX_ACCESS],
        };
        input.data[..data.len()].copy_from_slice(data);
        // SAFETY: the child's memory changes at any time, for all that the caller knows.
        let output: WriteGpaResult = unsafe { self.simple(Code::WRITE_GPA, &input) }?;
        Ok(output.result)
    }

    /// `HvCallAssertVirtualInterrupt`: raises an interrupt in a child.
    fn assert_virtual_interrupt(&self, input: &AssertVirtualInterrupt) -> Result<(), HvStatus> {
        // SAFETY: the call interrupts a child.
        unsafe { self.simple(Code::ASSERT_VIRTUAL_INTERRUPT, input) }
    }

    /// `HvCallClearVirtualInterrupt`.
    fn clear_virtual_interrupt(&self, partition: PartitionId) -> Result<(), HvStatus> {
        // SAFETY: the call only ends an interrupt of a child.
        unsafe {
            self.simple(
                Code::CLEAR_VIRTUAL_INTERRUPT,
                &ClearVirtualInterrupt { partition },
            )
        }
    }
}

impl<T: Hypercalls + ?Sized> VpCalls for T {}

fn access(partition: PartitionId, vp: VpIndex, gpa: Gpa, size: usize) -> Result<ReadGpa, HvStatus> {
    if size > MAX_ACCESS {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    Ok(ReadGpa {
        partition,
        vp,
        byte_count: size as u32,
        gpa,
        control: 0,
    })
}

fn state_header(partition: PartitionId, vp: VpIndex, state: VpStateType, xsave_states: u64) -> VpState {
    let mut header = VpState::new_zeroed();
    header.partition = partition;
    header.vp = vp;
    header.state = state;
    header.xsave_states = xsave_states;
    header
}

/// A call with `header` and then `data`, the variable header: page numbers or the state itself.
///
/// # Safety
/// As for [`Hypercalls::issue`].
unsafe fn state_call<H>(calls: &H, code: Code, header: &VpState, data: &[u8]) -> Result<(), HvStatus>
where
    H: Hypercalls + ?Sized,
{
    if data.len() > MAX_STATE_BYTES {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let control = HypercallInput::simple(code).with_variable_header(data.len().div_ceil(8) as u16);
    // SAFETY: the caller vouches for what the call does.
    let result = unsafe { calls.issue_parts(control, [header.as_bytes(), data, &[]], &mut []) };
    result.status().ok()
}
