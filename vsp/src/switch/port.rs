//! A port: what it may do, and what went through it.

use super::guard::Guards;
use super::limit::{Bucket, Limit};
use super::path::Path;
use super::vlan::VlanMode;
use bitflags::bitflags;
use core::fmt;
use vmbus::protocol::network::Mac;

/// Names a port of a switch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortId(pub u16);

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Who is behind a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortKind {
    /// A child's network card.
    Guest,
    /// The root's own stack.
    Host,
    /// A physical network.
    Uplink,
}

bitflags! {
    /// Which frames of a port are meant.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Direction: u8 {
        /// Those that it sends to the switch.
        const FROM_PORT = 1;
        /// Those that the switch sends to it.
        const TO_PORT = 2;
    }
}

/// How a port is set up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortSettings {
    /// Who is behind it.
    pub kind: PortKind,
    /// The address of who is behind it, if it has one.
    pub address: Option<Mac>,
    /// Its VLANs.
    pub vlan: VlanMode,
    /// What it may not send.
    pub guard: Guards,
    /// How much it may send.
    pub limit: Option<Limit>,
    /// Which of its frames go to the mirror as well.
    pub mirror: Direction,
}

impl PortSettings {
    /// The port of a child: it is not to pretend to be somebody else, a DHCP server or a router.
    pub fn guest(address: Mac) -> Self {
        Self {
            kind: PortKind::Guest,
            address: Some(address),
            vlan: VlanMode::default(),
            guard: Guards::all(),
            limit: None,
            mirror: Direction::empty(),
        }
    }

    /// The port of the root.
    pub fn host(address: Mac) -> Self {
        Self {
            kind: PortKind::Host,
            guard: Guards::empty(),
            ..Self::guest(address)
        }
    }

    /// The port to a physical network.
    pub fn uplink() -> Self {
        Self {
            kind: PortKind::Uplink,
            address: None,
            guard: Guards::empty(),
            ..Self::guest(Mac::default())
        }
    }

    /// Whether frames to `destination` can be meant for this port. One that cannot send with other addresses than its own
    /// has no others behind it.
    pub fn may_be_behind(&self, destination: Mac) -> bool {
        destination.is_group()
            || self.address.is_none_or(|own| own == destination)
            || !self.guard.contains(Guards::SPOOFED_ADDRESS) && self.kind == PortKind::Guest
    }
}

/// Why a frame went nowhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Drop {
    /// The port is no more.
    NoPort,
    /// It is no frame.
    Malformed,
    /// It has another sender's address.
    Spoofed,
    /// It is of a VLAN that the port is not in.
    OtherVlan,
    /// It is what only servers send.
    Guarded,
    /// Nobody is there to take it.
    Nowhere,
    /// Its receiver had no room.
    NoRoom,
}

impl Drop {
    /// All, in their order.
    pub const ALL: [Self; 7] = [
        Self::NoPort,
        Self::Malformed,
        Self::Spoofed,
        Self::OtherVlan,
        Self::Guarded,
        Self::Nowhere,
        Self::NoRoom,
    ];

    /// What a person calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoPort => "no port",
            Self::Malformed => "malformed",
            Self::Spoofed => "spoofed",
            Self::OtherVlan => "other VLAN",
            Self::Guarded => "guarded",
            Self::Nowhere => "nowhere",
            Self::NoRoom => "no room",
        }
    }
}

/// Frames and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Frames.
    pub frames: u64,
    /// Bytes, headers included.
    pub bytes: u64,
}

impl Traffic {
    pub(super) fn count(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

/// What went through a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// What it sent, and was let in.
    pub from_port: Traffic,
    /// What was sent to it.
    pub to_port: Traffic,
    drops: [u64; Drop::ALL.len()],
}

impl Counters {
    /// Frames of this port that were dropped for `reason`.
    pub fn dropped(&self, reason: Drop) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or(0)
    }

    pub(super) fn drop(&mut self, reason: Drop) {
        if let Some(count) = self.drops.get_mut(reason as usize) {
            *count += 1;
        }
    }
}

/// A port.
#[derive(Clone, Debug)]
pub struct Port {
    /// How it is set up.
    pub settings: PortSettings,
    /// What went through it.
    pub counters: Counters,
    pub(super) bucket: Bucket,
    /// Where its last frame went.
    pub(super) path: Option<Path>,
}

impl Port {
    pub(super) fn new(settings: PortSettings) -> Self {
        Self {
            bucket: Bucket::new(settings.limit),
            settings,
            counters: Counters::default(),
            path: None,
        }
    }
}
