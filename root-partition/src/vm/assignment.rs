//! Physical devices of machines: which machine each was given to, and how it changes hands.
//!
//! A device is given to a machine until it is released, whether the machine runs or not. While it runs, the device reaches the
//! guest's memory, at the guest's addresses, and nothing else; its registers are mapped at [`WINDOW`], its interrupt comes to
//! VP 0. Between two owners it is in no domain, masters no bus, raises no interrupt, and is reset.
//!
//! Until there is a virtual PCI bus, a guest learns of its devices on its command line, a word each:
//! `device=1234:11e8,bar0=0xe0000000+0x100000,vector=0x60` (vendor and device id; address and size of each memory BAR; the vector
//! at which VP 0 takes its interrupt, where it has one).

use super::host::Host;
use super::pool::{PoolError, with_deposits};
use crate::drivers::pci::config::ConfigSpace;
use crate::drivers::pci::function::{Bar, Function};
use crate::drivers::pci::requester::{companions, requester};
use crate::drivers::pci::reset::{Method, NoAnswer};
use crate::drivers::pci::scan::Identity;
use crate::drivers::pci::{Address, msi};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::Range;
use hypercall_api::address::Gpfn;
use hypercall_api::id::PartitionId;
use hypercall_api::interrupt::{DeviceId, InterruptEntry, MapDeviceInterrupt, TRIGGER_EDGE};
use hypercall_api::memory::MapGpaFlags;
use spin::{Mutex, Once};

/// Where a guest finds its devices' registers: behind its RAM below 4 GiB, and before its I/O APIC.
pub const WINDOW: Range<u64> = 0xe000_0000..0xfe00_0000;
/// Vector of a machine's first device; the others follow.
const FIRST_VECTOR: u8 = 0x60;
/// Most devices of a machine.
const MOST: usize = 32;
/// Class of bridges.
const BRIDGE: u8 = 6;
const PAGE: u64 = 4096;

/// Why a device does not change hands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AssignError {
    /// There is no function of that address.
    #[error("there is no device {0}: 'dev list' shows those that there are")]
    Unknown(Address),
    /// It is a bridge.
    #[error("{0} is a bridge, which others need")]
    Bridge(Address),
    /// A driver of the root has it.
    #[error("{0} is in use by the root partition's driver '{1}'")]
    Driven(Address, String),
    /// A machine has it.
    #[error("{0} is assigned to '{1}': 'dev release {0}' takes it back")]
    Assigned(Address, String),
    /// Another function with the same requester id is somebody else's.
    #[error("the IOMMU cannot tell {0} from {1}, which is behind the same bridge and used by '{2}'")]
    Companion(Address, Address, String),
    /// No machine has it.
    #[error("{0} is not assigned")]
    NotAssigned(Address),
    /// A running machine has it.
    #[error("'{1}' runs with {0}: 'vm kill {1}' ends it first")]
    Running(Address, String),
    /// It is being reset.
    #[error("{0} is being reset")]
    Changing(Address),
    /// It did not come back.
    #[error(
        "{0} did not come back from its last reset: 'dev release {0}' and assign it again to try once more"
    )]
    Failed(Address),
    /// It has no reset.
    #[error(
        "{0} cannot be reset: it has neither function level reset nor a power state that resets it, and is not alone behind a \
         bridge; --no-reset gives it away as it is, and with it what its last user has left in it"
    )]
    NoReset(Address),
    /// It cannot be reset now.
    #[error(transparent)]
    Reset(#[from] NoAnswer),
    /// The machine has enough.
    #[error("'{0}' has {MOST} devices already")]
    TooMany(String),
    /// Its registers share a page with others'.
    #[error("{0}: BAR {1} of {2:#x} bytes shares a page with other devices' registers")]
    SharedPage(Address, u8, u64),
    /// They do not fit.
    #[error("{0}: BAR {1} of {2:#x} bytes does not fit into what a machine has for registers")]
    TooLarge(Address, u8, u64),
    /// Its interrupt cannot be set up.
    #[error("{0}: {1}")]
    Interrupt(Address, msi::MsiError),
    /// The hypervisor refused.
    #[error("{0}: {1}: {2}")]
    Refused(Address, &'static str, PoolError),
}

/// How a device stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// It is being reset.
    Changing,
    /// It is as new, and in no domain.
    Ready,
    /// It did not come back from a reset.
    Failed,
    /// A machine runs with it.
    Running(PartitionId),
}

#[derive(Clone, Debug)]
struct Entry {
    address: Address,
    machine: String,
    reset: Option<Method>,
    standing: Standing,
}

/// A device that was assigned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assigned {
    /// Its address.
    pub address: Address,
    /// By which id the IOMMU knows it.
    pub requester: u16,
    /// How it is reset when it changes hands.
    pub reset: Option<Method>,
}

/// Which devices were given to which machines.
pub struct Assignments {
    space: Option<&'static dyn ConfigSpace>,
    functions: Vec<Identity>,
    entries: Mutex<Vec<Entry>>,
}

static ALL: Once<Arc<Assignments>> = Once::new();

/// The machine that a device is assigned to, of those that [`publish`](Assignments::publish) has made known.
pub fn machine_of(address: Address) -> Option<String> {
    ALL.get()?.machine_of(address)
}

impl Assignments {
    /// Nothing is assigned of `functions`.
    pub fn new(space: Option<&'static dyn ConfigSpace>, functions: Vec<Identity>) -> Arc<Self> {
        Arc::new(Self {
            space,
            functions,
            entries: Mutex::default(),
        })
    }

    /// Makes them known to drivers, which are not to touch what is assigned.
    pub fn publish(self: &Arc<Self>) {
        ALL.call_once(|| self.clone());
    }

    /// The machine that a device is assigned to.
    pub fn machine_of(&self, address: Address) -> Option<String> {
        let entries = self.entries.lock();
        let entry = entries.iter().find(|entry| entry.address == address);
        entry.map(|entry| entry.machine.clone())
    }

    fn function(&self, address: Address) -> Result<(Function<'static>, Identity), AssignError> {
        let known = self.functions.iter().find(|known| known.address == address);
        match (self.space, known) {
            (Some(space), Some(known)) => Ok((Function::new(space, address), *known)),
            _ => Err(AssignError::Unknown(address)),
        }
    }

    fn requester(&self, address: Address) -> u16 {
        self.space
            .map_or(address.rid(), |space| requester(space, &self.functions, address))
    }

    fn id(&self, address: Address) -> DeviceId {
        DeviceId::pci(address.segment, self.requester(address))
    }

    fn set(&self, address: Address, standing: Standing) {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.address == address) {
            entry.standing = standing;
        }
    }

    /// Gives a device to `machine`, which has it from its next start on. `driver` tells which of the root's drivers has a
    /// function. Without a way to reset it, that is refused unless `without_reset`.
    pub async fn assign<H: Host>(
        &self,
        host: &H,
        address: Address,
        machine: &str,
        driver: impl Fn(Address) -> Option<String>,
        without_reset: bool,
    ) -> Result<Assigned, AssignError> {
        let (function, identity) = self.function(address)?;
        let space = self.space.ok_or(AssignError::Unknown(address))?;
        if identity.class[0] == BRIDGE {
            return Err(AssignError::Bridge(address));
        }
        if let Some(driver) = driver(address) {
            return Err(AssignError::Driven(address, driver));
        }
        let reset = Method::of(space, &self.functions, function);
        if reset.is_none() && !without_reset {
            return Err(AssignError::NoReset(address));
        }
        for other in companions(space, &self.functions, address) {
            let user = driver(other).or_else(|| self.machine_of(other).filter(|user| user != machine));
            if let Some(user) = user {
                return Err(AssignError::Companion(address, other, user));
            }
        }
        {
            let mut entries = self.entries.lock();
            if let Some(entry) = entries.iter().find(|entry| entry.address == address) {
                return Err(AssignError::Assigned(address, entry.machine.clone()));
            }
            if entries.iter().filter(|entry| entry.machine == machine).count() >= MOST {
                return Err(AssignError::TooMany(machine.to_string()));
            }
            entries.push(Entry {
                address,
                machine: machine.to_string(),
                reset,
                standing: Standing::Changing,
            });
        }
        if let Err(error) = self.quarantine(host, PartitionId::SELF, address, reset).await {
            self.entries.lock().retain(|entry| entry.address != address);
            return Err(error);
        }
        self.set(address, Standing::Ready);
        log::info!("{address} is assigned to '{machine}'");
        Ok(Assigned {
            address,
            requester: self.requester(address),
            reset,
        })
    }

    /// Takes a device back from a machine that does not run. It stays in no domain until a driver of the root asks for it.
    pub async fn release<H: Host>(&self, host: &H, address: Address) -> Result<(), AssignError> {
        let entry = {
            let mut entries = self.entries.lock();
            let found = entries.iter_mut().find(|entry| entry.address == address);
            let entry = found.ok_or(AssignError::NotAssigned(address))?;
            match entry.standing {
                Standing::Changing => return Err(AssignError::Changing(address)),
                Standing::Running(_) => return Err(AssignError::Running(address, entry.machine.clone())),
                Standing::Ready | Standing::Failed => {}
            }
            entry.standing = Standing::Changing;
            entry.clone()
        };
        // It is blocked by now, come back or not; who uses it next is told of one that did not.
        let result = self
            .quarantine(host, PartitionId::SELF, address, entry.reset)
            .await;
        if let Err(error) = result {
            log::error!("{error}");
        }
        self.entries.lock().retain(|entry| entry.address != address);
        log::info!("{address} is not '{}'s any more", entry.machine);
        Ok(())
    }

    /// Takes all devices back from a machine that is no more.
    pub async fn release_all<H: Host>(&self, host: &H, machine: &str) {
        for entry in self.of(machine) {
            if let Err(error) = self.release(host, entry.address).await {
                log::error!("{error}");
            }
        }
    }

    fn of(&self, machine: &str) -> Vec<Entry> {
        let entries = self.entries.lock();
        let of = entries.iter().filter(|entry| entry.machine == machine);
        of.cloned().collect()
    }

    /// Takes a device out of the domain of `owner`, and resets it.
    async fn quarantine<H: Host>(
        &self,
        host: &H,
        owner: PartitionId,
        address: Address,
        reset: Option<Method>,
    ) -> Result<(), AssignError> {
        let (function, _) = self.function(address)?;
        let space = self.space.ok_or(AssignError::Unknown(address))?;
        function.disable();
        msi::disable(&function);
        // One that is in no domain is where it is to be.
        let _ = host.detach_device(owner, self.id(address));
        if let Some(reset) = reset {
            reset.perform(space, function, |time| host.pause(time)).await?;
        }
        function.disable();
        msi::disable(&function);
        Ok(())
    }

    /// Lets `partition`, which `machine` is now, have its devices; its guest does not run yet. Returns the words that tell of
    /// them. Where that fails, [`disconnect`](Self::disconnect) takes them back.
    pub async fn connect<H: Host>(
        &self,
        host: &H,
        machine: &str,
        partition: PartitionId,
    ) -> Result<String, AssignError> {
        let mut words = String::new();
        let mut room = WINDOW;
        for (vector, entry) in (FIRST_VECTOR..).zip(self.of(machine)) {
            match entry.standing {
                Standing::Ready => {}
                Standing::Failed => return Err(AssignError::Failed(entry.address)),
                Standing::Changing => return Err(AssignError::Changing(entry.address)),
                Standing::Running(_) => return Err(AssignError::Running(entry.address, entry.machine)),
            }
            self.set(entry.address, Standing::Running(partition));
            let word = self.connect_one(host, partition, entry.address, vector, &mut room)?;
            words.push(' ');
            words.push_str(&word);
        }
        Ok(words)
    }

    fn connect_one<H: Host>(
        &self,
        host: &H,
        partition: PartitionId,
        address: Address,
        vector: u8,
        room: &mut Range<u64>,
    ) -> Result<String, AssignError> {
        let refused = |what| move |error| AssignError::Refused(address, what, error);
        let (function, identity) = self.function(address)?;
        let device = self.id(address);
        with_deposits(host, partition, || host.attach_device(partition, device))
            .map_err(refused("letting it reach the machine's memory"))?;
        let mut word = format!("device={:04x}:{:04x}", identity.vendor, identity.device);
        let mut slot = 0;
        while let Some(at) = Some(slot).filter(|slot| *slot < 6) {
            slot += 1;
            let Some(Bar::Memory { base, size }) = function.bar(at) else {
                continue;
            };
            // The upper half of a 64-bit address is no BAR.
            if function.is_64_bit(at) {
                slot += 1;
            }
            if base % PAGE != 0 || size % PAGE != 0 {
                return Err(AssignError::SharedPage(address, at, size));
            }
            let start = room.start.next_multiple_of(size);
            if start.checked_add(size).is_none_or(|end| end > room.end) {
                return Err(AssignError::TooLarge(address, at, size));
            }
            room.start = start + size;
            let pages: Vec<Gpfn> = (base / PAGE..(base + size) / PAGE).map(Gpfn).collect();
            let flags = MapGpaFlags::READABLE | MapGpaFlags::WRITABLE | MapGpaFlags::NOT_CACHED;
            let mut done = 0;
            with_deposits(host, partition, || {
                let target = Gpfn(start / PAGE + done as u64);
                host.map(partition, target, flags, &pages[done..])
                    .map_err(|error| {
                        done += error.completed;
                        error.status
                    })
            })
            .map_err(refused("mapping its registers"))?;
            let _ = write!(word, ",bar{at}={start:#x}+{size:#x}");
        }
        if msi::is_supported(&function) {
            let input = interrupt(partition, device, vector);
            let mapped = with_deposits(host, partition, || host.map_device_interrupt(&input))
                .map_err(refused("giving it its interrupt"))?;
            msi::set_message(&function, mapped.entry.msi_address_data())
                .map_err(|error| AssignError::Interrupt(address, error))?;
            let _ = write!(word, ",vector={vector:#x}");
        }
        function.start_bus_master();
        Ok(word)
    }

    /// Takes its devices from a machine whose guest does not run any more.
    pub async fn disconnect<H: Host>(&self, host: &H, machine: &str) {
        for entry in self.of(machine) {
            let Standing::Running(partition) = entry.standing else {
                continue;
            };
            self.set(entry.address, Standing::Changing);
            let result = self.quarantine(host, partition, entry.address, entry.reset).await;
            let standing = match result {
                Ok(()) => Standing::Ready,
                Err(error) => {
                    log::error!("{error}");
                    Standing::Failed
                }
            };
            self.set(entry.address, standing);
        }
    }
}

/// The interrupt of a device for VP 0.
const fn interrupt(partition: PartitionId, device: DeviceId, vector: u8) -> MapDeviceInterrupt {
    MapDeviceInterrupt {
        partition,
        device,
        flags: 0,
        base_table_index: 0,
        entry: InterruptEntry::msi(0, 0),
        interrupt_type: 0,
        trigger_mode: TRIGGER_EDGE,
        vector_count: 1,
        reserved: 0,
        vector: vector as u32,
        target_flags: 0,
        vp_mask: 1,
    }
}

#[cfg(test)]
mod tests;
