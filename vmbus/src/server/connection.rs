//! Contact, versions, unload, and the reset that both begin with.

use super::channel::Life;
use super::{Action, MessageTarget, Server};
use crate::protocol::body::{self, Empty, InitiateContact, VersionResponse};
use crate::protocol::id::{CONTACT_CONNECTION, MESSAGE_CONNECTION, SINT};
use crate::protocol::message::ChannelMessage;
use crate::protocol::version::{FeatureFlags, Version};
use hypercall_api::id::VpIndex;
use hypercall_api::message::SINT_COUNT;
use hypercall_api::port::ConnectionId;
use zerocopy::IntoBytes;

/// Whether there is a guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Connection {
    Disconnected,
    Connected(Contact),
    /// The guest, or the one before, has still something that devices use.
    Resetting(After),
}

/// What was agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Contact {
    pub(super) version: Version,
    pub(super) target: MessageTarget,
    pub(super) features: FeatureFlags,
    /// GPAs, from parent to child and back; zero: none. Never used, as no offer has a monitor.
    pub(super) monitor_pages: [u64; 2],
    pub(super) offers_requested: bool,
}

/// Who waits for a reset's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    Nobody,
    Contact(InitiateContact),
    Unload(MessageTarget),
}

impl Connection {
    pub(super) const fn contact(&self) -> Option<&Contact> {
        match self {
            Self::Connected(contact) => Some(contact),
            _ => None,
        }
    }
}

/// Where a guest that makes contact takes the answer; `None` if it names a place that cannot be.
fn target(contact: &InitiateContact) -> Option<MessageTarget> {
    let vp = contact.target_vp;
    if !contact.version.has_message_target() {
        return Some(MessageTarget { vp, sint: SINT });
    }
    let wanted = body::MessageTarget::from_bits(contact.interrupt_page_or_target);
    let possible = (1..SINT_COUNT as u8).contains(&wanted.sint) && wanted.vtl == 0;
    possible.then_some(MessageTarget {
        vp,
        sint: wanted.sint,
    })
}

/// Where messages go after the answer.
fn message_connection(version: Version) -> ConnectionId {
    match version.has_message_target() {
        true => CONTACT_CONNECTION,
        false => MESSAGE_CONNECTION,
    }
}

impl Server {
    /// The guest is gone, or its memory will be: all that it holds is given up. Done when [`Server::is_idle`].
    pub fn disconnect(&mut self, out: &mut impl Extend<Action>) {
        self.reset(After::Nobody);
        self.flush(out);
    }

    /// A contact drops everything of before, as the one who makes it may be another kernel than the one who had it.
    pub(super) fn initiate_contact(&mut self, contact: &InitiateContact) {
        self.reset(After::Contact(*contact));
    }

    pub(super) fn unload(&mut self) {
        let target = match &self.connection {
            Connection::Connected(contact) => contact.target,
            _ => MessageTarget {
                vp: VpIndex(0),
                sint: SINT,
            },
        };
        self.reset(After::Unload(target));
    }

    pub(super) fn refuse_contact(&mut self, contact: &InitiateContact) {
        let target = target(contact).unwrap_or(MessageTarget {
            vp: contact.target_vp,
            sint: SINT,
        });
        let response = VersionResponse {
            supported: 0,
            connection_state: 0,
            reserved: 0,
            message_connection: ConnectionId(0),
        };
        self.send_to(target, ChannelMessage::VersionResponse(response), &[]);
    }

    fn accept_contact(&mut self, contact: &InitiateContact) {
        let Some(target) = target(contact).filter(|_| contact.version.is_known()) else {
            return self.refuse_contact(contact);
        };
        // Both ends would have to know a feature, and this one knows none.
        let features = FeatureFlags::empty();
        self.connection = Connection::Connected(Contact {
            version: contact.version,
            target,
            features,
            monitor_pages: [contact.parent_to_child_monitor, contact.child_to_parent_monitor],
            offers_requested: false,
        });
        let response = VersionResponse {
            supported: 1,
            connection_state: 0,
            reserved: 0,
            message_connection: message_connection(contact.version),
        };
        let features = features.bits();
        let rest = match contact.version.has_feature_flags() {
            true => features.as_bytes(),
            false => &[],
        };
        self.send_to(target, ChannelMessage::VersionResponse(response), rest);
    }

    /// Gives everything up that the guest holds, and goes on with `after` when that is done. A later wish takes the place of
    /// an earlier one: whoever had that does not wait any more.
    fn reset(&mut self, after: After) {
        self.connection = Connection::Resetting(after);
        self.sockets.clear();
        let ids: alloc::vec::Vec<_> = self.channels.keys().copied().collect();
        for id in ids {
            if let Some(channel) = self.channels.get_mut(&id)
                && channel.offer.ends_with_connection()
            {
                channel.life = Life::Rescinded;
            }
            self.close_device(id);
            if let Some(channel) = self.channels.get_mut(&id) {
                channel.relid = None;
                channel.forget_reopening();
            }
            self.remove_if_over(id);
        }
        self.relids.clear();
        let gpadls: alloc::vec::Vec<_> = self.gpadls.keys().copied().collect();
        for gpadl in gpadls {
            self.drop_gpadl(gpadl);
        }
        self.finish_reset();
    }

    /// Goes on after a reset, once nothing is left to wait for.
    pub(super) fn finish_reset(&mut self) {
        let Connection::Resetting(after) = self.connection else {
            return;
        };
        if !self.gpadls.is_empty() || self.channels.values().any(|channel| !channel.is_closed()) {
            return;
        }
        self.connection = Connection::Disconnected;
        match after {
            After::Nobody => {}
            After::Contact(contact) => self.accept_contact(&contact),
            After::Unload(target) => self.send_to(target, ChannelMessage::UnloadResponse(Empty {}), &[]),
        }
    }
}
