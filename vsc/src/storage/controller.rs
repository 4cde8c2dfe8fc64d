//! A controller: commands to its logical units, and what units there are.

use super::error::StorageError;
use super::queue::Queue;
use super::request::{Data, Request};
use super::scsi::{self, Cdb, DeviceType, Sense};
use crate::memory::{Buffer, PAGE};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::sync::atomic::{AtomicUsize, Ordering};
use vmbus::protocol::storage::{
    CDB_AND_SENSE, DataDirection, MAX_CDB, Operation, Packet, REQUEST_COMPLETION, ScsiRequest, ScsiStatus,
    SrbStatus,
};
use zerocopy::FromZeros;

/// Targets that hosts have, all of them on path 0.
const TARGETS: u8 = 2;
/// Times that a command is tried again because the unit had something else to say first.
const ATTENTIONS: usize = 4;

/// Where a unit is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address {
    /// Path, or bus.
    pub path: u8,
    /// Target on it.
    pub target: u8,
    /// Unit of the target.
    pub lun: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path, self.target, self.lun)
    }
}

/// A unit that there is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Where.
    pub address: Address,
    /// What.
    pub device_type: DeviceType,
    /// Its vendor, without the spaces around it.
    pub vendor: String,
    /// What its vendor calls it.
    pub product: String,
}

/// Gives buffers for what units return.
pub(super) type Allocate = Box<dyn Fn(usize) -> Option<Buffer> + Send + Sync>;

/// A controller whose handshake is done.
pub struct Controller {
    queues: Vec<Arc<Queue>>,
    next: AtomicUsize,
    max_transfer: u32,
    allocate: Allocate,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("queues", &self.queues.len())
            .field("max_transfer", &self.max_transfer)
            .finish_non_exhaustive()
    }
}

impl Controller {
    pub(super) const fn new(first: Vec<Arc<Queue>>, max_transfer: u32, allocate: Allocate) -> Self {
        Self {
            queues: first,
            next: AtomicUsize::new(0),
            max_transfer,
            allocate,
        }
    }

    /// Channels, the first one included.
    pub fn channels(&self) -> usize {
        self.queues.len()
    }

    /// Most bytes of one command.
    pub const fn max_transfer(&self) -> u32 {
        self.max_transfer
    }

    /// Waits until the host has said more often than `seen` times that there are other units than before; returns how often. Begin
    /// with zero.
    pub async fn changed(&self, seen: u32) -> Result<u32, StorageError> {
        let first = self.queues.first().ok_or(StorageError::ControllerGone)?;
        first.changed(seen).await
    }

    /// Has the host give up all requests.
    pub async fn reset(&self) -> Result<(), StorageError> {
        let message = Packet::new(Operation::RESET_BUS, REQUEST_COMPLETION, &0_u32);
        let first = self.queues.first().ok_or(StorageError::ControllerGone)?;
        let answer = first.transact(message, None).await?;
        match answer.status.0 {
            0 => Ok(()),
            _ => Err(StorageError::Refused(answer.status)),
        }
    }

    /// Looks for the units that there are.
    pub async fn scan(&self) -> Result<Vec<Found>, StorageError> {
        let mut found = Vec::new();
        for target in 0..TARGETS {
            let first = Address {
                path: 0,
                target,
                lun: 0,
            };
            let list = match self.ask(first, Cdb::report_luns(PAGE as u32), PAGE).await {
                Ok(list) => list,
                Err(StorageError::NoUnit) => continue,
                Err(error) => return Err(error),
            };
            for lun in scsi::luns(&list) {
                found.extend(self.look(Address { lun, ..first }).await?);
            }
        }
        Ok(found)
    }

    /// What is at `address`, if anything.
    pub(super) async fn look(&self, address: Address) -> Result<Option<Found>, StorageError> {
        let data = match self.ask(address, Cdb::inquiry(None, 36), 36).await {
            Ok(data) => data,
            Err(StorageError::NoUnit) => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = |range| {
            let bytes = data.get::<core::ops::Range<usize>>(range).unwrap_or_default();
            let text = String::from_utf8_lossy(bytes);
            String::from(text.trim_matches([' ', '\0']))
        };
        Ok(scsi::device_type(&data).map(|device_type| Found {
            address,
            device_type,
            vendor: text(8..16),
            product: text(16..32),
        }))
    }

    /// What a command returns, `room` bytes at most.
    pub(super) async fn ask(&self, address: Address, cdb: Cdb, room: usize) -> Result<Vec<u8>, StorageError> {
        let buffer = Arc::new((self.allocate)(room).ok_or(StorageError::NoMemory)?);
        let whole = Data {
            buffer: &buffer,
            offset: 0,
            length: room,
        };
        let transferred = self
            .command(address, cdb, DataDirection::READ, Some(whole))
            .await?;
        let mut data = vec![0; transferred];
        buffer.copy_to(0, &mut data).map_err(|_| StorageError::Protocol)?;
        Ok(data)
    }

    /// Gives a command `bytes`.
    pub(super) async fn tell(&self, address: Address, cdb: Cdb, bytes: &[u8]) -> Result<(), StorageError> {
        let buffer = Arc::new((self.allocate)(bytes.len()).ok_or(StorageError::NoMemory)?);
        buffer.copy_from(0, bytes).map_err(|_| StorageError::NoMemory)?;
        let whole = Data {
            buffer: &buffer,
            offset: 0,
            length: bytes.len(),
        };
        self.command(address, cdb, DataDirection::WRITE, Some(whole))
            .await?;
        Ok(())
    }

    /// Has a unit carry out a command, on any channel; again, if the unit had something else to say first. Returns the bytes that
    /// were transferred.
    pub(super) async fn command(
        &self,
        address: Address,
        cdb: Cdb,
        direction: DataDirection,
        data: Option<Data<'_>>,
    ) -> Result<usize, StorageError> {
        let mut attentions = 0;
        loop {
            match self.execute(address, cdb, direction, data).await {
                Err(StorageError::Sense(Sense {
                    key: Sense::UNIT_ATTENTION,
                    ..
                })) if attentions < ATTENTIONS => attentions += 1,
                result => return result,
            }
        }
    }

    /// As [`command`](Self::command), once.
    pub(super) async fn execute(
        &self,
        address: Address,
        cdb: Cdb,
        direction: DataDirection,
        data: Option<Data<'_>>,
    ) -> Result<usize, StorageError> {
        let mut request = self.begin()?;
        let length = data.map_or(0, |data| data.length);
        let encode = |bytes: &mut [u8; MAX_CDB]| {
            *bytes = cdb.bytes;
            cdb.length
        };
        let make = || message(address, direction, length, encode);
        poll_fn(|context| request.poll(context, data, make, |answer| outcome(answer, length))).await?
    }

    /// Begins a request on any channel.
    #[inline(always)]
    pub(super) fn begin(&self) -> Result<Request<'_>, StorageError> {
        let queue = match self.queues.as_slice() {
            [only] => Some(only),
            queues => {
                let index = self.next.fetch_add(1, Ordering::Relaxed);
                queues.get(index % queues.len().max(1))
            }
        };
        Ok(Request::new(queue.ok_or(StorageError::ControllerGone)?))
    }
}

/// The message for a command with `length` bytes of data, which `encode` writes to what is zero; it gives the command's length.
#[inline(always)]
pub(super) fn message(
    address: Address,
    direction: DataDirection,
    length: usize,
    encode: impl FnOnce(&mut [u8; MAX_CDB]) -> u8,
) -> Packet {
    let mut message = Packet::new_zeroed();
    (message.operation, message.flags) = (Operation::EXECUTE_SRB, REQUEST_COMPLETION);
    if let Some(request) = message.body_mut::<ScsiRequest>() {
        request.length = size_of::<ScsiRequest>() as u16;
        request.path = address.path;
        request.target = address.target;
        request.lun = address.lun;
        request.sense_length = CDB_AND_SENSE as u8;
        request.direction = direction;
        request.transfer_length = length as u32;
        if let Some(cdb) = request.cdb.first_chunk_mut() {
            request.cdb_length = encode(cdb);
        }
    }
    message
}

/// How many bytes were transferred, where an answer says that all is well.
#[inline(always)]
pub(super) fn transferred(answer: &Packet) -> Option<usize> {
    let answer = answer.body_ref::<ScsiRequest>()?;
    let good = answer.srb_status == SrbStatus::SUCCESS && answer.scsi_status == ScsiStatus::GOOD;
    good.then_some(answer.transfer_length as usize)
}

/// How a request for `length` bytes ended: the bytes that were transferred.
#[cold]
pub(super) fn outcome(answer: &Packet, length: usize) -> Result<usize, StorageError> {
    let answer: ScsiRequest = answer.body();
    if answer.srb_status.has_sense() {
        let length = usize::from(answer.sense_length);
        let sense = answer.cdb.get(..length).and_then(Sense::parse);
        return Err(sense.map_or(
            StorageError::Failed(answer.srb_status, answer.scsi_status),
            StorageError::Sense,
        ));
    }
    match (answer.srb_status.code(), answer.scsi_status) {
        (SrbStatus::SUCCESS | SrbStatus::DATA_OVERRUN, ScsiStatus::GOOD) => {
            let transferred = answer.transfer_length as usize;
            match transferred <= length {
                true => Ok(transferred),
                false => Err(StorageError::Protocol),
            }
        }
        (SrbStatus::NO_DEVICE | SrbStatus::SELECTION_TIMEOUT | SrbStatus::INVALID_LUN, _) => {
            Err(StorageError::NoUnit)
        }
        (srb, scsi) => Err(StorageError::Failed(srb, scsi)),
    }
}
