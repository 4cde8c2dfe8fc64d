//! What devices have tried and were refused: the units' fault records (VT-d, 7.2 and 11.4.14), each taken, logged and kept for
//! the root. A device that goes on is silenced.

use super::Iommu;
use super::device::{self, DeviceName};
use super::registers::{Registers, offset};
use super::unit::Unit;
use crate::partition::Partition;
use crate::processor::interrupts::FAULT_VECTOR;
use crate::processor::local::Processor;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use hypercall_api::id::{LpIndex, VpIndex};
use hypercall_api::operator::{DmaFault, MAX_DMA_FAULTS, fault_reason};
use spin::Mutex;

/// Reasons from here on are of interrupts.
const FIRST_OF_INTERRUPTS: u8 = 0x20;
/// Bits of the fault status register: records were lost, there is a record.
const OVERFLOW: u32 = 1 << 0;
const PENDING: u32 = 1 << 1;
/// Interrupts that were refused before a unit reports no more by itself; records are then taken when somebody asks.
const MOST_INTERRUPT_FAULTS: u64 = 4096;

/// The last faults, the oldest first.
static LAST: Mutex<ArrayVec<DmaFault, MAX_DMA_FAULTS>> = Mutex::new(ArrayVec::new_const());
/// Faults since the start.
static TOTAL: AtomicU64 = AtomicU64::new(0);
/// Times that a unit had no room for a record.
static OVERFLOWS: AtomicU64 = AtomicU64::new(0);
/// Interrupts refused since the start.
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);

/// VP of the root that is told of faults.
pub const FAULTS_VP: VpIndex = VpIndex(0);

/// What the root knows: nothing is new, there are faults that it has not been told of, it was told and has not asked yet.
static NEWS: AtomicU8 = AtomicU8::new(NONE);
const NONE: u8 = 0;
const UNTOLD: u8 = 1;
const TOLD: u8 = 2;

/// Whether the root is to be told of faults.
pub fn has_news() -> bool {
    NEWS.load(Ordering::Acquire) == UNTOLD
}

/// Takes note that the root was told.
pub fn told() {
    let _ = NEWS.compare_exchange(UNTOLD, TOLD, Ordering::AcqRel, Ordering::Acquire);
}

/// Has the root told, once until it asks.
fn tell_root() {
    let first = NEWS.compare_exchange(NONE, UNTOLD, Ordering::AcqRel, Ordering::Acquire);
    if first.is_ok()
        && let Some(vp) = Partition::root().and_then(|root| root.vp(FAULTS_VP))
    {
        vp.shared.request_attention();
    }
}

/// A fault record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Bus, device and function.
    pub rid: u16,
    /// Why it was refused.
    pub reason: u8,
    /// Whether it was a read.
    pub is_read: bool,
    /// The page of the address; of an interrupt, the number of the entry.
    pub address: u64,
}

impl Record {
    /// A record of the two words of its register, if they hold one.
    pub fn of(low: u64, high: u64) -> Option<Self> {
        const FAULT: u64 = 1 << 63;
        const READ: u64 = 1 << 62;
        if high & FAULT == 0 {
            return None;
        }
        let reason = (high >> 32) as u8;
        Some(Self {
            rid: high as u16,
            reason,
            is_read: high & READ != 0,
            address: match reason < FIRST_OF_INTERRUPTS {
                true => low & !0xfff,
                false => low >> 48,
            },
        })
    }

    /// Whether it was an interrupt.
    pub fn is_interrupt(&self) -> bool {
        self.reason >= FIRST_OF_INTERRUPTS
    }
}

/// Has every unit report by interrupt, to the first processor.
pub fn listen(iommu: &Iommu) {
    let Some(processor) = Processor::get(LpIndex(0)) else {
        return;
    };
    let id = u64::from(processor.apic_id);
    let address = 0xfee0_0000 | (id & 0xff) << 12 | (id >> 8) << 40;
    for unit in &iommu.units {
        // What is left of firmware's time.
        take_records(unit, |_| {});
        unit.report_faults_to(address, FAULT_VECTOR.into());
    }
}

/// Takes the records of every unit: a fault interrupt, or somebody who asks.
pub fn take_all() {
    let Some(iommu) = super::get() else { return };
    for unit in &iommu.units {
        take_records(unit, |record| note(iommu, unit, record));
    }
}

/// Takes the records of a unit, each once around at most, so that a device which faults without end does not hold it up.
fn take_records<R: Registers>(unit: &Unit<R>, mut take: impl FnMut(Record)) {
    const CLEAR: u32 = 1 << 31;
    let status = unit.registers.read32(offset::FAULT_STATUS);
    if status & (OVERFLOW | PENDING) == 0 {
        return;
    }
    let count = unit.capability.fault_record_count();
    let first = u64::from(status >> 8 & 0xff);
    for index in 0..count {
        let register = unit.capability.fault_records() + (first + index) % count * 16;
        let high = unit.registers.read64(register + 8);
        let low = unit.registers.read64(register);
        let Some(record) = Record::of(low, high) else {
            break;
        };
        unit.registers.write32(register + 12, CLEAR);
        take(record);
    }
    if status & OVERFLOW != 0 {
        OVERFLOWS.fetch_add(1, Ordering::Relaxed);
        unit.registers.write32(offset::FAULT_STATUS, OVERFLOW);
    }
}

fn note<R: Registers>(iommu: &Iommu, unit: &Unit<R>, record: Record) {
    let name = DeviceName {
        segment: unit.segment,
        rid: record.rid,
    };
    let reason = fault_reason(record.reason);
    let address = record.address;
    if record.is_interrupt() {
        crate::rate_limited!(
            log::Level::Warn,
            "device {name} raised interrupt entry {address}: refused, {reason} ({:#x})",
            record.reason
        );
        note_interrupt(iommu, unit, record);
    } else {
        crate::rate_limited!(
            log::Level::Warn,
            "device {name} tried to {} {address:#x}: refused, {reason} ({:#x})",
            if record.is_read { "read" } else { "write" },
            record.reason
        );
        if device::count_fault(iommu, name) {
            log::error!(
                "device {name} is silenced after {} refused accesses: attach it again to use it",
                device::MOST_FAULTS
            );
        }
    }
    let mut last = LAST.lock();
    if last.is_full() {
        last.remove(0);
    }
    last.push(DmaFault {
        time: Partition::root().map_or(0, Partition::reference_time),
        address,
        segment: name.segment,
        rid: name.rid,
        reason: record.reason,
        is_read: record.is_read.into(),
        reserved: [0; 2],
    });
    drop(last);
    TOTAL.fetch_add(1, Ordering::Relaxed);
    tell_root();
}

/// A refused interrupt changes nothing, but each costs an interrupt here.
fn note_interrupt<R: Registers>(iommu: &Iommu, unit: &Unit<R>, record: Record) {
    if INTERRUPTS.fetch_add(1, Ordering::Relaxed) + 1 == MOST_INTERRUPT_FAULTS {
        log::error!("too many refused interrupts: the IOMMU reports faults only when it is asked now");
        unit.mask_faults(true);
    }
    let segment = iommu.segment(unit.segment);
    if let (Some(table), Ok(index)) = (
        segment.and_then(|segment| segment.interrupts.as_ref()),
        u16::try_from(record.address),
    ) && INTERRUPTS.load(Ordering::Relaxed) > MOST_INTERRUPT_FAULTS
    {
        table.silence(index);
    }
}

/// The last faults, the oldest first; how many there have been; how often records were lost.
pub fn report() -> (ArrayVec<DmaFault, MAX_DMA_FAULTS>, u64, u64) {
    // What comes from now on is news.
    NEWS.store(NONE, Ordering::Release);
    take_all();
    (
        LAST.lock().clone(),
        TOTAL.load(Ordering::Relaxed),
        OVERFLOWS.load(Ordering::Relaxed),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_as_the_specification_draws_them() {
        let read = Record::of(0x1234_5000, 1 << 63 | 1 << 62 | 6 << 32 | 0x18).unwrap();
        assert_eq!((read.rid, read.reason, read.is_read), (0x18, 6, true));
        assert_eq!((read.address, read.is_interrupt()), (0x1234_5000, false));
        let interrupt = Record::of(0x41 << 48, 1 << 63 | 0x26 << 32 | 0x0200).unwrap();
        assert_eq!((interrupt.address, interrupt.is_interrupt()), (0x41, true));
        assert_eq!(Record::of(0x1000, 6 << 32), None);
    }
}
