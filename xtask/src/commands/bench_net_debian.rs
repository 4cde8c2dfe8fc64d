//! `cargo xtask bench net debian`: what TCP costs between two guests with Debian's kernel and its own driver.
//!
//! Their first program and its load are `tests/bench/src/linux`.
//!
//! The processors are EPYCs of the first generation, which do not have ERMS: on one that says so, as QEMU's `max` does, Linux copies and
//! zeroes by `rep movsb` and `rep stosb`, of which QEMU counts each byte as an instruction, where a processor takes 16 and more at once.
//! Debian's kernel copies each byte of a stream three times, and zeroes what it allocates for it (`CONFIG_INIT_ON_ALLOC_DEFAULT_ON`).

use anyhow::Result;

use super::bench_linux::{KERNEL_WORDS, program, until_it_does_not_hang};
use super::bench_net::{Load, Pair, measure_pair, with_commands};
use super::bench_row::Row;
use crate::guest::debian::Debian;
use crate::machine::Machine;
use crate::outcome::Outcome;

const KERNEL: &str = "kernels/linux";
const INITRD: &str = "initrds/linux";
const PROCESSORS: &str = "EPYC,+x2apic";

/// The rows, the last machine's end, and where the instructions went.
pub fn measure() -> Result<(Vec<Row>, Outcome, String)> {
    let debian = Debian::ensure()?;
    let (kernel, initrd) = (
        debian.kernel()?,
        debian.initrd_of(&program()?, &["hv_vmbus", "hv_netvsc"])?,
    );
    let run = |load: Load| {
        let talk = format!("talk {} {}", load.rounds, load.bytes);
        let machine = Machine::new()
            .icount(true)
            .cpu(PROCESSORS)
            .file(KERNEL, kernel.clone())
            .file(INITRD, initrd.clone())
            .file("vms/listens.toml", description("listen"))
            .file("vms/talks.toml", description(&talk));
        until_it_does_not_hang(&with_commands(machine, "linux: listening", "linux: done"))
    };
    measure_pair(&Pair {
        name: "Debian - Debian",
        run: &run,
        round_trip: 120_000.0,
        stream: 450.0,
    })
}

fn description(arguments: &str) -> String {
    format!(
        "processors = 1\nmemory = \"256MiB\"\nkernel = \"{KERNEL}\"\nmodules = [\"{INITRD}\"]\n\
         command_line = \"{KERNEL_WORDS} -- {arguments}\"\n\n[[network]]\nswitch = \"bench\"\n"
    )
}
