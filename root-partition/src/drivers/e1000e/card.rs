//! One card: bringing it up, its link, what went through it.

use super::hardware::Hardware;
use super::receive::{ReceiveRing, Refused};
use super::registers::{
    CAUSES, CRCERRS, CTRL, CTRL_AUTO_SPEED, CTRL_EXT, CTRL_EXT_DRIVER, CTRL_FULL_DUPLEX, CTRL_RESET,
    CTRL_SET_LINK_UP, ICR, ICS, IMC, IMS, MPC, MTA, MTA_WORDS, RAH, RAL, RCTL, RCTL_ON, RDBA, RDH, RDLEN,
    RDT, RXCSUM, RXCSUM_ON, RXERRC, STATUS, Status, TCTL, TCTL_ON, TDBA, TDH, TDLEN, TDT, TIPG, TIPG_COPPER,
    TXDCTL, TXDCTL_EACH, WINDOW,
};
use super::transmit::{NotSent, TransmitRing};
use super::{descriptor::DESCRIPTOR, receive, transmit};
use alloc::string::String;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spin::Mutex;
use vmbus::protocol::network::{ETHERNET_HEADER, Mac};
use vsp::network::{Frame, wire::NoRoom};

/// Bytes of an IP packet that a card carries unless it is told otherwise.
pub const DEFAULT_MTU: usize = 1500;
/// Most bytes.
pub const MAX_MTU: usize = 9000;
/// Fewest: what IPv4 wants of every network.
pub const MIN_MTU: usize = 576;
/// Milliseconds that a reset may take.
const RESET_LIMIT: usize = 1000;
/// Bytes of a VLAN tag.
const TAG: usize = 4;

/// Why a card cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CardError {
    /// Its register window is too small.
    #[error("its register window of {0:#x} bytes is too small")]
    Window(u64),
    /// It does not answer.
    #[error("it does not answer")]
    Gone,
    /// A reset did not end.
    #[error("it did not end its reset in time")]
    Stuck,
    /// It has no address that a card can have.
    #[error("its address {0} is none that a card can have")]
    Address(Mac),
    /// There is no memory for its rings.
    #[error("there is no memory for its rings")]
    OutOfMemory,
}

/// What went through a card.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames received.
    pub received: AtomicU64,
    /// Their bytes.
    pub received_bytes: AtomicU64,
    /// Frames received that were damaged on the wire.
    pub damaged: AtomicU64,
    /// Frames received that were longer than can be, or of which the card said nonsense.
    pub malformed: AtomicU64,
    /// Frames that came faster than they were taken.
    pub missed: AtomicU64,
    /// Frames sent; one that the card cuts counts as one.
    pub sent: AtomicU64,
    /// Their bytes.
    pub sent_bytes: AtomicU64,
    /// Frames to send that were not what was said beside them, or too large.
    pub unsendable: AtomicU64,
    /// Frames to send for which the ring had no room.
    pub no_room: AtomicU64,
    /// Times that the card was reset because it sent nothing any more.
    pub resets: AtomicU64,
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// A card.
pub struct Card<H> {
    /// Its registers and the world.
    pub hardware: H,
    /// Its name in the log: `eth0`.
    pub name: String,
    /// What went through it.
    pub counters: Counters,
    address: Mac,
    mtu: usize,
    receiving: Mutex<ReceiveRing>,
    sending: Mutex<TransmitRing>,
    link: AtomicBool,
    interrupts: AtomicU64,
    dead: AtomicBool,
}

impl<H: Hardware> Card<H> {
    /// Resets the card behind `hardware`. `mtu` is the largest IP packet that it carries, [`MIN_MTU`] to [`MAX_MTU`].
    pub async fn new(hardware: H, name: String, mtu: usize) -> Result<Self, CardError> {
        if hardware.window() < WINDOW {
            return Err(CardError::Window(hardware.window()));
        }
        reset(&hardware).await?;
        let [a, b, c, d] = hardware.read(RAL).to_le_bytes();
        let [e, f, ..] = hardware.read(RAH).to_le_bytes();
        let address = Mac([a, b, c, d, e, f]);
        if !address.is_station() {
            return Err(CardError::Address(address));
        }
        let largest = mtu.clamp(MIN_MTU, MAX_MTU) + ETHERNET_HEADER + TAG;
        Ok(Self {
            hardware,
            name,
            counters: Counters::default(),
            address,
            mtu: mtu.clamp(MIN_MTU, MAX_MTU),
            receiving: Mutex::new(ReceiveRing::new(largest).ok_or(CardError::OutOfMemory)?),
            sending: Mutex::new(TransmitRing::new(largest).ok_or(CardError::OutOfMemory)?),
            link: AtomicBool::new(false),
            interrupts: AtomicU64::new(0),
            dead: AtomicBool::new(false),
        })
    }

    /// Its own address.
    pub const fn address(&self) -> Mac {
        self.address
    }

    /// The largest IP packet that it carries.
    pub const fn mtu(&self) -> usize {
        self.mtu
    }

    /// Whether there is a link.
    pub fn link_up(&self) -> bool {
        self.link.load(Ordering::Acquire)
    }

    /// What it says of its state.
    pub fn status(&self) -> Status {
        Status(self.hardware.read(STATUS))
    }

    /// Whether it has been given up.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Sets up the rings of a card that has been reset, and turns it on.
    pub fn start(&self) {
        let hardware = &self.hardware;
        let write = |register, value| hardware.write(register, value);
        write(CTRL_EXT, hardware.read(CTRL_EXT) | CTRL_EXT_DRIVER);
        write(
            CTRL,
            hardware.read(CTRL) | CTRL_SET_LINK_UP | CTRL_AUTO_SPEED | CTRL_FULL_DUPLEX,
        );
        (0..MTA_WORDS).for_each(|word| write(MTA + 4 * word, 0));
        let (ring, tail) = {
            let mut receiving = self.receiving.lock();
            receiving.reset()
        };
        write(RDBA, ring as u32);
        write(RDBA + 4, (ring >> 32) as u32);
        write(RDLEN, (receive::ENTRIES * DESCRIPTOR) as u32);
        write(RDH, 0);
        write(RXCSUM, RXCSUM_ON);
        write(RCTL, RCTL_ON);
        write(RDT, tail);
        {
            let mut sending = self.sending.lock();
            let ring = sending.reset();
            write(TDBA, ring as u32);
            write(TDBA + 4, (ring >> 32) as u32);
            write(TDLEN, (transmit::ENTRIES * DESCRIPTOR) as u32);
            write(TDH, 0);
            write(TDT, 0);
            write(TXDCTL, TXDCTL_EACH);
            write(TIPG, TIPG_COPPER);
            write(TCTL, TCTL_ON);
        }
        self.look_at_link();
    }

    /// Turns the interrupt on. What came before it was on is seen by the poll that follows.
    pub fn listen(&self) {
        self.hardware.write(IMS, CAUSES);
    }

    /// How often the interrupt has come.
    pub fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Acquire)
    }

    /// Has the card raise its interrupt, as if the link had changed.
    pub fn raise_interrupt(&self) {
        self.hardware.write(ICS, super::registers::CAUSE_LINK);
    }

    /// Takes the interrupt: turns it off until [`listen`](Self::listen), and sees whether the link has changed.
    pub fn interrupt(&self) -> Option<bool> {
        self.interrupts.fetch_add(1, Ordering::AcqRel);
        let causes = self.hardware.read(ICR);
        self.hardware.write(IMC, CAUSES);
        match causes & super::registers::CAUSE_LINK {
            0 => None,
            _ => self.look_at_link(),
        }
    }

    /// Whether there is a link, if that is new.
    pub fn look_at_link(&self) -> Option<bool> {
        let up = self.status().link_up();
        (self.link.swap(up, Ordering::AcqRel) != up).then_some(up)
    }

    /// Hands up to `budget` received frames to `each`; returns whether there may be more.
    pub fn receive(&self, budget: usize, mut each: impl FnMut(&Frame<'_>)) -> bool {
        let mut ring = self.receiving.lock();
        let mut tail = None;
        for _ in 0..budget {
            let taken = ring.take(|frame| match frame {
                Ok(frame) => {
                    add(&self.counters.received, 1);
                    add(&self.counters.received_bytes, frame.length as u64);
                    each(frame);
                }
                Err(Refused::Damaged) => add(&self.counters.damaged, 1),
                Err(Refused::Malformed) => add(&self.counters.malformed, 1),
            });
            if taken.is_none() {
                break;
            }
            tail = taken;
        }
        if let Some(tail) = tail {
            self.hardware.write(RDT, tail);
        }
        ring.has_more()
    }

    /// Sends a frame, with `tag` beside it, without its own tag where `cut_tag`. A frame that cannot be sent is taken too.
    pub fn send(&self, frame: &Frame<'_>, tag: Option<u16>, cut_tag: bool) -> Result<(), NoRoom> {
        if !self.link_up() || self.is_dead() {
            add(&self.counters.no_room, 1);
            return Err(NoRoom);
        }
        let mut ring = self.sending.lock();
        let before = ring.tail();
        let pushed = ring.push(frame, tag, cut_tag);
        let tail = ring.tail();
        if tail != before {
            self.hardware.write(TDT, tail);
        }
        match pushed {
            Ok(count) => {
                add(&self.counters.sent, count as u64);
                add(&self.counters.sent_bytes, frame.length as u64);
                Ok(())
            }
            Err(NotSent::Unsendable) => {
                add(&self.counters.unsendable, 1);
                Ok(())
            }
            Err(NotSent::Full) => {
                add(&self.counters.no_room, 1);
                Err(NoRoom)
            }
        }
    }

    /// Takes back what the card has sent; returns whether something is under way still, and a number that changes when
    /// something gets done.
    pub fn progress(&self) -> (bool, u64) {
        let mut ring = self.sending.lock();
        ring.reclaim();
        (!ring.is_idle(), self.hardware.read(TDH).into())
    }

    /// Adds what the card counted itself to the counters.
    pub fn read_statistics(&self) {
        if self.is_dead() || self.status().is_gone() {
            return;
        }
        let read = |register| u64::from(self.hardware.read(register));
        add(&self.counters.missed, read(MPC));
        add(&self.counters.damaged, read(CRCERRS) + read(RXERRC));
    }

    /// Resets a card that does nothing any more, and turns it on again.
    pub async fn restart(&self) -> Result<(), CardError> {
        add(&self.counters.resets, 1);
        reset(&self.hardware).await?;
        self.start();
        self.listen();
        Ok(())
    }

    /// Gives the card up: it reaches no memory any more.
    pub fn give_up(&self) {
        self.dead.store(true, Ordering::Release);
        self.link.store(false, Ordering::Release);
        self.hardware.cut_off();
    }
}

/// Has the card stop and forget everything but its address.
async fn reset(hardware: &impl Hardware) -> Result<(), CardError> {
    if Status(hardware.read(STATUS)).is_gone() {
        return Err(CardError::Gone);
    }
    hardware.write(IMC, u32::MAX);
    hardware.write(RCTL, 0);
    hardware.write(TCTL, 0);
    hardware.write(CTRL, hardware.read(CTRL) | CTRL_RESET);
    for _ in 0..RESET_LIMIT {
        // The card may not be asked anything in the first moments.
        hardware.sleep_a_millisecond().await;
        let control = hardware.read(CTRL);
        if control == super::registers::NOTHING_THERE {
            return Err(CardError::Gone);
        }
        if control & CTRL_RESET == 0 {
            hardware.write(IMC, u32::MAX);
            hardware.read(ICR);
            return Ok(());
        }
    }
    Err(CardError::Stuck)
}
