//! The state of a VP that stays in the processor's registers from one exit to the next and is switched only between VPs: x87,
//! SSE control and AVX state by XSAVE, debug registers, TSC_AUX.
#![allow(unsafe_code)]

use crate::memory::address::Frame;
use crate::platform::registers::{cpuid, read_msr, write_msr};
use core::arch::asm;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

const TSC_AUX: u32 = 0xc000_0103;
/// x87 state, the least that XCR0 may hold.
pub const XCR0_RESET: u64 = 1;
/// Components whose areas fit a page: x87, SSE, AVX, MPX, AVX-512, PKRU.
const XCR0_SUPPORTED: u64 = 0x2ff;
/// Offset of MXCSR in the area, and its value after reset.
const MXCSR: (usize, u32) = (24, 0x1f80);

/// What this machine has: bit 0 XSAVE, bit 1 TSC_AUX. Found out once.
static FEATURES: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0x80;
const HAS_XSAVE: u8 = 1;
const HAS_TSC_AUX: u8 = 2;

fn features() -> u8 {
    let known = FEATURES.load(Ordering::Relaxed);
    if known != UNKNOWN {
        return known;
    }
    let xsave = if cpuid(1, 0).ecx & 1 << 26 != 0 {
        HAS_XSAVE
    } else {
        0
    };
    let extended = cpuid(0x8000_0000, 0).eax >= 0x8000_0001;
    let rdtscp = if extended && cpuid(0x8000_0001, 0).edx & 1 << 27 != 0 {
        HAS_TSC_AUX
    } else {
        0
    };
    FEATURES.store(xsave | rdtscp, Ordering::Relaxed);
    xsave | rdtscp
}

/// Bits of XCR0 that a guest may set on this machine. Found out once; 0 before.
static SUPPORTED: AtomicU64 = AtomicU64::new(0);

/// Bits of XCR0 that a guest may set on this machine.
#[inline]
pub fn supported_xcr0() -> u64 {
    match SUPPORTED.load(Ordering::Relaxed) {
        0 => find_supported(),
        known => known,
    }
}

#[cold]
fn find_supported() -> u64 {
    let supported = if features() & HAS_XSAVE == 0 {
        XCR0_RESET
    } else {
        let leaf = cpuid(0xd, 0);
        ((leaf.edx as u64) << 32 | leaf.eax as u64) & XCR0_SUPPORTED
    };
    SUPPORTED.store(supported, Ordering::Relaxed);
    supported
}

/// The extended state of one VP, in a frame of its own while the VP does not run.
pub struct ExtendedState {
    area: Frame,
    /// XCR0.
    pub xcr0: u64,
    /// DR0 to DR3.
    pub debug: [u64; 4],
    /// TSC_AUX.
    pub tsc_aux: u64,
}

impl ExtendedState {
    /// The state after reset.
    ///
    /// # Safety
    /// The frame must be zeroed and belong to nobody else while this lives.
    pub unsafe fn new(area: Frame) -> Self {
        let mut state = Self {
            area,
            xcr0: XCR0_RESET,
            debug: [0; 4],
            tsc_aux: 0,
        };
        state.reset();
        state
    }

    /// The frame.
    pub fn area(&self) -> Frame {
        self.area
    }

    /// Back to the state after reset. The VP must not be loaded.
    pub fn reset(&mut self) {
        let pointer = self.area.start().0 as *mut u8;
        // SAFETY: the frame is ours.
        unsafe {
            pointer.write_bytes(0, 4096);
            pointer.add(MXCSR.0).cast::<u32>().write(MXCSR.1);
        }
        (self.xcr0, self.debug, self.tsc_aux) = (XCR0_RESET, [0; 4], 0);
    }

    /// Puts the state into the processor.
    pub fn load(&self) {
        let area = self.area.start().0;
        let [dr0, dr1, dr2, dr3] = self.debug;
        // SAFETY: the area is ours, was written by `save` or `reset`, and is as large as any supported component set; the
        // registers are the guest's, and the hypervisor itself depends on none of them.
        unsafe {
            if features() & HAS_XSAVE != 0 {
                // All components, also those that the VP has not turned on: it would find another's in them when it does.
                let all = supported_xcr0();
                set_xcr0(all);
                asm!("xrstor64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
                if self.xcr0 != all {
                    set_xcr0(self.xcr0);
                }
            } else {
                asm!("fxrstor64 [{}]", in(reg) area, options(nostack));
            }
            asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
                in(reg) dr0, in(reg) dr1, in(reg) dr2, in(reg) dr3, options(nostack));
            if features() & HAS_TSC_AUX != 0 {
                write_msr(TSC_AUX, self.tsc_aux);
            }
        }
    }

    /// Takes the state out of the processor.
    pub fn save(&mut self) {
        let area = self.area.start().0;
        let (dr0, dr1, dr2, dr3): (u64, u64, u64, u64);
        // SAFETY: as in `load`.
        unsafe {
            if features() & HAS_XSAVE != 0 {
                // What it has turned off keeps its contents.
                let all = supported_xcr0();
                if self.xcr0 != all {
                    set_xcr0(all);
                }
                asm!("xsave64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
            } else {
                asm!("fxsave64 [{}]", in(reg) area, options(nostack));
            }
            asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3",
                out(reg) dr0, out(reg) dr1, out(reg) dr2, out(reg) dr3, options(nostack));
            if features() & HAS_TSC_AUX != 0 {
                self.tsc_aux = read_msr(TSC_AUX);
            }
        }
        self.debug = [dr0, dr1, dr2, dr3];
    }

    /// Sets XCR0 of the VP that runs; the value has been checked against [`supported_xcr0`].
    pub fn set_xcr0_now(&mut self, value: u64) {
        self.xcr0 = value;
        // SAFETY: the caller has checked the value; without XSAVE there is no XSETBV that could lead here.
        unsafe { set_xcr0(value) }
    }
}

/// # Safety
/// CR4.OSXSAVE must be set, and `value` be one that the processor takes.
unsafe fn set_xcr0(value: u64) {
    // SAFETY: the caller vouches for both.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack))
    }
}
