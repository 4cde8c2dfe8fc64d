//! One SCSI request: from the guest's packet to the answer.

use super::controller::Controller;
use super::disk::{self, Disk, DiskError, Durability};
use super::epoch::Epoch;
use super::scsi::block::{MAX_TRANSFER, unmap_ranges};
use super::scsi::cdb::Cdb;
use super::scsi::sense::{SENSE, Sense};
use super::scsi::transfer::Transfer;
use super::scsi::{self, Task, Work};
use super::unit::Layout;
use crate::buffer::{self, Buffer};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use vmbus::protocol::storage::{DataDirection, MAX_CDB, ScsiRequest, ScsiStatus, SrbStatus};

/// Bytes that are written at once where one block is written many times.
const PATTERN: usize = 64 << 10;

/// Memory of the guest that a request names.
pub trait Pages: Copy {
    /// The first `bytes` bytes of it; `None` where it is less, or not the guest's.
    fn buffer(self, bytes: usize) -> Option<Buffer>;
    /// Bytes of it.
    fn size(self) -> usize;
}

/// A request that a disk works on.
pub struct Pending<D> {
    request: ScsiRequest,
    disk: Arc<D>,
    layout: Layout,
    task: Task,
    data: Arc<Buffer>,
    epoch: Arc<Epoch>,
}

/// Begins `request`, whose data are in `pages`. Makes the answer of it, or gives what a disk has to do first; after the end of `epoch`,
/// nothing more of that is begun. The request is changed in place, as each copy of it would cost more than all that is decided about it.
#[inline(always)]
pub fn begin<D: Disk>(
    controller: &Controller<D>,
    request: &mut ScsiRequest,
    pages: impl Pages,
    epoch: &Arc<Epoch>,
) -> Option<Pending<D>> {
    match Transfer::parse(&request.cdb, request.cdb_length) {
        Some(Ok(transfer)) => begin_transfer(controller, request, transfer, pages, epoch),
        Some(Err(sense)) => {
            answer_sense(request, sense);
            None
        }
        None => begin_other(controller, request, pages, epoch),
    }
}

#[inline(always)]
fn begin_transfer<D: Disk>(
    controller: &Controller<D>,
    request: &mut ScsiRequest,
    transfer: Transfer,
    pages: impl Pages,
    epoch: &Arc<Epoch>,
) -> Option<Pending<D>> {
    let unit = match (request.path, request.target) {
        (0, 0) => controller.unit(request.lun),
        _ => None,
    };
    let Some(unit) = unit else {
        answer_refused(request, SrbStatus::INVALID_LUN);
        return None;
    };
    let (disk, layout) = match unit.begin() {
        Ok(begun) => begun,
        Err(sense) => {
            answer_sense(request, sense);
            return None;
        }
    };
    let task = match transfer.task(&layout) {
        Ok(Some(task)) => task,
        Ok(None) => {
            answer_good(request, 0);
            return None;
        }
        Err(sense) => {
            answer_sense(request, sense);
            return None;
        }
    };
    carry_out(request, disk, layout, task, pages, epoch)
}

/// Begins what is no read or write.
fn begin_other<D: Disk>(
    controller: &Controller<D>,
    request: &mut ScsiRequest,
    pages: impl Pages,
    epoch: &Arc<Epoch>,
) -> Option<Pending<D>> {
    match work(controller, request) {
        Ok(Work::Disk { disk, layout, task }) => {
            return carry_out(request, disk, layout, task, pages, epoch);
        }
        Ok(Work::Nothing) => answer_good(request, 0),
        Ok(Work::Reply(bytes)) => answer_reply(request, &bytes, pages),
        Err(Refusal::Sense(sense)) => answer_sense(request, sense),
        Err(Refusal::Srb(status)) => answer_refused(request, status),
    }
    None
}

/// Has a disk carry out a task, at once if it can.
#[inline(always)]
fn carry_out<D: Disk>(
    request: &mut ScsiRequest,
    disk: Arc<D>,
    layout: Layout,
    task: Task,
    pages: impl Pages,
    epoch: &Arc<Epoch>,
) -> Option<Pending<D>> {
    let data = match wanted(request, task, &layout) {
        Ok(0) => None,
        Ok(bytes) => pages.buffer(bytes),
        Err(sense) => {
            answer_sense(request, sense);
            return None;
        }
    };
    if data.is_none() && task.has_data() {
        answer_sense(request, Sense::INVALID_FIELD);
        return None;
    }
    match at_once(disk.as_ref(), task, data.as_ref()) {
        Some(result) => {
            end(request, &layout, task, result.map_err(Failure::Disk));
            None
        }
        None => Some(Pending {
            request: *request,
            disk,
            layout,
            task,
            data: data.map_or_else(|| buffer::owned(0), Arc::new),
            epoch: epoch.clone(),
        }),
    }
}

enum Refusal {
    Sense(Sense),
    Srb(SrbStatus),
}

impl From<Sense> for Refusal {
    fn from(sense: Sense) -> Self {
        Self::Sense(sense)
    }
}

fn work<D: Disk>(controller: &Controller<D>, request: &ScsiRequest) -> Result<Work<D>, Refusal> {
    let mut cdb = [0; MAX_CDB];
    cdb.copy_from_slice(&request.cdb[..MAX_CDB]);
    let cdb = Cdb::parse(&cdb, request.cdb_length)?;
    // All units are of one target. Guests look for others too, and must be told in so many words that there is nothing: Linux
    // takes an inquiry without data for a disk.
    let (luns, unit) = match (request.path, request.target) {
        (0, 0) => (Some(controller), controller.unit(request.lun)),
        _ => (None, None),
    };
    let luns = || luns.map(Controller::luns).unwrap_or_default();
    match unit {
        Some(unit) => Ok(scsi::execute(&unit, &cdb, luns)?),
        None => scsi::execute_missing(&cdb, luns).map_err(|_| Refusal::Srb(SrbStatus::INVALID_LUN)),
    }
}

/// Bytes of the guest's memory that a task needs, if the guest gives as many.
#[inline(always)]
fn wanted(request: &ScsiRequest, task: Task, layout: &Layout) -> Result<usize, Sense> {
    let (bytes, direction) = match task {
        Task::Read { bytes, .. } => (bytes, DataDirection::READ),
        Task::Write { bytes, .. } | Task::Unmap { bytes } => (bytes, DataDirection::WRITE),
        Task::WriteSame { zeros: false, .. } => (layout.block as usize, DataDirection::WRITE),
        Task::Flush | Task::WriteSame { zeros: true, .. } => return Ok(0),
    };
    let given = request.direction == direction && request.transfer_length as usize >= bytes;
    match given && bytes <= MAX_TRANSFER as usize {
        true => Ok(bytes),
        false => Err(Sense::INVALID_FIELD),
    }
}

/// Has a disk do what it can do without waiting.
#[inline(always)]
fn at_once<D: Disk>(disk: &D, task: Task, data: Option<&Buffer>) -> Option<Result<(), DiskError>> {
    disk.at_once(match (task, data) {
        (Task::Read { sector, .. }, Some(buffer)) => disk::Request::Read { sector, buffer },
        (
            Task::Write {
                sector, durability, ..
            },
            Some(buffer),
        ) => disk::Request::Write {
            sector,
            buffer,
            durability,
        },
        (Task::Flush, _) => disk::Request::Flush,
        _ => return None,
    })
}

/// Makes the answer of a request whose task has ended.
#[inline(always)]
fn end(request: &mut ScsiRequest, layout: &Layout, task: Task, result: Result<(), Failure>) {
    match result {
        Ok(()) => answer_good(
            request,
            match task {
                Task::Read { bytes, .. } | Task::Write { bytes, .. } | Task::Unmap { bytes } => bytes as u32,
                Task::WriteSame { .. } => layout.block,
                Task::Flush => 0,
            },
        ),
        Err(failure) => answer_failure(request, layout, failure),
    }
}

#[cold]
fn answer_failure(request: &mut ScsiRequest, layout: &Layout, failure: Failure) {
    let sense = match failure {
        Failure::Sense(sense) => sense,
        Failure::Disk(error) => Sense::of(error, |sector| layout.block_of(sector)),
    };
    answer_sense(request, sense);
}

impl<D: Disk> Pending<D> {
    /// Does it, and gives the answer.
    pub async fn run(&mut self) -> ScsiRequest {
        let done = match self.task {
            Task::Read { sector, .. } => self.disk.read(sector, &self.data).await.map_err(Failure::Disk),
            Task::Write {
                sector, durability, ..
            } => self
                .disk
                .write(sector, &self.data, durability)
                .await
                .map_err(Failure::Disk),
            Task::Flush => self.disk.flush().await.map_err(Failure::Disk),
            Task::Unmap { bytes } => self.unmap(bytes).await,
            Task::WriteSame { sector, count, zeros } => self.write_same(sector, count, zeros).await,
        };
        let mut answer = self.request;
        end(&mut answer, &self.layout, self.task, done);
        answer
    }

    async fn unmap(&self, bytes: usize) -> Result<(), Failure> {
        let mut list = vec![0; bytes];
        self.data
            .copy_to(0, &mut list)
            .map_err(|_| Failure::Sense(Sense::PARAMETER_LENGTH))?;
        for (sector, count) in unmap_ranges(&self.layout, &list).map_err(Failure::Sense)? {
            if count > 0 {
                self.goes_on()?;
                self.disk.discard(sector, count).await.map_err(Failure::Disk)?;
            }
        }
        Ok(())
    }

    /// Whether the next of several steps may be taken.
    fn goes_on(&self) -> Result<(), Failure> {
        match self.epoch.is_over() {
            true => Err(Failure::Sense(Sense::RESET)),
            false => Ok(()),
        }
    }

    async fn write_same(&self, sector: u64, count: u64, zeros: bool) -> Result<(), Failure> {
        let block = self.layout.block as usize;
        let mut pattern = vec![0; block];
        if !zeros {
            self.data
                .copy_to(0, &mut pattern)
                .map_err(|_| Failure::Disk(DiskError::BufferSize))?;
        }
        let size = self.layout.geometry.sector_size.bytes() as usize;
        let (mut sector, mut left) = (sector, count);
        let chunk = filled(&pattern, PATTERN)?;
        let whole = (PATTERN / size) as u64;
        while left >= whole {
            self.goes_on()?;
            self.disk.write(sector, &chunk, Durability::Cached).await?;
            (sector, left) = (sector + whole, left - whole);
        }
        if left > 0 {
            self.goes_on()?;
            let rest = filled(&pattern, left as usize * size)?;
            self.disk.write(sector, &rest, Durability::Cached).await?;
        }
        Ok(())
    }
}

enum Failure {
    Sense(Sense),
    Disk(DiskError),
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

/// `size` bytes of `pattern` again and again.
fn filled(pattern: &[u8], size: usize) -> Result<Arc<Buffer>, DiskError> {
    let bytes: Vec<u8> = pattern.iter().copied().cycle().take(size).collect();
    let buffer = buffer::owned(size);
    buffer.copy_from(0, &bytes).map_err(|_| DiskError::BufferSize)?;
    Ok(buffer)
}

#[inline(always)]
fn answer_good(request: &mut ScsiRequest, transferred: u32) {
    request.srb_status = SrbStatus::SUCCESS;
    request.scsi_status = ScsiStatus::GOOD;
    request.sense_length = 0;
    request.transfer_length = transferred;
}

#[cold]
fn answer_sense(request: &mut ScsiRequest, sense: Sense) {
    answer_refused(request, SrbStatus::ERROR.with_sense());
    request.scsi_status = ScsiStatus::CHECK_CONDITION;
    request.sense_length = SENSE as u8;
    request.cdb[..SENSE].copy_from_slice(&sense.encode());
}

/// Makes the answer of a request that did not reach a unit.
pub fn answer_refused(request: &mut ScsiRequest, status: SrbStatus) {
    request.srb_status = status;
    request.scsi_status = ScsiStatus::GOOD;
    request.sense_length = 0;
    request.transfer_length = 0;
}

/// Gives the guest `bytes`, as far as it has room.
fn answer_reply(request: &mut ScsiRequest, bytes: &[u8], pages: impl Pages) {
    let room = (request.transfer_length as usize).min(pages.size());
    let bytes = bytes.get(..room).unwrap_or(bytes);
    if bytes.is_empty() {
        return answer_good(request, 0);
    }
    if request.direction != DataDirection::READ {
        return answer_sense(request, Sense::INVALID_FIELD);
    }
    match pages.buffer(bytes.len()) {
        Some(buffer) if buffer.copy_from(0, bytes).is_ok() => answer_good(request, bytes.len() as u32),
        _ => answer_refused(request, SrbStatus::INVALID_REQUEST),
    }
}
