//! Bringing the root's network up.

use super::config::{FILE, NetworkConfig};
use super::gateway::Gateway;
use super::gateway::build::Host;
use super::gateway::dhcp::DhcpSettings;
use super::gateway::port::{GatewayPorts, InsidePort};
use super::gateway::route::Outside;
use super::host_port::HostPort;
use super::stack::{RootStack, Watcher};
use super::uplink::{FromUplink, UplinkPort};
use super::{DEFAULT_SWITCH, EXTERNAL_SWITCH, Switches};
use crate::drivers::e1000e::card::Card;
use crate::drivers::e1000e::start as e1000e;
use crate::drivers::pci::Address;
use crate::drivers::pci::config;
use crate::drivers::pci::device::PciDevice;
use crate::drivers::pci::scan::Identity;
use crate::executor;
use crate::processor::random;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use embassy_time::{Duration, Instant, Timer};
use spin::Once;
use vmbus::protocol::network::Mac;
use vsp::network::Wire;
use vsp::switch::port::PortSettings;
use vsp::switch::{AttachError, Kind, Switch};

/// The processor that takes the card's interrupts.
const INTERRUPT_VP: u32 = 0;
/// The gateway's hardware address, of those that anyone may make up.
const GATEWAY_ADDRESS: Mac = Mac([0x02, b'p', b'a', b'r', 0, 1]);
/// The name of the first card.
const CARD_NAME: &str = "eth0";

/// How often one looks whether something has come about.
const LOOK: Duration = Duration::from_millis(5);

static NETWORK: Once<Network> = Once::new();

/// The root's network.
pub struct Network {
    /// The gateway of the default switch.
    pub(super) gateway: Arc<GatewayPorts>,
    pub(super) uplink: Once<Uplink>,
    /// A card is being started.
    pub(super) starting: AtomicBool,
}

/// The uplink, once there is one.
pub struct Uplink {
    /// Where its card is.
    pub identity: Identity,
    /// The card.
    pub card: Arc<Card<PciDevice>>,
    /// The root's stack on it.
    pub stack: Arc<RootStack>,
}

/// The root's network, once it has been begun.
pub fn network() -> Option<&'static Network> {
    NETWORK.get()
}

/// Has the root's network started: at once the default switch with its gateway, and as a task the first card among
/// `functions`, which becomes the uplink. `file` holds the settings, if there are any.
pub fn begin(switches: &Arc<Switches>, functions: &'static [Identity], file: Option<&[u8]>) {
    let config = match file.map(NetworkConfig::read) {
        None => NetworkConfig::default(),
        Some(Ok(config)) => config,
        Some(Err(error)) => {
            log::error!("{error}; the root's network is as if the file were not there");
            NetworkConfig::default()
        }
    };
    let gateway = match default_switch(switches, &config) {
        Ok(gateway) => gateway,
        Err(error) => {
            log::error!("the gateway cannot be plugged into the switch '{DEFAULT_SWITCH}': {error}");
            return;
        }
    };
    let network = NETWORK.call_once(|| Network {
        gateway,
        uplink: Once::new(),
        starting: AtomicBool::new(false),
    });
    let mut cards = functions.iter().copied().filter(e1000e::is_card);
    let Some(identity) = cards.next() else {
        log::info!("there is no network card that the root has a driver for");
        return;
    };
    for other in cards {
        log::info!("{}: a second network card is not used", other.address);
    }
    network.starting.store(true, Ordering::Release);
    let switches = switches.clone();
    executor::spawn_on(INTERRUPT_VP, async move {
        if let Err(error) = start(network, &switches, identity, config.mtu).await {
            log::error!("{CARD_NAME} at {}: cannot be used: {error}", identity.address);
        }
        network.starting.store(false, Ordering::Release);
    })
    .detach();
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("there is no access to configuration space")]
    NoPci,
    #[error(transparent)]
    Card(#[from] e1000e::StartError),
    #[error("it cannot be plugged into the switch '{EXTERNAL_SWITCH}': {0}")]
    Port(#[from] AttachError),
    #[error("there is another switch '{EXTERNAL_SWITCH}'")]
    SwitchThere,
}

/// Makes the default switch, with the gateway on it.
fn default_switch(switches: &Switches, config: &NetworkConfig) -> Result<Arc<GatewayPorts>, AttachError> {
    let mut seed = [0; 8];
    random::fill(&mut seed);
    let settings = DhcpSettings {
        gateway: config.gateway,
        prefix: config.prefix,
        pool: config.pool.clone(),
        mtu: config.mtu as u16,
    };
    let mut gateway = Gateway::new(GATEWAY_ADDRESS, settings, u64::from_le_bytes(seed));
    for (machine, address) in &config.leases {
        gateway.fix(machine, *address);
    }
    for (from, target, port) in &config.forwards {
        if let Err(error) = gateway.forwards.add(*from, target.clone(), *port) {
            log::error!("{FILE}: {error}");
        }
    }
    let gateway = Arc::new(GatewayPorts::new(gateway));
    let wire = Arc::new(Wire::new(Switch::new(Kind::Internal)));
    let port = wire.attach(
        PortSettings::host(GATEWAY_ADDRESS),
        Arc::new(InsidePort(gateway.clone())),
    )?;
    gateway.plug_inside(wire.clone(), port);
    switches.add(DEFAULT_SWITCH, wire);
    let told = gateway.clone();
    switches.register_with(Box::new(move |card, machine| {
        told.with(|gateway| gateway.introduce(card, machine));
    }));
    Ok(gateway)
}

async fn start(
    network: &Network,
    switches: &Switches,
    identity: Identity,
    mtu: usize,
) -> Result<(), StartError> {
    let space = config::machine().ok_or(StartError::NoPci)?;
    let (card, interrupt) = e1000e::one(space, identity, String::from(CARD_NAME), mtu).await?;
    log::info!(
        "{}: {}, MTU {}, at {}",
        card.name,
        card.address(),
        card.mtu(),
        identity.address
    );
    let wire = Arc::new(Wire::new(Switch::new(Kind::External)));
    let uplink_port = wire.attach(PortSettings::uplink(), Arc::new(UplinkPort(card.clone())))?;
    // The root has the card's address, as it would without a switch.
    let host = Arc::new(HostPort::new(card.address(), card.mtu()));
    let host_port = wire.attach(PortSettings::host(card.address()), host.clone())?;
    host.plug(wire.clone(), host_port);
    if !switches.add(EXTERNAL_SWITCH, wire.clone()) {
        return Err(StartError::SwitchThere);
    }
    network.gateway.plug_outside(host.clone());
    host.put_behind(network.gateway.clone());
    let stack = RootStack::start(host.clone(), watcher(network.gateway.clone(), &card));
    network.uplink.call_once(|| Uplink {
        identity,
        card: card.clone(),
        stack,
    });
    let upstream = Arc::new(FromUplink {
        wire,
        port: uplink_port,
        host,
    });
    executor::spawn_on(INTERRUPT_VP, e1000e::serve(card, interrupt, upstream)).detach();
    Ok(())
}

/// Completes once a card that is being started has been.
pub async fn settled() {
    while network().is_some_and(|network| network.starting.load(Ordering::Acquire)) {
        Timer::after(LOOK).await;
    }
}

/// Has the uplink's card raise its interrupt; whether it came within `limit`. `None` where there is no uplink.
pub async fn raise_interrupt(limit: Duration) -> Option<bool> {
    let card = &network()?.uplink.get()?.card;
    let before = card.interrupts();
    card.raise_interrupt();
    let end = Instant::now() + limit;
    while card.interrupts() == before {
        if Instant::now() >= end {
            return Some(false);
        }
        Timer::after(LOOK).await;
    }
    Some(true)
}

/// Tells the gateway of the root's address.
fn watcher(gateway: Arc<GatewayPorts>, card: &Card<PciDevice>) -> Watcher {
    let (mac, mtu) = (card.address(), card.mtu());
    Box::new(move |address| {
        let outside = address.map(|own| Outside {
            own: Host {
                mac,
                address: own.address,
            },
            prefix: own.prefix,
            router: own.router,
            name_server: own.name_servers.first().copied(),
            mtu,
        });
        if let Some(own) = address
            && gateway.with(|gateway| gateway.is_inside(own.address))
        {
            log::warn!(
                "the root's address {} is in the network of the switch '{DEFAULT_SWITCH}': guests reach nothing outside; give \
                 that switch other addresses in {FILE}",
                own.address
            );
        }
        gateway.set_outside(outside);
    })
}

/// The driver that owns the PCI function at `address`, if it is the uplink's.
pub fn driver_of(address: Address) -> Option<String> {
    let uplink = network()?.uplink.get()?;
    (uplink.identity.address == address).then(|| String::from("e1000e"))
}
