//! A network card of a machine: [`vsp::network`], plugged into a switch of the root. It outlives the guest, so that a reset finds
//! the same card again.

use super::channel::{Channel, Counters};
use super::device::Device;
use super::memory::User;
use crate::net::Switches;
use crate::vm::description::{Description, NetworkDescription};
use crate::vm::host::{Host, Job};
use crate::vm::signal::yield_now;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering;
use core::time::Duration;
use hypercall_api::address::Gpa;
use spin::Mutex;
use uuid::Uuid;
use vmbus::protocol::guid::class;
use vmbus::protocol::id::GpadlId;
use vmbus::protocol::network::Mac;
use vmbus::protocol::offer::Offer;
use vsp::buffer::Buffer;
use vsp::network::wire::NoRoom;
use vsp::network::{Endpoint, Frame, Link, Nic, Progress, Settings, Wire};
use vsp::switch::AttachError;
use vsp::switch::guard::Guards;
use vsp::switch::port::{PortId, PortSettings};
use vsp::switch::words::Mirror;

/// From where instances and addresses come.
const NAMES: Uuid = Uuid::from_u128(0x7061_7274_6974_6100_8000_6e65_7400_0000);
/// Packets of a channel that are taken before others have their turn.
const BUDGET: usize = 64;
/// Most channels of a card.
const MOST_CHANNELS: u32 = 8;
/// Nanoseconds of a tick.
const TICK: u64 = 100;

/// A card in its port.
pub struct Card {
    /// Its number in the machine.
    pub index: usize,
    /// The machine.
    pub machine: String,
    /// The name of its switch.
    pub switch: String,
    nic: Nic,
    instance: Uuid,
    plug: Mutex<Option<(Arc<Wire>, PortId)>>,
}

impl Card {
    /// Card `index` of `machine`, in a port of its switch until it is unplugged or dropped.
    fn new(
        switches: &Switches,
        machine: &Description,
        index: usize,
        card: &NetworkDescription,
    ) -> Result<Arc<Self>, AttachError> {
        let instance = Uuid::new_v5(&NAMES, format!("{}/{index}", machine.name).as_bytes());
        let address = card.address.unwrap_or_else(|| made_up(instance));
        let this = Arc::new(Self {
            index,
            machine: machine.name.clone(),
            switch: card.switch.clone(),
            nic: Nic::new(Settings {
                address,
                name: format!("Network {}", index + 1),
                queues: machine.processors.min(MOST_CHANNELS) as u16,
            }),
            instance,
            plug: Mutex::new(None),
        });
        switches.introduce(address, &machine.name);
        let wire = switches.named(&card.switch);
        let mut settings = PortSettings::guest(address);
        settings.vlan = card.vlan.clone();
        settings.limit = card.limit;
        settings.guard = card.guard;
        if let Mirror::Of(direction) = card.mirror {
            settings.mirror = direction;
        }
        let port = wire.attach(settings, Arc::new(AtPort(Arc::downgrade(&this))))?;
        if card.mirror == Mirror::Takes {
            wire.with(|switch| switch.mirror_to(Some(port)));
        }
        this.nic.plug(Some((wire.clone(), port)));
        *this.plug.lock() = Some((wire, port));
        Ok(this)
    }

    /// Its port, while it is plugged in.
    pub fn port(&self) -> Option<(Arc<Wire>, PortId)> {
        self.plug.lock().clone()
    }

    /// The provider.
    pub const fn nic(&self) -> &Nic {
        &self.nic
    }

    /// Pulls its cable out for good.
    pub fn unplug(&self) {
        self.nic.plug(None);
        if let Some((wire, port)) = self.plug.lock().take() {
            wire.detach(port);
        }
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.unplug();
    }
}

/// A card as its port has it, which does not keep it.
struct AtPort(Weak<Card>);

impl Endpoint for AtPort {
    fn deliver(&self, frame: &Frame<'_>, tag: Option<u16>, cut_tag: bool) -> Result<(), NoRoom> {
        match self.0.upgrade() {
            Some(card) => card.nic.deliver(frame, tag, cut_tag),
            None => Ok(()),
        }
    }
}

/// A card on the bus.
pub struct Network<H: Host> {
    host: H,
    card: Arc<Card>,
}

impl<H: Host> Network<H> {
    /// Card `index` of `description`, plugged in, and what is on the bus for it.
    pub fn plugged(
        host: &H,
        switches: &Switches,
        description: &Description,
        index: usize,
        card: &NetworkDescription,
    ) -> Result<(Arc<Card>, Arc<dyn Device>), AttachError> {
        let card = Card::new(switches, description, index, card)?;
        let network = Arc::new(Self {
            host: host.clone(),
            card: card.clone(),
        });
        Ok((card, network))
    }

    /// Takes packets as long as the guest has the channel open and keeps its rings whole.
    async fn run(&self, channel: &Channel) -> Progress {
        let index = channel.sub_channel_index();
        loop {
            let before = self.card.nic.counters.sent.load(Ordering::Relaxed);
            let progress = self.card.nic.process(index, BUDGET, self.host.now());
            let taken = self
                .card
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

impl<H: Host> Device for Network<H> {
    fn offer(&self) -> Offer {
        Offer::new(class::NETWORK, self.card.instance)
    }

    fn serve(self: Arc<Self>, channel: Channel) -> Job {
        Box::pin(async move {
            let rings = match channel.rings() {
                Ok(rings) => rings,
                Err(error) => {
                    log::warn!("{}: a channel of a network card: {error}", self.card.machine);
                    return;
                }
            };
            let user = Arc::new(channel.memory().user());
            let link = Arc::new(ChannelLink {
                channel,
                user,
                card: Arc::downgrade(&self.card),
            });
            let index = link.channel.sub_channel_index();
            self.card.nic.open(index, rings, link.clone());
            let _closes = Closes(&self.card.nic, index);
            if let Progress::Broken(error) = self.run(&link.channel).await {
                log::warn!(
                    "{}: a channel of a network card has stopped: {error}",
                    self.card.machine
                );
            }
        })
    }

    fn backend(&self) -> String {
        format!("switch {}, {}", self.card.switch, self.card.nic.address())
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
struct ChannelLink {
    channel: Channel,
    /// Whose memory requests are.
    user: Arc<User>,
    card: Weak<Card>,
}

impl Link for ChannelLink {
    fn signal(&self) {
        self.channel.signal();
    }

    fn buffer(&self, pieces: &mut dyn Iterator<Item = (u64, usize)>) -> Option<Buffer> {
        let pieces = pieces.map(|(gpa, length)| (Gpa(gpa), length));
        self.channel.memory().buffer_of(&self.user, pieces)
    }

    fn gpadl(&self, gpadl: GpadlId) -> Option<Arc<Buffer>> {
        self.channel.mapping(gpadl).map(|mapping| mapping.buffer())
    }

    fn offer_sub_channels(&self, count: u16) -> u16 {
        self.channel.offer_sub_channels(count)
    }

    fn set_address(&self, _address: Mac) -> bool {
        let plug = self.card.upgrade().and_then(|card| card.port());
        // Who may send with any address may call one its own.
        plug.is_some_and(|(wire, port)| {
            wire.with(|switch| {
                let port = switch.port(port);
                port.is_some_and(|port| !port.settings.guard.contains(Guards::SPOOFED_ADDRESS))
            })
        })
    }
}
