//! The virtual local APIC of a VP, reached by the x2APIC MSRs (SDM 3, 11.12).

use super::shared::VpShared;
use super::vp::Vp;
use crate::platform::clock;
use crate::platform::registers::tsc;
use hypercall_api::processor::{InitialVpContext, SegmentRegister};
use hypercall_api::state::InterruptControllerState;
use hypercall_api::status::HvStatus;

/// Frequency of the virtual APIC timer before its divider, in Hz.
pub const TIMER_HZ: u64 = 200_000_000;

const LVT_MASKED: u32 = 1 << 16;
const LVT_PERIODIC: u32 = 1 << 17;
const SVR_ENABLED: u32 = 1 << 8;
/// Version 0x14, six LVT entries, no EOI-broadcast suppression.
const VERSION: u32 = 0x0005_0014;
const LVT_COUNT: usize = 6;
/// Bits of an LVT entry that can be written: delivery status and remote IRR cannot.
const LVT_WRITABLE: u32 = 0x000f_f7ff & !(1 << 12 | 1 << 14);
/// ESR: an IPI with a vector below 16 was sent.
const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
/// IA32_APIC_BASE: the first processor.
const BASE_BSP: u64 = 1 << 8;
/// IA32_APIC_BASE: enabled, at the usual address.
const BASE_ENABLED: u64 = 0xfee0_0800;
/// IA32_APIC_BASE: in x2APIC mode.
const BASE_X2APIC: u64 = 1 << 10;

/// Registers, as offsets from MSR 0x800.
mod register {
    pub(super) const ID: u32 = 0x02;
    pub(super) const VERSION: u32 = 0x03;
    pub(super) const TPR: u32 = 0x08;
    pub(super) const PPR: u32 = 0x0a;
    pub(super) const EOI: u32 = 0x0b;
    pub(super) const LDR: u32 = 0x0d;
    pub(super) const SVR: u32 = 0x0f;
    pub(super) const ISR: u32 = 0x10;
    pub(super) const TMR: u32 = 0x18;
    pub(super) const IRR: u32 = 0x20;
    pub(super) const ESR: u32 = 0x28;
    pub(super) const ICR: u32 = 0x30;
    /// Timer, thermal, performance, LINT0, LINT1, error.
    pub(super) const LVT: u32 = 0x32;
    pub(super) const INITIAL_COUNT: u32 = 0x38;
    pub(super) const CURRENT_COUNT: u32 = 0x39;
    pub(super) const DIVIDE: u32 = 0x3e;
    pub(super) const SELF_IPI: u32 = 0x3f;
}

/// The guest did something that raises #GP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// A set of vectors that knows its highest.
#[derive(Clone, Copy, Default)]
struct VectorSet {
    words: [u32; 8],
    highest: Option<u8>,
}

impl VectorSet {
    fn insert(&mut self, vector: u8) {
        self.words[vector as usize / 32] |= 1 << (vector % 32);
        self.highest = self.highest.max(Some(vector));
    }

    fn insert_all(&mut self, words: &[u32; 8]) {
        for (own, word) in self.words.iter_mut().zip(words) {
            *own |= word;
        }
        self.find_highest();
    }

    fn remove(&mut self, vector: u8) {
        self.words[vector as usize / 32] &= !(1 << (vector % 32));
        self.find_highest();
    }

    fn find_highest(&mut self) {
        self.highest = (0..8u8)
            .rev()
            .find(|&word| self.words[word as usize] != 0)
            .map(|word| word * 32 + 31 - self.words[word as usize].leading_zeros() as u8);
    }
}

/// The APIC timer.
#[derive(Clone, Copy)]
struct Timer {
    initial_count: u32,
    divide: u32,
    /// TSC when the count was last loaded.
    started: u64,
    /// TSC at which it expires; `u64::MAX` where it does not run.
    deadline: u64,
}

impl Timer {
    fn divisor(&self) -> u64 {
        // Bits 3, 1 and 0 choose 2, 4 … 128, and 7 chooses 1.
        match (self.divide >> 1 & 4) | (self.divide & 3) {
            7 => 1,
            power => 2 << power,
        }
    }

    fn period(&self) -> u64 {
        let ticks = self.initial_count as u128 * self.divisor() as u128 * clock::tsc_frequency() as u128;
        (ticks / TIMER_HZ as u128).clamp(1, u64::MAX as u128) as u64
    }

    fn start(&mut self, now: u64) {
        self.started = now;
        self.deadline = match self.initial_count {
            0 => u64::MAX,
            _ => now.saturating_add(self.period()),
        };
    }

    fn current_count(&self, now: u64) -> u32 {
        if self.deadline == u64::MAX || now >= self.deadline {
            return 0;
        }
        let left = (self.deadline - now) as u128 * TIMER_HZ as u128 / clock::tsc_frequency().max(1) as u128;
        (left / self.divisor() as u128).min(self.initial_count as u128) as u32
    }
}

/// The virtual local APIC.
pub struct VirtualApic {
    id: u32,
    base: u64,
    svr: u32,
    esr: u32,
    /// Errors that ESR does not show yet.
    errors: u32,
    icr: u64,
    /// LDR and the upper half of ICR as the APIC's page has them.
    pub page_ldr: u32,
    /// See [`page_ldr`](Self::page_ldr).
    pub page_icr_high: u32,
    /// Sub-class of the task priority; the class is the hardware's.
    task_priority_low: u8,
    requests: VectorSet,
    in_service: VectorSet,
    lvt: [u32; LVT_COUNT],
    timer: Timer,
}

impl VirtualApic {
    /// An APIC after INIT, in x2APIC mode or in xAPIC mode.
    pub fn new(id: u32, is_first: bool, x2apic: bool) -> Self {
        let mode = if x2apic { BASE_X2APIC } else { 0 };
        Self {
            id,
            base: BASE_ENABLED | mode | if is_first { BASE_BSP } else { 0 },
            svr: 0xff,
            esr: 0,
            errors: 0,
            icr: 0,
            page_ldr: 0,
            page_icr_high: 0,
            task_priority_low: 0,
            requests: VectorSet::default(),
            in_service: VectorSet::default(),
            lvt: [LVT_MASKED; LVT_COUNT],
            timer: Timer {
                initial_count: 0,
                divide: 0,
                started: 0,
                deadline: u64::MAX,
            },
        }
    }

    /// IA32_APIC_BASE.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Sets IA32_APIC_BASE: x2APIC mode can be entered and not left, and the page does not move.
    pub fn set_base(&mut self, value: u64) -> Result<(), Refused> {
        if value == self.base || value == self.base | BASE_X2APIC {
            self.base = value;
            return Ok(());
        }
        Err(Refused)
    }

    /// Whether it is in x2APIC mode.
    pub fn is_x2apic(&self) -> bool {
        self.base & BASE_X2APIC != 0
    }

    /// Requests an interrupt.
    pub fn request(&mut self, vector: u8) {
        self.requests.insert(vector);
    }

    /// Requests every interrupt whose bit is set.
    pub fn request_all(&mut self, vectors: &[u32; 8]) {
        self.requests.insert_all(vectors);
    }

    /// The interrupt to deliver next, if one is requested that what is in service does not hold back. The task priority
    /// is left to the caller.
    #[inline]
    pub fn candidate(&self) -> Option<u8> {
        let vector = self.requests.highest?;
        let held_back = self
            .in_service
            .highest
            .is_some_and(|served| served >> 4 >= vector >> 4);
        (!held_back && self.svr & SVR_ENABLED != 0).then_some(vector)
    }

    /// Whether any interrupt waits, delivered or not.
    #[inline]
    pub fn has_requests(&self) -> bool {
        self.requests.highest.is_some()
    }

    /// Whether nothing but `vector` is in service, and nothing waits.
    pub fn has_only_in_service(&self, vector: u8) -> bool {
        let in_service = self.in_service.words.iter().map(|word| word.count_ones());
        self.requests.highest.is_none()
            && self.in_service.highest == Some(vector)
            && in_service.sum::<u32>() == 1
    }

    /// Puts `vector` in service: it is being delivered.
    pub fn accept(&mut self, vector: u8) {
        self.requests.remove(vector);
        self.in_service.insert(vector);
    }

    /// Ends the interrupt in service, and says which it was.
    pub fn end_of_interrupt(&mut self) -> Option<u8> {
        let vector = self.in_service.highest?;
        self.in_service.remove(vector);
        Some(vector)
    }

    /// TSC at which the timer expires.
    pub fn deadline(&self) -> u64 {
        self.timer.deadline
    }

    /// Raises the timer's interrupt if it is due.
    pub fn expire(vp: &mut Vp) {
        let apic = &mut vp.apic;
        let now = tsc();
        if now < apic.timer.deadline {
            return;
        }
        let lvt = apic.lvt[0];
        if lvt & LVT_PERIODIC != 0 {
            // A period that was missed is not made up for.
            let period = apic.timer.period();
            let missed = (now - apic.timer.deadline) / period;
            let next = apic
                .timer
                .deadline
                .saturating_add(period.saturating_mul(missed + 1));
            (apic.timer.started, apic.timer.deadline) = (now, next);
        } else {
            apic.timer.deadline = u64::MAX;
        }
        if lvt & LVT_MASKED == 0 {
            apic.request(lvt as u8);
        }
    }

    /// Reads MSR `0x800 + register`. `task_priority` is the class that the hardware holds.
    pub fn read(&self, register: u32, task_priority: u8) -> Result<u64, Refused> {
        let tpr = task_priority << 4 | self.task_priority_low;
        let served = self.in_service.highest.unwrap_or(0) & 0xf0;
        Ok(match register {
            register::ID => self.id as u64,
            register::VERSION => VERSION as u64,
            register::TPR => tpr as u64,
            register::PPR => tpr.max(served) as u64,
            register::LDR => ((self.id >> 4) << 16 | 1 << (self.id & 0xf)) as u64,
            register::SVR => self.svr as u64,
            register::ISR..0x18 => self.in_service.words[(register - register::ISR) as usize] as u64,
            register::TMR..0x20 => 0,
            register::IRR..0x28 => self.requests.words[(register - register::IRR) as usize] as u64,
            register::ESR => self.esr as u64,
            register::ICR => self.icr,
            register::LVT..0x38 => self.lvt[(register - register::LVT) as usize] as u64,
            register::INITIAL_COUNT => self.timer.initial_count as u64,
            register::CURRENT_COUNT => self.timer.current_count(tsc()) as u64,
            register::DIVIDE => self.timer.divide as u64,
            _ => return Err(Refused),
        })
    }

    /// Its registers, for a parent that saves them.
    pub fn state(&self, vp: &Vp) -> InterruptControllerState {
        use crate::virtualization::VirtualProcessor;
        let lvt = |index: usize| self.lvt[index];
        InterruptControllerState {
            id: if self.is_x2apic() { self.id } else { self.id << 24 },
            version: VERSION,
            ldr: self.page_ldr,
            dfr: u32::MAX,
            spurious: self.svr,
            isr: self.in_service.words,
            tmr: vp.shared.level_words(),
            irr: self.requests.words,
            esr: self.esr,
            icr_high: (self.icr >> 32) as u32,
            icr_low: self.icr as u32,
            lvt_timer: lvt(0),
            lvt_thermal: lvt(1),
            lvt_performance: lvt(2),
            lvt_lint0: lvt(3),
            lvt_lint1: lvt(4),
            lvt_error: lvt(5),
            lvt_cmci: LVT_MASKED,
            error_status: self.errors,
            initial_count: self.timer.initial_count,
            current_count: self.timer.current_count(tsc()),
            divide_configuration: self.timer.divide,
            remote_read: u32::from(vp.hardware.task_priority()) << 4,
        }
    }

    fn write_local(&mut self, register: u32, value: u32) -> Result<(), Refused> {
        match register {
            register::SVR => self.svr = value & 0x1ff,
            // A write shows the errors since the last one (SDM 3, 11.5.3).
            register::ESR if value == 0 => self.esr = core::mem::take(&mut self.errors),
            register::LVT..0x38 => self.lvt[(register - register::LVT) as usize] = value & LVT_WRITABLE,
            register::INITIAL_COUNT => {
                self.timer.initial_count = value;
                self.timer.start(tsc());
            }
            register::DIVIDE => self.timer.divide = value & 0b1011,
            _ => return Err(Refused),
        }
        Ok(())
    }
}

impl Vp {
    /// Sets the APIC's registers to what a parent has saved. The id stays.
    pub fn set_apic_state(&mut self, state: &InterruptControllerState) -> Result<(), HvStatus> {
        let now = tsc();
        let apic = &mut self.apic;
        apic.page_ldr = state.ldr & 0xff00_0000;
        apic.svr = state.spurious & 0x1ff;
        (apic.requests, apic.in_service) = (VectorSet::default(), VectorSet::default());
        apic.requests.insert_all(&state.irr);
        apic.in_service.insert_all(&state.isr);
        (apic.esr, apic.errors) = (state.esr, state.error_status);
        apic.icr = (state.icr_high as u64) << 32 | state.icr_low as u64;
        let lvts = [
            state.lvt_timer,
            state.lvt_thermal,
            state.lvt_performance,
            state.lvt_lint0,
            state.lvt_lint1,
            state.lvt_error,
        ];
        apic.lvt = lvts.map(|lvt| lvt & LVT_WRITABLE);
        apic.timer = Timer {
            initial_count: state.initial_count,
            divide: state.divide_configuration & 0b1011,
            started: now,
            deadline: u64::MAX,
        };
        if state.current_count != 0 {
            let left = Timer {
                initial_count: state.current_count,
                ..apic.timer
            };
            apic.timer.deadline = now.saturating_add(left.period());
        }
        self.update_deadline();
        Ok(())
    }
}

/// Writes MSR `0x800 + register` of the VP's APIC.
pub fn write(vp: &mut Vp, register: u32, value: u64) -> Result<(), Refused> {
    use crate::virtualization::VirtualProcessor;
    if value >> 32 != 0 && register != register::ICR {
        return Err(Refused);
    }
    match register {
        register::TPR if value <= 0xff => {
            vp.apic.task_priority_low = value as u8 & 0xf;
            vp.hardware.set_task_priority(value as u8 >> 4);
        }
        register::EOI if value == 0 => vp.end_of_interrupt(),
        register::ICR => {
            vp.apic.icr = value & !(1 << 12);
            return send_ipi(vp, value);
        }
        register::SELF_IPI if (16..=0xff).contains(&value) => vp.apic.request(value as u8),
        register => {
            vp.apic.write_local(register, value as u32)?;
            vp.update_deadline();
        }
    }
    Ok(())
}

/// What an interrupt command does (SDM 3, 11.6.1).
fn send_ipi(vp: &mut Vp, command: u64) -> Result<(), Refused> {
    let vector = command as u8;
    let delivery = command >> 8 & 7;
    let logical = command & 1 << 11 != 0;
    let target = (command >> 32) as u32;
    if matches!(delivery, 0 | 1) && vector < 16 {
        vp.apic.errors |= SEND_ILLEGAL_VECTOR;
        return Ok(());
    }
    let own = vp.apic.id;
    let shorthand = command >> 18 & 3;
    let everybody = target == u32::MAX || shorthand >= 2;
    if !everybody && !logical {
        let id = if shorthand == 1 { own } else { target };
        if id == own && matches!(delivery, 0 | 1) {
            vp.apic.request(vector);
        } else if let Some(slot) = vp.partition.vp_by_apic_id(id) {
            deliver_ipi(&slot.shared, command);
        }
        return Ok(());
    }
    let hit = |id: u32| match shorthand {
        3 => id != own,
        2 => true,
        1 => id == own,
        _ => everybody || logical_match(target, id),
    };
    for slot in vp.partition.vps().filter(|slot| hit(slot.shared.apic_id)) {
        deliver_ipi(&slot.shared, command);
    }
    Ok(())
}

/// What an interrupt command does at one of its targets.
fn deliver_ipi(target: &VpShared, command: u64) {
    let vector = command as u8;
    match command >> 8 & 7 {
        0 | 1 => target.request_interrupt(vector),
        4 => target.request_nmi(),
        5 if command & 1 << 14 != 0 => target.request_reset(),
        // A VP that does not wait ignores it, as a processor does.
        6 => {
            target.start(startup_context(vector));
        }
        _ => {}
    }
}

/// Whether x2APIC logical destination `target` includes the APIC `id`.
pub fn logical_match(target: u32, id: u32) -> bool {
    target >> 16 == id >> 4 && target & 1 << (id & 0xf) != 0
}

/// The state in which a startup IPI leaves a processor: real mode at `page << 12`.
pub fn startup_context(page: u8) -> InitialVpContext {
    let data = SegmentRegister {
        base: 0,
        limit: 0xffff,
        selector: 0,
        attributes: 0x93,
    };
    let code = SegmentRegister {
        base: (page as u64) << 12,
        limit: 0xffff,
        selector: (page as u16) << 8,
        attributes: 0x9b,
    };
    InitialVpContext {
        rip: 0,
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        ..initialized()
    }
}

/// The registers after INIT that a startup IPI does not change.
fn initialized() -> InitialVpContext {
    use hypercall_api::processor::TableRegister;
    let table = TableRegister {
        reserved: [0; 3],
        limit: 0xffff,
        base: 0,
    };
    InitialVpContext {
        rflags: 2,
        tr: SegmentRegister {
            base: 0,
            limit: 0xffff,
            selector: 0,
            attributes: 0x8b,
        },
        ldtr: SegmentRegister {
            base: 0,
            limit: 0xffff,
            selector: 0,
            attributes: 0x82,
        },
        idtr: table,
        gdtr: table,
        cr0: 0x10,
        pat: 0x0007_0406_0007_0406,
        ..InitialVpContext::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled() -> VirtualApic {
        let mut apic = VirtualApic::new(0, true, true);
        apic.write_local(register::SVR, 0x1ff).unwrap();
        apic
    }

    #[test]
    fn the_highest_request_is_delivered_first() {
        let mut apic = enabled();
        apic.request(0x31);
        apic.request(0xed);
        assert_eq!(apic.candidate(), Some(0xed));
        apic.accept(0xed);
        assert_eq!(apic.candidate(), None);
        assert_eq!(apic.end_of_interrupt(), Some(0xed));
        assert_eq!(apic.candidate(), Some(0x31));
    }

    #[test]
    fn an_interrupt_of_the_class_in_service_waits() {
        let mut apic = enabled();
        apic.request(0x41);
        apic.accept(0x41);
        apic.request(0x4f);
        assert_eq!(apic.candidate(), None);
        apic.request(0x50);
        assert_eq!(apic.candidate(), Some(0x50));
    }

    #[test]
    fn a_disabled_apic_delivers_nothing() {
        let mut apic = VirtualApic::new(0, true, true);
        apic.request(0x41);
        assert_eq!(apic.candidate(), None);
    }

    #[test]
    fn logical_destinations_name_a_cluster_and_its_members() {
        assert!(logical_match(0x0001_0004, 0x12));
        assert!(!logical_match(0x0001_0004, 0x02));
        assert!(!logical_match(0x0001_0004, 0x13));
    }

    #[test]
    fn every_divider_value_has_its_divisor() {
        let divisor = |divide| {
            Timer {
                initial_count: 0,
                divide,
                started: 0,
                deadline: 0,
            }
            .divisor()
        };
        assert_eq!(
            [0, 1, 2, 3, 8, 9, 10, 11].map(divisor),
            [2, 4, 8, 16, 32, 64, 128, 1]
        );
    }

    #[test]
    fn registers_that_do_not_exist_are_refused() {
        let apic = enabled();
        assert_eq!(apic.read(0x0e, 0), Err(Refused));
        assert_eq!(apic.read(0x31, 0), Err(Refused));
        assert_eq!(apic.read(register::ID, 0), Ok(0));
    }
}
