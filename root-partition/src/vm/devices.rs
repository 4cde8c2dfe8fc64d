//! What a machine has on its bus. It is made when the machine is started and stays over resets of its guest, until the
//! machine is off.

use super::bus::device::{self, Device};
use super::bus::host::Bus;
use super::bus::integration::Integration;
use super::bus::network::{Card, Network};
use super::bus::storage::Storage;
use super::description::{Description, MAX_CARDS, NetworkDescription};
use super::host::Host;
use super::machine::MachineError;
use super::signal::Signal;
use crate::disk::Registry;
use crate::net::Switches;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use embassy_futures::select::{Either, select};
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::register::{RegisterName, RegisterValue};
use spin::Mutex;
use vmbus::protocol::integration::shutdown::Action;
use vmbus::protocol::integration::time_sync::Kind;
use vmbus::server::OfferError;
use vsp::integration::heartbeat::{Heartbeat, Pulse};
use vsp::integration::key_value::{KeyValue, Pair};
use vsp::integration::shutdown::{Outcome, Shutdown, ShutdownError};
use vsp::integration::time_sync::{Moment, TimeSync};

/// Between two heartbeats.
const BEAT: Duration = Duration::from_secs(2);
/// Beats between two times that a guest is told.
const BEATS_A_TIME: u64 = 3;
/// Beats between two questions what a guest is.
const BEATS_A_QUESTION: u64 = 5;

/// For so long a card is to be quiet before it goes: Linux hears of the link two seconds after the last change at the latest.
const CALM: Duration = Duration::from_millis(2200);
/// After so long it goes anyhow.
const CALM_AT_LAST: Duration = Duration::from_secs(8);
/// Between two looks whether it is.
const CALM_STEP: Duration = Duration::from_millis(50);

/// A clock that a guest is told: `None` while there is none to tell.
type Clock = Box<dyn FnMut() -> Moment + Send>;

/// A network card, and what is on the bus for it.
type Plugged = (Arc<Card>, Arc<dyn Device>);

/// The devices of one machine.
pub struct Devices {
    /// Its disks.
    pub storage: Arc<Storage>,
    networks: Mutex<Vec<Plugged>>,
    heartbeat: Arc<Integration<Heartbeat>>,
    shutdown: Arc<Integration<Shutdown>>,
    key_value: Arc<Integration<KeyValue>>,
    /// Where the root knows the time.
    time_sync: Option<Arc<Integration<TimeSync<Clock>>>>,
    /// Devices that need nothing but their name.
    others: Vec<Arc<dyn Device>>,
    /// The partition that the guest is now.
    partition: Arc<AtomicU64>,
    /// The time is to be told now.
    hurry: Arc<Signal>,
}

impl Devices {
    /// The devices of `description`, its disks those of `registry`, its network cards plugged into `switches`.
    pub async fn new<H: Host>(
        host: &H,
        registry: Arc<Registry>,
        switches: &Switches,
        description: &Description,
    ) -> Result<Arc<Self>, MachineError> {
        let storage = Storage::new(registry, description).await?;
        let cards = description.networks.iter().enumerate();
        let networks = cards.map(|(index, card)| Network::plugged(host, switches, description, index, card));
        let networks = networks.collect::<Result<_, _>>()?;
        let partition = Arc::new(AtomicU64::new(0));
        let devices = Arc::new(Self {
            storage,
            networks: Mutex::new(networks),
            heartbeat: Integration::new(Heartbeat::default()),
            shutdown: Integration::new(Shutdown::default()),
            key_value: Integration::new(KeyValue::default()),
            time_sync: host
                .wall_clock()
                .map(|_| Integration::new(TimeSync::new(clock(host, partition.clone())))),
            others: description
                .devices
                .iter()
                .filter_map(|name| device::by_name(name))
                .collect(),
            partition,
            hurry: Arc::default(),
        });
        host.spawn(Box::pin(pulse(
            host.clone(),
            Arc::downgrade(&devices),
            devices.hurry.clone(),
        )));
        Ok(devices)
    }

    /// Puts them all on the bus of `partition`, the guest from now on.
    pub fn put_on<H: Host>(&self, bus: &Bus<H>, partition: PartitionId) -> Result<(), OfferError> {
        self.partition.store(partition.0, Ordering::Relaxed);
        bus.add(self.storage.clone())?;
        for (_, network) in &*self.networks.lock() {
            bus.add(network.clone())?;
        }
        bus.add(self.heartbeat.clone())?;
        bus.add(self.shutdown.clone())?;
        bus.add(self.key_value.clone())?;
        if let Some(time_sync) = &self.time_sync {
            bus.add(time_sync.clone())?;
        }
        for device in &self.others {
            bus.add(device.clone())?;
        }
        Ok(())
    }

    /// Its network cards.
    pub fn cards(&self) -> Vec<Arc<Card>> {
        let networks = self.networks.lock();
        networks.iter().map(|(card, _)| card.clone()).collect()
    }

    /// Gives the guest one more network card, and returns its number.
    pub fn attach_card<H: Host>(
        &self,
        host: &H,
        switches: &Switches,
        description: &Description,
        card: &NetworkDescription,
        bus: &Bus<H>,
    ) -> Result<usize, MachineError> {
        let mut networks = self.networks.lock();
        let taken = |index: &usize| networks.iter().any(|(card, _)| card.index == *index);
        let index = (0..MAX_CARDS)
            .find(|index| !taken(index))
            .ok_or(MachineError::TooManyCards(MAX_CARDS))?;
        let (card, network) = Network::plugged(host, switches, description, index, card)?;
        bus.add(network.clone())?;
        networks.push((card, network));
        Ok(index)
    }

    /// Takes a network card away: out of its port at once, off the bus when nothing is under way any more, or the guest does not care.
    pub async fn detach_card<H: Host>(
        &self,
        host: &H,
        index: usize,
        bus: &Bus<H>,
    ) -> Result<(), MachineError> {
        let (card, network) = {
            let mut networks = self.networks.lock();
            let place = networks.iter().position(|(card, _)| card.index == index);
            let place = place.ok_or(MachineError::NoCard(index))?;
            let (card, network) = networks.remove(place);
            card.unplug();
            (card, network)
        };
        if let Some(id) = bus.find(&network.offer()) {
            calm(host, &card).await;
            bus.remove(id).await;
        }
        Ok(())
    }

    /// Asks the guest's system to power off or to reboot.
    pub fn shut_down(&self, action: Action) -> Result<(), ShutdownError> {
        self.shutdown.act(|service| match service.request(action, false) {
            Ok(packet) => (Ok(()), Some(packet)),
            Err(error) => (Err(error), None),
        })
    }

    /// What became of that.
    pub fn shut_down_outcome(&self) -> Outcome {
        self.shutdown.look(Shutdown::outcome)
    }

    /// Whether the guest's system answers.
    pub fn pulse(&self) -> Pulse {
        self.heartbeat.look(Heartbeat::pulse)
    }

    /// What the guest's system tells of itself.
    pub fn told(&self) -> Vec<Pair> {
        self.key_value.look(|service| service.pairs().to_vec())
    }

    /// Tells the guest the time now: it has slept.
    pub fn woken(&self) {
        self.hurry.raise();
    }

    fn tell_time(&self, kind: Kind) {
        if let Some(time_sync) = &self.time_sync {
            time_sync.act(|service| ((), service.tell(kind)));
        }
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        self.hurry.raise();
    }
}

/// Gives the guest time to hear that the cable is out and to end what it has under way: a stock Linux driver that has not when its channel
/// is rescinded hangs for ever.
async fn calm<H: Host>(host: &H, card: &Card) {
    let steps = |time: Duration| time.as_millis() / CALM_STEP.as_millis();
    let mut quiet = 0;
    for _ in 0..steps(CALM_AT_LAST) {
        if card.nic().open_channels() == 0 {
            return;
        }
        host.sleep(CALM_STEP).await;
        quiet = if card.nic().is_quiet() { quiet + 1 } else { 0 };
        if quiet == steps(CALM) {
            return;
        }
    }
}

/// What a guest is told: the wall clock, and its own reference time then.
fn clock<H: Host>(host: &H, partition: Arc<AtomicU64>) -> Clock {
    let host = host.clone();
    Box::new(move || {
        let partition = PartitionId(partition.load(Ordering::Relaxed));
        let mut values = [RegisterValue::from(0_u64)];
        let read = host.get_registers(
            partition,
            VpIndex(0),
            &[RegisterName::TIME_REF_COUNT],
            &mut values,
        );
        Moment {
            host_time: host.wall_clock().unwrap_or(0),
            // Without it the guest takes the time as that of the message.
            reference: read.map_or(0, |()| values[0].u64()),
        }
    })
}

/// Asks the services what is to be asked now and then, as long as there are devices.
async fn pulse<H: Host>(host: H, devices: Weak<Devices>, hurry: Arc<Signal>) {
    for beat in 1_u64.. {
        let slept = select(host.sleep(BEAT), hurry.wait()).await;
        let Some(now) = devices.upgrade() else { return };
        if matches!(slept, Either::Second(())) {
            now.tell_time(Kind::Sync);
            continue;
        }
        now.heartbeat.act(|service| ((), service.beat()));
        if beat.is_multiple_of(BEATS_A_TIME) {
            now.tell_time(Kind::Sample);
        }
        if beat.is_multiple_of(BEATS_A_QUESTION) {
            now.key_value.act(|service| ((), service.refresh()));
        }
    }
}

/// What people are told of a pulse.
pub fn describe(pulse: Pulse) -> Option<String> {
    match pulse {
        Pulse::Unknown => None,
        Pulse::Alive => Some(String::from("alive")),
        Pulse::Missed(beats) => Some(alloc::format!(
            "silent for {} s",
            u64::from(beats) * BEAT.as_secs()
        )),
    }
}
