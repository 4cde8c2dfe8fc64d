//! Calls that flush TLBs. A flush of anything flushes the whole address space of the partition on every processor: VMRUN
//! without flush-by-ASID knows no finer grain, and more is always allowed.

use crate::partition::Partition;
use crate::partition::vp::Vp;
use crate::processor::quiesce;
use hypercall_api::flush::{FlushFlags, FlushVirtualAddressSpace, FlushVirtualAddressSpaceEx, VpSet};
use hypercall_api::status::HvStatus;

fn flush(partition: &Partition, flags: u64) -> Result<(), HvStatus> {
    if FlushFlags::from_bits(flags).is_none() {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    partition.memory_changed();
    quiesce::stop_guests();
    Ok(())
}

/// `HvCallFlushVirtualAddressSpace`.
pub(super) fn space(vp: &mut Vp, input: &FlushVirtualAddressSpace) -> Result<(), HvStatus> {
    flush(vp.partition, input.flags)
}

/// `HvCallFlushVirtualAddressSpaceEx`.
pub(super) fn space_ex(
    vp: &mut Vp,
    input: &FlushVirtualAddressSpaceEx,
    banks: &[u8],
) -> Result<(), HvStatus> {
    match input.set_format {
        VpSet::ALL => {}
        VpSet::SPARSE if banks.len() == input.valid_banks.count_ones() as usize * 8 => {}
        VpSet::SPARSE => return Err(HvStatus::INVALID_HYPERCALL_INPUT),
        _ => return Err(HvStatus::INVALID_PARAMETER),
    }
    flush(vp.partition, input.flags)
}

/// `HvCallFlushVirtualAddressList`: the first element flushes everything.
pub(super) fn list(
    vp: &mut Vp,
    input: &FlushVirtualAddressSpace,
    _: &u64,
    index: u16,
) -> Result<(), HvStatus> {
    if index == 0 {
        flush(vp.partition, input.flags)
    } else {
        Ok(())
    }
}

/// `HvCallFlushVirtualAddressListEx`: likewise. Which processors are meant does not matter: all are flushed.
pub(super) fn list_ex(
    vp: &mut Vp,
    input: &FlushVirtualAddressSpaceEx,
    _: &u64,
    index: u16,
) -> Result<(), HvStatus> {
    if !matches!(input.set_format, VpSet::SPARSE | VpSet::ALL) {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    if index == 0 {
        flush(vp.partition, input.flags)
    } else {
        Ok(())
    }
}
