//! One remapping unit: its commands, each with a bounded wait, and its invalidation queue (VT-d, 6.5).

use super::capability::{Capability, ExtendedCapability};
use super::queue::{Descriptor, Queue};
use super::registers::{Registers, global, offset};
use crate::memory::address::{FRAME_SIZE, Frame};
use crate::platform::clock;
use crate::platform::registers::tsc;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Mutex;

/// How long a unit may take for a command, in milliseconds; Linux gives it ten seconds, which no processor here can wait.
const PATIENCE_MS: u64 = 1_000;

/// Why a unit did not do what it was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnitError {
    /// A command was not done in time.
    #[error("it has not {0} within {PATIENCE_MS} ms")]
    TimedOut(&'static str),
    /// It refused a descriptor of the queue, or could not read it (FSTS.IQE, ITE, ICE).
    #[error("it reports a failed invalidation, fault status {0:#x}")]
    Invalidation(u32),
}

/// What an invalidation covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalidation {
    /// What is cached of every device's context.
    AllContexts,
    /// What is cached of one device's context, while it was of `domain`.
    Context {
        /// The domain.
        domain: u16,
        /// Bus, device and function.
        rid: u16,
    },
    /// Every translation.
    AllTranslations,
    /// Translations of a domain.
    Domain(u16),
    /// Translations of 2^`order` pages at `address`, a multiple of their size.
    Pages {
        /// The domain.
        domain: u16,
        /// Address of the first.
        address: u64,
        /// How many, as a power of two.
        order: u32,
    },
    /// Every interrupt remapping entry.
    AllInterrupts,
    /// One interrupt remapping entry.
    Interrupt(u16),
}

/// A remapping unit.
pub struct Unit<R> {
    /// PCI segment group.
    pub segment: u16,
    /// What it can do.
    pub capability: Capability,
    /// What more it can do.
    pub extended: ExtendedCapability,
    /// Its registers.
    pub registers: R,
    queue: Option<Mutex<Queue>>,
    /// Invalidations made.
    pub invalidations: AtomicU64,
}

impl<R: Registers> Unit<R> {
    /// The unit behind `registers`, whatever state firmware has left it in. `queue` is used where it has one.
    pub fn new(segment: u16, registers: R, queue: Queue) -> Self {
        let extended = ExtendedCapability(registers.read64(offset::EXTENDED_CAPABILITY));
        Self {
            segment,
            capability: Capability(registers.read64(offset::CAPABILITY)),
            extended,
            registers,
            queue: extended.has_queue().then(|| Mutex::new(queue)),
            invalidations: AtomicU64::new(0),
        }
    }

    /// Bytes that the registers take.
    pub fn register_bytes(&self) -> u64 {
        let faults = self.capability.fault_records() + self.capability.fault_record_count() * 16;
        faults.max(self.extended.iotlb_registers() + 16)
    }

    /// Gives the command that changes `bit`, and waits until the status shows it (VT-d, 11.4.4).
    fn command(&self, bit: u32, on: bool, what: &'static str) -> Result<(), UnitError> {
        let kept = self.registers.read32(offset::GLOBAL_STATUS) & global::KEPT & !bit;
        let command = kept | if on { bit } else { 0 };
        self.registers.write32(offset::GLOBAL_COMMAND, command);
        wait_until(what, || {
            (self.registers.read32(offset::GLOBAL_STATUS) & bit != 0) == on
        })
    }

    /// Turns off what firmware has turned on.
    pub fn reset(&self) -> Result<(), UnitError> {
        for (bit, what) in [
            (global::INTERRUPTS, "stopped remapping interrupts"),
            (global::TRANSLATION, "stopped translating"),
            (global::QUEUE, "stopped its queue"),
        ] {
            if self.registers.read32(offset::GLOBAL_STATUS) & bit != 0 {
                self.command(bit, false, what)?;
            }
        }
        Ok(())
    }

    /// Starts the queue.
    pub fn start_queue(&self) -> Result<(), UnitError> {
        let Some(queue) = &self.queue else { return Ok(()) };
        self.registers.write64(offset::QUEUE_TAIL, 0);
        self.registers
            .write64(offset::QUEUE_ADDRESS, queue.lock().frame().start().0);
        self.command(global::QUEUE, true, "started its queue")
    }

    /// Makes it use the root table in `root`.
    pub fn set_root_table(&self, root: Frame) -> Result<(), UnitError> {
        self.flush_write_buffer()?;
        self.registers.write64(offset::ROOT_TABLE, root.start().0);
        self.command(global::ROOT_TABLE, true, "taken the root table")?;
        self.invalidate(&[Invalidation::AllContexts, Invalidation::AllTranslations])
    }

    /// Starts translation; memory that firmware has had it protect is not protected any more, since the tables do that.
    pub fn start_translation(&self) -> Result<(), UnitError> {
        self.command(global::TRANSLATION, true, "started translating")?;
        const ENABLED: u32 = 1 << 31;
        const STATUS: u32 = 1 << 0;
        if self.capability.protects_memory() && self.registers.read32(offset::PROTECTED_MEMORY) & ENABLED != 0
        {
            self.registers.write32(offset::PROTECTED_MEMORY, 0);
            wait_until("freed the protected memory", || {
                self.registers.read32(offset::PROTECTED_MEMORY) & STATUS == 0
            })?;
        }
        Ok(())
    }

    /// Remaps interrupts by the table of 2^`order` entries at `table`; what is in the old format is blocked.
    pub fn start_interrupts(&self, table: Frame, order: u32, extended: bool) -> Result<(), UnitError> {
        const EXTENDED: u64 = 1 << 11;
        let mode = if extended { EXTENDED } else { 0 };
        let size = u64::from(order - 1);
        self.registers
            .write64(offset::INTERRUPT_TABLE, table.start().0 | mode | size);
        self.command(
            global::INTERRUPT_TABLE,
            true,
            "taken the interrupt remapping table",
        )?;
        self.invalidate(&[Invalidation::AllInterrupts])?;
        if self.registers.read32(offset::GLOBAL_STATUS) & global::COMPATIBILITY != 0 {
            self.command(global::COMPATIBILITY, false, "blocked the old interrupt format")?;
        }
        self.command(global::INTERRUPTS, true, "started remapping interrupts")
    }

    /// Makes changes in tables seen where they wait in a buffer (CAP.RWBF).
    pub fn flush_write_buffer(&self) -> Result<(), UnitError> {
        if !self.capability.needs_write_buffer_flush() {
            return Ok(());
        }
        let kept = self.registers.read32(offset::GLOBAL_STATUS) & global::KEPT;
        self.registers
            .write32(offset::GLOBAL_COMMAND, kept | global::WRITE_BUFFER);
        wait_until("flushed its write buffer", || {
            self.registers.read32(offset::GLOBAL_STATUS) & global::WRITE_BUFFER == 0
        })
    }

    /// Makes the unit forget. When this returns, what was taken away before is used by no device, and accesses that were
    /// under way have ended.
    pub fn invalidate(&self, what: &[Invalidation]) -> Result<(), UnitError> {
        self.flush_write_buffer()?;
        self.invalidations.fetch_add(what.len() as u64, Ordering::Relaxed);
        match &self.queue {
            Some(queue) => self.invalidate_queued(&mut queue.lock(), what),
            None => what.iter().try_for_each(|&one| self.invalidate_directly(one)),
        }
    }

    fn invalidate_queued(&self, queue: &mut Queue, what: &[Invalidation]) -> Result<(), UnitError> {
        const QUEUE_ERROR: u32 = 1 << 4;
        const ERRORS: u32 = QUEUE_ERROR | 1 << 5 | 1 << 6;
        for batch in what.chunks(Queue::BATCH) {
            for &one in batch {
                queue.push(Descriptor::new(one, self.capability));
            }
            let tail = queue.push_wait();
            self.registers.write64(offset::QUEUE_TAIL, tail);
            let mut errors = 0;
            let waited = wait_until("answered an invalidation", || {
                errors = self.registers.read32(offset::FAULT_STATUS) & ERRORS;
                queue.is_answered() || errors != 0
            });
            if errors != 0 && !queue.is_answered() {
                // The queue stands still at the descriptor; with the error cleared it would go on.
                self.registers.write32(offset::FAULT_STATUS, errors);
                return Err(UnitError::Invalidation(errors));
            }
            waited?;
        }
        Ok(())
    }

    /// By registers, for units without a queue (VT-d, 6.5.1).
    fn invalidate_directly(&self, what: Invalidation) -> Result<(), UnitError> {
        const PENDING: u64 = 1 << 63;
        let iotlb = self.extended.iotlb_registers();
        let (writes, reads) = self.capability.drains();
        let drain = u64::from(writes) << 48 | u64::from(reads) << 49;
        let (register, value) = match what {
            Invalidation::AllContexts => (offset::CONTEXT_COMMAND, 1 << 61),
            Invalidation::Context { domain, rid } => (
                offset::CONTEXT_COMMAND,
                3 << 61 | u64::from(rid) << 16 | u64::from(domain),
            ),
            Invalidation::AllTranslations => (iotlb + 8, 1 << 60 | drain),
            Invalidation::Domain(domain) => (iotlb + 8, 2 << 60 | drain | u64::from(domain) << 32),
            Invalidation::Pages {
                domain,
                address,
                order,
            } => {
                self.registers.write64(iotlb, address | u64::from(order));
                (iotlb + 8, 3 << 60 | drain | u64::from(domain) << 32)
            }
            // There is no remapping of interrupts without a queue.
            Invalidation::AllInterrupts | Invalidation::Interrupt(_) => return Ok(()),
        };
        self.registers.write64(register, PENDING | value);
        wait_until("done an invalidation", || {
            self.registers.read64(register) & PENDING == 0
        })
    }

    /// The invalidation of `pages` pages at `address`: of the pages where one invalidation can name them, of the domain
    /// otherwise.
    pub fn invalidation_of(&self, domain: u16, address: u64, pages: u64) -> Invalidation {
        let last = address.saturating_add(pages.max(1) * FRAME_SIZE - 1);
        let order = u64::BITS - ((address ^ last) / FRAME_SIZE).leading_zeros();
        match self.capability.page_selective() {
            Some(most) if order <= most => Invalidation::Pages {
                domain,
                address: address & !((FRAME_SIZE << order) - 1),
                order,
            },
            _ => Invalidation::Domain(domain),
        }
    }

    /// Lets faults raise an MSI of `address` and `data`.
    pub fn report_faults_to(&self, address: u64, data: u32) {
        self.registers.write32(offset::FAULT_DATA, data);
        self.registers.write32(offset::FAULT_ADDRESS, address as u32);
        self.registers
            .write32(offset::FAULT_UPPER_ADDRESS, (address >> 32) as u32);
        self.mask_faults(false);
    }

    /// Whether faults raise their MSI.
    pub fn mask_faults(&self, masked: bool) {
        const MASK: u32 = 1 << 31;
        self.registers
            .write32(offset::FAULT_CONTROL, if masked { MASK } else { 0 });
    }
}

/// Waits until `done`, [`PATIENCE_MS`] at most.
fn wait_until(what: &'static str, mut done: impl FnMut() -> bool) -> Result<(), UnitError> {
    if done() {
        return Ok(());
    }
    let start = tsc();
    let patience = clock::tsc_frequency().max(1_000_000) / 1_000 * PATIENCE_MS;
    while !done() {
        if tsc().wrapping_sub(start) > patience {
            return Err(UnitError::TimedOut(what));
        }
        core::hint::spin_loop();
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
