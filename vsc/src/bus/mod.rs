//! The driver of VMBus: contact with the host, its offers, and channels.
//!
//! [`Bus`] is a handle that can be cloned. Whenever an interrupt at [`SINT`](vmbus::protocol::id::SINT) has come, and now and then
//! otherwise, the guest calls [`Bus::poll`], on each VP whose SynIC takes messages or events; it takes the host's messages, wakes
//! the tasks that wait for them, and calls those who handle the channels' interrupts. Everything else is asynchronous.
//!
//! ```ignore
//! let bus = Bus::new(hal);
//! bus.block_on(bus.connect())?;
//! let offer = bus.find(class::SCSI).ok_or(NoDisk)?;
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `state` | what is known of the host, and how its messages change it |
//! | `poll` | taking messages and events, and posting |
//! | `channel` | opening and closing channels |

mod channel;
mod poll;
mod state;

pub use channel::{ChannelHandle, Doorbell, RingPages};
pub use state::Interrupt;
pub use vmbus::protocol::guid::class;

use crate::hal::Hal;
use crate::memory::{PAGE, Pages};
use crate::wait;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::task::Poll;
use hypercall_api::address::Gpa;
use hypercall_api::status::HvStatus;
use spin::{Mutex, MutexGuard};
use state::{Contact, State};
use uuid::Uuid;
use vmbus::client::{ClientError, OfferedChannel, Settings};
use vmbus::protocol::id::{Relid, Status};
use vmbus::protocol::version::Version;
use vmbus::ring::channel::ChannelError;

/// Why the bus did not do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BusError {
    /// The host speaks none of the versions.
    #[error("the host speaks no version of VMBus that this guest knows")]
    NoVersion,
    /// A message cannot be posted: the host is not there any more.
    #[error("messages to the host are refused: {0:?}")]
    Post(HvStatus),
    /// The guest system has no pages left.
    #[error("there are not enough pages in a row")]
    NoMemory,
    /// Memory that is to be shared is not made of whole pages.
    #[error("{0} bytes of memory are no whole pages")]
    NotPages(usize),
    /// The channel is not offered any more.
    #[error("channel {0} is gone")]
    Gone(Relid),
    /// The channel is open already.
    #[error("channel {0} is in use")]
    InUse(Relid),
    /// The host has refused the rings' pages or the channel.
    #[error("the host refuses: {0}")]
    Refused(Status),
    /// The state of the bus does not allow it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The rings cannot be.
    #[error(transparent)]
    Rings(#[from] ChannelError),
}

/// The bus of this guest.
pub struct Bus<H: Hal>(Arc<Inner<H>>);

struct Inner<H: Hal> {
    hal: Arc<H>,
    state: Mutex<State<H>>,
}

impl<H: Hal> Clone for Bus<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H: Hal> core::fmt::Debug for Bus<H> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}

impl<H: Hal> Bus<H> {
    /// The bus, without contact yet. The running VP is the one that will take the host's messages.
    pub fn new(hal: H) -> Result<Self, BusError> {
        let hal = Arc::new(hal);
        let pages = Pages::allocate(&hal, 3).ok_or(BusError::NoMemory)?;
        let first = hal.physical(pages.start()).0;
        let settings = Settings {
            target_vp: hal.vp(),
            interrupt_page: Gpa(first),
            monitor_pages: [Gpa(first + PAGE as u64), Gpa(first + 2 * PAGE as u64)],
            ..Settings::default()
        };
        let state = Mutex::new(State::new(settings, pages));
        Ok(Self(Arc::new(Inner { hal, state })))
    }

    /// The guest system below.
    pub fn hal(&self) -> &Arc<H> {
        &self.0.hal
    }

    fn state(&self) -> MutexGuard<'_, State<H>> {
        self.0.state.lock()
    }

    /// Makes contact with the host, and waits until it has offered what it has.
    pub async fn connect(&self) -> Result<Version, BusError> {
        self.ask(State::connect)?;
        let version = self
            .until(|state| match state.contact {
                Contact::Connected(version) => Some(Ok(version)),
                Contact::NoVersion => Some(Err(BusError::NoVersion)),
                Contact::None => None,
            })
            .await?;
        self.ask(State::request_offers)?;
        self.until(|state| state.offers_delivered.then_some(Ok(version)))
            .await
    }

    /// The channels that the host offers now.
    pub fn offers(&self) -> Vec<OfferedChannel> {
        self.state().offers().cloned().collect()
    }

    /// The first channel of a device of `class` that is not in use.
    pub fn find(&self, class: Uuid) -> Option<OfferedChannel> {
        let state = self.state();
        state
            .free_offers()
            .find(|channel| channel.offer.class == class && channel.offer.sub_channel_index == 0)
            .cloned()
    }

    /// Waits for sub-channel `index` of the device whose first channel is `primary`.
    pub async fn sub_channel(
        &self,
        primary: &OfferedChannel,
        index: u16,
    ) -> Result<OfferedChannel, BusError> {
        self.until(|state| {
            if !state.is_offered(primary.relid) {
                return Some(Err(BusError::Gone(primary.relid)));
            }
            let same = |channel: &&OfferedChannel| {
                let offer = &channel.offer;
                offer.sub_channel_index == index
                    && offer.class == primary.offer.class
                    && offer.instance == primary.offer.instance
            };
            state.offers().find(same).cloned().map(Ok)
        })
        .await
    }

    /// Waits until something was offered or rescinded that [`offers`](Self::offers) did not show when `seen` came back; begin with
    /// zero.
    pub async fn changed(&self, seen: u64) -> Result<u64, BusError> {
        self.until(|state| Some(state.changes).filter(|changes| *changes != seen).map(Ok))
            .await
    }

    /// Runs `future` to its end on this VP, polling the bus and halting meanwhile.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        wait::block_on(future, || self.idle())
    }

    /// As [`block_on`](Self::block_on), for `limit` units of 100 ns at most; `None` when they are over, and the future is dropped.
    pub fn block_on_for<F: Future>(&self, limit: u64, future: F) -> Option<F::Output> {
        let start = self.0.hal.now();
        let idle = || {
            self.idle();
            (self.0.hal.now().saturating_sub(start) < limit)
                .then_some(())
                .ok_or(())
        };
        wait::block_on_while(future, idle).ok()
    }

    fn idle(&self) {
        if !self.poll() {
            self.0.hal.wait();
        }
    }

    /// Waits until `check` has an answer. It is asked again after each change of the state.
    async fn until<T>(
        &self,
        mut check: impl FnMut(&mut State<H>) -> Option<Result<T, BusError>>,
    ) -> Result<T, BusError> {
        poll_fn(|context| {
            let mut state = self.state();
            let failed = state.failed.map(BusError::Post);
            match check(&mut state).or(failed.map(Err)) {
                Some(result) => Poll::Ready(result),
                None => {
                    state.waiting.add(context.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }
}
