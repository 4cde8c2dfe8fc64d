//! Channels and GPADLs.

use super::{Client, ClientError, Effect, Event, OfferedChannel};
use crate::protocol::body::{
    ChannelNamed, GpadlCreated, GpadlTeardown, ModifyChannel, ModifyResponse, OPEN_USER_DATA, OpenChannel,
    OpenResult,
};
use crate::protocol::gpadl::{self, GpaRange};
use crate::protocol::id::{GpadlId, Relid, Status};
use crate::protocol::message::ChannelMessage;
use crate::protocol::offer::{Offer, OfferChannel};
use crate::protocol::version::Version;
use hypercall_api::id::VpIndex;

/// Triggers of a monitor page: four groups of 32.
const TRIGGERS: u8 = 128;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Channel {
    pub(super) offered: OfferedChannel,
    pub(super) state: State,
    pub(super) rescinded: bool,
    /// Moves that were not answered.
    pub(super) moves: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Closed,
    Opening(GpadlId),
    Open(GpadlId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gpadl {
    pub(super) relid: Relid,
    pub(super) state: GpadlState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GpadlState {
    Creating,
    Created,
    TearingDown,
}

/// What the guest wants.
impl Client {
    /// Makes pages known to the host, for the channel's rings or its device. Ends in [`Event::GpadlCreated`]. From now on the
    /// host may read and write them.
    pub fn create_gpadl(
        &mut self,
        relid: Relid,
        ranges: &[GpaRange],
        out: &mut impl Extend<Effect>,
    ) -> Result<GpadlId, ClientError> {
        self.connected()?;
        if self.channel(relid)?.rescinded {
            return Err(ClientError::ChannelState(relid));
        }
        let id = self.free_gpadl();
        let messages = gpadl::messages(relid, id, ranges)?;
        let state = GpadlState::Creating;
        self.gpadls.insert(id, Gpadl { relid, state });
        messages.into_iter().for_each(|message| self.post_bytes(message));
        self.flush(out);
        Ok(id)
    }

    /// Asks the host to forget the list, which may still be being created. Ends in [`Event::GpadlTornDown`], whatever becomes of the
    /// channel.
    pub fn teardown_gpadl(
        &mut self,
        gpadl: GpadlId,
        out: &mut impl Extend<Effect>,
    ) -> Result<(), ClientError> {
        self.connected()?;
        let list = self
            .gpadls
            .get_mut(&gpadl)
            .ok_or(ClientError::GpadlState(gpadl))?;
        let relid = list.relid;
        let in_use = self.channels.get(&relid).is_some_and(
            |channel| matches!(channel.state, State::Opening(rings) | State::Open(rings) if rings == gpadl),
        );
        if in_use || list.state == GpadlState::TearingDown {
            return Err(ClientError::GpadlState(gpadl));
        }
        list.state = GpadlState::TearingDown;
        self.post(ChannelMessage::GpadlTeardown(GpadlTeardown { relid, gpadl }));
        self.flush(out);
        Ok(())
    }

    /// Opens a channel whose rings are the pages of `gpadl`, the ring to the host before page `downstream_page_offset` and the
    /// ring from it behind. Ends in [`Event::Opened`] or [`Event::Rescinded`].
    pub fn open(
        &mut self,
        relid: Relid,
        gpadl: GpadlId,
        downstream_page_offset: u32,
        target_vp: VpIndex,
        user_data: &[u8; OPEN_USER_DATA],
        out: &mut impl Extend<Effect>,
    ) -> Result<(), ClientError> {
        self.connected()?;
        let list = self.gpadls.get(&gpadl).ok_or(ClientError::GpadlState(gpadl))?;
        if list.relid != relid || list.state != GpadlState::Created {
            return Err(ClientError::GpadlState(gpadl));
        }
        let channel = self.channel_mut(relid)?;
        if channel.rescinded || channel.state != State::Closed {
            return Err(ClientError::ChannelState(relid));
        }
        channel.state = State::Opening(gpadl);
        self.post(ChannelMessage::OpenChannel(OpenChannel {
            relid,
            open_id: relid.0,
            gpadl,
            target_vp,
            downstream_page_offset,
            user_data: *user_data,
        }));
        self.flush(out);
        Ok(())
    }

    /// Closes an open channel. Its rings are the host's too until their GPADL is torn down.
    pub fn close(&mut self, relid: Relid, out: &mut impl Extend<Effect>) -> Result<(), ClientError> {
        self.connected()?;
        let channel = self.channel_mut(relid)?;
        if channel.state == State::Closed {
            return Err(ClientError::ChannelState(relid));
        }
        channel.state = State::Closed;
        channel.moves = 0;
        self.post(ChannelMessage::CloseChannel(ChannelNamed { relid }));
        self.flush(out);
        Ok(())
    }

    /// Moves an open channel's interrupt. Ends in [`Event::Modified`] from version 5.3 on; before, nobody says when it is done.
    pub fn modify(
        &mut self,
        relid: Relid,
        target_vp: VpIndex,
        out: &mut impl Extend<Effect>,
    ) -> Result<(), ClientError> {
        let version = self.connected()?;
        if version < Version::V4_1 {
            return Err(ClientError::Version(version));
        }
        let channel = self.channel_mut(relid)?;
        if !matches!(channel.state, State::Open(_)) {
            return Err(ClientError::ChannelState(relid));
        }
        if version.answers_modify() {
            channel.moves += 1;
        }
        self.post(ChannelMessage::ModifyChannel(ModifyChannel { relid, target_vp }));
        self.flush(out);
        Ok(())
    }

    /// Gives a rescinded channel up, once it is closed and its GPADLs are torn down. Its relid may come again.
    pub fn release(&mut self, relid: Relid, out: &mut impl Extend<Effect>) -> Result<(), ClientError> {
        self.connected()?;
        let in_use = self.gpadls.values().any(|list| list.relid == relid);
        let channel = self.channel(relid)?;
        if !channel.rescinded || channel.state != State::Closed || in_use {
            return Err(ClientError::ChannelState(relid));
        }
        self.channels.remove(&relid);
        self.post(ChannelMessage::RelidReleased(ChannelNamed { relid }));
        self.flush(out);
        Ok(())
    }

    /// The channels that are offered, or rescinded and not released yet.
    pub fn channels(&self) -> impl Iterator<Item = &OfferedChannel> {
        self.channels.values().map(|channel| &channel.offered)
    }

    fn channel(&self, relid: Relid) -> Result<&Channel, ClientError> {
        self.channels.get(&relid).ok_or(ClientError::NoChannel(relid))
    }

    fn channel_mut(&mut self, relid: Relid) -> Result<&mut Channel, ClientError> {
        self.channels.get_mut(&relid).ok_or(ClientError::NoChannel(relid))
    }

    fn free_gpadl(&mut self) -> GpadlId {
        loop {
            let id = GpadlId(self.next_gpadl);
            self.next_gpadl = self.next_gpadl.wrapping_add(1).max(1);
            if !self.gpadls.contains_key(&id) {
                return id;
            }
        }
    }
}

/// What the host says.
impl Client {
    pub(super) fn offered(&mut self, wire: &OfferChannel) {
        let relid = wire.relid;
        let offer = Offer::from_wire(wire);
        let same_device = |channel: &Channel| {
            channel.offered.offer.class == offer.class && channel.offered.offer.instance == offer.instance
        };
        let twice = self.channels.values().any(|channel| {
            !channel.rescinded
                && same_device(channel)
                && channel.offered.offer.sub_channel_index == offer.sub_channel_index
        });
        let primary = self.channels.values().any(|channel| {
            !channel.rescinded && same_device(channel) && channel.offered.offer.sub_channel_index == 0
        });
        let orphan = offer.sub_channel_index != 0 && !primary;
        if !relid.is_valid() || self.channels.contains_key(&relid) || twice || orphan {
            log::warn!("the host's offer of channel {relid} is ignored");
            return;
        }
        let offered = OfferedChannel {
            relid,
            offer,
            connection: wire.connection,
            dedicated_interrupt: wire.dedicated_interrupt & 1 != 0,
            monitor: Some(wire.monitor_id).filter(|id| wire.monitor_allocated & 1 != 0 && *id < TRIGGERS),
        };
        let channel = Channel {
            offered: offered.clone(),
            state: State::Closed,
            rescinded: false,
            moves: 0,
        };
        self.channels.insert(relid, channel);
        self.event(Event::Offered(offered));
    }

    pub(super) fn rescinded(&mut self, relid: Relid) {
        let Some(channel) = self.channels.get_mut(&relid) else {
            return;
        };
        if core::mem::replace(&mut channel.rescinded, true) {
            return;
        }
        self.event(Event::Rescinded(relid));
    }

    pub(super) fn open_result(&mut self, result: &OpenResult) {
        let relid = result.relid;
        let Some(channel) = self.channels.get_mut(&relid) else {
            return;
        };
        let State::Opening(rings) = channel.state else {
            return;
        };
        if result.open_id != relid.0 {
            return;
        }
        let outcome = result.status.ok();
        channel.state = match outcome {
            Ok(()) => State::Open(rings),
            Err(_) => State::Closed,
        };
        self.event(Event::Opened(relid, outcome));
    }

    pub(super) fn gpadl_created(&mut self, created: &GpadlCreated) {
        let gpadl = created.gpadl;
        let Some(list) = self.gpadls.get_mut(&gpadl) else {
            return;
        };
        if list.relid != created.relid || list.state != GpadlState::Creating {
            return;
        }
        let outcome: Result<(), Status> = created.status.ok();
        match outcome {
            Ok(()) => list.state = GpadlState::Created,
            Err(_) => drop(self.gpadls.remove(&gpadl)),
        }
        self.event(Event::GpadlCreated(created.relid, gpadl, outcome));
    }

    pub(super) fn gpadl_torndown(&mut self, gpadl: GpadlId) {
        if self
            .gpadls
            .get(&gpadl)
            .is_some_and(|list| list.state == GpadlState::TearingDown)
        {
            self.gpadls.remove(&gpadl);
            self.event(Event::GpadlTornDown(gpadl));
        }
    }

    pub(super) fn modify_response(&mut self, response: &ModifyResponse) {
        let Some(channel) = self.channels.get_mut(&response.relid) else {
            return;
        };
        if let Some(left) = channel.moves.checked_sub(1) {
            channel.moves = left;
            self.event(Event::Modified(response.relid, response.status.ok()));
        }
    }
}
