//! The synthetic interrupt controller and the synthetic timers of a VP (TLFS, "Virtual Interrupt Control", "Timers").
//! Registers are shared, since senders on any processor look at them; timers are the VP's own.

use super::guest_memory::{frame_word, write_frame};
use super::shared::News;
use super::synthetic_timer::{Next, Timer};
use super::vp::Vp;
use super::{Partition, port};
use crate::iommu::fault::{self, FAULTS_VP};
use crate::memory::address::Frame;
use crate::platform::registers::tsc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use hypercall_api::address::Gpfn;
use hypercall_api::intercept::{ApicEoiMessage, OpaqueIntercept};
use hypercall_api::message::{EVENT_FLAGS, MESSAGE_PENDING, Message, MessageType, SINT_COUNT, TimerMessage};
use hypercall_api::msr::{PageMsr, Sint, StimerConfig};
use hypercall_api::state::{StimerState, SyntheticTimersState};
use hypercall_api::status::HvStatus;
use spin::Mutex;
use zerocopy::{FromZeros, IntoBytes};

/// SINT by which a parent hears of intercepts.
const INTERCEPT_SINT: usize = 0;
/// Synthetic timers of a VP.
pub const TIMERS: usize = 4;

/// The guest did something that raises #GP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// It is in its slot.
    Filled,
    /// The slot is taken, or there is none; the guest will say when that changes.
    Taken,
}

/// The SynIC registers of a VP, which senders on any processor look at.
pub struct SynicRegisters {
    control: AtomicU64,
    message_page: AtomicU64,
    event_page: AtomicU64,
    sints: [AtomicU64; SINT_COUNT],
    has_auto_eoi: AtomicBool,
    /// SINTs whose interrupts are to be raised, a bit each.
    raised: AtomicU32,
    /// Held while a slot is filled.
    filling: Mutex<()>,
}

impl Default for SynicRegisters {
    fn default() -> Self {
        Self::new()
    }
}

impl SynicRegisters {
    /// The registers after reset.
    pub const fn new() -> Self {
        Self {
            control: AtomicU64::new(0),
            message_page: AtomicU64::new(0),
            event_page: AtomicU64::new(0),
            sints: [const { AtomicU64::new(Sint::RESET.0) }; SINT_COUNT],
            has_auto_eoi: AtomicBool::new(false),
            raised: AtomicU32::new(0),
            filling: Mutex::new(()),
        }
    }

    /// Gives the VP pages to begin with, as the root's are: the guest finds their numbers in SIMP and SIEFP.
    pub fn provide_pages(&self, message_page: Gpfn, event_page: Gpfn) {
        self.message_page.store(message_page.0 << 12, Ordering::Relaxed);
        self.event_page.store(event_page.0 << 12, Ordering::Relaxed);
    }

    /// Back to the values after reset, but for the pages that were [provided](Self::provide_pages).
    pub fn reset(&self) {
        self.control.store(0, Ordering::Relaxed);
        self.message_page.fetch_and(!0xfff, Ordering::Relaxed);
        self.event_page.fetch_and(!0xfff, Ordering::Relaxed);
        self.sints
            .iter()
            .for_each(|sint| sint.store(Sint::RESET.0, Ordering::Relaxed));
    }

    /// SCONTROL.
    pub fn control(&self) -> u64 {
        self.control.load(Ordering::Relaxed)
    }

    /// Sets SCONTROL.
    pub fn set_control(&self, value: u64) -> Result<(), Refused> {
        if value & !1 != 0 {
            return Err(Refused);
        }
        self.control.store(value, Ordering::Relaxed);
        Ok(())
    }

    /// SIMP.
    pub fn message_page(&self) -> u64 {
        self.message_page.load(Ordering::Relaxed)
    }

    /// Sets SIMP.
    pub fn set_message_page(&self, value: u64) {
        self.message_page.store(value, Ordering::Relaxed);
    }

    /// SIEFP.
    pub fn event_page(&self) -> u64 {
        self.event_page.load(Ordering::Relaxed)
    }

    /// Sets SIEFP.
    pub fn set_event_page(&self, value: u64) {
        self.event_page.store(value, Ordering::Relaxed);
    }

    /// A SINT register.
    pub fn sint(&self, index: usize) -> u64 {
        self.sints[index].load(Ordering::Relaxed)
    }

    /// Sets a SINT register. An unmasked SINT needs a vector of at least 16.
    pub fn set_sint(&self, index: usize, value: u64) -> Result<(), Refused> {
        let sint = Sint(value);
        if !sint.is_masked() && !sint.is_polling() && sint.vector() < 16 {
            return Err(Refused);
        }
        self.sints[index].store(value, Ordering::Relaxed);
        let auto = self
            .sints
            .iter()
            .any(|sint| Sint(sint.load(Ordering::Relaxed)).is_auto_eoi());
        self.has_auto_eoi.store(auto, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the SINT that raises `vector` needs no EOI of the guest's.
    #[inline]
    pub fn is_auto_eoi(&self, vector: u8) -> bool {
        self.has_auto_eoi.load(Ordering::Relaxed)
            && self
                .sints
                .iter()
                .map(|sint| Sint(sint.load(Ordering::Relaxed)))
                .any(|sint| !sint.is_masked() && sint.is_auto_eoi() && sint.vector() == vector)
    }

    fn is_enabled(&self) -> bool {
        self.control() & 1 != 0
    }

    /// Puts a message into a SINT's slot, where that is free, and takes note that the SINT is to be raised. Where it is taken,
    /// the guest is told that another message waits, and will write EOM.
    pub fn deliver(&self, partition: &Partition, sint: usize, message: &Message) -> Slot {
        let page = PageMsr(self.message_page());
        if !self.is_enabled() || !page.is_enabled() {
            return Slot::Taken;
        }
        let _filling = self.filling.lock();
        match partition.with_frame(page.page(), |frame| fill_slot(frame, sint, message)) {
            Some(true) => {
                self.raised.fetch_or(1 << sint, Ordering::AcqRel);
                Slot::Filled
            }
            _ => Slot::Taken,
        }
    }

    /// Sets an event flag of a SINT, and takes note that the SINT is to be raised where the flag was clear. Returns whether it
    /// was.
    pub fn signal(&self, partition: &Partition, sint: usize, flag: u16) -> Result<bool, HvStatus> {
        let page = PageMsr(self.event_page());
        if !self.is_enabled() || !page.is_enabled() || flag as usize >= EVENT_FLAGS {
            return Err(HvStatus::OPERATION_DENIED);
        }
        let offset = sint * EVENT_FLAGS / 8 + flag as usize / 32 * 4;
        let bit = 1 << (flag % 32);
        let before = partition.with_frame(page.page(), |frame| {
            frame_word(frame, offset).fetch_or(bit, Ordering::AcqRel)
        });
        let newly = before.ok_or(HvStatus::OPERATION_DENIED)? & bit == 0;
        if newly {
            self.raised.fetch_or(1 << sint, Ordering::AcqRel);
        }
        Ok(newly)
    }

    /// The vectors of the SINTs that were to be raised, which are not any more.
    pub fn take_raised(&self) -> impl Iterator<Item = u8> + '_ {
        let mut raised = match self.raised.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.raised.swap(0, Ordering::AcqRel),
        };
        let lowest = move || {
            let sint = (raised != 0).then(|| raised.trailing_zeros() as usize);
            raised &= raised.wrapping_sub(1);
            sint
        };
        core::iter::from_fn(lowest)
            .map(|sint| Sint(self.sint(sint)))
            .filter(|sint| !sint.is_masked() && !sint.is_polling())
            .map(Sint::vector)
    }
}

/// The synthetic timers of a VP.
#[derive(Default)]
pub struct Synic {
    timers: [Timer; TIMERS],
}

impl Synic {
    /// Timers after reset.
    pub fn new() -> Self {
        Self::default()
    }

    /// A timer's configuration.
    pub fn timer_config(&self, index: usize) -> u64 {
        self.timers[index].config.0
    }

    /// A timer's count.
    pub fn timer_count(&self, index: usize) -> u64 {
        self.timers[index].count
    }

    /// The timers, for a parent that saves them.
    pub fn state(&self) -> SyntheticTimersState {
        let timers = self.timers.map(|timer| StimerState {
            flags: u32::from(timer.undelivered.is_some()),
            reserved: 0,
            config: timer.config.0,
            count: timer.count,
            adjustment: timer.expires,
            undelivered_expiration: timer.undelivered.unwrap_or(0),
        });
        SyntheticTimersState {
            timers,
            reserved: [0; 5],
        }
    }

    /// Sets the timers to what a parent has saved.
    pub fn set_state(vp: &mut Vp, state: &SyntheticTimersState) -> Result<(), HvStatus> {
        if state
            .timers
            .iter()
            .any(|timer| timer.config & !StimerConfig::VALID != 0 || timer.flags & !1 != 0)
        {
            return Err(HvStatus::INVALID_REGISTER_VALUE);
        }
        for (index, saved) in state.timers.iter().enumerate() {
            let deadline = vp.partition.tsc_at(saved.adjustment);
            vp.synic.timers[index] = Timer {
                config: StimerConfig(saved.config),
                count: saved.count,
                expires: saved.adjustment,
                deadline,
                undelivered: (saved.flags & 1 != 0).then_some(saved.undelivered_expiration),
            };
        }
        vp.update_deadline();
        Ok(())
    }

    /// TSC of the earliest expiry.
    pub fn deadline(&self) -> u64 {
        let enabled = self
            .timers
            .iter()
            .filter(|timer| timer.config.is_enabled() && timer.undelivered.is_none());
        enabled.map(|timer| timer.deadline).min().unwrap_or(u64::MAX)
    }

    /// Sets a timer's configuration. Enabling one that is set to SINT 0 in message mode does not enable it.
    pub fn set_timer_config(vp: &mut Vp, index: usize, value: u64) -> Result<(), Refused> {
        let mut config = StimerConfig(value);
        if value & !StimerConfig::VALID != 0 || (config.is_direct() && config.vector() < 16) {
            return Err(Refused);
        }
        if !config.is_direct() && config.sint() == 0 {
            config = config.with_enabled(false);
        }
        let timer = &mut vp.synic.timers[index];
        timer.config = config;
        timer.undelivered = None;
        Self::arm(vp, index);
        Ok(())
    }

    /// Sets a timer's count. Zero disables it; another value enables it where it is set to enable itself.
    pub fn set_timer_count(vp: &mut Vp, index: usize, value: u64) {
        let timer = &mut vp.synic.timers[index];
        timer.count = value;
        timer.undelivered = None;
        if value == 0 {
            timer.config = timer.config.with_enabled(false);
        } else if timer.config.is_auto_enable() {
            timer.config = timer.config.with_enabled(true);
        }
        Self::arm(vp, index);
    }

    fn arm(vp: &mut Vp, index: usize) {
        let partition = vp.partition;
        let timer = &mut vp.synic.timers[index];
        if timer.config.is_enabled() {
            timer.expires = match timer.config.is_periodic() {
                true => partition.reference_time().saturating_add(timer.count),
                false => timer.count,
            };
            timer.deadline = partition.tsc_at(timer.expires);
        }
        vp.update_deadline();
    }

    /// Expires the timers that are due.
    pub fn expire(vp: &mut Vp) {
        let (ticks, now) = (tsc(), vp.partition.reference_time());
        for index in 0..TIMERS {
            let timer = &mut vp.synic.timers[index];
            let is_due = timer.deadline <= ticks && timer.expires <= now;
            if !timer.config.is_enabled() || timer.undelivered.is_some() || !is_due {
                continue;
            }
            let expired = timer.expires;
            let mut signals = true;
            if timer.config.is_periodic() && timer.count != 0 {
                let next = Next::of(expired, timer.count, now, timer.config.is_lazy());
                timer.expires = next.expires;
                timer.deadline = vp.partition.tsc_at(next.at);
                signals = next.signals;
            } else {
                timer.config = timer.config.with_enabled(false);
            }
            if signals {
                Self::signal(vp, index, expired, now);
            }
        }
    }

    fn signal(vp: &mut Vp, index: usize, expired: u64, now: u64) {
        let config = vp.synic.timers[index].config;
        if config.is_direct() {
            vp.apic.request(config.vector());
            return;
        }
        let payload = TimerMessage {
            timer_index: index as u32,
            reserved: 0,
            expiration_time: expired,
            delivery_time: now,
        };
        if !Self::deliver(
            vp,
            config.sint() as usize,
            MessageType::TIMER_EXPIRED,
            0,
            payload.as_bytes(),
        ) {
            vp.synic.timers[index].undelivered = Some(expired);
        }
    }

    /// Sends a message of the hypervisor's own to the VP itself. Returns whether it is in its slot.
    fn deliver(vp: &mut Vp, sint: usize, message_type: MessageType, origin: u64, payload: &[u8]) -> bool {
        let mut message = Message::new_zeroed();
        message.message_type = message_type;
        message.payload_size = payload.len() as u8;
        message.origin = origin;
        message.payload[..payload.len()].copy_from_slice(payload);
        let slot = vp.shared.synic.deliver(vp.partition, sint, &message);
        vp.shared
            .synic
            .take_raised()
            .for_each(|vector| vp.apic.request(vector));
        slot == Slot::Filled
    }

    /// Delivers what waits for the VP's message slots: messages at ports, intercepts of children.
    pub fn deliver_waiting(vp: &mut Vp) {
        port::deliver_waiting(vp.partition, vp.shared);
        if fault::has_news() && vp.shared.index == FAULTS_VP && vp.partition.is_root() {
            let origin = vp.partition.id.0;
            if Self::deliver(vp, INTERCEPT_SINT, MessageType::PARTITA_DMA_FAULT, origin, &[]) {
                fault::told();
            }
        }
        loop {
            // The VP's own LP is the only one that takes from the queue, but for deletions, which remove.
            let mut queue = vp.shared.news.lock();
            let Some(slot) = queue.first() else { return };
            let Some(news) = slot.shared.next_news() else {
                queue.pop();
                continue;
            };
            let index = slot.shared.index;
            let origin = slot.shared.partition.id.0;
            let told = match news {
                News::Intercept => {
                    let payload = OpaqueIntercept { vp: index };
                    Self::deliver(
                        vp,
                        INTERCEPT_SINT,
                        MessageType::OPAQUE_INTERCEPT,
                        origin,
                        payload.as_bytes(),
                    )
                }
                News::EndOfInterrupt(vector) => {
                    let payload = ApicEoiMessage {
                        vp: index,
                        vector: vector as u32,
                    };
                    Self::deliver(
                        vp,
                        INTERCEPT_SINT,
                        MessageType::APIC_EOI,
                        origin,
                        payload.as_bytes(),
                    )
                }
            };
            if !told {
                return;
            }
            slot.shared.news_told(news);
        }
    }

    /// The guest has freed a slot and says so.
    pub fn end_of_message(vp: &mut Vp) {
        Self::deliver_waiting(vp);
        let now = vp.partition.reference_time();
        for index in 0..TIMERS {
            if let Some(expired) = vp.synic.timers[index].undelivered.take() {
                Self::signal(vp, index, expired, now);
            }
        }
        vp.update_deadline();
    }
}

/// Puts a message into a SINT's slot, where that is free. Its type, which makes it a message, is written last.
fn fill_slot(frame: Frame, sint: usize, message: &Message) -> bool {
    let slot = sint * size_of::<Message>();
    let slot_type = frame_word(frame, slot);
    if slot_type.load(Ordering::Acquire) != MessageType::NONE.0 {
        frame_word(frame, slot + 4).fetch_or((MESSAGE_PENDING as u32) << 8, Ordering::AcqRel);
        // The guest may have freed the slot before it could see the flag.
        if slot_type.load(Ordering::Acquire) != MessageType::NONE.0 {
            return false;
        }
    }
    let length = 16 + message.payload_size as usize;
    write_frame(frame, slot + 4, &message.as_bytes()[4..length]);
    slot_type.store(message.message_type.0, Ordering::Release);
    true
}
