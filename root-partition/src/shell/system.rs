//! What the shell knows of the world: the trait [`System`] and the plain data it returns.
//!
//! The root kernel implements it with hypercalls and drivers, tests with a fake. Every method that may take longer
//! than a person notices returns a [`Pending`] future, which Ctrl-C drops.
//!
//! Other nouns (`vm`, `disk`; later `bus`, `net`) bring a trait each, reached by a method here that has a default
//! (`fn machines(&self) -> Option<&dyn Machines> { None }`), so that this one does not grow without end.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use super::disks::Disks;
use super::machines::Machines;
use super::network::RootNetwork;
use hypercall_api::{
    counter,
    operator::{IommuState, SystemInfo},
};

/// A long operation. Dropping it ends the operation at its next await.
///
/// `Send`, so that the shell may run on an executor that moves tasks between processors.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The system as the shell's commands see it.
pub trait System: Sync {
    /// What the hypervisor says of the machine and of itself (`HvCallPartitaQuerySystem`).
    fn information(&self) -> Result<SystemInfo, SystemError>;

    /// What the IOMMU does, and what devices have tried (`HvCallPartitaQueryIommu`).
    fn iommu(&self) -> Result<Box<IommuState>, SystemError>;

    /// A piece of the hypervisor's log from `position` on (`HvCallPartitaReadLog`); 0 for the oldest that is kept.
    fn hypervisor_log(&self, position: u64) -> Result<LogText, SystemError>;

    /// A piece of the root's own log, by the same rules.
    fn root_log(&self, position: u64) -> LogText;

    /// Number of the root's VPs.
    fn vp_count(&self) -> u32;

    /// The statistics page of VP `vp` of the root, copied.
    fn statistics(&self, vp: u32) -> Result<Box<Statistics>, SystemError>;

    /// The PCI functions, in the order of their addresses.
    fn pci_devices(&self) -> Vec<PciDevice>;

    /// The root kernel's own state.
    fn root(&self) -> RootInfo;

    /// The measurements that `hv bench` can make, in the order in which it makes them.
    fn benchmarks(&self) -> Vec<Named>;

    /// Makes the measurement `name`, one of [`System::benchmarks`].
    fn run_benchmark<'a>(&'a self, name: &'a str) -> Pending<'a, Result<Measurement, SystemError>>;

    /// The self-tests that `hv selftest` can run.
    fn selftests(&self) -> Vec<Selftest>;

    /// Runs the self-test `name`, one of [`System::selftests`]. `Ok` holds a sentence that says what was seen, `Err` one
    /// that says what should have been seen instead; several, a line each, where a test looks at many things.
    fn run_selftest<'a>(&'a self, name: &'a str) -> Pending<'a, Result<String, SystemError>>;

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> Pending<'_, ()>;

    /// Powers the machine off. `Ok` means that it is under way; the shell then says nothing more.
    fn power_off(&self) -> Result<(), SystemError>;

    /// Resets the machine, by the same rules.
    fn reboot(&self) -> Result<(), SystemError>;

    /// The virtual machines, where there can be any.
    fn machines(&self) -> Option<&dyn Machines> {
        None
    }

    /// Who has which device, where that can be changed.
    fn devices(&self) -> Option<&dyn Devices> {
        None
    }

    /// The disks, where there can be any.
    fn disks(&self) -> Option<&dyn Disks> {
        None
    }

    /// The root's network, where there can be one.
    fn network(&self) -> Option<&dyn RootNetwork> {
        None
    }

    /// The next line that the user should see without asking (a warning of the hypervisor, an error of the root),
    /// without its newline. The shell shows it above the line that is being typed.
    fn poll_notice(&self, _context: &mut Context<'_>) -> Poll<String> {
        Poll::Pending
    }
}

/// Why the system could not do it: a sentence for the user that says what was wrong and, where known, what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SystemError(pub String);

impl SystemError {
    /// An error that says `sentence`.
    pub fn new(sentence: impl fmt::Display) -> Self {
        Self(alloc::format!("{sentence}"))
    }
}

/// The counters of one VP, at the indexes of [`hypercall_api::counter`].
pub type Statistics = [u64; counter::COUNTERS];

/// A piece of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogText {
    /// Where `text` begins; later than asked where the ring has overwritten that.
    pub position: u64,
    /// Position to ask for next.
    pub next: u64,
    /// The bytes: UTF-8 lines, possibly cut anywhere. Empty at the log's end.
    pub text: Vec<u8>,
}

/// One PCI function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PciDevice {
    /// Segment group.
    pub segment: u16,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
    /// Vendor id.
    pub vendor_id: u16,
    /// Device id.
    pub device_id: u16,
    /// Base class, subclass and programming interface.
    pub class: [u8; 3],
    /// The root's driver that owns it, if any.
    pub driver: Option<String>,
    /// The virtual machine that it is assigned to, if any.
    pub machine: Option<String>,
}

/// Devices that change hands. They go by their addresses, as in `0000:00:03.0`.
pub trait Devices: Sync {
    /// Gives a device to a virtual machine, which has it from its next start on; unless `without_reset`, one that can be reset
    /// only. Returns what there is to tell of it.
    fn assign<'a>(
        &'a self,
        device: &'a str,
        machine: &'a str,
        without_reset: bool,
    ) -> Pending<'a, Result<AssignedDevice, SystemError>>;
    /// Takes a device back from a virtual machine that does not run.
    fn release<'a>(&'a self, device: &'a str) -> Pending<'a, Result<(), SystemError>>;
}

/// A device that was assigned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AssignedDevice {
    /// Its address.
    pub address: String,
    /// The address by which the IOMMU knows it.
    pub requester: String,
    /// How it is reset when it changes hands; `None` where it is not.
    pub reset: Option<String>,
}

/// The root kernel's own state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RootInfo {
    /// Size of the heap, in bytes.
    pub heap_total: u64,
    /// Bytes of it in use.
    pub heap_used: u64,
    /// Memory outside the heap that is free, for virtual machines, in bytes.
    pub memory_free: u64,
    /// The root's pool in the hypervisor: deposited and unused, in bytes.
    pub pool_free: u64,
    /// The root's pool in the hypervisor: deposited and in use, in bytes.
    pub pool_used: u64,
    /// Tasks that the executor holds.
    pub tasks: u64,
    /// Lists of guests' pages (GPADLs) that are mapped.
    pub gpadls: u64,
    /// Time since the root was entered.
    pub uptime: Duration,
    /// Seconds since 1970, UTC, if the machine has a clock.
    pub unix_time: Option<u64>,
    /// TSC when the shell first prompted.
    pub tsc_at_prompt: u64,
}

/// A name and one line that says what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Named {
    /// The name, a word in lower case with hyphens.
    pub name: &'static str,
    /// What it is, without a full stop.
    pub description: &'static str,
}

/// A self-test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selftest {
    /// The name, a word in lower case with hyphens.
    pub name: &'static str,
    /// What it tries, without a full stop.
    pub description: &'static str,
    /// The system is not expected to survive it (a triple fault of the root); `--all` leaves it out.
    pub ends_system: bool,
}

/// What a benchmark measured, in TSC ticks of one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measurement {
    /// Operations measured.
    pub rounds: u64,
    /// The shortest.
    pub minimum: u64,
    /// The median.
    pub median: u64,
}
