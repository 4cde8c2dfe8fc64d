//! A SCSI controller: the units behind it, which may come and go while guests use them.

use super::disk::Disk;
use super::epoch::{Ending, Epoch, Epochs};
use super::scsi::sense::Sense;
use super::unit::LogicalUnit;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Waker;
use spin::Mutex;

/// Units that a controller can have. They are all of one target.
pub const MAX_UNITS: u8 = 64;

/// Why a unit could not be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AttachError {
    /// The number is another unit's.
    #[error("unit {0} is there already")]
    Taken(u8),
    /// The number is too high.
    #[error("unit {0} is too high: a controller has units 0 to 63")]
    TooHigh(u8),
    /// All numbers are taken.
    #[error("the controller has no number left: it can have 64 units")]
    Full,
}

type Units<D> = [Option<Arc<LogicalUnit<D>>>; MAX_UNITS as usize];

/// A controller over disks of type `D`. Its channels are served by [`super::channel::serve`], all of them over one controller.
#[derive(Debug)]
pub struct Controller<D> {
    /// By number.
    units: Mutex<Units<D>>,
    /// Sub-channels that a guest can have.
    max_sub_channels: u16,
    changed: AtomicBool,
    /// The first channel's task, which tells the guest of changes.
    teller: Mutex<Option<Waker>>,
    epochs: Mutex<Epochs>,
}

impl<D: Disk> Controller<D> {
    /// A controller without units.
    pub fn new(max_sub_channels: u16) -> Self {
        Self {
            units: Mutex::new([const { None }; MAX_UNITS as usize]),
            max_sub_channels,
            changed: AtomicBool::new(false),
            teller: Mutex::new(None),
            epochs: Mutex::default(),
        }
    }

    /// Sub-channels that a guest can have.
    pub const fn max_sub_channels(&self) -> u16 {
        self.max_sub_channels
    }

    /// Adds a unit as number `lun`, or as the first that is free, and lets the guest look for it. Returns the number.
    pub fn attach(&self, lun: Option<u8>, unit: LogicalUnit<D>) -> Result<u8, AttachError> {
        let mut units = self.units.lock();
        let (lun, slot) = match lun {
            Some(lun) => {
                let slot = units.get_mut(usize::from(lun)).ok_or(AttachError::TooHigh(lun))?;
                if slot.is_some() {
                    return Err(AttachError::Taken(lun));
                }
                (lun, slot)
            }
            None => {
                let free = (0..).zip(units.iter_mut()).find(|(_, slot)| slot.is_none());
                free.ok_or(AttachError::Full)?
            }
        };
        *slot = Some(Arc::new(unit));
        drop(units);
        self.tell();
        Ok(lun)
    }

    /// Takes a unit away, and lets the guest find out. Requests that are under way keep it until they end.
    pub fn detach(&self, lun: u8) -> Option<Arc<LogicalUnit<D>>> {
        let unit = self.units.lock().get_mut(usize::from(lun)).and_then(Option::take);
        if unit.is_some() {
            self.tell();
        }
        unit
    }

    /// A unit.
    pub fn unit(&self, lun: u8) -> Option<Arc<LogicalUnit<D>>> {
        self.units.lock().get(usize::from(lun)).cloned().flatten()
    }

    /// The units and their numbers.
    pub fn units(&self) -> Vec<(u8, Arc<LogicalUnit<D>>)> {
        let units = self.units.lock();
        let numbered = (0..).zip(units.iter());
        numbered
            .filter_map(|(lun, unit)| Some((lun, unit.clone()?)))
            .collect()
    }

    /// The units' numbers.
    pub fn luns(&self) -> Vec<u8> {
        let units = self.units.lock();
        let numbered = (0..).zip(units.iter());
        numbered
            .filter_map(|(lun, unit)| unit.is_some().then_some(lun))
            .collect()
    }

    /// Gives up the requests that are under way, as far as that can be done without harm, and lets the guest hear of it with the next
    /// command to each unit. What is returned completes when all of them have ended: what a disk has begun, it ends or fails by
    /// its own limits, as a device may write to memory until it does.
    pub(super) fn reset(&self) -> Ending {
        let ending = self.epochs.lock().advance();
        for unit in self.units.lock().iter().flatten() {
            unit.raise(Sense::RESET);
        }
        ending
    }

    /// What new requests belong to.
    pub(super) fn epoch(&self) -> Arc<Epoch> {
        self.epochs.lock().current()
    }

    fn tell(&self) {
        self.changed.store(true, Ordering::Release);
        let teller = self.teller.lock().clone();
        if let Some(teller) = teller {
            teller.wake();
        }
    }

    /// Takes note of who tells the guest of changes, now and later; changes of before are to be looked for behind this.
    pub(super) fn register(&self, waker: &Waker) {
        *self.teller.lock() = Some(waker.clone());
    }

    /// Whether the guest is to be told of a change, once.
    pub(super) fn take_change(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    /// Whether the guest is to be told of a change.
    pub(super) fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }
}
