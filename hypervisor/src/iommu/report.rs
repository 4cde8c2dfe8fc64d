//! The state of the IOMMU, told to the root (`HvCallPartitaQueryIommu`).

use super::start::Problem;
use super::{device, domain, fault};
use core::fmt::Write;
use core::sync::atomic::Ordering;
use hypercall_api::operator::{
    DmaDevice, DmaDeviceState, IommuFlags, IommuState, MAX_DMA_DEVICES, PROBLEM_LENGTH,
};
use spin::Once;
use zerocopy::FromZeros;

static PROBLEM: Once<Problem> = Once::new();

/// Takes note of why DMA is not translated.
pub fn set_problem(problem: Problem) {
    PROBLEM.call_once(|| problem);
}

/// A sentence, cut to fit.
struct Text<'a>(&'a mut [u8], usize);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for &byte in text.as_bytes() {
            if let Some(place) = self.0.get_mut(self.1) {
                (*place, self.1) = (byte, self.1 + 1);
            }
        }
        Ok(())
    }
}

/// Composes the state.
pub fn state() -> IommuState {
    let mut state = IommuState::new_zeroed();
    if let Some(problem) = PROBLEM.get() {
        // Writing into memory cannot fail.
        let _ = write!(Text(&mut state.problem, 0), "{problem}");
        const { assert!(PROBLEM_LENGTH > 64) };
    }
    let Some(iommu) = super::get().filter(|_| PROBLEM.get().is_none()) else {
        return state;
    };
    let mut flags = IommuFlags::TRANSLATES;
    for table in iommu
        .segments
        .iter()
        .filter_map(|segment| segment.interrupts.as_ref())
    {
        flags |= IommuFlags::REMAPS_INTERRUPTS;
        if table.is_extended() {
            flags |= IommuFlags::EXTENDED_INTERRUPTS;
        }
        state.interrupts += table.all().count() as u32;
        state.interrupt_entries += 1 << table.place().1;
    }
    state.flags = flags.bits();
    state.levels = iommu.abilities.levels.unwrap_or(0).into();
    state.address_bits = iommu.abilities.address_bits;
    state.largest_page = iommu.abilities.largest.bytes();
    state.domains = domain::count();
    let units = iommu.units.iter();
    state.invalidations = units.map(|unit| unit.invalidations.load(Ordering::Relaxed)).sum();
    let (faults, total, overflows) = fault::report();
    (state.fault_count, state.fault_overflows) = (total, overflows);
    state.faults_kept = faults.len() as u32;
    for (place, fault) in state.faults.iter_mut().zip(faults) {
        *place = fault;
    }
    let devices = device::all();
    state.device_count = devices.len() as u32;
    for (place, device) in state.devices.iter_mut().zip(devices.iter().take(MAX_DMA_DEVICES)) {
        *place = DmaDevice {
            owner: device.owner,
            segment: device.name.segment,
            rid: device.name.rid,
            domain: device.domain.unwrap_or(0).into(),
            state: match (device.silenced, device.domain) {
                (true, _) => DmaDeviceState::SILENCED,
                (_, None) => DmaDeviceState::BLOCKED,
                (_, Some(_)) if device.has_reserved_memory => DmaDeviceState::RESERVED,
                (_, Some(_)) => DmaDeviceState::ATTACHED,
            },
            faults: device.faults,
        };
    }
    state
}
