//! The SCSI controller of a machine: [`vsp::storage`] over the root's disks. It outlives the guest, so that a reset finds
//! the same disks again.

use super::channel::{Channel, Counters};
use super::device::Device;
use super::memory::User;
use crate::disk::{Access, Claim, DiskRefused, Registry};
use crate::shell::machines::UnitInfo;
use crate::vm::description::{Description, DiskDescription};
use crate::vm::host::Job;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::future::Future;
use hypercall_api::address::Gpa;
use uuid::Uuid;
use vmbus::protocol::guid::class;
use vmbus::protocol::offer::Offer;
use vsp::buffer::Buffer;
use vsp::storage::channel::{Link, Role, serve};
use vsp::storage::controller::{AttachError, Controller};
use vsp::storage::disk::Disk;
use vsp::storage::unit::{Kind, LogicalUnit};

/// Which of its class it is.
const INSTANCE: Uuid = Uuid::from_u128(0x7061_7274_6974_6100_8000_7363_7369_0001);
/// From where names of units come.
const NAMES: Uuid = Uuid::from_u128(0x7061_7274_6974_6100_8000_6469_736b_0000);
/// Most sub-channels; each more VP of the guest can use one.
const MOST_SUB_CHANNELS: u32 = 7;

/// Why a machine's disk cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StorageError {
    /// The root does not give the disk.
    #[error(transparent)]
    Refused(#[from] DiskRefused),
    /// The controller has no place for it.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// There is no such unit.
    #[error("there is no unit {0}")]
    NoUnit(u8),
    /// Its medium cannot be changed.
    #[error("unit {0} is a disk, not a DVD drive: 'disk detach' takes it away")]
    NotADrive(u8),
    /// There is nothing to take out.
    #[error("there is nothing in drive {0}")]
    Empty(u8),
}

/// The controller.
pub struct Storage {
    machine: String,
    registry: Arc<Registry>,
    controller: Controller<Claim>,
}

impl Storage {
    /// The controller of `description`, with its disks; those are claimed until it is dropped.
    pub async fn new(registry: Arc<Registry>, description: &Description) -> Result<Arc<Self>, StorageError> {
        let sub_channels = (description.processors - 1).min(MOST_SUB_CHANNELS);
        let storage = Self {
            machine: description.name.clone(),
            registry,
            controller: Controller::new(sub_channels as u16),
        };
        for disk in &description.disks {
            storage.attach(disk, None).await?;
        }
        Ok(Arc::new(storage))
    }

    /// Gives the guest one more disk, as unit `lun` or the first that is free, and returns the unit's number.
    pub async fn attach(&self, disk: &DiskDescription, lun: Option<u8>) -> Result<u8, StorageError> {
        let access = if disk.read_only {
            Access::Read
        } else {
            Access::Write
        };
        let name = match &disk.source {
            Some(source) => format!("{}/{source}", self.machine),
            None => format!("{}/drive {}", self.machine, self.controller.luns().len()),
        };
        let id = Uuid::new_v5(&NAMES, name.as_bytes());
        let serial = id.simple().to_string();
        let unit = match &disk.source {
            None => LogicalUnit::optical(None, id, serial),
            Some(source) => {
                let claim = self.registry.claim(source, &self.machine, access).await?;
                match disk.dvd {
                    true => LogicalUnit::optical(Some(claim), id, serial),
                    false => LogicalUnit::disk(claim, id, serial),
                }
            }
        };
        Ok(self.controller.attach(lun, unit)?)
    }

    /// Puts a medium in a drive, in the place of what is there.
    pub async fn insert(&self, lun: u8, source: &str) -> Result<(), StorageError> {
        let drive = self.drive(lun)?;
        let claim = self.registry.claim(source, &self.machine, Access::Read).await?;
        drive.change_medium(Some(claim));
        Ok(())
    }

    /// Takes the medium out of a drive. It is free for others when the requests that are under way have ended.
    pub fn eject(&self, lun: u8) -> Result<(), StorageError> {
        let drive = self.drive(lun)?;
        if drive.medium().is_none() {
            return Err(StorageError::Empty(lun));
        }
        drive.change_medium(None);
        Ok(())
    }

    fn drive(&self, lun: u8) -> Result<Arc<LogicalUnit<Claim>>, StorageError> {
        let unit = self.controller.unit(lun).ok_or(StorageError::NoUnit(lun))?;
        match unit.kind() {
            Kind::Optical => Ok(unit),
            Kind::Disk => Err(StorageError::NotADrive(lun)),
        }
    }

    /// Takes a disk away from the guest. It is free for others when the requests that are under way have ended.
    pub fn detach(&self, lun: u8) -> Result<(), StorageError> {
        match self.controller.detach(lun) {
            Some(_) => Ok(()),
            None => Err(StorageError::NoUnit(lun)),
        }
    }

    /// The units.
    pub fn units(&self) -> impl Iterator<Item = UnitInfo> {
        self.controller.units().into_iter().map(|(lun, unit)| {
            let medium = unit.medium();
            UnitInfo {
                lun,
                kind: match unit.kind() {
                    Kind::Disk => "disk",
                    Kind::Optical => "dvd",
                },
                read_only: medium.as_ref().is_none_or(|medium| medium.geometry().read_only),
                source: medium.map(|medium| medium.name().to_string()),
            }
        })
    }
}

impl Device for Storage {
    fn offer(&self) -> Offer {
        Offer::new(class::SCSI, INSTANCE)
    }

    fn serve(self: Arc<Self>, channel: Channel) -> Job {
        Box::pin(async move {
            let role = match channel.sub_channel_index() {
                0 => Role::Primary,
                _ => Role::SubChannel,
            };
            let why = match channel.rings() {
                Ok(rings) => serve(&self.controller, role, rings, &ChannelLink::new(channel))
                    .await
                    .to_string(),
                Err(error) => error.to_string(),
            };
            log::warn!("{}: a channel of its disks has stopped: {why}", self.machine);
        })
    }

    fn backend(&self) -> String {
        let sources: alloc::vec::Vec<String> = self.units().filter_map(|unit| unit.source).collect();
        sources.join(", ")
    }
}

/// An open channel as the provider wants it.
struct ChannelLink {
    channel: Channel,
    /// Keeps the guest's memory for requests that outlive the channel.
    user: Arc<User>,
}

impl ChannelLink {
    fn new(channel: Channel) -> Self {
        let user = Arc::new(channel.memory().user());
        Self { channel, user }
    }
}

impl Link for ChannelLink {
    fn wait(&self) -> impl Future<Output = ()> + Send {
        self.channel.wait()
    }

    fn signal(&self) {
        self.channel.signal();
    }

    fn buffer(&self, pieces: impl IntoIterator<Item = (u64, usize)>) -> Option<Buffer> {
        let pieces = pieces.into_iter().map(|(gpa, length)| (Gpa(gpa), length));
        self.channel.memory().buffer_of(&self.user, pieces)
    }

    fn piece(&self, gpa: u64, length: usize) -> Option<Buffer> {
        self.channel.memory().piece_of(&self.user, Gpa(gpa), length)
    }

    fn offer_sub_channels(&self, count: u16) -> u16 {
        self.channel.offer_sub_channels(count)
    }

    fn count(&self, received: u64, sent: u64) {
        Counters::add(&self.channel.counters().received, received);
        Counters::add(&self.channel.counters().sent, sent);
    }
}
