//! What an owner is asked to do.

use super::channel::OfferId;
use crate::protocol::body::{OPEN_USER_DATA, SocketConnect};
use crate::protocol::gpadl::GpaRange;
use crate::protocol::id::{GpadlId, Relid};
use crate::protocol::message::MessageBytes;
use alloc::sync::Arc;
use hypercall_api::id::VpIndex;

/// Where a guest takes messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageTarget {
    /// VP; as the guest said it, so it may not exist.
    pub vp: VpIndex,
    /// SINT, 1 to 15.
    pub sint: u8,
}

/// How a guest wants to use a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenRequest {
    /// The channel's name and its interrupt's event flag.
    pub relid: Relid,
    /// Pages of both rings: whole ones, in one range.
    pub gpadl: GpadlId,
    /// Pages of both rings.
    pub pages: u32,
    /// Pages of the ring from guest to host, which comes first; both have two pages or more.
    pub downstream_page_offset: u32,
    /// VP that takes the channel's interrupt; as the guest said it, so it may not exist.
    pub target_vp: VpIndex,
    /// Of the device's class.
    pub user_data: [u8; OPEN_USER_DATA],
}

/// Something that the owner must do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send a message to the guest. Messages keep their order.
    Send {
        /// Where to.
        target: MessageTarget,
        /// The channel message.
        message: MessageBytes,
    },
    /// Start the device on the channel; confirm by [`Server::opened`](super::Server::opened).
    Open(OfferId, OpenRequest),
    /// Stop the device and let go of the rings; confirm by [`Server::closed`](super::Server::closed). An open that is not
    /// confirmed yet need not be any more.
    Close(OfferId),
    /// Move the open channel's interrupt to another VP; confirm by [`Server::modified`](super::Server::modified).
    Modify(OfferId, VpIndex),
    /// The offer is no more, and its id means nothing from now on.
    Released(OfferId),
    /// Map these pages of the guest, in a row; confirm by [`Server::gpadl_mapped`](super::Server::gpadl_mapped).
    MapGpadl {
        /// The list.
        gpadl: GpadlId,
        /// Its owner.
        offer: OfferId,
        /// The pages; the guest may not have some of them.
        ranges: Arc<[GpaRange]>,
    },
    /// Unmap them once nothing uses them; confirm by [`Server::gpadl_unmapped`](super::Server::gpadl_unmapped). A mapping that is
    /// not confirmed yet need not be any more.
    UnmapGpadl(GpadlId),
    /// The guest wants a socket; confirm by [`Server::socket_connected`](super::Server::socket_connected).
    ConnectSocket(SocketConnect),
}
