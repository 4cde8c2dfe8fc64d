//! A network card of a machine: [`vsp::network`], plugged into a switch of the root. It outlives the guest, so that a reset finds
//! the same card again.

use super::channel::{Channel, Counters};
use super::device::Device;
use crate::net::Switches;
use crate::vm::description::{Description, NetworkDescription};
use crate::vm::host::{Host, Job};
use crate::vm::signal::yield_now;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use core::time::Duration;
use hypercall_api::address::Gpa;
use uuid::Uuid;
use vmbus::protocol::guid::class;
use vmbus::protocol::id::GpadlId;
use vmbus::protocol::network::Mac;
use vmbus::protocol::offer::Offer;
use vsp::buffer::Buffer;
use vsp::network::{Link, Nic, Progress, Settings, Wire};
use vsp::switch::AttachError;
use vsp::switch::port::{PortId, PortSettings};
use vsp::switch::vlan::VlanMode;

/// From where instances and addresses come.
const NAMES: Uuid = Uuid::from_u128(0x7061_7274_6974_6100_8000_6e65_7400_0000);
/// Packets of a channel that are taken before others have their turn.
const BUDGET: usize = 64;
/// Most channels of a card.
const MOST_CHANNELS: u32 = 8;
/// Nanoseconds of a tick.
const TICK: u64 = 100;

/// A card in its port.
pub struct Network<H: Host> {
    host: H,
    machine: String,
    instance: Uuid,
    nic: Arc<Nic>,
    switch: String,
    wire: Arc<Wire>,
    port: PortId,
}

impl<H: Host> Network<H> {
    /// Card `index` of `description`, plugged in until it is dropped.
    pub fn new(
        host: &H,
        switches: &Switches,
        description: &Description,
        index: usize,
        card: &NetworkDescription,
    ) -> Result<Arc<Self>, AttachError> {
        let instance = Uuid::new_v5(&NAMES, format!("{}/{index}", description.name).as_bytes());
        let address = card.address.unwrap_or_else(|| made_up(instance));
        let nic = Arc::new(Nic::new(Settings {
            address,
            name: format!("Network {}", index + 1),
            queues: description.processors.min(MOST_CHANNELS) as u16,
        }));
        switches.introduce(address, &description.name);
        let wire = switches.named(&card.switch);
        let mut settings = PortSettings::guest(address);
        settings.vlan = card.vlan.map_or_else(VlanMode::default, VlanMode::Access);
        let port = wire.attach(settings, nic.clone())?;
        nic.plug(Some((wire.clone(), port)));
        Ok(Arc::new(Self {
            host: host.clone(),
            machine: description.name.clone(),
            instance,
            nic,
            switch: card.switch.clone(),
            wire,
            port,
        }))
    }

    /// Takes packets as long as the guest has the channel open and keeps its rings whole.
    async fn run(&self, channel: &Channel) -> Progress {
        let index = channel.sub_channel_index();
        loop {
            let before = self.nic.counters.sent.load(Ordering::Relaxed);
            let progress = self.nic.process(index, BUDGET, self.host.now());
            let taken = self
                .nic
                .counters
                .sent
                .load(Ordering::Relaxed)
                .saturating_sub(before);
            Counters::add(&channel.counters().received, taken);
            match progress {
                Progress::Idle => channel.wait().await,
                Progress::More => yield_now().await,
                Progress::Until(tick) => {
                    let left = tick.saturating_sub(self.host.now()).saturating_mul(TICK);
                    self.host.sleep(Duration::from_nanos(left)).await;
                }
                Progress::Closed | Progress::Broken(_) => return progress,
            }
        }
    }
}

/// An address for a card for which none is given: of those that anyone may make up, and always the same for the same card.
fn made_up(instance: Uuid) -> Mac {
    let [a, b, c, d, e, ..] = *instance.as_bytes();
    Mac([0x02, a, b, c, d, e])
}

impl<H: Host> Drop for Network<H> {
    fn drop(&mut self) {
        self.nic.plug(None);
        self.wire.detach(self.port);
    }
}

impl<H: Host> Device for Network<H> {
    fn offer(&self) -> Offer {
        Offer::new(class::NETWORK, self.instance)
    }

    fn serve(self: Arc<Self>, channel: Channel) -> Job {
        Box::pin(async move {
            let rings = match channel.rings() {
                Ok(rings) => rings,
                Err(error) => {
                    log::warn!("{}: a channel of a network card: {error}", self.machine);
                    return;
                }
            };
            let link = Arc::new(ChannelLink(channel));
            let index = link.0.sub_channel_index();
            self.nic.open(index, rings, link.clone());
            let _closes = Closes(&self.nic, index);
            if let Progress::Broken(error) = self.run(&link.0).await {
                log::warn!(
                    "{}: a channel of a network card has stopped: {error}",
                    self.machine
                );
            }
        })
    }

    fn backend(&self) -> String {
        format!("switch {}, {}", self.switch, self.nic.address())
    }
}

/// Has the card let go of a channel, however its work ends.
struct Closes<'a>(&'a Nic, u16);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.close(self.1);
    }
}

/// An open channel as the provider wants it.
struct ChannelLink(Channel);

impl Link for ChannelLink {
    fn signal(&self) {
        self.0.signal();
    }

    fn buffer(&self, pieces: &mut dyn Iterator<Item = (u64, usize)>) -> Option<Arc<Buffer>> {
        let pieces = pieces.map(|(gpa, length)| (Gpa(gpa), length));
        self.0.memory().buffer(pieces)
    }

    fn gpadl(&self, gpadl: GpadlId) -> Option<Arc<Buffer>> {
        self.0.mapping(gpadl).map(|mapping| mapping.buffer())
    }

    fn offer_sub_channels(&self, count: u16) -> u16 {
        self.0.offer_sub_channels(count)
    }
}
