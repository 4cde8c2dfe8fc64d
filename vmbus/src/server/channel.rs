//! Offers, and channels that open, close, move and are rescinded.

use super::connection::Connection;
use super::{Action, OpenRequest, Server, event_connection};
use crate::protocol::body::{ChannelNamed, Empty, ModifyChannel, OpenChannel, OpenResult};
use crate::protocol::id::{GpadlId, Relid, Status};
use crate::protocol::message::ChannelMessage;
use crate::protocol::offer::Offer;
use alloc::vec::Vec;
use core::fmt;

/// Names an offer towards its device, for as long as the server lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OfferId(pub u64);

impl fmt::Display for OfferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why something cannot be offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OfferError {
    /// The guest has as many channels as it may have.
    #[error("the bus has no room for another channel")]
    Full,
    /// There is that device already.
    #[error("a device of that class and instance is on the bus already")]
    Duplicate,
    /// A sub-channel's device has to be open.
    #[error("the device of the sub-channel is not open")]
    NoPrimary,
}

/// How far a channel is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChannelState {
    /// The guest does not use it.
    Closed,
    /// The device has not confirmed the open yet.
    Opening,
    /// In use.
    Open,
    /// The device has not confirmed the close yet.
    Closing,
}

/// What a channel is, for a person and for its device.
#[derive(Clone, Copy, Debug)]
pub struct ChannelView<'a> {
    /// Its name towards its device.
    pub id: OfferId,
    /// The device.
    pub offer: &'a Offer,
    /// Its name towards the guest, if the guest knows of it.
    pub relid: Option<Relid>,
    /// How far it is.
    pub state: ChannelState,
    /// How it is used, when it is.
    pub open: Option<&'a OpenRequest>,
    /// The device has taken it back, and the guest has not given it up yet.
    pub rescinded: bool,
}

/// Whether the device still offers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    Offered,
    /// The guest still has its relid, if any.
    Rescinded,
    /// The guest has given the relid up.
    Released,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
    Closed,
    Opening {
        open_id: u32,
        request: OpenRequest,
    },
    Open(OpenRequest),
    /// A guest may open again before the device has confirmed the close.
    Closing {
        reopen: Option<OpenChannel>,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Channel {
    pub(super) offer: Offer,
    pub(super) relid: Option<Relid>,
    pub(super) state: State,
    pub(super) life: Life,
    /// Moves that the device has not confirmed.
    pub(super) moves: u32,
}

impl Channel {
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    pub(super) fn forget_reopening(&mut self) {
        if let State::Closing { reopen } = &mut self.state {
            *reopen = None;
        }
    }

    fn same_device(&self, other: &Offer) -> bool {
        self.offer.class == other.class && self.offer.instance == other.instance
    }

    fn view(&self, id: OfferId) -> ChannelView<'_> {
        let (state, open) = match &self.state {
            State::Closed => (ChannelState::Closed, None),
            State::Opening { request, .. } => (ChannelState::Opening, Some(request)),
            State::Open(request) => (ChannelState::Open, Some(request)),
            State::Closing { .. } => (ChannelState::Closing, None),
        };
        ChannelView {
            id,
            offer: &self.offer,
            relid: self.relid,
            state,
            open,
            rescinded: self.life != Life::Offered,
        }
    }
}

/// What devices do.
impl Server {
    /// Offers a device, or a sub-channel of one that is open.
    pub fn offer(&mut self, offer: Offer, out: &mut impl Extend<Action>) -> Result<OfferId, OfferError> {
        if self.channels.len() >= self.limits.channels {
            return Err(OfferError::Full);
        }
        let mut same = self
            .channels
            .values()
            .filter(|channel| channel.life == Life::Offered && channel.same_device(&offer));
        let mut open_primary = false;
        for channel in same.by_ref() {
            if channel.offer.sub_channel_index == offer.sub_channel_index {
                return Err(OfferError::Duplicate);
            }
            open_primary |= channel.offer.sub_channel_index == 0 && matches!(channel.state, State::Open(_));
        }
        if offer.sub_channel_index != 0 && !open_primary {
            return Err(OfferError::NoPrimary);
        }
        let id = OfferId(self.next_offer);
        self.next_offer += 1;
        let channel = Channel {
            offer,
            relid: None,
            state: State::Closed,
            life: Life::Offered,
            moves: 0,
        };
        self.channels.insert(id, channel);
        self.announce(id);
        self.flush(out);
        Ok(id)
    }

    /// Takes an offer back, its sub-channels with it. An open channel's device is asked to close, and the id stays until [`Action::Released`].
    pub fn rescind(&mut self, id: OfferId, out: &mut impl Extend<Action>) {
        self.rescind_channel(id);
        self.flush(out);
    }

    /// Confirms [`Action::Open`]; after an error the device has nothing to do with the channel.
    pub fn opened(&mut self, id: OfferId, result: Result<(), Status>, out: &mut impl Extend<Action>) {
        if let Some(channel) = self.channels.get_mut(&id)
            && let State::Opening { open_id, request } = channel.state
        {
            channel.state = match result {
                Ok(()) => State::Open(request),
                Err(_) => State::Closed,
            };
            self.answer_open(request.relid, open_id, result.into());
        }
        self.flush(out);
    }

    /// Confirms [`Action::Close`]: the device does not touch the rings any more.
    pub fn closed(&mut self, id: OfferId, out: &mut impl Extend<Action>) {
        if let Some(channel) = self.channels.get_mut(&id)
            && let State::Closing { reopen } = channel.state
        {
            channel.state = State::Closed;
            if let Some(open) = reopen {
                self.open_channel(&open);
            }
            self.remove_if_over(id);
            self.finish_reset();
        }
        self.flush(out);
    }

    /// Confirms [`Action::Modify`].
    pub fn modified(&mut self, id: OfferId, result: Result<(), Status>, out: &mut impl Extend<Action>) {
        if let Some(channel) = self.channels.get_mut(&id)
            && let (Some(relid), Some(moves)) = (channel.relid, channel.moves.checked_sub(1))
        {
            channel.moves = moves;
            self.answer_modify(relid, result.into());
        }
        self.flush(out);
    }

    /// One channel.
    pub fn channel(&self, id: OfferId) -> Option<ChannelView<'_>> {
        self.channels.get(&id).map(|channel| channel.view(id))
    }

    /// All channels, in the order they were offered in.
    pub fn channels(&self) -> impl Iterator<Item = ChannelView<'_>> {
        self.channels.iter().map(|(id, channel)| channel.view(*id))
    }
}

/// What the guest asks for.
impl Server {
    pub(super) fn request_offers(&mut self) {
        if let Connection::Connected(contact) = &mut self.connection {
            contact.offers_requested = true;
        }
        self.announce_all();
        self.send(ChannelMessage::AllOffersDelivered(Empty {}));
    }

    pub(super) fn open_channel(&mut self, open: &OpenChannel) {
        let result = self.check_open(open);
        let channel = self.relids.get(&open.relid).copied();
        match (result, channel) {
            (Ok(Some(request)), Some(id)) => {
                if let Some(channel) = self.channels.get_mut(&id) {
                    channel.state = State::Opening {
                        open_id: open.open_id,
                        request,
                    };
                    self.push(Action::Open(id, request));
                }
            }
            // It is still closing, and opens when that is done.
            (Ok(_), _) => {}
            (Err(status), _) => self.answer_open(open.relid, open.open_id, status),
        }
    }

    /// What the device is to be asked, or nothing if it has to close first.
    fn check_open(&mut self, open: &OpenChannel) -> Result<Option<OpenRequest>, Status> {
        let id = self
            .relids
            .get(&open.relid)
            .copied()
            .ok_or(Status::INVALID_PARAMETER)?;
        let rings = self.rings(open.gpadl, id).ok_or(Status::INVALID_PARAMETER)?;
        let channel = self.channels.get_mut(&id).ok_or(Status::INVALID_PARAMETER)?;
        if channel.life != Life::Offered {
            return Err(Status::INVALID_DEVICE_STATE);
        }
        // A control page and a page of data.
        let upstream = open.downstream_page_offset;
        if upstream < 2
            || rings
                .checked_sub(upstream)
                .is_none_or(|downstream| downstream < 2)
        {
            return Err(Status::INVALID_PARAMETER);
        }
        match &mut channel.state {
            State::Closed => Ok(Some(OpenRequest {
                relid: open.relid,
                gpadl: open.gpadl,
                pages: rings,
                downstream_page_offset: upstream,
                target_vp: open.target_vp,
                user_data: open.user_data,
            })),
            State::Closing {
                reopen: reopen @ None,
            } => {
                *reopen = Some(*open);
                Ok(None)
            }
            _ => Err(Status::INVALID_DEVICE_STATE),
        }
    }

    fn answer_open(&mut self, relid: Relid, open_id: u32, status: Status) {
        self.send(ChannelMessage::OpenChannelResult(OpenResult {
            relid,
            open_id,
            status,
        }));
    }

    pub(super) fn close_channel(&mut self, relid: Relid) {
        let Some(&id) = self.relids.get(&relid) else {
            return;
        };
        self.close_device(id);
        if let Some(channel) = self.channels.get(&id)
            && channel.offer.sub_channel_index == 0
        {
            // Their device asks for them again when it is opened again.
            self.rescind_sub_channels(id);
        }
    }

    pub(super) fn relid_released(&mut self, relid: Relid) {
        let Some(&id) = self.relids.get(&relid) else {
            return;
        };
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if channel.life != Life::Rescinded {
            log::debug!("a guest gives channel {relid} up, which it was not asked to");
            return;
        }
        channel.life = Life::Released;
        channel.forget_reopening();
        for gpadl in self.gpadls_of(id) {
            self.drop_gpadl(gpadl);
        }
        self.remove_if_over(id);
    }

    pub(super) fn modify_channel(&mut self, modify: &ModifyChannel) {
        let id = self.relids.get(&modify.relid).copied();
        match id.and_then(|id| Some((id, self.channels.get_mut(&id)?))) {
            Some((id, channel)) if matches!(channel.state, State::Open(_)) => {
                channel.moves = channel.moves.saturating_add(1);
                self.push(Action::Modify(id, modify.target_vp));
            }
            _ => self.answer_modify(modify.relid, Status::INVALID_DEVICE_STATE),
        }
    }
}

impl Server {
    /// Asks the device of an open channel to let go. Whoever waits for the channel is answered.
    pub(super) fn close_device(&mut self, id: OfferId) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let closing = State::Closing { reopen: None };
        let (relid, moves) = (channel.relid, core::mem::take(&mut channel.moves));
        match channel.state {
            State::Closed => return,
            State::Opening { open_id, request } => {
                channel.state = closing;
                self.answer_open(request.relid, open_id, Status::INVALID_DEVICE_STATE);
            }
            State::Open(_) => channel.state = closing,
            State::Closing { ref mut reopen } => {
                if let Some(open) = reopen.take() {
                    self.answer_open(open.relid, open.open_id, Status::INVALID_DEVICE_STATE);
                }
                return;
            }
        }
        for _ in 0..moves {
            if let Some(relid) = relid {
                self.answer_modify(relid, Status::INVALID_DEVICE_STATE);
            }
        }
        self.push(Action::Close(id));
    }

    fn rescind_channel(&mut self, id: OfferId) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        if channel.life != Life::Offered {
            return;
        }
        if channel.offer.sub_channel_index == 0 {
            self.rescind_sub_channels(id);
        }
        self.close_device(id);
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.life = Life::Rescinded;
            if let Some(relid) = channel.relid {
                self.send(ChannelMessage::RescindChannelOffer(ChannelNamed { relid }));
            }
        }
        self.remove_if_over(id);
    }

    fn rescind_sub_channels(&mut self, primary: OfferId) {
        let Some(device) = self.channels.get(&primary).map(|channel| channel.offer.clone()) else {
            return;
        };
        let subs: Vec<_> = self
            .channels
            .iter()
            .filter(|(_, channel)| channel.offer.sub_channel_index != 0 && channel.same_device(&device))
            .map(|(id, _)| *id)
            .collect();
        for sub in subs {
            self.rescind_channel(sub);
        }
    }

    /// Removes an offer that neither its device nor the guest has to do with any more.
    pub(super) fn remove_if_over(&mut self, id: OfferId) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let given_up =
            channel.life == Life::Released || (channel.life == Life::Rescinded && channel.relid.is_none());
        if !given_up || !channel.is_closed() {
            return;
        }
        if let Some(relid) = channel.relid {
            self.relids.remove(&relid);
        }
        self.channels.remove(&id);
        self.push(Action::Released(id));
        // The same device may have been offered again meanwhile.
        self.announce_all();
    }

    fn announce_all(&mut self) {
        let ids: Vec<_> = self.channels.keys().copied().collect();
        for id in ids {
            self.announce(id);
        }
    }

    /// Tells the guest of an offer, once it has asked and nothing that it takes for the same device is left.
    fn announce(&mut self, id: OfferId) {
        let asked = self
            .connection
            .contact()
            .is_some_and(|contact| contact.offers_requested);
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        if !asked || channel.relid.is_some() || channel.life != Life::Offered {
            return;
        }
        let before = self.channels.values().any(|other| {
            other.life != Life::Offered
                && other.relid.is_some()
                && other.same_device(&channel.offer)
                && other.offer.sub_channel_index == channel.offer.sub_channel_index
        });
        if before {
            return;
        }
        let Some(relid) = self.free_relid() else {
            log::warn!("a bus has no relid left");
            return;
        };
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.relid = Some(relid);
            let offer = channel.offer.to_wire(relid, event_connection(relid));
            self.relids.insert(relid, id);
            self.send(ChannelMessage::OfferChannel(offer));
        }
    }

    /// A relid that nobody has, and that was not given away a short while ago if that can be avoided.
    fn free_relid(&mut self) -> Option<Relid> {
        for _ in Relid::MIN.0..=Relid::MAX.0 {
            let relid = self.next_relid;
            self.next_relid = match relid {
                Relid::MAX => Relid::MIN,
                Relid(number) => Relid(number + 1),
            };
            if !self.relids.contains_key(&relid) {
                return Some(relid);
            }
        }
        None
    }

    /// Pages of a list that can be the rings of channel `id`.
    fn rings(&self, gpadl: GpadlId, id: OfferId) -> Option<u32> {
        let ranges = self.gpadls.get(&gpadl)?.usable_by(id)?;
        match ranges {
            [range] if range.is_whole() => u32::try_from(range.pages.len()).ok(),
            _ => None,
        }
    }
}
