//! Time: the TSC as the clock, the local APIC timer as the alarm, both calibrated against a clock of known rate.
#![allow(unsafe_code)]

use super::local_apic;
use super::registers::{TSC_DEADLINE, cpuid, tsc, write_msr};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hypercall_api::reference::ReferenceTsc;
use x86_64::instructions::port::Port;

/// Rate of the ACPI power management timer, in Hz.
const PM_TIMER_HZ: u64 = 3_579_545;
/// Rate of the PIT, in Hz.
const PIT_HZ: u64 = 1_193_182;
/// Calibration lasts 1/`CALIBRATION_FRACTION` of a second.
const CALIBRATION_FRACTION: u64 = 100;

static TSC_HZ: AtomicU64 = AtomicU64::new(0);
static APIC_HZ: AtomicU64 = AtomicU64::new(0);
/// Bits behind the point of [`TSC_SCALE`]: an uptime of years is exact to a tick.
const TSC_SCALE_BITS: u32 = 52;
/// TSC ticks in 100 ns: see [`tsc_scale`].
static TSC_SCALE: AtomicU64 = AtomicU64::new(0);
static REFERENCE_SCALE: AtomicU64 = AtomicU64::new(0);
/// APIC timer ticks for each TSC tick, as a fraction of 2³².
static APIC_PER_TSC: AtomicU64 = AtomicU64::new(0);
static USE_DEADLINE: AtomicBool = AtomicBool::new(false);

/// TSC frequency, in Hz.
pub fn tsc_frequency() -> u64 {
    TSC_HZ.load(Ordering::Relaxed)
}

/// Frequency of the local APIC timer, in Hz.
pub fn apic_frequency() -> u64 {
    APIC_HZ.load(Ordering::Relaxed)
}

/// Scale of the reference TSC page.
pub fn reference_scale() -> u64 {
    REFERENCE_SCALE.load(Ordering::Relaxed)
}

/// Reference time units (100 ns) in `ticks` of the TSC.
#[inline]
pub fn reference_units(ticks: u64) -> u64 {
    ((ticks as u128 * reference_scale() as u128) >> 64) as u64
}

/// TSC ticks in `units` of 100 ns, rounded up, or one more; saturates.
#[inline]
pub fn tsc_ticks(units: u64) -> u64 {
    let product = units as u128 * TSC_SCALE.load(Ordering::Relaxed) as u128;
    let ticks = (product + ((1 << TSC_SCALE_BITS) - 1)) >> TSC_SCALE_BITS;
    ticks.min(u64::MAX as u128) as u64
}

/// TSC ticks in 100 ns as a fraction of 2⁵², rounded up; `None` where the TSC is faster than any there is.
fn tsc_scale(tsc_hz: u64) -> Option<u64> {
    const TICKS_PER_SECOND: u128 = hypercall_api::reference::TICKS_PER_SECOND as u128;
    let scale = ((tsc_hz as u128) << TSC_SCALE_BITS).div_ceil(TICKS_PER_SECOND);
    scale.try_into().ok()
}

/// A clock of known rate that counts up and wraps at `mask`.
enum Known {
    PmTimer(u16),
    Pit,
}

impl Known {
    fn hz(&self) -> u64 {
        match self {
            Self::PmTimer(_) => PM_TIMER_HZ,
            Self::Pit => PIT_HZ,
        }
    }

    fn start(&self) {
        if let Self::Pit = self {
            // SAFETY: channel 2 of the PIT drives nothing but the speaker, which stays off (port 0x61, bit 1).
            unsafe {
                let gate: u8 = Port::new(0x61).read();
                Port::new(0x61).write(gate & !2 | 1);
                Port::new(0x43).write(0b1011_0000u8);
                Port::new(0x42).write(0xffu8);
                Port::new(0x42).write(0xffu8);
            }
        }
    }

    fn read(&self) -> u32 {
        match *self {
            // SAFETY: the port is the power management timer's, by the FADT; reading has no effect.
            Self::PmTimer(port) => unsafe { Port::<u32>::new(port).read() },
            // SAFETY: latches and reads channel 2, see `start`.
            Self::Pit => unsafe {
                Port::new(0x43).write(0b1000_0000u8);
                let low: u8 = Port::new(0x42).read();
                let high: u8 = Port::new(0x42).read();
                (0xffff - u16::from_le_bytes([low, high])) as u32
            },
        }
    }

    fn elapsed(&self, since: u32, now: u32) -> u64 {
        match self {
            Self::PmTimer(_) => (now.wrapping_sub(since) & 0x00ff_ffff) as u64,
            Self::Pit => (now.wrapping_sub(since) & 0xffff) as u64,
        }
    }
}

/// Measures the TSC and the local APIC timer, which must be enabled. `pm_timer` is the port of the ACPI power
/// management timer, where there is one. Returns whether both rates make sense.
pub fn calibrate(pm_timer: Option<u16>) -> bool {
    let known = pm_timer.map_or(Known::Pit, Known::PmTimer);
    known.start();
    let (ticks, tsc_delta, apic_delta) = measure(&known);
    let (mut tsc_hz, apic_hz) = match ticks {
        0 => return false,
        ticks => (
            scale(tsc_delta, known.hz(), ticks),
            scale(apic_delta, known.hz(), ticks),
        ),
    };
    if let Some(exact) = crystal_frequency() {
        tsc_hz = exact;
    }
    let (Some(reference_scale), Some(tsc_scale)) = (ReferenceTsc::scale_for(tsc_hz), tsc_scale(tsc_hz))
    else {
        return false;
    };
    TSC_HZ.store(tsc_hz, Ordering::Relaxed);
    APIC_HZ.store(apic_hz, Ordering::Relaxed);
    TSC_SCALE.store(tsc_scale, Ordering::Relaxed);
    REFERENCE_SCALE.store(reference_scale, Ordering::Relaxed);
    APIC_PER_TSC.store(
        (((apic_hz as u128) << 32) / tsc_hz as u128) as u64,
        Ordering::Relaxed,
    );
    USE_DEADLINE.store(local_apic::has_tsc_deadline(), Ordering::Relaxed);
    apic_hz != 0
}

fn scale(delta: u64, hz: u64, ticks: u64) -> u64 {
    (delta as u128 * hz as u128 / ticks as u128) as u64
}

/// Ticks of the known clock, of the TSC and of the APIC timer over the same time.
fn measure(known: &Known) -> (u64, u64, u64) {
    let wanted = known.hz() / CALIBRATION_FRACTION;
    local_apic::prepare_timer(0xff, false);
    local_apic::set_timer_count(u32::MAX);
    let (start, start_tsc, start_apic) = (known.read(), tsc(), local_apic::timer_count());
    // A clock that stands still must not hang the boot.
    let give_up = start_tsc.saturating_add(20_000_000_000);
    loop {
        let now = known.read();
        let (now_tsc, now_apic) = (tsc(), local_apic::timer_count());
        let ticks = known.elapsed(start, now);
        if ticks >= wanted {
            local_apic::set_timer_count(0);
            return (ticks, now_tsc - start_tsc, (start_apic - now_apic) as u64);
        }
        if now_tsc > give_up {
            return (0, 0, 0);
        }
        core::hint::spin_loop();
    }
}

/// The TSC frequency that CPUID leaf 0x15 states, where it does.
fn crystal_frequency() -> Option<u64> {
    if cpuid(0, 0).eax < 0x15 {
        return None;
    }
    let leaf = cpuid(0x15, 0);
    if leaf.eax == 0 || leaf.ebx == 0 || leaf.ecx == 0 {
        return None;
    }
    Some(leaf.ecx as u64 * leaf.ebx as u64 / leaf.eax as u64)
}

/// Prepares this processor's alarm to raise `vector`.
pub fn prepare_alarm(vector: u8) {
    local_apic::prepare_timer(vector, USE_DEADLINE.load(Ordering::Relaxed));
}

/// Sets this processor's alarm to TSC `deadline`; one that has passed rings at once, `u64::MAX` never.
pub fn set_alarm(deadline: u64) {
    if USE_DEADLINE.load(Ordering::Relaxed) {
        let value = if deadline == u64::MAX { 0 } else { deadline.max(1) };
        // SAFETY: the processor has the TSC-deadline timer, checked in `calibrate`.
        unsafe { write_msr(TSC_DEADLINE, value) }
        return;
    }
    if deadline == u64::MAX {
        local_apic::set_timer_count(0);
        return;
    }
    let delta = deadline.saturating_sub(tsc());
    let count = (delta as u128 * APIC_PER_TSC.load(Ordering::Relaxed) as u128) >> 32;
    // A far deadline rings early, and whoever waits looks at the clock and sets the alarm again.
    local_apic::set_timer_count(count.clamp(1, u32::MAX as u128) as u32);
}
