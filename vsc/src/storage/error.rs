//! Why a request failed.

use super::scsi::Sense;
use crate::bus::BusError;
use vmbus::protocol::storage::{ScsiStatus, SrbStatus, Status};
use vmbus::ring::RingError;

/// Why a request failed. A failed write may have written any part of its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StorageError {
    /// The controller is gone.
    #[error("the controller is gone")]
    ControllerGone,
    /// There is no such unit, or no more.
    #[error("there is no such unit")]
    NoUnit,
    /// The unit says why.
    #[error("the unit refuses: {0}")]
    Sense(Sense),
    /// The host says so, without a reason.
    #[error("the request failed: SRB status {:#x}, SCSI status {:#x}", .0.0, .1.0)]
    Failed(SrbStatus, ScsiStatus),
    /// The host refuses an operation of the controller.
    #[error("the controller refuses: status {:#x}", .0.0)]
    Refused(Status),
    /// The host speaks none of the versions.
    #[error("the controller speaks no version that this guest knows")]
    NoVersion,
    /// The host has answered what no host may.
    #[error("the host breaks the protocol")]
    Protocol,
    /// The range is not inside the disk.
    #[error("the blocks are beyond the disk's end")]
    OutOfRange,
    /// The buffer is no whole blocks.
    #[error("{0} bytes are no whole blocks")]
    NotBlocks(usize),
    /// The disk is not to be written.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The disk cannot do this.
    #[error("the disk cannot do this")]
    Unsupported,
    /// The guest system has no memory left.
    #[error("there is not enough memory")]
    NoMemory,
    /// The ring is broken.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The bus does not do it.
    #[error(transparent)]
    Bus(#[from] BusError),
}
