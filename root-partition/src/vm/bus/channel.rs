//! An open channel, as its device has it.

use super::mapping::Mapping;
use super::memory::ChildMemory;
use crate::vm::signal::Signal;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use hypercall_api::id::VpIndex;
use vmbus::protocol::id::GpadlId;
use vmbus::ring::channel::{ChannelError, Rings};
use vmbus::ring::memory::BadSize;
use vmbus::ring::{self, Reader};
use vmbus::server::{OfferId, OpenRequest};

/// What happened on a channel.
#[derive(Debug, Default)]
pub struct Counters {
    /// Times that the guest was signalled.
    pub signals: AtomicU64,
    /// Times that the device was woken.
    pub wakes: AtomicU64,
    /// Packets that the device has taken, as it counts them.
    pub received: AtomicU64,
    /// Packets that it has sent.
    pub sent: AtomicU64,
}

impl Counters {
    /// Adds to one of them.
    pub fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// What the bus and the device of an open channel share.
pub struct Open {
    /// The channel.
    pub id: OfferId,
    /// How the guest has opened it.
    pub request: OpenRequest,
    /// 0: the device's first.
    pub sub_channel_index: u16,
    /// VP of the guest that takes its interrupt.
    pub target_vp: AtomicU32,
    /// VP of the root that serves it.
    pub root_vp: u32,
    /// What happened on it.
    pub counters: Counters,
    /// Both rings.
    pub mapping: Arc<Mapping>,
    /// The guest has signalled.
    pub interrupt: Arc<Signal>,
    /// It is to close.
    pub close: Signal,
    /// Its device has ended by itself.
    pub stopped: AtomicBool,
}

impl Open {
    fn rings(&self) -> Result<Rings, BadSize> {
        self.mapping.rings(self.request.downstream_page_offset)
    }

    /// How full the rings are: bytes used and bytes of the one from the guest, and of the one to it. `None` where a guest has made
    /// nonsense of them.
    pub fn fill(&self) -> Option<[(u32, u32); 2]> {
        let rings = self.rings().ok()?;
        let fill = |memory| {
            let reader = Reader::new(memory).ok()?;
            Some((reader.filled().ok()?, reader.size()))
        };
        Some([fill(rings.from_guest)?, fill(rings.from_host)?])
    }
}

/// What the bus does for a device.
pub trait Services: Send + Sync {
    /// Signals the guest.
    fn signal(&self, open: &Open);
    /// Offers sub-channels 1 to `count` of the device, and says how many there are.
    fn offer_sub_channels(&self, primary: OfferId, count: u16) -> u16;
    /// A list of pages that belongs to the channel.
    fn mapping(&self, id: OfferId, gpadl: GpadlId) -> Option<Arc<Mapping>>;
    /// The guest's memory.
    fn memory(&self) -> &Arc<ChildMemory>;
}

/// A channel in use. Whoever has it keeps the rings mapped.
pub struct Channel {
    pub(super) open: Arc<Open>,
    pub(super) services: Arc<dyn Services>,
}

impl Channel {
    /// How the guest has opened it: user data and the rings' places.
    pub fn request(&self) -> &OpenRequest {
        &self.open.request
    }

    /// 0: the device's first channel.
    pub fn sub_channel_index(&self) -> u16 {
        self.open.sub_channel_index
    }

    /// VP of the guest that takes its interrupt now.
    pub fn target_vp(&self) -> VpIndex {
        VpIndex(self.open.target_vp.load(Ordering::Relaxed))
    }

    /// The rings. To be called once, as each call's ends go on from where the rings stand.
    pub fn rings(&self) -> Result<ring::Channel, ChannelError> {
        ring::Channel::host(self.open.rings()?)
    }

    /// Completes when the guest has signalled since the last time. One task at a time may wait.
    pub async fn wait(&self) {
        self.open.interrupt.wait().await;
        Counters::add(&self.open.counters.wakes, 1);
    }

    /// Signals the guest, as the rings' rules want it.
    pub fn signal(&self) {
        Counters::add(&self.open.counters.signals, 1);
        self.services.signal(&self.open);
    }

    /// Counters, for the device to add packets to.
    pub fn counters(&self) -> &Counters {
        &self.open.counters
    }

    /// Offers sub-channels 1 to `count` of the device, which the guest may open then, and says how many there are. They go when
    /// this channel, the first, closes.
    pub fn offer_sub_channels(&self, count: u16) -> u16 {
        match self.open.sub_channel_index {
            0 => self.services.offer_sub_channels(self.open.id, count),
            _ => 0,
        }
    }

    /// A list of pages that the guest has made known for this channel, mapped in a row. Kept, it keeps the guest waiting that
    /// wants it back.
    pub fn mapping(&self, gpadl: GpadlId) -> Option<Arc<Mapping>> {
        self.services.mapping(self.open.id, gpadl)
    }

    /// The guest's memory, for requests that name pages.
    pub fn memory(&self) -> &Arc<ChildMemory> {
        self.services.memory()
    }
}
