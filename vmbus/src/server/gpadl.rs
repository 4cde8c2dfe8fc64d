//! Lists of guest pages.

use super::channel::{Life, OfferId};
use super::{Action, Server};
use crate::protocol::body::{GpadlCreated, GpadlHeader, GpadlTeardown, GpadlTorndown};
use crate::protocol::gpadl::{Assembly, GpaRange};
use crate::protocol::id::{GpadlId, Relid, Status};
use crate::protocol::message::ChannelMessage;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A list. Its id is unique on the bus, as the answer to its end says nothing but that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Gpadl {
    pub(super) offer: OfferId,
    pub(super) relid: Relid,
    pub(super) pages: usize,
    pub(super) state: GpadlState,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum GpadlState {
    /// Messages of it are missing.
    Assembling(Assembly),
    /// The owner has not confirmed the mapping yet.
    Mapping(Arc<[GpaRange]>),
    /// In use.
    Mapped(Arc<[GpaRange]>),
    /// The owner has not let go yet; then the guest is told, if it asked.
    Unmapping { asked: bool },
}

impl Gpadl {
    /// The ranges, if channel `offer` can use them now.
    pub(super) fn usable_by(&self, offer: OfferId) -> Option<&[GpaRange]> {
        match &self.state {
            GpadlState::Mapped(ranges) if self.offer == offer => Some(ranges),
            _ => None,
        }
    }
}

/// What the owner does.
impl Server {
    /// Confirms [`Action::MapGpadl`]; after an error nothing of it is mapped.
    pub fn gpadl_mapped(
        &mut self,
        gpadl: GpadlId,
        result: Result<(), Status>,
        out: &mut impl Extend<Action>,
    ) {
        if let Some(list) = self.gpadls.get_mut(&gpadl)
            && let GpadlState::Mapping(ranges) = &list.state
        {
            let relid = list.relid;
            list.state = GpadlState::Mapped(ranges.clone());
            if result.is_err() {
                self.gpadls.remove(&gpadl);
            }
            self.answer_created(relid, gpadl, result.into());
        }
        self.flush(out);
    }

    /// Confirms [`Action::UnmapGpadl`]: nothing reads or writes the pages any more.
    pub fn gpadl_unmapped(&mut self, gpadl: GpadlId, out: &mut impl Extend<Action>) {
        if let Some(list) = self.gpadls.get(&gpadl)
            && let GpadlState::Unmapping { asked } = list.state
        {
            self.gpadls.remove(&gpadl);
            if asked {
                self.send(ChannelMessage::GpadlTorndown(GpadlTorndown { gpadl }));
            }
            self.finish_reset();
        }
        self.flush(out);
    }

    /// Who has the list, if it is mapped. For devices that hear of lists through their rings.
    pub fn gpadl_owner(&self, gpadl: GpadlId) -> Option<OfferId> {
        let list = self.gpadls.get(&gpadl)?;
        matches!(list.state, GpadlState::Mapped(_)).then_some(list.offer)
    }
}

impl Server {
    pub(super) fn gpadl_header(&mut self, header: &GpadlHeader, rest: &[u8]) {
        if let Err(status) = self.begin_gpadl(header) {
            return self.answer_created(header.relid, header.gpadl, status);
        }
        self.gpadl_body(header.gpadl, rest);
    }

    fn begin_gpadl(&mut self, header: &GpadlHeader) -> Result<(), Status> {
        let offer = self
            .relids
            .get(&header.relid)
            .copied()
            .ok_or(Status::INVALID_PARAMETER)?;
        let offered = self
            .channels
            .get(&offer)
            .is_some_and(|channel| channel.life == Life::Offered);
        if !offered || self.gpadls.contains_key(&header.gpadl) {
            return Err(Status::INVALID_PARAMETER);
        }
        let used: usize = self.gpadls.values().map(|list| list.pages).sum();
        let left = self.limits.gpadl_pages.saturating_sub(used);
        if self.gpadls.len() >= self.limits.gpadls {
            return Err(Status::INSUFFICIENT_RESOURCES);
        }
        let assembly = Assembly::new(header.range_count, header.range_bytes, left).map_err(|error| {
            log::debug!("a guest's GPADL is refused: {error}");
            Status::INVALID_PARAMETER
        })?;
        let list = Gpadl {
            offer,
            relid: header.relid,
            pages: assembly.pages(),
            state: GpadlState::Assembling(assembly),
        };
        self.gpadls.insert(header.gpadl, list);
        Ok(())
    }

    pub(super) fn gpadl_body(&mut self, gpadl: GpadlId, bytes: &[u8]) {
        let Some(list) = self.gpadls.get_mut(&gpadl) else {
            return;
        };
        let GpadlState::Assembling(assembly) = &mut list.state else {
            return;
        };
        if !assembly.push(bytes) {
            return;
        }
        let (relid, offer) = (list.relid, list.offer);
        match assembly.clone().finish() {
            Ok(ranges) => {
                let ranges: Arc<[GpaRange]> = ranges.into();
                list.state = GpadlState::Mapping(ranges.clone());
                self.push(Action::MapGpadl { gpadl, offer, ranges });
            }
            Err(error) => {
                log::debug!("a guest's GPADL is refused: {error}");
                self.gpadls.remove(&gpadl);
                self.answer_created(relid, gpadl, Status::INVALID_PARAMETER);
            }
        }
    }

    /// A list that is not there is torn down already. The channel is not looked at: the list's id says all.
    pub(super) fn gpadl_teardown(&mut self, teardown: &GpadlTeardown) {
        let gpadl = teardown.gpadl;
        self.drop_gpadl(gpadl);
        match self.gpadls.get_mut(&gpadl) {
            Some(list) => list.state = GpadlState::Unmapping { asked: true },
            None => self.send(ChannelMessage::GpadlTorndown(GpadlTorndown { gpadl })),
        }
    }

    /// Has a list let go of. Whoever waits for its creation is answered.
    pub(super) fn drop_gpadl(&mut self, gpadl: GpadlId) {
        let Some(list) = self.gpadls.get_mut(&gpadl) else {
            return;
        };
        let relid = list.relid;
        let unmapping = GpadlState::Unmapping { asked: false };
        match core::mem::replace(&mut list.state, unmapping) {
            GpadlState::Assembling(_) => {
                self.gpadls.remove(&gpadl);
            }
            GpadlState::Mapping(_) => {
                self.answer_created(relid, gpadl, Status::INVALID_DEVICE_STATE);
                self.push(Action::UnmapGpadl(gpadl));
            }
            GpadlState::Mapped(_) => self.push(Action::UnmapGpadl(gpadl)),
            before @ GpadlState::Unmapping { .. } => list.state = before,
        }
    }

    pub(super) fn gpadls_of(&self, offer: OfferId) -> Vec<GpadlId> {
        let of_offer = self.gpadls.iter().filter(|(_, list)| list.offer == offer);
        of_offer.map(|(gpadl, _)| *gpadl).collect()
    }

    fn answer_created(&mut self, relid: Relid, gpadl: GpadlId, status: Status) {
        self.send(ChannelMessage::GpadlCreated(GpadlCreated {
            relid,
            gpadl,
            status,
        }));
    }
}
