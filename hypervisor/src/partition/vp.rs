//! What the LP that runs a virtual processor owns of it: its registers, its APIC, its SynIC.

use super::Partition;
use super::guest_memory::CodeCache;
use super::instruction;
use super::shared::{VpShared, VpSlot, VpState};
use super::synic::Synic;
use super::virtual_apic::{self, VirtualApic};
use crate::device_interrupt;
use crate::platform::clock;
use crate::platform::registers::tsc;
use crate::processor::extended_state::ExtendedState;
use crate::processor::local::Processor;
use crate::virtualization::svm::Svm;
use crate::virtualization::{
    AddressSpace, Event, Exception, GuestRegisters, Paging, Register, VirtualProcessor,
};
use core::sync::atomic::Ordering;
use hypercall_api::address::Gva;
use hypercall_api::counter::{HYPERVISOR_RUN_TIME, TOTAL_RUN_TIME};
use hypercall_api::id::VpIndex;
use hypercall_api::processor::InitialVpContext;

/// IA32_MTRR_DEF_TYPE as firmware leaves it: on, everything write-back.
const MTRR_DEFAULT: u64 = 0x806;
const RFLAGS_TF: u64 = 1 << 8;
const DR6_SINGLE_STEP: u64 = 1 << 14;

/// What only the LP that runs the VP touches.
pub struct Vp {
    /// Its partition.
    pub partition: &'static Partition,
    /// Where it lies, with its shared part.
    pub slot: &'static VpSlot,
    /// Its shared part.
    pub shared: &'static VpShared,
    /// The registers that the hypervisor's own code would overwrite.
    pub registers: GuestRegisters,
    /// Everything else of its processor.
    pub hardware: Svm,
    /// What the processor keeps between its exits.
    pub extended: ExtendedState,
    /// Its virtual local APIC.
    pub apic: VirtualApic,
    /// Its synthetic timers.
    pub synic: Synic,
    /// Where its code was found.
    code: CodeCache,
    /// HV_X64_MSR_VP_ASSIST_PAGE.
    pub assist_page: u64,
    /// IA32_MTRR_DEF_TYPE: kept for the guest, but memory types come from its PAT alone.
    pub mtrr_default: u64,
    /// The interrupt in service may have ended without the hypervisor having been told.
    pub(super) is_end_spared: bool,
    /// The earliest of its timers' deadlines, as TSC.
    pub deadline: u64,
    /// Priority of the interrupt window that has been asked for.
    window: Option<u8>,
    /// It waits by the guest idle MSR: an interrupt ends that even where it cannot be delivered.
    idle: bool,
    /// An exception to deliver at the next entry.
    pub pending_exception: Option<Exception>,
    /// TSC up to which its run time has been counted.
    accounted: u64,
    /// TSC ticks that it has run, those of the hypervisor for it included.
    run_ticks: u64,
    /// Of these, the hypervisor's.
    hypervisor_ticks: u64,
    /// Its address space id.
    address_space: AddressSpace,
    /// The generation of its partition's memory that its translations are of.
    generation: u64,
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
    pub fn new(
        partition: &'static Partition,
        slot: &'static VpSlot,
        hardware: Svm,
        extended: ExtendedState,
    ) -> Self {
        let shared = &slot.shared;
        Self {
            partition,
            slot,
            shared,
            registers: GuestRegisters::default(),
            hardware,
            extended,
            apic: VirtualApic::new(
                shared.apic_id,
                shared.index.0 == 0,
                partition.starts_in_x2apic_mode(),
            ),
            synic: Synic::new(),
            code: CodeCache::default(),
            assist_page: 0,
            is_end_spared: false,
            mtrr_default: MTRR_DEFAULT,
            deadline: u64::MAX,
            window: None,
            idle: false,
            pending_exception: None,
            accounted: 0,
            run_ticks: 0,
            hypervisor_ticks: 0,
            address_space: AddressSpace::default(),
            generation: 0,
        }
    }

    /// Does what others have asked of the VP while it did not run: reset, start, interrupts that end a halt.
    pub fn attend(&mut self) {
        if self.shared.reset.load(Ordering::Acquire) {
            self.reset();
            self.shared.set_state(VpState::WaitForStart);
            self.shared.reset.store(false, Ordering::Release);
        }
        match self.shared.state() {
            VpState::WaitForStart => {
                if let Some(context) = self.shared.take_start() {
                    self.start(&context);
                }
            }
            VpState::Halted if self.has_work() => {
                self.idle = false;
                self.shared.wake();
            }
            VpState::Halted | VpState::Runnable => {}
        }
        self.shared.deadline.store(self.deadline, Ordering::Relaxed);
    }

    /// Puts the VP into its state after INIT, but for the registers that `context` gives, and lets it run.
    pub fn start(&mut self, context: &InitialVpContext) {
        self.hardware.set_context(context, &mut self.registers);
        self.shared.set_state(VpState::Runnable);
    }

    /// Puts the registers into their state after INIT: what the hardware holds is not the guest's.
    pub fn forget_registers(&mut self) {
        self.hardware
            .set_context(&virtual_apic::startup_context(0), &mut self.registers);
    }

    /// What INIT does to a VP beyond its registers.
    fn reset(&mut self) {
        let mode = self.apic.is_x2apic();
        self.apic = VirtualApic::new(self.shared.apic_id, self.shared.index.0 == 0, mode);
        self.synic = Synic::new();
        self.shared.synic.reset();
        self.pending_exception = None;
        (self.is_end_spared, self.idle) = (false, false);
        self.update_deadline();
    }

    /// Puts what the VP owns of the processor into it: the VP begins to run here at TSC `now`.
    pub fn load(&mut self, processor: &Processor, now: u64) {
        processor
            .address_spaces
            .renew(processor.index.0, &mut self.address_space, &mut self.hardware);
        self.hardware
            .intercept_exceptions(self.partition.intercepts.exceptions());
        self.extended.load();
        self.accounted = now;
    }

    /// The VP goes to another processor: what this one knows of its translations may be out of date when it comes back.
    pub fn forget_processor(&mut self) {
        self.address_space = AddressSpace::default();
    }

    /// Takes what the VP owns of the processor out of it: the VP stops running here at TSC `now`.
    pub fn unload(&mut self, now: u64) {
        self.extended.save();
        self.account(now, 0);
        self.shared.deadline.store(self.deadline, Ordering::Relaxed);
    }

    /// Counts the VP's run time up to TSC `now`, of which so many ticks were the hypervisor's.
    #[inline]
    pub fn account(&mut self, now: u64, hypervisor_ticks: u64) {
        self.run_ticks = self.run_ticks.wrapping_add(now.wrapping_sub(self.accounted));
        self.hypervisor_ticks = self.hypervisor_ticks.wrapping_add(hypervisor_ticks);
        self.accounted = now;
        self.shared
            .statistics
            .set(TOTAL_RUN_TIME, clock::reference_units(self.run_ticks));
        self.shared
            .statistics
            .set(HYPERVISOR_RUN_TIME, clock::reference_units(self.hypervisor_ticks));
    }

    /// Sleeps until an interrupt is pending, whatever RFLAGS.IF says (TLFS, "Guest Idle").
    pub fn idle(&mut self) -> Resume {
        self.idle = true;
        self.sleep()
    }

    /// Sleeps, unless what would end the sleep has come already.
    pub fn sleep(&mut self) -> Resume {
        if self.has_work() {
            self.idle = false;
            return Resume::Guest;
        }
        self.shared.halt();
        Resume::Leave
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
        // Whoever single-steps gets a trap behind this instruction as behind any other (APM 2, 13.1.4).
        if self.hardware.register(Register::Rflags) & RFLAGS_TF != 0 {
            let dr6 = self.hardware.register(Register::Dr6);
            self.hardware.set_register(Register::Dr6, dr6 | DR6_SINGLE_STEP);
            self.pending_exception = Some(Exception {
                vector: Exception::DEBUG,
                error_code: None,
            });
        }
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
            self.take_requests();
        }
        self.inject_pending();
    }

    fn take_requests(&mut self) {
        if self.shared.take_requests(&mut self.apic) {
            Synic::deliver_waiting(self);
        }
    }

    /// Forgets what was translated: registers that translation depends on have changed.
    pub fn forget_translations(&mut self) {
        self.hardware.flush_tlb();
    }

    /// Forgets translations where the partition's memory has changed. Runs when this processor is already marked as one that
    /// runs a guest, so that whoever changes memory from now on waits for the exit.
    #[inline]
    pub fn follow_memory(&mut self) {
        let generation = self.partition.memory_generation();
        if self.generation != generation {
            self.generation = generation;
            self.hardware.flush_tlb();
        }
    }

    /// Whether something would end a halt: an interrupt that can be delivered, an NMI.
    fn has_work(&mut self) -> bool {
        if tsc() >= self.deadline {
            self.expire_timers();
        }
        self.take_requests();
        // Whoever waits by the guest idle MSR may do so in an interrupt handler, for an interrupt of no higher priority.
        self.shared.nmi.load(Ordering::Acquire)
            || (self.idle && self.apic.has_requests())
            || self.next_interrupt().is_some_and(|vector| self.can_take(vector))
    }

    /// The interrupt that is to be delivered next.
    #[inline]
    fn next_interrupt(&mut self) -> Option<u8> {
        if !self.apic.has_requests() {
            return None;
        }
        self.settle_end();
        self.apic.candidate()
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
        match self.next_interrupt() {
            None => self.set_window(None),
            Some(vector) if self.can_take(vector) => {
                self.apic.accept(vector);
                if self.shared.synic.is_auto_eoi(vector) {
                    self.apic.end_of_interrupt();
                } else {
                    self.spare_end(vector);
                }
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
        let priority = self.next_interrupt().map(|vector| vector >> 4);
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
        self.settle_end();
        let Some(vector) = self.apic.end_of_interrupt() else {
            return;
        };
        if self.partition.is_root() {
            device_interrupt::ended(self.shared.index, vector);
        } else if self.shared.end_level(vector)
            && let Some(root_vp) = Partition::root().and_then(|root| root.vp(VpIndex(self.shared.home.0)))
        {
            self.slot.announce(&root_vp.shared, false);
        }
    }
}
