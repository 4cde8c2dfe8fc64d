//! `hv info`, `root info`, `version`.

use alloc::string::{String, ToString};
use core::fmt;

use hypercall_api::operator::{HardwareSupport, SystemInfo, VIRTUALIZATION_SVM, VIRTUALIZATION_VMX};

use super::{Invocation, Outcome, iommu};
use crate::shell::output::{Report, Value};

const NANOSECONDS: u128 = 1_000_000_000;

pub(super) fn hypervisor(invocation: &Invocation<'_>) -> Outcome {
    let system = invocation.system.information()?;
    let mut report = Report::new();
    report.push_fields(
        "",
        [
            ("version", "version", Value::Text(version_of(&system))),
            (
                "virtualization",
                "virtualization",
                Value::text(virtualization(&system)),
            ),
        ],
    );
    push_processor(&mut report, &system);
    push_memory(&mut report, &system);
    report.push_fields(
        "boot",
        [
            (
                "hypervisor_ns",
                "hypervisor start took",
                since_entry(&system, system.tsc_at_root),
            ),
            (
                "shell_ns",
                "  until the shell",
                since_entry(&system, invocation.system.root().tsc_at_prompt),
            ),
        ],
    );
    report.push_fields(
        "iommu",
        [
            ("units", "IOMMU units", Value::Number(system.iommu_count.into())),
            (
                "interrupt_remapping",
                "interrupt remapping",
                has(&system, HardwareSupport::INTERRUPT_REMAPPING),
            ),
            (
                "x2apic_opt_out",
                "x2APIC opt-out",
                Value::Flag(system.dmar_flags & 2 != 0),
            ),
            (
                "reserved_regions",
                "reserved regions",
                Value::Number(system.rmrr_count.into()),
            ),
        ],
    );
    if !iommu::units(&system).is_empty() {
        report.push_table(iommu::table(&system));
    }
    Ok(report)
}

fn push_processor(report: &mut Report, system: &SystemInfo) {
    report.push_fields(
        "cpu",
        [
            (
                "vendor",
                "processor vendor",
                Value::Text(ascii(&system.cpu_vendor)),
            ),
            ("brand", "processor", Value::Text(ascii(&system.cpu_brand))),
            (
                "lps_running",
                "LPs running",
                Value::Number(system.lp_count.into()),
            ),
            (
                "lps_present",
                "LPs present",
                Value::Number(system.lp_present.into()),
            ),
            (
                "physical_address_bits",
                "physical address bits",
                Value::Number(system.physical_address_bits.into()),
            ),
            ("tsc_hz", "TSC", Value::Hertz(system.tsc_frequency)),
            ("apic_timer_hz", "APIC timer", Value::Hertz(system.apic_frequency)),
            ("features", "features", features(system)),
        ],
    );
}

fn push_memory(report: &mut Report, system: &SystemInfo) {
    report.push_fields(
        "memory",
        [
            ("total_bytes", "memory total", Value::Bytes(system.memory_total)),
            (
                "hypervisor_bytes",
                "memory hypervisor",
                Value::Bytes(system.memory_hypervisor),
            ),
            (
                "hypervisor_free_bytes",
                "  of that free",
                Value::Bytes(system.memory_hypervisor_free),
            ),
            ("root_bytes", "memory root", Value::Bytes(system.memory_root)),
        ],
    );
}

pub(super) fn root(invocation: &Invocation<'_>) -> Outcome {
    let root = invocation.system.root();
    let uptime = u64::try_from(root.uptime.as_nanos()).unwrap_or(u64::MAX);
    let mut report = Report::new();
    report.push_fields(
        "",
        [
            ("version", "version", Value::text(env!("CARGO_PKG_VERSION"))),
            ("vps", "VPs", Value::Number(invocation.system.vp_count().into())),
            ("heap_total_bytes", "heap total", Value::Bytes(root.heap_total)),
            ("heap_used_bytes", "heap used", Value::Bytes(root.heap_used)),
            ("memory_free_bytes", "memory free", Value::Bytes(root.memory_free)),
            ("pool_free_bytes", "pool free", Value::Bytes(root.pool_free)),
            ("pool_used_bytes", "pool used", Value::Bytes(root.pool_used)),
            ("tasks", "tasks", Value::Number(root.tasks)),
            ("gpadls", "GPADLs", Value::Number(root.gpadls)),
            ("uptime_ns", "uptime", Value::Nanoseconds(uptime)),
            (
                "time",
                "time",
                root.unix_time
                    .map_or(Value::None, |seconds| Value::text(Date(seconds))),
            ),
        ],
    );
    Ok(report)
}

pub(super) fn version(invocation: &Invocation<'_>) -> Outcome {
    let hypervisor = invocation.system.information().map(|system| version_of(&system));
    let mut report = Report::new();
    report.push_fields(
        "",
        [
            ("product", "product", Value::text("Partita")),
            // The hypervisor may not answer; the root's version is still worth showing.
            ("hypervisor", "hypervisor", Value::optional(hypervisor.ok())),
            ("root", "root", Value::text(env!("CARGO_PKG_VERSION"))),
        ],
    );
    Ok(report)
}

/// The processor's vendor-neutral name for what runs guests.
pub(super) fn virtualization(system: &SystemInfo) -> &'static str {
    match system.virtualization {
        VIRTUALIZATION_SVM => "AMD-V",
        VIRTUALIZATION_VMX => "Intel VT-x",
        _ => "unknown",
    }
}

fn version_of(system: &SystemInfo) -> String {
    let [major, minor, patch, _] = system.version;
    alloc::format!("{major}.{minor}.{patch}")
}

/// Zero-padded ASCII. Processors put blanks around their names.
fn ascii(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_string()
}

/// The time from the hypervisor's first instruction to the moment when the TSC was `tsc`.
fn since_entry(system: &SystemInfo, tsc: u64) -> Value {
    let ticks = tsc.saturating_sub(system.tsc_at_entry);
    let time = (u128::from(ticks) * NANOSECONDS).checked_div(system.tsc_frequency.into());
    time.and_then(|time| u64::try_from(time).ok())
        .map_or(Value::None, Value::Nanoseconds)
}

/// The names of the bits, as in the table of `hv check`.
fn features(system: &SystemInfo) -> Value {
    let bits = HardwareSupport::from_bits_truncate(system.hardware);
    Value::texts(
        bits.iter_names()
            .map(|(name, _)| name.to_lowercase().replace('_', "-")),
    )
}

fn has(system: &SystemInfo, bit: HardwareSupport) -> Value {
    Value::Flag(HardwareSupport::from_bits_truncate(system.hardware).contains(bit))
}

/// A moment in seconds since 1970, shown as ISO 8601 has it.
struct Date(u64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut days, second) = (self.0 / 86_400, self.0 % 86_400);
        let mut year = 1970;
        let leap =
            |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        while days >= 365 + u64::from(leap(year)) {
            days -= 365 + u64::from(leap(year));
            year += 1;
        }
        let lengths = [
            31,
            28 + u64::from(leap(year)),
            31,
            30,
            31,
            30,
            31,
            31,
            30,
            31,
            30,
            31,
        ];
        let mut month = 1;
        for length in lengths {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
            days + 1
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn dates_know_leap_years() {
        assert_eq!(Date(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Date(951_782_399).to_string(), "2000-02-28T23:59:59Z");
        assert_eq!(Date(951_782_400).to_string(), "2000-02-29T00:00:00Z");
        assert_eq!(Date(1_704_067_199).to_string(), "2023-12-31T23:59:59Z");
        assert_eq!(Date(1_735_603_200).to_string(), "2024-12-31T00:00:00Z");
    }
}
