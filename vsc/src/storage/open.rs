//! Opening a controller's channels, and its handshake.

use super::controller::Controller;
use super::error::StorageError;
use super::queue::Queue;
use crate::bus::{Bus, RingPages};
use crate::hal::Hal;
use crate::memory::{Buffer, PAGE};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use hypercall_api::id::VpIndex;
use vmbus::client::OfferedChannel;
use vmbus::protocol::body::OPEN_USER_DATA;
use vmbus::protocol::storage::{
    CreateSubChannels, MULTI_CHANNEL, Operation, Packet, Properties, ProtocolVersion, REQUEST_COMPLETION,
    Version,
};
use zerocopy::{Immutable, IntoBytes};

/// Most bytes of one command, whatever a host says.
const MAX_TRANSFER: u32 = 8 << 20;
/// Bytes of a ring that one page of a command takes.
const PAGE_NUMBER: usize = 8;

/// How a controller is to be opened.
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
}

impl Default for Settings {
    /// One channel to VP 0, with rings as Linux has them.
    fn default() -> Self {
        Self {
            rings: RingPages::both(32),
            channels: 1,
            vp: VpIndex(0),
            vp_count: 1,
        }
    }
}

/// What the host says of the controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Agreed {
    max_transfer: u32,
    /// Channels beside the first that may be asked for.
    sub_channels: u16,
}

/// Opens the controller of an offer of [`class::SCSI`](vmbus::protocol::guid::class::SCSI). Dropped, it is closed.
pub async fn open<H: Hal>(
    bus: &Bus<H>,
    offered: &OfferedChannel,
    settings: Settings,
) -> Result<Arc<Controller>, StorageError> {
    let first = open_queue(bus, offered, settings, 0).await?;
    let agreed = handshake(&first).await?;
    let wanted = settings.channels.saturating_sub(1).min(agreed.sub_channels);
    let mut queues = vec![first];
    if wanted > 0 {
        let count = CreateSubChannels {
            count: wanted,
            reserved: 0,
        };
        ask(&queues[0], Operation::CREATE_SUB_CHANNELS, &count).await?;
        for index in 1..=wanted {
            let offered = bus.sub_channel(offered, index).await?;
            queues.push(open_queue(bus, &offered, settings, index.into()).await?);
        }
    }
    let max_transfer = fitting(agreed.max_transfer, settings.rings);
    let hal = bus.hal().clone();
    let allocate = Box::new(move |length| Buffer::allocate(&hal, length));
    Ok(Arc::new(Controller::new(queues, max_transfer, allocate)))
}

/// Does the handshake on a channel that is open already, the only one of its controller; `allocate` gives buffers. For guest systems
/// that have a driver of the bus of their own, and for tests.
pub async fn connect(
    queue: Arc<Queue>,
    rings: RingPages,
    allocate: Box<dyn Fn(usize) -> Option<Buffer> + Send + Sync>,
) -> Result<Arc<Controller>, StorageError> {
    let agreed = handshake(&queue).await?;
    let max_transfer = fitting(agreed.max_transfer, rings);
    Ok(Arc::new(Controller::new(vec![queue], max_transfer, allocate)))
}

async fn open_queue<H: Hal>(
    bus: &Bus<H>,
    offered: &OfferedChannel,
    settings: Settings,
    index: u32,
) -> Result<Arc<Queue>, StorageError> {
    let vp = VpIndex(settings.vp.0 + index % settings.vp_count.max(1));
    let (rings, handle) = bus
        .open(offered, settings.rings, vp, &[0; OPEN_USER_DATA])
        .await?;
    let handle = Arc::new(handle);
    let queue = Arc::new(Queue::new(rings, Box::new(handle.clone())));
    handle.listen(&queue);
    Ok(queue)
}

/// Bytes of one command that fit the ring with their page numbers, whole pages.
fn fitting(max_transfer: u32, rings: RingPages) -> u32 {
    let ring = usize::from(rings.to_host) * PAGE;
    // Half of the ring, so that two commands can be under way; and a page of head and offset.
    let pages = (ring / 2 / PAGE_NUMBER).saturating_sub(16).max(1);
    let most = u32::try_from(pages * PAGE).unwrap_or(MAX_TRANSFER);
    max_transfer.min(most).min(MAX_TRANSFER)
}

async fn handshake(queue: &Queue) -> Result<Agreed, StorageError> {
    ask(queue, Operation::BEGIN_INITIALIZATION, &0_u32).await?;
    let mut spoken = false;
    for version in Version::ALL {
        let version = ProtocolVersion { version, revision: 0 };
        match ask(queue, Operation::QUERY_PROTOCOL_VERSION, &version).await {
            Ok(_) => {
                spoken = true;
                break;
            }
            Err(StorageError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if !spoken {
        return Err(StorageError::NoVersion);
    }
    let properties: Properties = ask(queue, Operation::QUERY_PROPERTIES, &0_u32).await?.body();
    let max_transfer = properties.max_transfer_bytes;
    if max_transfer < PAGE as u32 || !max_transfer.is_multiple_of(PAGE as u32) {
        return Err(StorageError::Protocol);
    }
    ask(queue, Operation::END_INITIALIZATION, &0_u32).await?;
    Ok(Agreed {
        max_transfer,
        sub_channels: match properties.flags & MULTI_CHANNEL {
            0 => 0,
            _ => properties.max_channels,
        },
    })
}

async fn ask(
    queue: &Queue,
    operation: Operation,
    body: &(impl IntoBytes + Immutable),
) -> Result<Packet, StorageError> {
    let message = Packet::new(operation, REQUEST_COMPLETION, body);
    let answer = queue.transact(message, None).await?;
    match answer.status.0 {
        0 => Ok(answer),
        _ => Err(StorageError::Refused(answer.status)),
    }
}
