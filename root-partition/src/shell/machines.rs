//! What the shell knows of virtual machines: the trait [`Machines`] and the plain data that it returns.

use super::switches::Networks;
use super::system::{Pending, Statistics, SystemError};
use crate::vm::description::DiskDescription;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::task::{Context, Poll};
use core::time::Duration;
use hypercall_api::register::{RegisterName, RegisterValue};

/// State of a virtual machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MachineState {
    /// It has no partition, and holds no memory.
    Off,
    /// Its partition is being made.
    Starting,
    /// Its VPs run.
    Running,
    /// Its VPs are suspended by the user.
    Paused,
    /// Its partition is being taken apart.
    Stopping,
    /// It cannot go on; its partition is there to be looked at.
    Crashed,
    /// It is no more.
    Deleted,
}

impl MachineState {
    /// Every state, as [`fmt::Display`] shows it.
    pub const ALL: [(&'static str, Self); 7] = [
        ("off", Self::Off),
        ("starting", Self::Starting),
        ("running", Self::Running),
        ("paused", Self::Paused),
        ("stopping", Self::Stopping),
        ("crashed", Self::Crashed),
        ("deleted", Self::Deleted),
    ];
}

impl fmt::Display for MachineState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, state)| state == self);
        name.map_or("?", |(name, _)| name).fmt(formatter)
    }
}

/// What a machine can be told to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Start it.
    Start,
    /// Ask its guest to power itself off; done when the guest has been asked.
    Stop,
    /// End it at once, whatever it does.
    Kill,
    /// Start it anew.
    Reset,
    /// Suspend its VPs.
    Pause,
    /// Let them go on.
    Resume,
    /// Forget it.
    Delete,
}

/// A virtual machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineInfo {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: MachineState,
    /// Time in this state.
    pub since: Duration,
    /// VPs.
    pub processors: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Kernel file.
    pub kernel: String,
    /// Files that the kernel is given.
    pub modules: Vec<String>,
    /// Command line.
    pub command_line: String,
    /// Its console: `com1` or `com2`.
    pub console: &'static str,
    /// Weight of its VPs.
    pub weight: u64,
    /// Most processor time of each VP, in percent.
    pub cap: Option<u64>,
    /// Processor time that each VP is sure of, in percent.
    pub reserve: u64,
    /// Id of its partition, unless it is off.
    pub partition: Option<u64>,
    /// Bytes that the hypervisor keeps for it beside its memory, its page tables included, unless it is off.
    pub kept: Option<u64>,
    /// How often it was started or reset.
    pub starts: u64,
    /// Its disks.
    pub disks: Vec<UnitInfo>,
    /// Whether its guest's system answers; `None` where that does not take part.
    pub heartbeat: Option<String>,
    /// What its guest's system tells of itself: names and values.
    pub guest: Vec<(String, String)>,
}

/// A disk of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnitInfo {
    /// Its number.
    pub lun: u8,
    /// What is behind it; nothing in an empty drive.
    pub source: Option<String>,
    /// `disk` or `dvd`.
    pub kind: &'static str,
    /// The guest cannot write it.
    pub read_only: bool,
}

/// An event of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineEvent {
    /// Time since the root was entered.
    pub time: Duration,
    /// What happened.
    pub text: String,
}

/// What a VP did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VpStatistics {
    /// Its index.
    pub vp: u32,
    /// Intercepts that the root handled.
    pub intercepts: u64,
    /// Its counters.
    pub counters: Box<Statistics>,
}

/// A channel of a machine's bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelInfo {
    /// What the guest calls it, once it knows of it.
    pub relid: Option<u32>,
    /// The device's class, by its name or its GUID.
    pub device: String,
    /// Which of its class it is, a GUID.
    pub instance: String,
    /// What is behind it; empty where there is nothing to say.
    pub backend: String,
    /// 0: the device's first channel.
    pub sub_channel: u16,
    /// `waiting` for the guest to ask, `offered`, `opening`, `open`, `stopped`, `closing` or `rescinded`.
    pub state: &'static str,
    /// What it does, while it is open.
    pub open: Option<OpenChannel>,
}

/// What an open channel does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenChannel {
    /// VP of the machine that takes its interrupt.
    pub vp: u32,
    /// VP of the root that serves it.
    pub root_vp: u32,
    /// The rings to the host and to the guest; `None` where the guest has made nonsense of them.
    pub fill: Option<[Fill; 2]>,
    /// Packets that the device has taken.
    pub received: u64,
    /// Packets that it has sent.
    pub sent: u64,
    /// Times that it was woken.
    pub wakes: u64,
    /// Times that the guest was signalled.
    pub signals: u64,
}

/// How full a ring is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill {
    /// Bytes that wait.
    pub used: u32,
    /// Bytes that it holds.
    pub size: u32,
}

/// The virtual machines as the shell's commands see them. Machines go by their names.
pub trait Machines: Networks {
    /// The machines, by name.
    fn list(&self) -> Vec<MachineInfo>;
    /// One machine.
    fn show(&self, name: &str) -> Result<MachineInfo, SystemError>;
    /// The names of the descriptions in the boot archive, `web` for `vms/web.toml`.
    fn descriptions(&self) -> Vec<String>;
    /// Makes a machine of the description `description`, called `name` if given, and returns its name.
    fn create(&self, description: &str, name: Option<&str>) -> Result<String, SystemError>;
    /// Has a machine do something; completes when it is done. It is done even where the future is dropped.
    fn order<'a>(&'a self, name: &'a str, order: Order) -> Pending<'a, Result<(), SystemError>>;
    /// Completes when the machine is in one of `states`, with the one that it is in.
    fn wait<'a>(
        &'a self,
        name: &'a str,
        states: &'a [MachineState],
    ) -> Pending<'a, Result<MachineState, SystemError>>;
    /// What the console sent from `position` on, and where that begins. Empty at its end.
    fn console(&self, name: &str, position: u64) -> Result<(u64, Vec<u8>), SystemError>;
    /// Ready once the console has sent something behind `position`, or the machine is off or gone.
    fn poll_console(&self, name: &str, position: u64, context: &mut Context<'_>) -> Poll<()>;
    /// Types on the console.
    fn type_in(&self, name: &str, bytes: &[u8]) -> Result<(), SystemError>;
    /// Gives a running machine one more disk, as unit `lun` or the first that is free; returns its number.
    fn attach<'a>(
        &'a self,
        name: &'a str,
        disk: &'a DiskDescription,
        lun: Option<u8>,
    ) -> Pending<'a, Result<u8, SystemError>>;
    /// Takes a disk away from a running machine.
    fn detach(&self, name: &str, lun: u8) -> Result<(), SystemError>;
    /// Puts `source` in the DVD drive that is unit `lun` of a running machine, in the place of what is there.
    fn insert<'a>(&'a self, name: &'a str, lun: u8, source: &'a str) -> Pending<'a, Result<(), SystemError>>;
    /// Takes out what is in the DVD drive that is unit `lun` of a running machine.
    fn eject(&self, name: &str, lun: u8) -> Result<(), SystemError>;
    /// What happened to the machine.
    fn log(&self, name: &str) -> Result<Vec<MachineEvent>, SystemError>;
    /// Registers of a VP; those that it does not have are left out.
    fn registers(&self, name: &str, vp: u32) -> Result<Vec<(RegisterName, RegisterValue)>, SystemError>;
    /// The channels of its bus.
    fn channels(&self, name: &str) -> Result<Vec<ChannelInfo>, SystemError>;
    /// What each VP did.
    fn statistics(&self, name: &str) -> Result<Vec<VpStatistics>, SystemError>;
    /// The memory at `address`, all of it.
    fn memory(&self, name: &str, address: u64, length: usize) -> Result<Vec<u8>, SystemError>;
}
