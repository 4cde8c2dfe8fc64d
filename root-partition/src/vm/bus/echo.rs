//! The device that sends back what it is sent: each packet's payload in a packet of its own, or in the completion where the guest wants
//! one. The smallest device there is, to begin others from; the guest's end is `vsc/examples/src/echo.rs`.

use super::channel::{Channel, Counters};
use super::device::Device;
use crate::vm::host::Job;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use uuid::Uuid;
use vmbus::protocol::guid::class;
use vmbus::protocol::offer::Offer;
use vmbus::ring::{self, PacketFlags, RingError};

/// Longest payload.
const LONGEST: usize = 64 << 10;
/// Which of its class it is.
const INSTANCE: Uuid = Uuid::from_u128(0x7061_7274_6974_6100_8000_6563_686f_0001);

/// The device.
#[derive(Debug)]
pub struct Echo;

/// Why a channel's work ends before the guest closes it.
#[derive(Debug, thiserror::Error)]
enum EchoError {
    #[error(transparent)]
    Rings(#[from] ring::channel::ChannelError),
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("a packet of {0} bytes is longer than an echo can be")]
    TooLong(usize),
}

impl Device for Echo {
    fn offer(&self) -> Offer {
        Offer::new(class::ECHO, INSTANCE)
    }

    fn serve(self: Arc<Self>, channel: Channel) -> Job {
        Box::pin(async move {
            // The first byte of user data says how many sub-channels the guest would like.
            let [wanted, ..] = channel.request().user_data;
            channel.offer_sub_channels(wanted.into());
            if let Err(error) = echo(&channel).await {
                log::info!("echo: a channel has stopped: {error}");
            }
        })
    }
}

/// A packet to send back.
struct Taken {
    transaction: u64,
    wants_completion: bool,
    payload: Vec<u8>,
}

async fn echo(channel: &Channel) -> Result<(), EchoError> {
    let mut rings = channel.rings()?;
    rings.incoming.mask();
    loop {
        match take(channel, &mut rings)? {
            Some(packet) => send(channel, &mut rings, &packet).await?,
            None => {
                if !rings.incoming.unmask() {
                    channel.wait().await;
                }
                rings.incoming.mask();
            }
        }
    }
}

fn take(channel: &Channel, rings: &mut ring::Channel) -> Result<Option<Taken>, EchoError> {
    let mut batch = rings.incoming.batch();
    let Some(packet) = batch.next()? else {
        return Ok(None);
    };
    let size = packet.payload_size();
    if size > LONGEST {
        return Err(EchoError::TooLong(size));
    }
    let mut payload = alloc::vec![0; size];
    packet.copy_most(&mut payload);
    let taken = Taken {
        transaction: packet.transaction(),
        wants_completion: packet.wants_completion(),
        payload,
    };
    if batch.finish().is_needed() {
        channel.signal();
    }
    Counters::add(&channel.counters().received, 1);
    Ok(Some(taken))
}

/// Sends a packet back, once there is room.
async fn send(channel: &Channel, rings: &mut ring::Channel, packet: &Taken) -> Result<(), EchoError> {
    let parts: &[&[u8]] = &[&packet.payload];
    loop {
        let sent = match packet.wants_completion {
            true => rings.outgoing.complete(packet.transaction, parts),
            false => rings
                .outgoing
                .send(packet.transaction, PacketFlags::empty(), parts),
        };
        match sent {
            Ok(signal) => {
                if signal.is_needed() {
                    channel.signal();
                }
                Counters::add(&channel.counters().sent, 1);
                return Ok(());
            }
            Err(RingError::Full { needed }) => {
                if !rings.outgoing.request_space(needed)? {
                    channel.wait().await;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}
