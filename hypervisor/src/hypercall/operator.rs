//! Partita's own calls.

use crate::partition::vp::Vp;
use crate::{log as logger, system};
use hypercall_api::operator::{LogChunk, ReadLog, SystemInfo};
use hypercall_api::status::HvStatus;

/// `HvCallPartitaQuerySystem`.
pub(super) fn query_system(_: &mut Vp, _: &()) -> Result<SystemInfo, HvStatus> {
    system::information().ok_or(HvStatus::OPERATION_FAILED)
}

/// `HvCallPartitaReadLog`.
pub(super) fn read_log(_: &mut Vp, input: &ReadLog) -> Result<LogChunk, HvStatus> {
    Ok(logger::read(input.position))
}
