//! Bringing the root's network up.

use super::host_port::HostPort;
use super::stack::RootStack;
use super::uplink::{FromUplink, UplinkPort};
use super::{EXTERNAL_SWITCH, Switches};
use crate::drivers::e1000e::card::{Card, DEFAULT_MTU};
use crate::drivers::e1000e::start::{self as e1000e, PciCard};
use crate::drivers::pci::Address;
use crate::drivers::pci::config;
use crate::drivers::pci::scan::Identity;
use crate::executor;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use spin::Once;
use vsp::network::Wire;
use vsp::switch::port::PortSettings;
use vsp::switch::{AttachError, Kind, Switch};

/// The processor that takes the card's interrupts.
const INTERRUPT_VP: u32 = 0;
/// The name of the first card.
const CARD_NAME: &str = "eth0";

static NETWORK: Once<Network> = Once::new();

/// The root's network.
pub struct Network {
    pub(super) uplink: Once<Uplink>,
    /// A card is being started.
    pub(super) starting: AtomicBool,
}

/// The uplink, once there is one.
pub struct Uplink {
    /// Where its card is.
    pub identity: Identity,
    /// The card.
    pub card: Arc<Card<PciCard>>,
    /// The root's stack on it.
    pub stack: Arc<RootStack>,
}

/// The root's network, once it has been begun.
pub fn network() -> Option<&'static Network> {
    NETWORK.get()
}

/// Has the root's network started, as tasks: the first card among `functions` becomes the uplink.
pub fn begin(switches: &Arc<Switches>, functions: &'static [Identity]) {
    let network = NETWORK.call_once(|| Network {
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
        if let Err(error) = start(&switches, identity).await {
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

async fn start(switches: &Switches, identity: Identity) -> Result<(), StartError> {
    let space = config::machine().ok_or(StartError::NoPci)?;
    let (card, interrupt) = e1000e::one(space, identity, String::from(CARD_NAME), DEFAULT_MTU).await?;
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
    let stack = RootStack::start(host.clone(), Box::new(|_| {}));
    if let Some(network) = network() {
        network.uplink.call_once(|| Uplink {
            identity,
            card: card.clone(),
            stack,
        });
    }
    let upstream = Arc::new(FromUplink {
        wire,
        port: uplink_port,
        host,
    });
    executor::spawn_on(INTERRUPT_VP, e1000e::serve(card, interrupt, upstream)).detach();
    Ok(())
}

/// The driver that owns the PCI function at `address`, if it is the uplink's.
pub fn driver_of(address: Address) -> Option<String> {
    let uplink = network()?.uplink.get()?;
    (uplink.identity.address == address).then(|| String::from("e1000e"))
}
