//! A VP's state as its parent saves and restores it (`HvCallGetVpState`, `HvCallSetVpState`): local APIC, extended processor
//! state, SynIC pages, synthetic timers. The VP does not run meanwhile.

use super::Partition;
use super::guest_memory::{read_frame, write_frame};
use super::vp::Vp;
use crate::processor::extended_state::supported_xcr0;
use hypercall_api::address::Gpfn;
use hypercall_api::msr::PageMsr;
use hypercall_api::state::VpStateType;
use hypercall_api::status::HvStatus;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a page.
const PAGE: usize = 4096;

/// XSAVE area: MXCSR, and its header (SDM 1, 13.4).
mod area {
    pub(super) const MXCSR: usize = 24;
    /// Bits of MXCSR that any processor with SSE2 takes.
    pub(super) const MXCSR_VALID: u32 = 0xffff;
    pub(super) const XSTATE_BV: usize = 512;
    pub(super) const REST_OF_HEADER: core::ops::Range<usize> = 520..576;
}

/// Copies a state that fills a page into `page`.
pub fn get(vp: &mut Vp, state: VpStateType, page: &mut [u8; PAGE]) -> Result<(), HvStatus> {
    match state {
        VpStateType::LOCAL_INTERRUPT_CONTROLLER => {
            vp.settle_end();
            let bytes = vp.apic.state(vp);
            page[..bytes.as_bytes().len()].copy_from_slice(bytes.as_bytes());
        }
        VpStateType::XSAVE => {
            read_frame(vp.extended.area(), 0, page);
            // XMM is kept with the general registers while the VP does not run in the guest.
            for (place, xmm) in page[160..416].chunks_exact_mut(16).zip(&vp.registers.xmm) {
                place.copy_from_slice(&xmm.to_le_bytes());
            }
        }
        VpStateType::SYNIC_MESSAGE_PAGE => {
            copy_guest_page(vp.partition, vp.shared.synic.message_page(), page)?
        }
        VpStateType::SYNIC_EVENT_FLAGS_PAGE => {
            copy_guest_page(vp.partition, vp.shared.synic.event_page(), page)?
        }
        _ => return Err(HvStatus::INVALID_PARAMETER),
    }
    Ok(())
}

/// Sets a state from `page`. A refused state leaves the VP as it was.
pub fn set(vp: &mut Vp, state: VpStateType, page: &[u8; PAGE]) -> Result<(), HvStatus> {
    match state {
        VpStateType::LOCAL_INTERRUPT_CONTROLLER => {
            let (registers, _) =
                FromBytes::read_from_prefix(page).map_err(|_| HvStatus::INVALID_PARAMETER)?;
            vp.settle_end();
            vp.set_apic_state(&registers)
        }
        VpStateType::XSAVE => set_extended(vp, page),
        VpStateType::SYNIC_MESSAGE_PAGE => {
            write_guest_page(vp.partition, vp.shared.synic.message_page(), page)
        }
        VpStateType::SYNIC_EVENT_FLAGS_PAGE => {
            write_guest_page(vp.partition, vp.shared.synic.event_page(), page)
        }
        _ => Err(HvStatus::INVALID_PARAMETER),
    }
}

/// Takes an XSAVE area that XRSTOR will take: components that XCR0 has, a header without reserved bits, an MXCSR without
/// reserved bits.
fn set_extended(vp: &mut Vp, page: &[u8; PAGE]) -> Result<(), HvStatus> {
    let word = |offset: usize| u64::read_from_bytes(&page[offset..offset + 8]).unwrap_or(u64::MAX);
    let mxcsr = u32::read_from_bytes(&page[area::MXCSR..area::MXCSR + 4]).unwrap_or(u32::MAX);
    let valid = word(area::XSTATE_BV) & !(vp.extended.xcr0 & supported_xcr0()) == 0
        && page[area::REST_OF_HEADER].iter().all(|&byte| byte == 0)
        && mxcsr & !area::MXCSR_VALID == 0;
    if !valid {
        return Err(HvStatus::INVALID_REGISTER_VALUE);
    }
    write_frame(vp.extended.area(), 0, page);
    for (place, xmm) in page[160..416].chunks_exact(16).zip(&mut vp.registers.xmm) {
        *xmm = u128::read_from_bytes(place).unwrap_or(0);
    }
    Ok(())
}

fn page_of(value: u64) -> Result<Gpfn, HvStatus> {
    let page = PageMsr(value);
    if page.is_enabled() {
        Ok(page.page())
    } else {
        Err(HvStatus::INVALID_VP_STATE)
    }
}

fn copy_guest_page(partition: &Partition, value: u64, page: &mut [u8; PAGE]) -> Result<(), HvStatus> {
    let gpa = page_of(value)?.base().ok_or(HvStatus::INVALID_VP_STATE)?;
    partition.read(gpa, page).map_err(|_| HvStatus::INVALID_VP_STATE)
}

fn write_guest_page(partition: &Partition, value: u64, page: &[u8; PAGE]) -> Result<(), HvStatus> {
    let gpa = page_of(value)?.base().ok_or(HvStatus::INVALID_VP_STATE)?;
    partition.write(gpa, page).map_err(|_| HvStatus::INVALID_VP_STATE)
}
