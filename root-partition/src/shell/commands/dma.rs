//! `hv iommu`: what the IOMMU does, what is missing and what that forbids, and how devices stand. `hv iommu faults`: what they
//! tried and were refused.

use alloc::{format, string::String, vec::Vec};

use hypercall_api::operator::{
    DmaDevice, DmaDeviceState, IommuFlags, IommuState, MAX_DMA_DEVICES, MAX_DMA_FAULTS, SystemInfo,
    fault_reason,
};

use super::{Invocation, Outcome, iommu};
use crate::shell::output::{Report, Table, Value};

/// Reasons from here on are of interrupts.
const FIRST_OF_INTERRUPTS: u8 = 0x20;
/// A tick of the reference time.
const NANOSECONDS_PER_TICK: u64 = 100;

fn flag(state: &IommuState, flag: IommuFlags) -> bool {
    IommuFlags::from_bits_truncate(state.flags).contains(flag)
}

/// Why DMA is not translated, where it is not.
fn problem(state: &IommuState) -> Option<String> {
    let text = state.problem.split(|&byte| byte == 0).next().unwrap_or_default();
    match flag(state, IommuFlags::TRANSLATES) {
        true => None,
        false if text.is_empty() => Some(String::from("the hypervisor gives no reason")),
        false => Some(String::from_utf8_lossy(text).into_owned()),
    }
}

/// What is missing, and what its absence forbids.
fn missing(system: &SystemInfo, state: &IommuState) -> Vec<(String, &'static str)> {
    if let Some(problem) = problem(state) {
        return alloc::vec![(
            format!("translation of DMA: {problem}"),
            "devices can overwrite anything, and none can be assigned",
        )];
    }
    let every = |has: fn(&_) -> bool| iommu::units(system).iter().all(has);
    let lacking = [
        (
            flag(state, IommuFlags::REMAPS_INTERRUPTS),
            "interrupt remapping (DMAR flag 0, ECAP.IR)",
            "no device can be assigned: it could forge interrupts",
        ),
        (
            flag(state, IommuFlags::EXTENDED_INTERRUPTS),
            "extended interrupt mode (ECAP.EIM)",
            "device interrupts reach only LPs with an APIC id below 255",
        ),
        (
            every(iommu::queued_invalidation),
            "queued invalidation (ECAP.QI)",
            "invalidations go through registers, one by one",
        ),
        (
            every(iommu::four_levels),
            "4-level page tables (CAP.SAGAW)",
            "devices reach the first 512 GiB of a partition only",
        ),
        (
            every(iommu::snoop_control),
            "snoop control (ECAP.SC)",
            "devices may reach memory past a guest's caches",
        ),
    ];
    let lacking = lacking.into_iter().filter(|(there, _, _)| !there);
    lacking
        .map(|(_, what, forbids)| (String::from(what), forbids))
        .collect()
}

/// What keeps every device from being assigned, if anything is missing for it.
pub(super) fn forbids_assignment(system: &SystemInfo, state: &IommuState) -> Option<String> {
    let has = |wanted| flag(state, wanted);
    if has(IommuFlags::TRANSLATES) && has(IommuFlags::REMAPS_INTERRUPTS) {
        return None;
    }
    missing(system, state).into_iter().next().map(|(what, _)| what)
}

/// Why a device cannot be assigned, if firmware has reserved memory for it.
pub(super) fn is_reserved(state: &IommuState, device: &str) -> Option<String> {
    let known = (state.device_count as usize).min(MAX_DMA_DEVICES);
    let mut reserved = state.devices[..known]
        .iter()
        .filter(|device| device.state == DmaDeviceState::RESERVED)
        .map(|device| function(device.segment, device.rid));
    let name = reserved.find(|name| name.ends_with(device) && !device.is_empty())?;
    Some(format!(
        "{name} cannot be assigned: firmware has reserved memory for it (RMRR), which it may use at any time"
    ))
}

/// A PCI function as `dev list` writes it.
fn function(segment: u16, rid: u16) -> String {
    format!(
        "{segment:04x}:{:02x}:{:02x}.{}",
        rid >> 8,
        rid >> 3 & 0x1f,
        rid & 7
    )
}

fn address(segment: u16, rid: u16) -> Value {
    Value::Text(function(segment, rid))
}

const fn standing(state: DmaDeviceState) -> &'static str {
    match state {
        DmaDeviceState::BLOCKED => "blocked",
        DmaDeviceState::ATTACHED => "attached",
        DmaDeviceState::RESERVED => "attached, firmware's",
        DmaDeviceState::SILENCED => "silenced",
        _ => "unknown",
    }
}

fn devices(state: &IommuState) -> Table {
    let mut table = Table::new(
        "devices",
        &[
            ("address", "device"),
            ("state", "state"),
            ("partition", "partition"),
            ("domain", "domain"),
            ("faults", "faults"),
        ],
    );
    let known = (state.device_count as usize).min(MAX_DMA_DEVICES);
    for device in &state.devices[..known] {
        let &DmaDevice {
            owner,
            segment,
            rid,
            domain,
            state,
            faults,
        } = device;
        table.row([
            address(segment, rid),
            Value::text(standing(state)),
            Value::Hex(owner.0),
            Value::Number(domain.into()),
            Value::Number(faults.into()),
        ]);
    }
    table
}

pub(super) fn state(invocation: &Invocation<'_>) -> Outcome {
    let system = invocation.system.information()?;
    let state = invocation.system.iommu()?;
    let mut report = Report::new();
    let translates = flag(&state, IommuFlags::TRANSLATES);
    report.push_fields(
        "",
        [
            ("translates", "DMA translated", Value::Flag(translates)),
            (
                "remaps_interrupts",
                "interrupts remapped",
                Value::Flag(flag(&state, IommuFlags::REMAPS_INTERRUPTS)),
            ),
            ("levels", "page table levels", Value::Number(state.levels.into())),
            (
                "address_bits",
                "address bits",
                Value::Number(state.address_bits.into()),
            ),
            ("largest_page", "largest page", Value::Bytes(state.largest_page)),
            ("domains", "domains", Value::Number(state.domains.into())),
            (
                "interrupts",
                "interrupts in use",
                Value::Number(state.interrupts.into()),
            ),
            (
                "interrupt_entries",
                "interrupt entries",
                Value::Number(state.interrupt_entries.into()),
            ),
            (
                "invalidations",
                "invalidations",
                Value::Number(state.invalidations),
            ),
            ("faults", "faults", Value::Number(state.fault_count)),
        ],
    );
    let mut lacking = Table::new(
        "missing",
        &[("what", "missing"), ("forbids", "what that forbids")],
    );
    for (what, forbids) in missing(&system, &state) {
        lacking.row([Value::Text(what), Value::text(forbids)]);
    }
    for table in [lacking, devices(&state), iommu::table(&system)] {
        report.push_table(table);
    }
    Ok(report)
}

pub(super) fn faults(invocation: &Invocation<'_>) -> Outcome {
    let state = invocation.system.iommu()?;
    let mut table = Table::new(
        "faults",
        &[
            ("time_ns", "at"),
            ("device", "device"),
            ("access", "access"),
            ("address", "address"),
            ("code", "code"),
            ("reason", "reason"),
        ],
    );
    let kept = (state.faults_kept as usize).min(MAX_DMA_FAULTS);
    for fault in &state.faults[..kept] {
        let access = match (fault.reason >= FIRST_OF_INTERRUPTS, fault.is_read != 0) {
            (true, _) => "interrupt",
            (false, true) => "read",
            (false, false) => "write",
        };
        table.row([
            Value::Nanoseconds(fault.time.saturating_mul(NANOSECONDS_PER_TICK)),
            address(fault.segment, fault.rid),
            Value::text(access),
            Value::Hex(fault.address),
            Value::Hex(fault.reason.into()),
            Value::text(fault_reason(fault.reason)),
        ]);
    }
    let mut report = Report::table(table);
    report.push_fields(
        "",
        [
            (
                "total",
                "faults since the start",
                Value::Number(state.fault_count),
            ),
            (
                "overflows",
                "times that records were lost",
                Value::Number(state.fault_overflows),
            ),
        ],
    );
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn without_translation_the_reason_is_all_that_is_missing() {
        let mut state = IommuState::new_zeroed();
        state.problem[..8].copy_from_slice(b"no table");
        let lacking = missing(&SystemInfo::new_zeroed(), &state);
        let [(what, forbids)] = lacking.as_slice() else {
            panic!("{lacking:?}")
        };
        assert_eq!(what, "translation of DMA: no table");
        assert!(forbids.contains("none can be assigned"));
    }

    #[test]
    fn what_is_missing_names_the_bit() {
        let mut state = IommuState::new_zeroed();
        state.flags = IommuFlags::TRANSLATES.bits();
        let lacking = missing(&SystemInfo::new_zeroed(), &state);
        assert!(
            lacking
                .iter()
                .any(|(what, forbids)| what.contains("ECAP.IR") && forbids.contains("assigned"))
        );
        assert!(lacking.iter().any(|(what, _)| what.contains("ECAP.EIM")));
    }
}
