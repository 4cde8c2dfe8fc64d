//! The synthetic interrupt controller and the synthetic timers of a VP (TLFS, "Virtual Interrupt Control", "Timers").

use super::guest_memory::{frame_word, write_frame};
use super::vp::Vp;
use core::sync::atomic::Ordering;
use hypercall_api::address::Gpfn;
use hypercall_api::intercept::OpaqueIntercept;
use hypercall_api::message::{MESSAGE_PENDING, Message, MessageType, SINT_COUNT, TimerMessage};
use hypercall_api::msr::{PageMsr, Sint, StimerConfig};
use zerocopy::{FromZeros, IntoBytes};

/// SINT by which a parent hears of intercepts.
const INTERCEPT_SINT: usize = 0;
/// Synthetic timers of a VP.
pub const TIMERS: usize = 4;

/// The guest did something that raises #GP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// A synthetic timer.
#[derive(Clone, Copy, Default)]
struct Timer {
    config: StimerConfig,
    count: u64,
    /// Reference time of the next expiry, while enabled.
    expires: u64,
    /// TSC of the next expiry; meaningless while disabled.
    deadline: u64,
    /// An expired timer whose message has found no free slot: when it expired.
    undelivered: Option<u64>,
}

/// SynIC registers and timers of a VP.
pub struct Synic {
    control: u64,
    message_page: u64,
    event_page: u64,
    sints: [Sint; SINT_COUNT],
    timers: [Timer; TIMERS],
}

impl Default for Synic {
    fn default() -> Self {
        Self::new()
    }
}

impl Synic {
    /// A SynIC after reset.
    pub fn new() -> Self {
        Self {
            control: 0,
            message_page: 0,
            event_page: 0,
            sints: [Sint::RESET; SINT_COUNT],
            timers: [Timer::default(); TIMERS],
        }
    }

    /// Gives the VP pages to begin with, as the root's are: the guest finds their numbers in SIMP and SIEFP.
    pub fn provide_pages(&mut self, message_page: Gpfn, event_page: Gpfn) {
        self.message_page = message_page.0 << 12;
        self.event_page = event_page.0 << 12;
    }

    /// A SynIC after reset that keeps the pages that were [provided](Self::provide_pages).
    pub fn reset(&self) -> Self {
        let pages = |value: u64| value & !0xfff;
        Self {
            message_page: pages(self.message_page),
            event_page: pages(self.event_page),
            ..Self::new()
        }
    }

    /// SCONTROL.
    pub fn control(&self) -> u64 {
        self.control
    }

    /// Sets SCONTROL.
    pub fn set_control(&mut self, value: u64) -> Result<(), Refused> {
        if value & !1 != 0 {
            return Err(Refused);
        }
        self.control = value;
        Ok(())
    }

    /// SIMP.
    pub fn message_page(&self) -> u64 {
        self.message_page
    }

    /// Sets SIMP.
    pub fn set_message_page(&mut self, value: u64) {
        self.message_page = value;
    }

    /// SIEFP.
    pub fn event_page(&self) -> u64 {
        self.event_page
    }

    /// Sets SIEFP.
    pub fn set_event_page(&mut self, value: u64) {
        self.event_page = value;
    }

    /// A SINT register.
    pub fn sint(&self, index: usize) -> u64 {
        self.sints[index].0
    }

    /// Sets a SINT register. An unmasked SINT needs a vector of at least 16.
    pub fn set_sint(&mut self, index: usize, value: u64) -> Result<(), Refused> {
        let sint = Sint(value);
        if !sint.is_masked() && !sint.is_polling() && sint.vector() < 16 {
            return Err(Refused);
        }
        self.sints[index] = sint;
        Ok(())
    }

    /// A timer's configuration.
    pub fn timer_config(&self, index: usize) -> u64 {
        self.timers[index].config.0
    }

    /// A timer's count.
    pub fn timer_count(&self, index: usize) -> u64 {
        self.timers[index].count
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
        let now = vp.partition.reference_time();
        for index in 0..TIMERS {
            let timer = &mut vp.synic.timers[index];
            if !timer.config.is_enabled() || timer.undelivered.is_some() || timer.expires > now {
                continue;
            }
            let expired = timer.expires;
            if timer.config.is_periodic() && timer.count != 0 {
                // Periods that were missed are not made up for.
                let missed = (now - expired) / timer.count;
                timer.expires = expired.saturating_add(timer.count.saturating_mul(missed + 1));
                timer.deadline = vp.partition.tsc_at(timer.expires);
            } else {
                timer.config = timer.config.with_enabled(false);
            }
            Self::signal(vp, index, expired, now);
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

    /// Puts a message into a SINT's slot and raises its interrupt. Returns whether it was delivered: where the slot is
    /// taken, the guest is told that one waits, and will write EOM.
    fn deliver(vp: &mut Vp, sint: usize, message_type: MessageType, origin: u64, payload: &[u8]) -> bool {
        let page = PageMsr(vp.synic.message_page);
        if vp.synic.control & 1 == 0 || !page.is_enabled() {
            return false;
        }
        let Some(frame) = vp.partition.writable_frame(page.page()) else {
            return false;
        };
        let slot = sint * size_of::<Message>();
        let slot_type = frame_word(frame, slot);
        if slot_type.load(Ordering::Acquire) != MessageType::NONE.0 {
            frame_word(frame, slot + 4).fetch_or((MESSAGE_PENDING as u32) << 8, Ordering::AcqRel);
            // The guest may have freed the slot before it could see the flag.
            if slot_type.load(Ordering::Acquire) != MessageType::NONE.0 {
                return false;
            }
        }
        let mut message = Message::new_zeroed();
        message.payload_size = payload.len() as u8;
        message.origin = origin;
        message.payload[..payload.len()].copy_from_slice(payload);
        write_frame(frame, slot + 4, &message.as_bytes()[4..16 + payload.len()]);
        slot_type.store(message_type.0, Ordering::Release);
        let register = vp.synic.sints[sint];
        if !register.is_masked() && !register.is_polling() {
            vp.apic.request(register.vector());
        }
        true
    }

    /// Delivers the intercepts of children that wait for this VP's message slot.
    pub fn deliver_waiting(vp: &mut Vp) {
        loop {
            // The VP's own LP is the only one that takes from the queue, but for deletions, which remove.
            let mut queue = vp.shared.intercepts.lock();
            let Some(slot) = queue.first() else { return };
            let payload = OpaqueIntercept {
                vp: slot.shared.index,
            };
            let origin = slot.shared.partition.id.0;
            if !Self::deliver(
                vp,
                INTERCEPT_SINT,
                MessageType::OPAQUE_INTERCEPT,
                origin,
                payload.as_bytes(),
            ) {
                return;
            }
            queue.pop();
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
