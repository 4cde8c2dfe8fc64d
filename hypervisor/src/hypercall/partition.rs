//! Calls about partitions.

use super::{named_child, named_partition};
use crate::partition::lifecycle::{self, Progress};
use crate::partition::vp::Vp;
use crate::platform::clock;
use crate::processor::extended_state;
use core::sync::atomic::Ordering;
use hypercall_api::id::PartitionId;
use hypercall_api::intercept::InstallIntercept;
use hypercall_api::partition::{
    CPU_SHARE_ALL, CPU_WEIGHT_MAX, CPU_WEIGHT_MIN, CreatePartition, GetPartitionProperty,
    PartitionProperty as Property, SetPartitionProperty,
};
use hypercall_api::status::HvStatus;

/// `HvCallGetPartitionId`.
pub(super) fn get_id(vp: &mut Vp, _: &()) -> Result<PartitionId, HvStatus> {
    Ok(vp.partition.id)
}

/// `HvCallCreatePartition`.
pub(super) fn create(vp: &mut Vp, input: &CreatePartition) -> Result<PartitionId, HvStatus> {
    if input.isolation != 0 || input.padding != 0 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    lifecycle::create_partition(vp.partition)
}

/// `HvCallInitializePartition`.
pub(super) fn initialize(vp: &mut Vp, id: &PartitionId) -> Result<(), HvStatus> {
    lifecycle::initialize_partition(named_child(vp, *id)?)
}

/// `HvCallFinalizePartition`.
pub(super) fn finalize(vp: &mut Vp, id: &PartitionId) -> Result<Progress, HvStatus> {
    lifecycle::finalize_partition(named_child(vp, *id)?)
}

/// `HvCallDeletePartition`.
pub(super) fn delete(vp: &mut Vp, id: &PartitionId) -> Result<Progress, HvStatus> {
    let child = named_child(vp, *id)?;
    lifecycle::delete_partition(vp.partition, child)
}

/// A share of a processor in the call's units, from per mille.
fn share_of(per_mille: u64) -> u64 {
    per_mille * CPU_SHARE_ALL / 1000
}

/// Per mille of a processor, from the call's units.
fn per_mille(share: u64) -> Result<u64, HvStatus> {
    match share <= CPU_SHARE_ALL {
        true => Ok((share * 1000).div_ceil(CPU_SHARE_ALL)),
        false => Err(HvStatus::PROPERTY_VALUE_OUT_OF_RANGE),
    }
}

/// `HvCallGetPartitionProperty`.
pub(super) fn get_property(vp: &mut Vp, input: &GetPartitionProperty) -> Result<u64, HvStatus> {
    let partition = named_partition(vp, input.partition)?;
    Ok(match input.property {
        Property::PRIVILEGE_FLAGS => partition.privileges.bits(),
        Property::CPU_WEIGHT => partition.weight.load(Ordering::Relaxed),
        Property::CPU_CAP => share_of(partition.cap.load(Ordering::Relaxed)),
        Property::CPU_RESERVE => share_of(partition.reserve.load(Ordering::Relaxed)),
        Property::REFERENCE_TIME => partition.reference_time(),
        Property::GUEST_OS_ID => partition.guest_os_id.load(Ordering::Relaxed),
        Property::PROCESSOR_CLOCK_FREQUENCY => clock::tsc_frequency(),
        Property::XSAVE_STATES => extended_state::supported_xcr0(),
        Property::MAX_XSAVE_DATA_SIZE => 4096,
        Property::SYNTHETIC_PROCESSOR_FEATURES | Property::INTEGRATED_SCHEDULER_ENABLED => 0,
        _ => return Err(HvStatus::UNKNOWN_PROPERTY),
    })
}

/// `HvCallSetPartitionProperty`.
pub(super) fn set_property(vp: &mut Vp, input: &SetPartitionProperty) -> Result<(), HvStatus> {
    let partition = named_partition(vp, input.partition)?;
    match input.property {
        Property::CPU_WEIGHT if (CPU_WEIGHT_MIN..=CPU_WEIGHT_MAX).contains(&input.value) => {
            partition.weight.store(input.value, Ordering::Relaxed);
        }
        Property::CPU_WEIGHT => return Err(HvStatus::PROPERTY_VALUE_OUT_OF_RANGE),
        Property::CPU_CAP => partition.cap.store(per_mille(input.value)?, Ordering::Relaxed),
        Property::CPU_RESERVE => partition
            .reserve
            .store(per_mille(input.value)?, Ordering::Relaxed),
        _ => return Err(HvStatus::UNKNOWN_PROPERTY),
    }
    Ok(())
}

/// `HvCallInstallIntercept`.
pub(super) fn install_intercept(vp: &mut Vp, input: &InstallIntercept) -> Result<(), HvStatus> {
    named_child(vp, input.partition)?.intercepts.install(input)
}
