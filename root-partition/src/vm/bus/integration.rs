//! Integration services as devices: each a channel on which the host asks and the guest answers.

use super::channel::{Channel, Counters};
use super::device::Device;
use crate::vm::host::Job;
use crate::vm::signal::Signal;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use embassy_futures::select::select;
use spin::Mutex;
use uuid::Uuid;
use vmbus::protocol::offer::Offer;
use vmbus::ring::{self, PacketFlags, RingError};
use vsp::integration::{Packet, Service};

/// From where the names of instances come: a class has one, and guests tell all devices of a bus apart by instance alone.
const INSTANCES: Uuid = Uuid::from_u128(0x7061_7274_6974_6100_8000_6963_0000_0001);
/// Longest packet of a guest; the longest that is asked for is a pair of key and value.
const LONGEST: usize = 16 << 10;
/// Packets that wait for room; a guest that takes none gets no more.
const MOST_WAITING: usize = 16;

/// A service on the bus of one machine, whatever guest it has.
pub struct Integration<S> {
    service: Mutex<S>,
    outgoing: Mutex<VecDeque<Packet>>,
    /// There is something to send.
    wanted: Signal,
}

/// Why a channel's work ends before the guest closes it.
#[derive(Debug, thiserror::Error)]
enum ChannelError {
    #[error(transparent)]
    Rings(#[from] ring::channel::ChannelError),
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("a packet of {0} bytes is longer than any answer")]
    TooLong(usize),
}

impl<S: Service> Integration<S> {
    /// The device for `service`.
    pub fn new(service: S) -> Arc<Self> {
        Arc::new(Self {
            service: Mutex::new(service),
            outgoing: Mutex::default(),
            wanted: Signal::default(),
        })
    }

    /// Has the service do something, and sends what it then wants sent.
    pub fn act<R>(&self, act: impl FnOnce(&mut S) -> (R, Option<Packet>)) -> R {
        let (result, packet) = act(&mut self.service.lock());
        self.send(packet);
        result
    }

    /// Looks at the service.
    pub fn look<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        look(&self.service.lock())
    }

    fn send(&self, packet: Option<Packet>) {
        if let Some(packet) = packet {
            let mut outgoing = self.outgoing.lock();
            if outgoing.len() < MOST_WAITING {
                outgoing.push_back(packet);
            }
            drop(outgoing);
            self.wanted.raise();
        }
    }

    async fn run(&self, channel: &Channel) -> Result<(), ChannelError> {
        let mut rings = channel.rings()?;
        self.outgoing.lock().clear();
        let hello = self.service.lock().opened();
        self.send(Some(hello));
        loop {
            let taken = self.take(channel, &mut rings)?;
            self.flush(channel, &mut rings)?;
            if !taken {
                select(channel.wait(), self.wanted.wait()).await;
            }
        }
    }

    /// Takes what has come; false where that is nothing.
    fn take(&self, channel: &Channel, rings: &mut ring::Channel) -> Result<bool, ChannelError> {
        let mut batch = rings.incoming.batch();
        let mut count = 0;
        while let Some(packet) = batch.next()? {
            let size = packet.payload_size();
            if size > LONGEST {
                return Err(ChannelError::TooLong(size));
            }
            let mut bytes = alloc::vec![0; size];
            packet.copy_most(&mut bytes);
            let next = self.service.lock().receive(&bytes);
            self.send(next);
            count += 1;
        }
        if batch.finish().is_needed() {
            channel.signal();
        }
        Counters::add(&channel.counters().received, count);
        Ok(count > 0)
    }

    /// Sends what waits, as far as there is room; the guest's next signal brings the rest.
    fn flush(&self, channel: &Channel, rings: &mut ring::Channel) -> Result<(), ChannelError> {
        let mut outgoing = self.outgoing.lock();
        while let Some(packet) = outgoing.front() {
            match rings.outgoing.send(0, PacketFlags::empty(), &[packet]) {
                Ok(signal) => {
                    outgoing.pop_front();
                    Counters::add(&channel.counters().sent, 1);
                    if signal.is_needed() {
                        channel.signal();
                    }
                }
                Err(RingError::Full { needed }) => {
                    if !rings.outgoing.request_space(needed)? {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Tells a service that its channel is closed, however that came.
struct Closing<'a, S: Service>(&'a Mutex<S>);

impl<S: Service> Drop for Closing<'_, S> {
    fn drop(&mut self) {
        self.0.lock().closed();
    }
}

impl<S: Service + Send + 'static> Device for Integration<S> {
    fn offer(&self) -> Offer {
        let class = self.service.lock().class();
        Offer::new(class, Uuid::new_v5(&INSTANCES, class.as_bytes()))
    }

    fn serve(self: Arc<Self>, channel: Channel) -> Job {
        Box::pin(async move {
            let _closing = Closing(&self.service);
            if let Err(error) = self.run(&channel).await {
                log::warn!("a service of a guest has stopped: {error}");
            }
        })
    }
}
