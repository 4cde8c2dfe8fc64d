//! Calls about partitions.

use crate::partition::vp::Vp;
use hypercall_api::id::PartitionId;
use hypercall_api::status::HvStatus;

/// `HvCallGetPartitionId`.
pub(super) fn get_id(vp: &mut Vp, _: &()) -> Result<PartitionId, HvStatus> {
    Ok(vp.partition.id)
}
