//! Opening and closing channels.
#![allow(unsafe_code)]

use super::{Bus, BusError, Interrupt};
use crate::hal::Hal;
use crate::memory::{Buffer, PAGE, Pages};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use hypercall_api::call::GuestCalls;
use hypercall_api::id::VpIndex;
use vmbus::client::OfferedChannel;
use vmbus::protocol::body::OPEN_USER_DATA;
use vmbus::protocol::id::GpadlId;
use vmbus::ring::Channel;
use vmbus::ring::channel::Rings;

/// What a driver needs of its open channel. [`ChannelHandle`] is one; guest systems with a driver of the bus of their own, and tests,
/// have others.
pub trait Doorbell: Send + Sync {
    /// Signals the host.
    fn ring(&self);
    /// Keeps `buffers`, which the host may still use, until it has let go of the channel.
    fn keep(&self, buffers: Vec<Arc<Buffer>>);
}

impl<T: Doorbell> Doorbell for Arc<T> {
    fn ring(&self) {
        T::ring(self);
    }

    fn keep(&self, buffers: Vec<Arc<Buffer>>) {
        T::keep(self, buffers);
    }
}

impl<H: Hal> Doorbell for ChannelHandle<H> {
    fn ring(&self) {
        self.signal();
    }

    fn keep(&self, buffers: Vec<Arc<Buffer>>) {
        self.hold(Box::new(buffers));
    }
}

/// Sizes of a channel's rings in pages, without the control page of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingPages {
    /// Of the ring to the host.
    pub to_host: u16,
    /// Of the ring from the host.
    pub from_host: u16,
}

impl RingPages {
    /// The same for both.
    pub const fn both(pages: u16) -> Self {
        Self {
            to_host: pages,
            from_host: pages,
        }
    }
}

/// Where the flags from the guest to the host begin: the upper half of the interrupt page, the first page of the contact.
const TO_HOST: usize = PAGE / 2;
/// Where the trigger groups of the page from child to parent begin, the third page of the contact; each is a word of pending
/// triggers and a word of armed ones (TLFS, "Monitored Notifications").
const TRIGGER_GROUPS: usize = 2 * PAGE + 8;
const TRIGGER_GROUP: usize = 8;

/// An open channel. Dropped, it closes the channel and takes the rings' pages back once the host has let go of them.
pub struct ChannelHandle<H: Hal> {
    bus: Bus<H>,
    offered: OfferedChannel,
    gpadl: Option<GpadlId>,
    /// The pages of the contact.
    contact: Arc<Pages<H>>,
}

impl<H: Hal> core::fmt::Debug for ChannelHandle<H> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ChannelHandle")
            .field("offered", &self.offered)
            .finish_non_exhaustive()
    }
}

impl<H: Hal> Bus<H> {
    /// Opens a channel with rings of `rings`, whose interrupts come to `vp`. Ends with the channel's rings, and the handle that closes
    /// it; from then on its owner [listens](ChannelHandle::listen).
    pub async fn open(
        &self,
        offered: &OfferedChannel,
        rings: RingPages,
        vp: VpIndex,
        user_data: &[u8; OPEN_USER_DATA],
    ) -> Result<(Channel, ChannelHandle<H>), BusError> {
        let relid = offered.relid;
        let downstream = usize::from(rings.to_host) + 1;
        let count = downstream + usize::from(rings.from_host) + 1;
        let pages = Pages::allocate(&self.0.hal, count).ok_or(BusError::NoMemory)?;
        let pages = Arc::new(pages);
        // SAFETY: the pages are in a row, live as long as `pages`, and nobody else on this side uses them.
        let rings = unsafe { Rings::new(pages.start(), count, downstream, pages.clone()) };
        let channel = Channel::guest(rings.map_err(vmbus::ring::channel::ChannelError::from)?)?;
        let (offered, contact) = {
            let mut state = self.state();
            (state.take(relid)?, state.contact_pages.clone())
        };
        let mut handle = ChannelHandle {
            bus: self.clone(),
            offered,
            gpadl: None,
            contact,
        };
        let numbers = pages.numbers();
        let gpadl = self.ask(|state| state.share(relid, numbers, pages))?;
        handle.gpadl = Some(gpadl);
        self.until(|state| state.created(relid, gpadl)).await?;
        let downstream = downstream as u32;
        self.ask(|state| state.open(relid, gpadl, downstream, vp, user_data))?;
        self.until(|state| state.opened(relid)).await?;
        Ok((channel, handle))
    }
}

impl<H: Hal> ChannelHandle<H> {
    /// The channel.
    pub const fn offered(&self) -> &OfferedChannel {
        &self.offered
    }

    /// The bus.
    pub const fn bus(&self) -> &Bus<H> {
        &self.bus
    }

    /// Has `owner` called for each of the channel's interrupts, and soon once for those that came before. If the device is gone
    /// already, `owner` is told here. The bus does not keep it: once it is dropped, nobody is called.
    pub fn listen<T: Interrupt + 'static>(&self, owner: &Arc<T>) {
        let weak: Weak<T> = Arc::downgrade(owner);
        if !self.bus.state().listen(self.offered.relid, weak) {
            owner.gone();
        }
    }

    /// Tells the host of `memory`, which consists of whole pages, as memory of this channel's device. It is kept until the host has let go
    /// of it, which it is asked to when the handle is dropped.
    pub async fn share(&self, memory: &Arc<Buffer>) -> Result<GpadlId, BusError> {
        let relid = self.offered.relid;
        let size = memory.size();
        let whole = memory.pages(0, size).ok();
        let whole = whole.filter(|(offset, pages)| *offset == 0 && pages.len() * PAGE == size);
        let numbers = whole.ok_or(BusError::NotPages(size))?.1.to_vec();
        let gpadl = self
            .bus
            .ask(|state| state.share(relid, numbers, memory.clone()))?;
        self.bus.until(|state| state.created(relid, gpadl)).await?;
        Ok(gpadl)
    }

    /// Keeps `memory`, which the host may still use, until it has let go of the channel.
    pub fn hold(&self, memory: Box<dyn Any + Send>) {
        if let Some(gpadl) = self.gpadl {
            self.bus.state().hold(gpadl, memory);
        }
    }

    /// Signals the host, in the way that its offer asks for.
    pub fn signal(&self) {
        let shared = self.offered.monitor.is_some() || !self.offered.dedicated_interrupt;
        // One atomic instruction each; both pages were allocated with the bus, so that the bits are always there.
        if shared {
            let _ = self.contact.set_bit(TO_HOST, self.offered.relid.0);
        }
        if let Some(trigger) = self.offered.monitor {
            let group = usize::from(trigger / 32);
            let _ = self
                .contact
                .set_bit(TRIGGER_GROUPS + group * TRIGGER_GROUP, u32::from(trigger % 32));
            return;
        }
        let connection = self.offered.connection;
        if let Err(status) = self.bus.0.hal.hypercalls().signal_event(connection, 0) {
            // The device is about to be rescinded, or the host is gone; who waits is told by that.
            log::debug!("channel {} cannot be signalled: {status:?}", self.offered.relid);
        }
    }
}

impl<H: Hal> Drop for ChannelHandle<H> {
    fn drop(&mut self) {
        let relid = self.offered.relid;
        let _ = self.bus.ask(|state| {
            state.give_up(relid);
            Ok(())
        });
    }
}
