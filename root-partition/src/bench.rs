//! `hv bench`: what an exit to the hypervisor costs, in TSC ticks from before the instruction to after it; in [`device`], what
//! the IOMMU costs.
#![allow(unsafe_code)]

mod device;

use crate::hypervisor::hypercalls;
use crate::processor::instruction::{ordered_tsc, read_msr};
use crate::shell::system::{Measurement, Named};
use core::arch::x86_64::__cpuid;
use core::hint::black_box;
use hypercall_api::code::HypercallCode;
use hypercall_api::control::HypercallInput;
use hypercall_api::cpuid::LEAF_VENDOR;
use hypercall_api::msr::VP_INDEX;
use x86_64::instructions::interrupts::without_interrupts;

/// Samples of a measurement; odd, so that one of them is the median.
const ROUNDS: usize = 1001;
/// A code that no hypercall has.
const NO_SUCH_CALL: HypercallCode = HypercallCode(0x7fff);

/// One measurement.
struct Benchmark {
    about: Named,
    how: How,
}

/// How it is made.
enum How {
    /// The operation, many times, interrupts off.
    Each(fn()),
    /// By itself; `None` where it cannot be made.
    Whole(fn() -> Option<Measurement>),
    /// The same, with QEMU's edu device, which not every machine has.
    WithEdu(fn() -> Option<Measurement>),
}

static BENCHMARKS: [Benchmark; 5] = [
    Benchmark {
        about: Named {
            name: "cpuid",
            description: "CPUID of a leaf that the hypervisor answers",
        },
        how: How::Each(cpuid),
    },
    Benchmark {
        about: Named {
            name: "hypercall",
            description: "a hypercall with a code that does not exist",
        },
        how: How::Each(invalid_hypercall),
    },
    Benchmark {
        about: Named {
            name: "msr",
            description: "reading the MSR VP_INDEX",
        },
        how: How::Each(msr_read),
    },
    Benchmark {
        about: Named {
            name: "deposit",
            description: "depositing 512 pages",
        },
        how: How::Whole(device::deposit),
    },
    Benchmark {
        about: Named {
            name: "device-interrupt",
            description: "an interrupt of a device, from its register to the handler",
        },
        how: How::WithEdu(device::interrupt),
    },
];

/// The measurements that can be made.
pub fn list() -> impl Iterator<Item = Named> {
    let has_edu = device::has_edu();
    BENCHMARKS
        .iter()
        .filter(move |benchmark| has_edu || !matches!(benchmark.how, How::WithEdu(_)))
        .map(|benchmark| benchmark.about)
}

/// Makes the measurement `name` on this processor; `None` where there is no such, or the machine lacks what it needs.
pub fn run(name: &str) -> Option<Measurement> {
    let benchmark = BENCHMARKS.iter().find(|benchmark| benchmark.about.name == name)?;
    match benchmark.how {
        How::Each(operation) => Some(without_interrupts(|| measure(operation))),
        How::Whole(make) | How::WithEdu(make) => make(),
    }
}

fn cpuid() {
    black_box(__cpuid(LEAF_VENDOR));
}

fn invalid_hypercall() {
    // SAFETY: no call has this code, and a fast call has no parameters in memory.
    black_box(unsafe { hypercalls().call(HypercallInput::fast(NO_SUCH_CALL).0, 0, 0) });
}

fn msr_read() {
    black_box(read_msr(VP_INDEX));
}

fn measure(operation: fn()) -> Measurement {
    // What reading the TSC and calling costs is not the operation's.
    let overhead = sample(|| {})[0];
    let samples = sample(operation);
    Measurement {
        rounds: ROUNDS as u64,
        minimum: samples[0].saturating_sub(overhead),
        median: samples[ROUNDS / 2].saturating_sub(overhead),
    }
}

/// Durations of `operation`, sorted.
fn sample(operation: fn()) -> [u64; ROUNDS] {
    let operation = black_box(operation);
    let mut samples = [0; ROUNDS];
    for sample in &mut samples {
        let start = ordered_tsc();
        operation();
        *sample = ordered_tsc() - start;
    }
    samples.sort_unstable();
    samples
}
