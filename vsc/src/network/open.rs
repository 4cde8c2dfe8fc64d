//! Opening a card's channels.

use super::card::Card;
use super::error::NetworkError;
use super::queue::Queue;
use super::scale::Spread;
use super::setup::{self, Agreed};
use super::slots::SendBuffer;
use crate::bus::{Bus, ChannelHandle, RingPages};
use crate::hal::Hal;
use crate::memory::{Buffer, PAGE};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use hypercall_api::id::VpIndex;
use vmbus::client::OfferedChannel;
use vmbus::protocol::body::OPEN_USER_DATA;
use vmbus::protocol::id::GpadlId;
use vmbus::protocol::network::DEFAULT_MTU;
use vmbus::protocol::network::nvsp::{
    self, MessageType, SUBCHANNEL_ALLOCATE, Status, SubchannelRequest, Version,
};
use vmbus::protocol::network::oid::{Oid, PacketFilter};
use zerocopy::IntoBytes;

/// How a card is to be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Sizes of the rings of each channel.
    pub rings: RingPages,
    /// Most channels, the first one included; hosts may have fewer.
    pub channels: u16,
    /// VP that takes the first channel's interrupts; those of others go to the VPs behind it, below `vp_count`.
    pub vp: VpIndex,
    /// VPs that take interrupts: each has its SynIC set up, and polls the bus.
    pub vp_count: u32,
    /// Largest payload of a frame, 68 to 9000; hosts may allow less.
    pub mtu: u32,
    /// Bytes of memory for frames that come, of all channels.
    pub receive_bytes: usize,
    /// Bytes of memory for small frames that go, of all channels.
    pub send_bytes: usize,
    /// Large frames that may be under way on each channel, 68 KiB of memory each; one at least. Frames are large that do not fit a part
    /// of the send buffer, 6 KiB mostly.
    pub large_sends: usize,
    /// Leave checksums and segmentation to the host, as far as it can do it.
    pub offloads: bool,
    /// The newest version that is asked for.
    pub newest: Version,
    /// Which frames come.
    pub filter: PacketFilter,
}

impl Default for Settings {
    /// One channel to VP 0, MTU 1500, some 3 MiB of memory, and all that the host can do.
    fn default() -> Self {
        Self {
            rings: RingPages::both(32),
            channels: 1,
            vp: VpIndex(0),
            vp_count: 1,
            mtu: DEFAULT_MTU,
            receive_bytes: 4 << 20,
            send_bytes: 384 << 10,
            large_sends: 8,
            offloads: true,
            newest: Version::V6_1,
            filter: PacketFilter::DIRECTED | PacketFilter::BROADCAST | PacketFilter::ALL_MULTICAST,
        }
    }
}

/// The memory of a card that the host knows of as a whole.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Where the host puts what comes.
    pub receive: Arc<Buffer>,
    /// Its name for the host.
    pub receive_gpadl: GpadlId,
    /// Where small frames are put that go.
    pub send: Arc<Buffer>,
    /// Its name for the host.
    pub send_gpadl: GpadlId,
}

/// Opens the card of an offer of [`class::NETWORK`](vmbus::protocol::guid::class::NETWORK). Dropped, it is closed.
pub async fn open<H: Hal>(
    bus: &Bus<H>,
    offered: &OfferedChannel,
    settings: Settings,
) -> Result<Arc<Card>, NetworkError> {
    check(&settings)?;
    let hal = bus.hal().clone();
    let allocate = move |length: usize| Buffer::allocate(&hal, length);
    let (first, handle) = open_queue(bus, offered, &settings, 0, |rings, handle| {
        Queue::first(rings, handle, &settings, &allocate)
    })
    .await?;
    let shared = share(&handle, &settings, &allocate).await?;
    let agreed = setup::agree(&first, &shared, &settings).await?;
    let mut queues = vec![first.clone()];
    let wanted = settings.channels.min(agreed.channels).saturating_sub(1);
    for index in 1..=sub_channels(&first, wanted).await? {
        let offered = bus.sub_channel(offered, index).await?;
        let (queue, _) = open_queue(bus, &offered, &settings, index.into(), |rings, handle| {
            first.further(rings, handle, &settings, &allocate)
        })
        .await?;
        queues.push(queue);
    }
    begin(queues, &shared, &agreed, &settings).await
}

/// Agrees with the host of a channel that is open already, the only one of its card. For guest systems that have a driver of the bus of
/// their own, and for tests.
pub async fn connect(
    first: Arc<Queue>,
    shared: Shared,
    settings: Settings,
) -> Result<Arc<Card>, NetworkError> {
    check(&settings)?;
    let agreed = setup::agree(&first, &shared, &settings).await?;
    begin(vec![first], &shared, &agreed, &settings).await
}

fn check(settings: &Settings) -> Result<(), NetworkError> {
    let whole = |bytes: usize| bytes > 0 && bytes.is_multiple_of(PAGE);
    match settings {
        _ if !setup::is_mtu(settings.mtu) => Err(NetworkError::Settings("the MTU is 68 to 9000")),
        _ if !whole(settings.receive_bytes) || !whole(settings.send_bytes) => {
            Err(NetworkError::Settings("buffers are whole pages"))
        }
        _ => Ok(()),
    }
}

async fn open_queue<H: Hal>(
    bus: &Bus<H>,
    offered: &OfferedChannel,
    settings: &Settings,
    index: u32,
    queue: impl FnOnce(vmbus::ring::Channel, Box<Arc<ChannelHandle<H>>>) -> Result<Arc<Queue>, NetworkError>,
) -> Result<(Arc<Queue>, Arc<ChannelHandle<H>>), NetworkError> {
    let vp = VpIndex(settings.vp.0 + index % settings.vp_count.max(1));
    let (rings, handle) = bus
        .open(offered, settings.rings, vp, &[0; OPEN_USER_DATA])
        .await?;
    let handle = Arc::new(handle);
    let queue = queue(rings, Box::new(handle.clone()))?;
    handle.listen(&queue);
    Ok((queue, handle))
}

async fn share<H: Hal>(
    handle: &ChannelHandle<H>,
    settings: &Settings,
    allocate: &dyn Fn(usize) -> Option<Buffer>,
) -> Result<Shared, NetworkError> {
    let memory = |bytes| allocate(bytes).map(Arc::new).ok_or(NetworkError::NoMemory);
    let (receive, send) = (memory(settings.receive_bytes)?, memory(settings.send_bytes)?);
    Ok(Shared {
        receive_gpadl: handle.share(&receive).await?,
        receive,
        send_gpadl: handle.share(&send).await?,
        send,
    })
}

/// Asks for sub-channels; says how many come.
async fn sub_channels(first: &Queue, wanted: u16) -> Result<u16, NetworkError> {
    if wanted == 0 {
        return Ok(0);
    }
    let request = SubchannelRequest {
        operation: SUBCHANNEL_ALLOCATE,
        count: wanted.into(),
    };
    let answer = first.ask(MessageType::SUBCHANNEL, &request).await?;
    let answer: nvsp::SubchannelComplete = setup::body(&answer, MessageType::SUBCHANNEL)?;
    let given = u16::try_from(answer.count).ok().filter(|given| *given <= wanted);
    match answer.status {
        Status::SUCCESS => given.ok_or(NetworkError::Protocol),
        // Then there is the first.
        _ => Ok(0),
    }
}

/// Divides the buffers among the channels, and lets frames come.
async fn begin(
    queues: Vec<Arc<Queue>>,
    shared: &Shared,
    agreed: &Agreed,
    settings: &Settings,
) -> Result<Arc<Card>, NetworkError> {
    let count = queues.len() as u32;
    let each = agreed.send_parts / count.max(1);
    for (index, queue) in (0..).zip(&queues) {
        queue.set_send_buffer(SendBuffer {
            buffer: shared.send.clone(),
            part_size: agreed.send_part,
            parts: index * each..(index + 1) * each,
        });
        // An eighth of all parts may be owed.
        let owed = agreed.receive_parts / 8 / count.max(1);
        queue.set_receive_buffer(shared.receive.clone(), owed as usize);
    }
    let first = queues.first().ok_or(NetworkError::NoQueue(0))?.clone();
    if count > 1 {
        let spread = Spread::over(count);
        setup::set(&first, Oid::RECEIVE_SCALE_PARAMETERS, spread.as_bytes()).await?;
    }
    let card = Arc::new(Card::new(queues, agreed));
    card.set_filter(settings.filter).await?;
    Ok(card)
}
