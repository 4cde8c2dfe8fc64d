//! A logical unit: a disk, or a drive with or without a medium, as a guest's SCSI sees it.

use super::disk::{Disk, Geometry};
use super::scsi::sense::Sense;
use alloc::string::String;
use alloc::sync::Arc;
use spin::Mutex;
use uuid::Uuid;

/// The power of two of the bytes of a block of an optical medium.
const OPTICAL_BLOCK: u32 = 11;

/// What a unit is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A disk that is always there.
    Disk,
    /// A drive for optical media.
    Optical,
}

/// A logical unit over disks of type `D`.
#[derive(Debug)]
pub struct LogicalUnit<D> {
    kind: Kind,
    id: Uuid,
    serial: String,
    state: Mutex<State<D>>,
}

#[derive(Debug)]
struct State<D> {
    medium: Option<Arc<D>>,
    /// Told with the next command that is not an inquiry.
    attention: Option<Sense>,
    locked: bool,
}

/// How a unit's blocks lie on its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The disk.
    pub geometry: Geometry,
    /// Bytes of a block.
    pub block: u32,
    /// Blocks that there are.
    pub blocks: u64,
    /// The power of two of a block's sectors.
    ratio: u32,
}

impl Layout {
    #[inline(always)]
    fn new(kind: Kind, geometry: Geometry) -> Self {
        let sector = geometry.sector_size.shift();
        // A disk of large sectors is no medium of smaller blocks; it shows its own.
        let block = match kind {
            Kind::Optical => OPTICAL_BLOCK.max(sector),
            Kind::Disk => sector,
        };
        let ratio = block - sector;
        Self {
            geometry,
            block: 1 << block,
            blocks: geometry.sectors >> ratio,
            ratio,
        }
    }

    /// The disk's sector of a block.
    pub const fn sector(&self, block: u64) -> u64 {
        block.saturating_mul(1 << self.ratio)
    }

    /// The block of a disk's sector.
    pub const fn block_of(&self, sector: u64) -> u64 {
        sector >> self.ratio
    }

    /// Whether all of the `count` blocks from `first` on are there.
    pub const fn holds(&self, first: u64, count: u64) -> bool {
        match first.checked_add(count) {
            Some(end) => end <= self.blocks,
            None => false,
        }
    }
}

impl<D: Disk> LogicalUnit<D> {
    /// A disk. `id` names it for ever; guests find it again by that and by `serial`.
    pub fn disk(disk: D, id: Uuid, serial: String) -> Self {
        Self::new(Kind::Disk, Some(disk), id, serial)
    }

    /// A drive for optical media, which need not hold one.
    pub fn optical(medium: Option<D>, id: Uuid, serial: String) -> Self {
        Self::new(Kind::Optical, medium, id, serial)
    }

    fn new(kind: Kind, medium: Option<D>, id: Uuid, serial: String) -> Self {
        Self {
            kind,
            id,
            serial,
            state: Mutex::new(State {
                medium: medium.map(Arc::new),
                attention: None,
                locked: false,
            }),
        }
    }

    /// What it is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its name.
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// Its serial number.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// What it holds, if there is something. Whoever has it can go on with it, even when it is taken out.
    pub fn medium(&self) -> Option<Arc<D>> {
        self.state.lock().medium.clone()
    }

    /// Its medium and how blocks lie on it, or why there is none.
    pub fn ready(&self) -> Result<(Arc<D>, Layout), Sense> {
        let medium = self.medium().ok_or(Sense::NO_MEDIUM)?;
        let layout = Layout::new(self.kind, medium.geometry());
        Ok((medium, layout))
    }

    /// What the next read or write works on; or what the guest has to hear first, or why there is nothing.
    #[inline(always)]
    pub(super) fn begin(&self) -> Result<(Arc<D>, Layout), Sense> {
        let mut state = self.state.lock();
        if state.attention.is_some() {
            return Err(state.attention.take().unwrap_or(Sense::NONE));
        }
        let medium = state.medium.clone().ok_or(Sense::NO_MEDIUM)?;
        drop(state);
        let layout = Layout::new(self.kind, medium.geometry());
        Ok((medium, layout))
    }

    /// Puts `medium` in the place of what is there, and gives that back; the guest hears of it with its next command.
    pub fn change_medium(&self, medium: Option<D>) -> Option<Arc<D>> {
        let mut state = self.state.lock();
        state.attention = Some(Sense::MEDIUM_CHANGED);
        state.locked = false;
        core::mem::replace(&mut state.medium, medium.map(Arc::new))
    }

    /// The guest takes the medium out.
    pub(super) fn eject(&self) -> Result<(), Sense> {
        let mut state = self.state.lock();
        if state.locked {
            return Err(Sense::REMOVAL_PREVENTED);
        }
        state.medium = None;
        Ok(())
    }

    /// The guest forbids or allows that it takes the medium out; an operator may always.
    pub(super) fn lock(&self, locked: bool) {
        self.state.lock().locked = locked;
    }

    /// The guest is to hear of `sense` with its next command, if there is nothing yet that it has to hear first.
    pub fn raise(&self, sense: Sense) {
        self.state.lock().attention.get_or_insert(sense);
    }

    /// What the guest has not heard yet, once.
    pub(super) fn take_attention(&self) -> Option<Sense> {
        self.state.lock().attention.take()
    }
}
