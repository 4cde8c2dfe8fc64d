//! Virtual processors: what the LP that runs one owns ([`Vp`]), and what everybody may touch ([`VpShared`]).

use super::Partition;
use super::guest_memory::{self, CodeCache};
use super::instruction;
use super::synic::Synic;
use super::virtual_apic::VirtualApic;
use crate::device_interrupt;
use crate::memory::address::Frame;
use crate::platform::clock;
use crate::platform::registers::{self, tsc};
use crate::processor::interrupts;
use crate::processor::local::Processor;
use crate::virtualization::svm::Svm;
use crate::virtualization::{Event, Exception, Exit, GuestRegisters, Paging, VirtualProcessor};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use hypercall_api::address::Gva;
use hypercall_api::counter::{COUNTERS, EXIT_BASE, TOTAL_RUN_TIME};
use hypercall_api::id::{LpIndex, VpIndex};
use hypercall_api::processor::InitialVpContext;
use spin::Mutex;

/// A VP: its shared part, and its owned part for whoever locks it. The LP that runs it holds the lock.
pub struct VpSlot {
    /// What everybody may touch.
    pub shared: &'static VpShared,
    /// What only its LP touches.
    pub owned: Mutex<Vp>,
}

/// What a VP waits for, as others see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum VpState {
    /// Never started, or reset by INIT.
    WaitForStart = 0,
    /// Runs, or would if a processor were free.
    Runnable = 1,
    /// Halted until an interrupt.
    Halted = 2,
    /// Stopped for good.
    Stopped = 3,
}

/// What everybody may touch.
pub struct VpShared {
    /// Index in its partition.
    pub index: VpIndex,
    /// Its virtual APIC id.
    pub apic_id: u32,
    /// The LP that runs it.
    pub lp: LpIndex,
    /// Interrupts requested and not yet delivered, a bit a vector.
    requests: [AtomicU32; 8],
    /// Whether any bit of `requests` may be set that the owner has not looked at.
    requested: AtomicBool,
    /// An NMI is pending.
    pub nmi: AtomicBool,
    /// The state in which it is to start.
    start: Mutex<Option<InitialVpContext>>,
    /// It is to go back to its state after INIT.
    pub reset: AtomicBool,
    state: AtomicU8,
    /// Its statistics page.
    pub statistics: Statistics,
}

impl VpShared {
    /// A VP that waits to be started.
    pub fn new(index: VpIndex, lp: LpIndex, apic_id: u32, statistics: Statistics) -> Self {
        Self {
            index,
            apic_id,
            lp,
            requests: [const { AtomicU32::new(0) }; 8],
            requested: AtomicBool::new(false),
            nmi: AtomicBool::new(false),
            start: Mutex::new(None),
            reset: AtomicBool::new(false),
            state: AtomicU8::new(VpState::WaitForStart as u8),
            statistics,
        }
    }

    /// Its state.
    pub fn state(&self) -> VpState {
        match self.state.load(Ordering::Acquire) {
            1 => VpState::Runnable,
            2 => VpState::Halted,
            3 => VpState::Stopped,
            _ => VpState::WaitForStart,
        }
    }

    /// Changes its state and makes its LP see that.
    pub fn set_state(&self, state: VpState) {
        self.state.store(state as u8, Ordering::Release);
        self.poke();
    }

    /// Halts it, as its own LP does: nobody needs to be told.
    pub fn halt(&self) {
        // Only from running: somebody may have stopped it meanwhile.
        let _ = self.state.compare_exchange(
            VpState::Runnable as u8,
            VpState::Halted as u8,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
    }

    /// Ends a halt.
    pub fn wake(&self) {
        let _ = self.state.compare_exchange(
            VpState::Halted as u8,
            VpState::Runnable as u8,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
    }

    /// Requests an interrupt.
    pub fn request_interrupt(&self, vector: u8) {
        self.requests[vector as usize / 32].fetch_or(1 << (vector % 32), Ordering::AcqRel);
        self.requested.store(true, Ordering::Release);
        self.poke();
    }

    /// Requests an NMI.
    pub fn request_nmi(&self) {
        self.nmi.store(true, Ordering::Release);
        self.poke();
    }

    /// Makes its LP look at it again.
    pub fn poke(&self) {
        if let Some(processor) = Processor::get(self.lp) {
            interrupts::poke(processor);
        }
    }

    /// Whether somebody has requested an interrupt since the last [`take_requests`](Self::take_requests).
    #[inline]
    pub fn has_requests(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Moves the requests into the VP's own APIC.
    pub fn take_requests(&self, apic: &mut VirtualApic) {
        if self.requested.swap(false, Ordering::AcqRel) {
            let taken = core::array::from_fn(|word| self.requests[word].swap(0, Ordering::AcqRel));
            apic.request_all(&taken);
        }
    }

    /// Lets a VP that waits to be started run from `context`. Returns whether it was waiting.
    pub fn start(&self, context: InitialVpContext) -> bool {
        let mut start = self.start.lock();
        if self.state() != VpState::WaitForStart || start.is_some() {
            return false;
        }
        *start = Some(context);
        drop(start);
        self.poke();
        true
    }

    /// The state in which the VP is to start, if somebody has asked for that.
    pub fn take_start(&self) -> Option<InitialVpContext> {
        self.start.lock().take()
    }
}

/// A VP's statistics page: counters that the VP's LP writes and the parent reads.
#[derive(Clone, Copy)]
pub struct Statistics {
    page: Frame,
    counters: &'static [AtomicU64; COUNTERS],
}

impl Statistics {
    /// Counters in `page`, which must be zeroed and stay the hypervisor's.
    pub fn new(page: Frame) -> Self {
        Self {
            page,
            counters: guest_memory::counters(page),
        }
    }

    /// The page.
    pub fn page(&self) -> Frame {
        self.page
    }

    /// Adds to a counter. Only the VP's own LP does, so this need not be one atomic operation.
    #[inline]
    pub fn add(&self, counter: usize, amount: u64) {
        let counter = &self.counters[counter];
        counter.store(
            counter.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    }

    /// Counts an exit by its reason.
    #[inline]
    pub fn add_exit(&self, exit: Exit) {
        self.add(EXIT_BASE + exit.counter(), 1);
    }

    /// A counter's value.
    pub fn get(&self, counter: usize) -> u64 {
        self.counters[counter].load(Ordering::Relaxed)
    }
}

/// What only the LP that runs the VP touches.
pub struct Vp {
    /// Its partition.
    pub partition: &'static Partition,
    /// Its shared part.
    pub shared: &'static VpShared,
    /// The registers that the hypervisor's own code would overwrite.
    pub registers: GuestRegisters,
    /// Everything else of its processor.
    pub hardware: Svm,
    /// Its virtual local APIC.
    pub apic: VirtualApic,
    /// Its synthetic interrupt controller and timers.
    pub synic: Synic,
    /// Where its code was found.
    code: CodeCache,
    /// HV_X64_MSR_VP_ASSIST_PAGE.
    pub assist_page: u64,
    /// The earliest of its timers' deadlines, as TSC.
    pub deadline: u64,
    /// Priority of the interrupt window that has been asked for.
    window: Option<u8>,
    /// An exception to deliver at the next entry.
    pub pending_exception: Option<Exception>,
    /// TSC up to which its run time has been counted.
    accounted: u64,
}

/// How a VP's run loop goes on after an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resume {
    /// Run the guest again.
    Guest,
    /// A physical interrupt is pending: take it first.
    AfterInterrupt,
    /// The VP does not run now; look at its state.
    Leave,
}

impl Vp {
    /// A VP in its state after INIT.
    pub fn new(partition: &'static Partition, shared: &'static VpShared, hardware: Svm) -> Self {
        Self {
            partition,
            shared,
            registers: GuestRegisters::default(),
            hardware,
            apic: VirtualApic::new(shared.apic_id, shared.index.0 == 0),
            synic: Synic::new(),
            code: CodeCache::default(),
            assist_page: 0,
            deadline: u64::MAX,
            window: None,
            pending_exception: None,
            accounted: 0,
        }
    }

    /// Does what others have asked of the VP while it did not run: reset, start.
    pub fn obey(&mut self) {
        if self.shared.reset.swap(false, Ordering::AcqRel) {
            self.shared.set_state(VpState::WaitForStart);
        }
        if self.shared.state() == VpState::WaitForStart
            && let Some(context) = self.shared.take_start()
        {
            self.start(&context);
        }
    }

    /// Puts the VP into its state after INIT, but for the registers that `context` gives, and lets it run.
    pub fn start(&mut self, context: &InitialVpContext) {
        self.hardware.set_context(context, &mut self.registers);
        self.apic = VirtualApic::new(self.shared.apic_id, self.shared.index.0 == 0);
        self.synic = self.synic.reset();
        self.pending_exception = None;
        self.update_deadline();
        self.shared.set_state(VpState::Runnable);
    }

    /// Whether the VP is to stop running: its state has changed, or a reset is wanted.
    pub fn is_called_off(&self) -> bool {
        self.shared.state() != VpState::Runnable || self.shared.reset.load(Ordering::Acquire)
    }

    /// The VP begins to run at TSC `now`.
    pub fn enter_run(&mut self, now: u64) {
        self.accounted = now;
    }

    /// Counts the VP's run time up to TSC `now`.
    #[inline]
    pub fn account(&mut self, now: u64) {
        let units = clock::reference_units(now.wrapping_sub(self.accounted));
        if units != 0 {
            self.accounted = now;
            self.shared.statistics.add(TOTAL_RUN_TIME, units);
        }
    }

    /// Sets XCR0, which the guest shares with nobody while it runs; the value has been checked.
    pub fn set_xcr0(&mut self, value: u64) {
        registers::set_guest_xcr0(value);
    }

    /// Makes the guest take `exception` instead of the instruction that exited.
    pub fn fault(&mut self, exception: Exception) -> Resume {
        self.pending_exception = Some(exception);
        Resume::Guest
    }

    /// Moves past the instruction that exited, which is `kind`. Where the hardware does not tell its length, its bytes do.
    #[inline]
    pub fn advance(&mut self, kind: instruction::Kind) {
        let rip = self.hardware.rip();
        let length = match self.hardware.instruction_length() {
            Some(length) => length as u64,
            None => self.decode_length(kind, rip),
        };
        self.set_rip(rip.wrapping_add(length));
    }

    /// Continues at `rip`, as an instruction does that has ended.
    pub fn set_rip(&mut self, rip: u64) {
        // Outside 64-bit mode the instruction pointer has 32 bits.
        let rip = if self.hardware.is_64_bit() {
            rip
        } else {
            rip & 0xffff_ffff
        };
        self.hardware.set_rip(rip);
        self.hardware.clear_shadow();
    }

    #[inline]
    fn decode_length(&mut self, kind: instruction::Kind, rip: u64) -> u64 {
        let paging = self.hardware.paging();
        if self.hardware.is_64_bit() {
            let first = self.code.first_byte(self.partition, &paging, Gva(rip));
            if first.is_some_and(|first| !instruction::is_prefix(first, true)) {
                return kind as u64;
            }
        }
        self.decode_prefixes(kind, &paging, rip)
    }

    #[cold]
    fn decode_prefixes(&mut self, kind: instruction::Kind, paging: &Paging, rip: u64) -> u64 {
        let is_64_bit = self.hardware.is_64_bit();
        let linear = if is_64_bit {
            rip
        } else {
            self.hardware.code_base().wrapping_add(rip) & 0xffff_ffff
        };
        let mut bytes = [0; instruction::LONGEST];
        let length = self.partition.fetch(paging, Gva(linear), &mut bytes);
        instruction::length(kind, &bytes[..length], is_64_bit) as u64
    }

    /// Expires what is due, takes in requested interrupts and injects what can be delivered. Runs before each entry.
    #[inline]
    pub fn prepare(&mut self) {
        if tsc() >= self.deadline {
            self.expire_timers();
        }
        if self.shared.has_requests() {
            self.shared.take_requests(&mut self.apic);
        }
        self.inject_pending();
    }

    /// Whether something would end a halt: an interrupt that can be delivered, an NMI.
    pub fn has_work(&mut self) -> bool {
        if tsc() >= self.deadline {
            self.expire_timers();
        }
        self.shared.take_requests(&mut self.apic);
        let priority = self.hardware.task_priority();
        self.shared.nmi.load(Ordering::Acquire)
            || self.apic.candidate().is_some_and(|vector| vector >> 4 > priority)
    }

    fn expire_timers(&mut self) {
        Synic::expire(self);
        VirtualApic::expire(self);
        self.update_deadline();
    }

    /// Recomputes the earliest deadline.
    pub fn update_deadline(&mut self) {
        self.deadline = self.synic.deadline().min(self.apic.deadline());
    }

    #[inline]
    fn inject_pending(&mut self) {
        if let Some(event) = self.hardware.interrupted_event() {
            self.hardware.inject(event);
            return self.ask_for_window();
        }
        if let Some(exception) = self.pending_exception.take() {
            self.hardware.inject(Event::Exception(exception));
            return self.ask_for_window();
        }
        if self.shared.nmi.swap(false, Ordering::AcqRel) {
            self.hardware.inject(Event::Nmi);
            return self.ask_for_window();
        }
        match self.apic.candidate() {
            None => self.set_window(None),
            Some(vector) if self.can_take(vector) => {
                self.apic.accept(vector);
                self.hardware.inject(Event::Interrupt(vector));
                self.ask_for_window();
            }
            Some(vector) => self.set_window(Some(vector >> 4)),
        }
    }

    fn can_take(&self, vector: u8) -> bool {
        self.hardware.can_take_interrupt() && vector >> 4 > self.hardware.task_priority()
    }

    /// Asks for an exit as soon as the guest can take the next interrupt, where one waits.
    fn ask_for_window(&mut self) {
        let priority = self.apic.candidate().map(|vector| vector >> 4);
        self.set_window(priority);
    }

    #[inline]
    fn set_window(&mut self, priority: Option<u8>) {
        if self.window != priority {
            self.window = priority;
            self.hardware.request_window(priority);
        }
    }

    /// Ends the interrupt in service, as the guest asks by an EOI.
    pub fn end_of_interrupt(&mut self) {
        if let Some(vector) = self.apic.end_of_interrupt() {
            device_interrupt::ended(self.shared.index, vector);
        }
    }
}
