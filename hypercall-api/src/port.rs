//! Ports and connections (TLFS, "Inter-Partition Communication"): a port takes messages or events for its owner; a
//! connection in another partition leads to it.

use crate::address::Gpa;
use crate::id::{PartitionId, VpIndex};
use crate::memory::ProximityDomainInfo;
use crate::message::{MESSAGE_PAYLOAD, Message, MessageType};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        #[repr(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The largest id: 24 bits count, the rest is zero.
            pub const MAX: Self = Self(0xff_ffff);

            /// Whether the bits above the 24 that count are zero.
            pub const fn is_valid(self) -> bool {
                self.0 <= Self::MAX.0
            }
        }
    )*};
}

ids! {
    /// Identifies a port inside the partition that owns it (`HV_PORT_ID`).
    PortId;
    /// Identifies a connection inside the partition that has it (`HV_CONNECTION_ID`).
    ConnectionId;
}

/// Connections of a machine that is described with `loopback = true`: they lead to ports of its own, so that a guest can try
/// and measure messages and events by itself. The ports are VP 0's.
pub mod loopback {
    use super::ConnectionId;

    /// Leads to a message port at [`MESSAGE_SINT`].
    pub const MESSAGES: ConnectionId = ConnectionId(0xff_0001);
    /// Leads to an event port of [`FLAGS`] flags at [`EVENT_SINT`], from [`FIRST_FLAG`] on.
    pub const EVENTS: ConnectionId = ConnectionId(0xff_0002);
    /// SINT of the message port.
    pub const MESSAGE_SINT: u8 = 5;
    /// SINT of the event port.
    pub const EVENT_SINT: u8 = 6;
    /// First flag of the event port.
    pub const FIRST_FLAG: u16 = 64;
    /// Flags of the event port.
    pub const FLAGS: u16 = 8;
}

/// What a port takes (`HV_PORT_TYPE`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct PortType(pub u32);

impl PortType {
    /// Messages.
    pub const MESSAGE: Self = Self(1);
    /// Events: flags.
    pub const EVENT: Self = Self(2);
    /// Monitored notifications.
    pub const MONITOR: Self = Self(3);
    /// Writes to a GPA of the connected partition; the root's alone.
    pub const DOORBELL: Self = Self(4);
}

/// Where a port delivers (`HV_PORT_INFO`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PortInfo {
    /// What it takes.
    pub port_type: PortType,
    /// Zero.
    pub padding: u32,
    /// SINT to deliver at. (Of a monitor port, this and the next field are the GPA of the monitor page.)
    pub target_sint: u32,
    /// VP to deliver at; [`VpIndex::ANY`]: the hypervisor chooses.
    pub target_vp: VpIndex,
    /// First event flag, of an event port; zero otherwise.
    pub base_flag: u16,
    /// Number of event flags, of an event port; zero otherwise.
    pub flag_count: u16,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<PortInfo>() == 24);

impl PortInfo {
    const fn new(port_type: PortType, target_sint: u32, target_vp: VpIndex) -> Self {
        Self {
            port_type,
            padding: 0,
            target_sint,
            target_vp,
            base_flag: 0,
            flag_count: 0,
            reserved: 0,
        }
    }

    /// A port for messages.
    pub const fn message(target_sint: u32, target_vp: VpIndex) -> Self {
        Self::new(PortType::MESSAGE, target_sint, target_vp)
    }

    /// A port for `flag_count` event flags from `base_flag` on.
    pub const fn event(target_sint: u32, target_vp: VpIndex, base_flag: u16, flag_count: u16) -> Self {
        Self {
            base_flag,
            flag_count,
            ..Self::new(PortType::EVENT, target_sint, target_vp)
        }
    }

    /// A port for doorbells.
    pub const fn doorbell(target_sint: u32, target_vp: VpIndex) -> Self {
        Self::new(PortType::DOORBELL, target_sint, target_vp)
    }
}

/// What a connection is (`HV_CONNECTION_INFO`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ConnectionInfo {
    /// The port's type.
    pub port_type: PortType,
    /// Zero.
    pub padding: u32,
    /// Of a doorbell, or the monitor page of a monitor connection; zero otherwise.
    pub gpa: Gpa,
    /// Of a doorbell: the value that must be written; zero otherwise.
    pub trigger_value: u64,
    /// Of a doorbell: size of the write in bits 2:0 (0 any, 1 to 4 for 1, 2, 4, 8 bytes), bit 31 any value; zero otherwise.
    pub flags: u64,
}
const _: () = assert!(size_of::<ConnectionInfo>() == 32);

impl ConnectionInfo {
    /// [`flags`](Self::flags) of a doorbell: any value triggers.
    pub const ANY_VALUE: u64 = 1 << 31;

    /// A connection to a port for messages.
    pub const fn message() -> Self {
        Self::new(PortType::MESSAGE)
    }

    /// A connection to a port for events.
    pub const fn event() -> Self {
        Self::new(PortType::EVENT)
    }

    const fn new(port_type: PortType) -> Self {
        Self {
            port_type,
            padding: 0,
            gpa: Gpa(0),
            trigger_value: 0,
            flags: 0,
        }
    }
}

/// Input of `HvCallCreatePort`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CreatePort {
    /// Partition that owns the port.
    pub port_partition: PartitionId,
    /// Its id; must be free.
    pub port: PortId,
    /// Zero.
    pub port_vtl: u8,
    /// Zero.
    pub min_connection_vtl: u8,
    /// Zero.
    pub padding: u16,
    /// Partition that may connect.
    pub connection_partition: PartitionId,
    /// Where it delivers.
    pub info: PortInfo,
    /// Where its memory should come from.
    pub proximity: ProximityDomainInfo,
}
const _: () = assert!(size_of::<CreatePort>() == 56);

/// Input of `HvCallDeletePort`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DeletePort {
    /// Partition that owns the port.
    pub port_partition: PartitionId,
    /// The port.
    pub port: PortId,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<DeletePort>() == 16);

/// Input of `HvCallConnectPort`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ConnectPort {
    /// Partition that gets the connection.
    pub connection_partition: PartitionId,
    /// Its id; must be free.
    pub connection: ConnectionId,
    /// Zero.
    pub connection_vtl: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Partition that owns the port.
    pub port_partition: PartitionId,
    /// The port.
    pub port: PortId,
    /// Zero.
    pub padding: u32,
    /// What the connection is.
    pub info: ConnectionInfo,
    /// Where its memory should come from.
    pub proximity: ProximityDomainInfo,
}
const _: () = assert!(size_of::<ConnectPort>() == 72);

/// Input of `HvCallDisconnectPort`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DisconnectPort {
    /// Partition that has the connection.
    pub connection_partition: PartitionId,
    /// The connection.
    pub connection: ConnectionId,
    /// Bit 0: it is a doorbell.
    pub flags: u32,
}
const _: () = assert!(size_of::<DisconnectPort>() == 16);

/// Input of `HvCallPostMessage`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PostMessage {
    /// Where to.
    pub connection: ConnectionId,
    /// Zero.
    pub reserved: u32,
    /// Not one of the hypervisor's own.
    pub message_type: MessageType,
    /// Bytes of `payload` that count, at most [`MESSAGE_PAYLOAD`].
    pub payload_size: u32,
    /// The message.
    pub payload: [u8; MESSAGE_PAYLOAD],
}
const _: () = assert!(size_of::<PostMessage>() == 256);

/// Input of `HvCallSignalEvent`, usually made as a fast call.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SignalEvent {
    /// Where to.
    pub connection: ConnectionId,
    /// Which flag, counted from the port's first.
    pub flag: u16,
    /// Zero.
    pub reserved: u16,
}
const _: () = assert!(size_of::<SignalEvent>() == 8);

/// Input of `HvCallPostMessageDirect`: a message of the parent's own making, without a port.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PostMessageDirect {
    /// Partition that gets it.
    pub partition: PartitionId,
    /// VP that gets it.
    pub vp: VpIndex,
    /// Zero.
    pub vtl: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// SINT at which it gets it.
    pub sint: u32,
    /// The [`Message`], as bytes: it is not aligned here.
    pub message: [u8; size_of::<Message>()],
    /// Zero.
    pub padding2: u32,
}
const _: () = assert!(size_of::<PostMessageDirect>() == 280);

/// Input of `HvCallSignalEventDirect`: an event flag set by the parent, without a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SignalEventDirect {
    /// Partition that gets it.
    pub partition: PartitionId,
    /// VP that gets it.
    pub vp: VpIndex,
    /// Zero.
    pub vtl: u8,
    /// SINT at which it gets it.
    pub sint: u8,
    /// Which flag.
    pub flag: u16,
}
const _: () = assert!(size_of::<SignalEventDirect>() == 16);

/// Output of `HvCallSignalEventDirect`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SignaledEventDirect {
    /// Non-zero: the flag was clear before.
    pub newly_signaled: u8,
    /// Zero.
    pub reserved: [u8; 7],
}
const _: () = assert!(size_of::<SignaledEventDirect>() == 8);

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn a_direct_message_sits_behind_its_sint() {
        assert_eq!(offset_of!(PostMessageDirect, sint), 16);
        assert_eq!(offset_of!(PostMessageDirect, message), 20);
    }

    #[test]
    fn flags_of_an_event_port_follow_its_target() {
        assert_eq!(offset_of!(PortInfo, base_flag), 16);
        assert_eq!(offset_of!(CreatePort, info), 24);
        assert_eq!(offset_of!(ConnectPort, info), 32);
    }
}
