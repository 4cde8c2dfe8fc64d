//! What the shell knows of virtual switches and the network cards in their ports: the trait [`Networks`] and its plain data.

use super::system::{Pending, SystemError};
use crate::net::capture::Capture;
use crate::vm::description::NetworkDescription;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use vsp::switch::guard::Guards;
use vsp::switch::limit::Limit;
use vsp::switch::port::PortId;
use vsp::switch::vlan::VlanMode;
use vsp::switch::words::Mirror;
use vsp::switch::{Kind, Port};

/// A switch.
#[derive(Clone, Debug)]
pub struct SwitchInfo {
    /// Its name.
    pub name: String,
    /// Who takes part.
    pub kind: Kind,
    /// Its ports.
    pub ports: Vec<PortInfo>,
    /// Addresses that it knows.
    pub learned: usize,
    /// The port that gets copies of what mirrored ports send and take.
    pub mirror: Option<PortId>,
}

/// A port.
#[derive(Clone, Debug)]
pub struct PortInfo {
    /// Its number.
    pub id: PortId,
    /// Settings and counters.
    pub port: Port,
    /// The machine's card in it.
    pub card: Option<CardInfo>,
}

/// A network card.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CardInfo {
    /// Its machine.
    pub machine: String,
    /// Its number there.
    pub index: usize,
    /// Its guest sees a link.
    pub link: bool,
    /// Channels that its guest has opened.
    pub channels: usize,
    /// Largest payload of a frame, as its guest has set it.
    pub mtu: u32,
    /// Packets and completions of its guest that made no sense.
    pub refused: u64,
}

/// Names a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortName {
    /// By the card in it: `web`, `web/1`.
    Card(String, usize),
    /// By its switch and its number: `default:3`.
    Port(String, PortId),
}

impl PortName {
    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((switch, number)) = text.split_once(':') {
            return Some(Self::Port(switch.to_string(), PortId(number.parse().ok()?)));
        }
        match text.split_once('/') {
            Some((machine, index)) => Some(Self::Card(machine.to_string(), index.parse().ok()?)),
            None => Some(Self::Card(text.to_string(), 0)),
        }
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Card(machine, index) => write!(f, "{machine}/{index}"),
            Self::Port(switch, port) => write!(f, "{switch}:{port}"),
        }
    }
}

/// What is to be different about a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortChange {
    /// Its VLANs.
    Vlan(VlanMode),
    /// How much it may send.
    Limit(Option<Limit>),
    /// What it may not send.
    Guard(Guards),
    /// Its part in mirroring.
    Mirror(Mirror),
    /// Whether the card in it has a link.
    Link(bool),
}

/// Ends a capture when it is dropped.
pub type CaptureEnd = Box<dyn Send>;

/// Switches and cards as the shell's commands see them.
pub trait Networks: Sync {
    /// The switches, by name.
    fn switches(&self) -> Vec<SwitchInfo>;
    /// Makes a switch.
    fn create_switch(&self, name: &str, kind: Kind) -> Result<(), SystemError>;
    /// Forgets a switch that has no ports.
    fn delete_switch(&self, name: &str) -> Result<(), SystemError>;
    /// Changes a port.
    fn change_port(&self, port: &PortName, change: PortChange) -> Result<(), SystemError>;
    /// Gives a running machine one more card, and returns its number.
    fn attach_card(&self, machine: &str, card: &NetworkDescription) -> Result<usize, SystemError>;
    /// Takes a card away from a running machine; completes when its guest has let go of it.
    fn detach_card<'a>(&'a self, machine: &'a str, index: usize) -> Pending<'a, Result<(), SystemError>>;
    /// Has `capture` see a port's frames until what is returned is dropped.
    fn capture(&self, port: &PortName, capture: Arc<Capture>) -> Result<CaptureEnd, SystemError>;
    /// Ticks of 100 ns between the reference time that frames are seen at and 1970; 0 where nobody knows the time.
    fn time_base(&self) -> u64;
}
