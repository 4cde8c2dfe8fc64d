//! What an owner is asked to do and told.

use crate::protocol::id::{GpadlId, Relid, Status};
use crate::protocol::message::MessageBytes;
use crate::protocol::offer::Offer;
use crate::protocol::version::{FeatureFlags, Version};
use hypercall_api::port::ConnectionId;
use uuid::Uuid;

/// Something for the owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Post a message (type [`CHANNEL_MESSAGE`](crate::protocol::id::CHANNEL_MESSAGE)). If the connection does not exist and
    /// the client is making contact, tell it by [`Client::contact_refused`](super::Client::contact_refused).
    Post {
        /// Where to.
        connection: ConnectionId,
        /// The channel message.
        message: MessageBytes,
    },
    /// Something has happened.
    Event(Event),
}

/// What has happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The host speaks this version.
    Connected(Version, FeatureFlags),
    /// The host speaks none of the versions.
    NoVersion,
    /// There is a channel.
    Offered(OfferedChannel),
    /// Those were all that there are now. A host may say it again.
    OffersDelivered,
    /// The channel's device is gone. An open that was not answered is refused by this.
    Rescinded(Relid),
    /// An open has ended; after an error the channel is closed.
    Opened(Relid, Result<(), Status>),
    /// A creation has ended; after an error the list is forgotten.
    GpadlCreated(Relid, GpadlId, Result<(), Status>),
    /// The list's memory is the guest's own again.
    GpadlTornDown(GpadlId),
    /// A move has ended.
    Modified(Relid, Result<(), Status>),
    /// A socket could not be connected.
    SocketRefused {
        /// The guest's end.
        endpoint: Uuid,
        /// The service.
        service: Uuid,
        /// Why.
        status: Status,
    },
    /// The host has let go of everything.
    Unloaded,
}

/// A channel as the host offers it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfferedChannel {
    /// Its name, and its interrupt's event flag.
    pub relid: Relid,
    /// The device.
    pub offer: Offer,
    /// Where to signal it.
    pub connection: ConnectionId,
    /// Signals go by `connection` alone; otherwise bit `relid` of the shared interrupt page's upper half is set before.
    pub dedicated_interrupt: bool,
    /// The host looks at this trigger of the monitor page from child to parent, below 128, and wants no signal.
    pub monitor: Option<u8>,
}
