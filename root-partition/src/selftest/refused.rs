//! What the root must not do, done for real: each access must be refused, and the root must live on.
#![allow(unsafe_code)]

use super::{Outcome, Targets};
use crate::hypervisor::hypercalls;
use crate::processor::local;
use crate::processor::probe::{self, Fault};
use alloc::format;
use alloc::string::String;
use core::ops::Range;
use hypercall_api::call::Hypercalls;
use hypercall_api::code::HypercallCode;
use hypercall_api::control::{HypercallInput, HypercallResult};
use hypercall_api::operator::VIRTUALIZATION_SVM;
use hypercall_api::status::HvStatus;

/// Where processors have their local APIC.
const LOCAL_APIC: u64 = 0xfee0_0000;
/// Where the hypervisor's image is loaded.
pub(super) const HYPERVISOR_IMAGE: u64 = 0x20_0000;
/// A synthetic MSR that does not exist.
const NO_SUCH_MSR: u32 = 0x4000_00ff;

pub(super) fn hypervisor_memory(targets: &Targets) -> Outcome {
    match hypervisor_address(&targets.ram) {
        Some(address) => refused_memory("the hypervisor's memory", address),
        None => Err(String::from(
            "the memory map leaves no hole that is the hypervisor's",
        )),
    }
}

/// An address of the hypervisor: its image, where the map shows that it has kept that, or the first hole between RAM.
fn hypervisor_address(ram: &[Range<u64>]) -> Option<u64> {
    if !ram.iter().any(|range| range.contains(&HYPERVISOR_IMAGE)) {
        return Some(HYPERVISOR_IMAGE);
    }
    ram.iter().map(|range| range.end).find(|end| {
        *end > 1 << 20
            && !ram.iter().any(|range| range.contains(end))
            && ram.iter().any(|range| range.start > *end)
    })
}

pub(super) fn apic_page(_: &Targets) -> Outcome {
    refused_memory("the APIC page", LOCAL_APIC)
}

pub(super) fn io_apic_page(targets: &Targets) -> Outcome {
    match targets.io_apic {
        Some(address) => refused_memory("the IOAPIC", address),
        None => Ok(String::from("the firmware lists no IOAPIC")),
    }
}

pub(super) fn iommu(_: &Targets) -> Outcome {
    let system = hypercalls()
        .query_system()
        .map_err(|status| format!("{status}"))?;
    match system.iommu.iter().take(system.iommu_count as usize).next() {
        Some(unit) => refused_memory("the IOMMU", unit.register_base),
        None => Ok(String::from("the firmware lists no IOMMU")),
    }
}

/// Reads and writes at `address`, which must raise #GP, or read as all ones and ignore the write.
fn refused_memory(what: &str, address: u64) -> Outcome {
    let read = probe::read(address);
    let seen = match read {
        Err(fault) if is_general_protection(fault) => String::from("reading raises #GP"),
        Ok(value) if value == u64::MAX || value == 0xffff_ffff => String::from("reading gives all ones"),
        Ok(value) => return Err(format!("{what} at {address:#x} could be read: {value:#018x}")),
        Err(fault) => {
            return Err(format!(
                "reading {what} at {address:#x} raised {fault} instead of #GP"
            ));
        }
    };
    // SAFETY: reading it was refused, and a value of zero where a write should not be is what the test looks for.
    match unsafe { probe::write(address, 0) } {
        Err(fault) if is_general_protection(fault) => {
            Ok(format!("{what} at {address:#x}: {seen}, writing raises #GP"))
        }
        Err(fault) => Err(format!(
            "writing {what} at {address:#x} raised {fault} instead of #GP"
        )),
        Ok(()) if probe::read(address) == read => {
            Ok(format!("{what} at {address:#x}: {seen}, a write is ignored"))
        }
        Ok(()) => Err(format!("{what} at {address:#x} could be written")),
    }
}

fn is_general_protection(fault: Fault) -> bool {
    fault.vector == Fault::GENERAL_PROTECTION
}

pub(super) fn unknown_msr(_: &Targets) -> Outcome {
    let read = probe::read_msr(NO_SUCH_MSR);
    // SAFETY: no MSR has this number.
    let written = unsafe { probe::write_msr(NO_SUCH_MSR, 0) };
    match (read, written) {
        (Err(read), Err(written)) if is_general_protection(read) && is_general_protection(written) => {
            Ok(format!("MSR {NO_SUCH_MSR:#x}: reading and writing raise #GP"))
        }
        (read, written) => Err(format!(
            "MSR {NO_SUCH_MSR:#x} should raise #GP: reading gave {read:?}, writing {written:?}"
        )),
    }
}

pub(super) fn virtualization(_: &Targets) -> Outcome {
    let system = hypercalls()
        .query_system()
        .map_err(|status| format!("{status}"))?;
    let svm = system.virtualization == VIRTUALIZATION_SVM;
    let name = if svm { "VMRUN" } else { "VMXON" };
    // SAFETY: page 0 holds no control block and no region, so that the instruction fails even where it is let through.
    let outcome = unsafe { if svm { probe::vmrun(0) } else { probe::vmxon(0) } };
    match outcome {
        Err(fault) if matches!(fault.vector, Fault::INVALID_OPCODE | Fault::GENERAL_PROTECTION) => {
            Ok(format!("{name} raises {fault}"))
        }
        Err(fault) => Err(format!("{name} raised {fault} instead of #UD")),
        Ok(()) => Err(format!("{name} was let through")),
    }
}

pub(super) fn invalid_hypercall(_: &Targets) -> Outcome {
    let control = HypercallInput::fast(HypercallCode(0x7fff)).0;
    // SAFETY: no call has this code.
    let result = unsafe { hypercalls().call(control, 0, 0) };
    expect_status(result, HvStatus::INVALID_HYPERCALL_CODE)
}

pub(super) fn reserved_bits(_: &Targets) -> Outcome {
    let control = HypercallInput::simple(HypercallCode::GET_PARTITION_ID).0 | 1 << 27;
    // SAFETY: a call that only reads, and that must be refused.
    let result = unsafe { hypercalls().call(control, 0, 0) };
    expect_status(result, HvStatus::INVALID_HYPERCALL_INPUT)
}

pub(super) fn misaligned_input(_: &Targets) -> Outcome {
    let parameters = &local().parameters;
    let control = HypercallInput::simple(HypercallCode::PARTITA_READ_LOG).0;
    // SAFETY: a call that only reads, into this processor's own output page, and that must be refused.
    let result = unsafe { hypercalls().call(control, parameters.input() + 4, parameters.output()) };
    expect_status(result, HvStatus::INVALID_ALIGNMENT)
}

fn expect_status(result: u64, expected: HvStatus) -> Outcome {
    let status = HypercallResult(result).status();
    match status == expected {
        true => Ok(format!("the call returns {status}")),
        false => Err(format!("the call returned {status} instead of {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_hypervisor_is_at_its_image_or_in_the_first_hole() {
        assert_eq!(
            hypervisor_address(&[0..MIB / 2, MIB..2 * MIB, 16 * MIB..64 * MIB]),
            Some(2 * MIB)
        );
        assert_eq!(
            hypervisor_address(&[0..MIB / 2, MIB..48 * MIB, 50 * MIB..64 * MIB]),
            Some(48 * MIB)
        );
        assert_eq!(hypervisor_address(&[0..MIB / 2, MIB..64 * MIB]), None);
    }
}
