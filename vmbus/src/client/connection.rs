//! Contact with one version after the other, offers, unload.

use super::{Client, ClientError, Effect, Event};
use crate::protocol::body::{Empty, InitiateContact, MessageTarget, SocketConnect, VersionResponse};
use crate::protocol::id::{CONTACT_CONNECTION, MESSAGE_CONNECTION};
use crate::protocol::message::ChannelMessage;
use crate::protocol::version::{FeatureFlags, Version};
use hypercall_api::port::ConnectionId;
use uuid::Uuid;

/// How far the connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Disconnected,
    /// The host has not answered to this version.
    Contacting(Version),
    Connected(Connected),
    /// The host has not answered; messages went to this connection.
    Unloading(ConnectionId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Connected {
    pub(super) version: Version,
    pub(super) message_connection: ConnectionId,
}

impl Phase {
    pub(super) fn message_connection(self) -> ConnectionId {
        match self {
            Self::Contacting(version) if version.has_message_target() => CONTACT_CONNECTION,
            Self::Disconnected | Self::Contacting(_) => MESSAGE_CONNECTION,
            Self::Connected(connected) => connected.message_connection,
            Self::Unloading(connection) => connection,
        }
    }
}

impl Client {
    /// Makes contact. Ends in [`Event::Connected`] or [`Event::NoVersion`].
    pub fn connect(&mut self, out: &mut impl Extend<Effect>) -> Result<(), ClientError> {
        if self.phase != Phase::Disconnected {
            return Err(ClientError::WrongPhase);
        }
        self.try_from(|version, settings_max| version <= settings_max);
        self.flush(out);
        Ok(())
    }

    /// The contact message could not be posted: the connection does not exist. The next version is tried.
    pub fn contact_refused(&mut self, out: &mut impl Extend<Effect>) {
        if let Phase::Contacting(refused) = self.phase {
            self.try_from(|version, _| version < refused);
        }
        self.flush(out);
    }

    /// Tries the newest version that `which` allows.
    fn try_from(&mut self, which: impl Fn(Version, Version) -> bool) {
        let max = self.settings.max_version;
        let Some(version) = Version::ALL.into_iter().find(|version| which(*version, max)) else {
            self.phase = Phase::Disconnected;
            return self.event(Event::NoVersion);
        };
        self.phase = Phase::Contacting(version);
        let target = MessageTarget {
            sint: self.settings.sint,
            vtl: 0,
            feature_flags: 0,
        };
        self.post(ChannelMessage::InitiateContact(InitiateContact {
            version,
            target_vp: self.settings.target_vp,
            interrupt_page_or_target: match version.has_message_target() {
                true => target.to_bits(),
                false => self.settings.interrupt_page.0,
            },
            parent_to_child_monitor: self.settings.monitor_pages[0].0,
            child_to_parent_monitor: self.settings.monitor_pages[1].0,
        }));
    }

    pub(super) fn version_response(&mut self, response: &VersionResponse, rest: &[u8]) {
        let Phase::Contacting(version) = self.phase else {
            log::debug!("the host answers a contact that was not made");
            return;
        };
        if response.supported == 0 || response.connection_state != 0 {
            return self.try_from(|older, _| older < version);
        }
        let message_connection = match version.has_message_target() {
            true if response.message_connection.0 != 0 => response.message_connection,
            true => CONTACT_CONNECTION,
            false => MESSAGE_CONNECTION,
        };
        self.phase = Phase::Connected(Connected {
            version,
            message_connection,
        });
        let flags = rest.first_chunk().filter(|_| version.has_feature_flags());
        let flags = flags.map_or(0, |bytes| u32::from_le_bytes(*bytes));
        // No feature was asked for, so none can have been agreed on.
        let features = FeatureFlags::from_bits_truncate(flags) & FeatureFlags::empty();
        self.event(Event::Connected(version, features));
    }

    /// Asks for offers: [`Event::Offered`] for each, now and whenever another comes, [`Event::OffersDelivered`] after the first.
    pub fn request_offers(&mut self, out: &mut impl Extend<Effect>) -> Result<(), ClientError> {
        self.connected()?;
        self.post(ChannelMessage::RequestOffers(Empty {}));
        self.flush(out);
        Ok(())
    }

    /// Gives everything up, in whatever state. Ends in [`Event::Unloaded`]; until then rings and GPADLs are still the host's too.
    pub fn unload(&mut self, out: &mut impl Extend<Effect>) -> Result<(), ClientError> {
        self.connected()?;
        self.post(ChannelMessage::Unload(Empty {}));
        self.phase = Phase::Unloading(self.phase.message_connection());
        self.channels.clear();
        self.flush(out);
        Ok(())
    }

    pub(super) fn unload_response(&mut self) {
        if let Phase::Unloading(_) = self.phase {
            self.phase = Phase::Disconnected;
            self.gpadls.clear();
            self.event(Event::Unloaded);
        }
    }

    /// Asks the host for a socket: a channel is offered, or [`Event::SocketRefused`] comes.
    pub fn connect_socket(
        &mut self,
        endpoint: Uuid,
        service: Uuid,
        out: &mut impl Extend<Effect>,
    ) -> Result<(), ClientError> {
        let version = self.connected()?;
        if version < Version::V4_0 {
            return Err(ClientError::Version(version));
        }
        self.post(ChannelMessage::SocketConnect(SocketConnect {
            endpoint: endpoint.into(),
            service: service.into(),
        }));
        self.flush(out);
        Ok(())
    }
}
