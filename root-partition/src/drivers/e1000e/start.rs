//! Finding the machine's cards, and serving each: its interrupt, its frames, a watch over it.

use super::card::{Card, CardError};
use super::hardware::Hardware;
use crate::drivers::pci::config::ConfigSpace;
use crate::drivers::pci::device::{NoRegisters, PciDevice};
use crate::drivers::pci::msi::{self, MsiError};
use crate::drivers::pci::scan::Identity;
use crate::executor;
use crate::interrupt::Interrupt;
use crate::vm::signal::yield_now;
use alloc::string::String;
use alloc::sync::Arc;
use core::future::Future;
use embassy_futures::select::{Either, select};
use embassy_time::{Duration, Timer};
use vsp::network::Frame;

/// Vendor and device ids: 82574L and 82574LA.
const IDS: [(u16, u16); 2] = [(0x8086, 0x10d3), (0x8086, 0x10f6)];
/// Frames that are taken before others have their turn.
const BUDGET: usize = 64;
/// How often the card is looked after, should an interrupt be lost or the card stop.
const WATCH: Duration = Duration::from_secs(2);

impl Hardware for PciDevice {
    fn sleep_a_millisecond(&self) -> impl Future<Output = ()> + Send {
        Timer::after(Duration::from_millis(1))
    }
}

/// Why a card was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// They are not to be had.
    #[error(transparent)]
    Registers(#[from] NoRegisters),
    /// There is none to have.
    #[error("it gets no interrupt: {0}")]
    Interrupt(#[from] MsiError),
    /// The card.
    #[error(transparent)]
    Card(#[from] CardError),
}

/// Who takes what a card receives.
pub trait Upstream: Send + Sync + 'static {
    /// A frame has come.
    fn frame(&self, frame: &Frame<'_>);
    /// The link has come up or gone down.
    fn link(&self, up: bool);
}

/// Whether a driver for the function is here.
pub fn is_card(identity: &Identity) -> bool {
    IDS.contains(&(identity.vendor, identity.device))
}

/// Brings up the card at `identity`, with its interrupt on this processor. [`serve`] is to follow.
pub async fn one(
    space: &'static dyn ConfigSpace,
    identity: Identity,
    name: String,
    mtu: usize,
) -> Result<(Arc<Card<PciDevice>>, Interrupt), StartError> {
    let device = PciDevice::find(space, identity.address)?;
    let function = device.function;
    function.enable();
    let card = Card::new(device, name, mtu).await?;
    // MSI and not MSI-X: all causes come by one message in any case, and reading them clears them only without MSI-X.
    let interrupt = msi::enable_msi(&function)?;
    card.start();
    Ok((Arc::new(card), interrupt))
}

/// Serves a card as long as it works.
pub async fn serve(card: Arc<Card<PciDevice>>, mut interrupt: Interrupt, upstream: Arc<dyn Upstream>) {
    let watched = (card.clone(), upstream.clone());
    executor::spawn(async move { watch(&watched.0, &*watched.1).await }).detach();
    upstream.link(card.link_up());
    while !card.is_dead() {
        card.listen();
        // A frame may have come while the interrupt was off.
        while card.receive(BUDGET, |frame| upstream.frame(frame)) {
            yield_now().await;
        }
        // Without a link no interrupt may come, nor once the card has stopped.
        if let Either::First(()) = select(interrupt.wait(), Timer::after(WATCH)).await
            && let Some(up) = card.interrupt()
        {
            tell(&card, &*upstream, up);
        }
    }
}

fn tell(card: &Card<PciDevice>, upstream: &dyn Upstream, up: bool) {
    match up {
        true => log::info!("{}: link up, {} Mbit/s", card.name, card.status().speed()),
        false => log::warn!("{}: link down", card.name),
    }
    upstream.link(up);
}

/// Resets the card when it sends nothing any more.
async fn watch(card: &Card<PciDevice>, upstream: &dyn Upstream) {
    let mut before = None;
    loop {
        Timer::after(WATCH).await;
        let status = card.status();
        if status.is_gone() {
            log::error!("{}: it does not answer any more", card.name);
            card.give_up();
            upstream.link(false);
            return;
        }
        if let Some(up) = card.look_at_link() {
            tell(card, upstream, up);
        }
        let (busy, at) = card.progress();
        if busy && card.link_up() && before == Some(at) {
            log::warn!("{}: it has stopped sending, and is reset", card.name);
            if let Err(error) = card.restart().await {
                log::error!("{}: {error}", card.name);
                card.give_up();
                upstream.link(false);
                return;
            }
        }
        before = busy.then_some(at);
    }
}
