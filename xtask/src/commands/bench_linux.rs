//! `cargo xtask bench linux`: what Debian's kernel costs as a guest: its start, beside the same kernel and initial RAM disk started directly
//! on the same emulated machine, and reads from a disk of memory.
//!
//! The first program and its load are `tests/bench/src/linux`. Where instructions go is told by the statistics of two guests, one of which
//! reads twice as often as the other.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::bench_reply::{number_of, reply_number};
use super::bench_row::Row;
use super::cost::{Cost, Side};
use crate::guest::debian::Debian;
use crate::machine::Machine;
use crate::outcome::{ExitKind, Outcome};
use crate::{ArchiveSpec, images, paths};

/// The guest's name.
const GUEST: &str = "linux";
/// The root's counters.
const ROOT: &str = "hv stats --json";
/// Memory of the machine that the kernel has for itself, and of the guest.
const MEMORY_MIB: u64 = 256;
/// What the kernel is told, before `--` and the first program's arguments.
pub(super) const KERNEL_WORDS: &str = "console=ttyS0 panic=-1 quiet";
/// The kernel's first line of user space.
const USER_SPACE: &str = "linux: user space at ";
/// Some kernels hang where instructions are counted; so often a machine is started that has fallen silent.
const TRIES: usize = 5;
/// How long a machine may be silent; the host may be slow.
const SILENCE: Duration = Duration::from_secs(240);

/// Most instructions of the start, as a multiple of the bare machine's; and most exits.
const START_TARGET: f64 = 1.06;
const EXITS_TARGET: f64 = 12_000.0;
/// Instructions in the unit of the sequential figure.
const GIGA: f64 = 1e9;

/// A load: what the first program is told, twice, and how often it reads.
struct Load {
    name: &'static str,
    arguments: &'static str,
    reads: u64,
    target: Option<f64>,
}

const RANDOM: [Load; 2] = [
    Load {
        name: "4 KiB random read, one",
        arguments: "random 1",
        reads: 1024,
        target: Some(60_000.0),
    },
    Load {
        name: "4 KiB random read, one of 32",
        arguments: "random 32",
        reads: 2048,
        target: Some(20_000.0),
    },
];
const SEQUENTIAL: Load = Load {
    name: "1 MiB sequential read",
    arguments: "sequential",
    reads: 64,
    // 1,260 MiB for a billion instructions.
    target: Some(GIGA / 1260.0),
};

/// What the kernel and its first file system are.
struct Linux {
    kernel: Vec<u8>,
    initrd: Vec<u8>,
}

/// The rows, and where the instructions went. Each guest has a machine of its own, which ends with it.
pub fn measure() -> Result<(Vec<Row>, String)> {
    let debian = Debian::ensure()?;
    let linux = Linux {
        kernel: debian.kernel()?,
        initrd: debian.initrd_of(&program()?, &["hv_vmbus", "hv_storvsc", "sd_mod"])?,
    };
    let bare = linux.bare_start();
    if let Err(error) = &bare {
        eprintln!("warning: the bare machine was not measured: {error:#}");
    }
    let mut rows = Vec::new();
    let mut text = String::new();
    start_rows(&linux.start()?, bare.ok().as_ref(), &mut rows, &mut text);
    for load in RANDOM.iter().chain([&SEQUENTIAL]) {
        let (ticks, cost) = linux.read(load)?;
        text.push_str(&cost.text(&format!("{}: {ticks} instructions, of which", load.name)));
        rows.push(row(load.name, ticks, "instructions", load.target));
    }
    if let Some(ticks) = rows.last().and_then(|row| row.measured) {
        text.push_str(&format!(
            "1 MiB sequential read: {:.0} MiB for 10^9 instructions (target: at least 1260)\n",
            GIGA / ticks
        ));
    }
    Ok((rows, text))
}

impl Linux {
    /// What a guest has used up, and the root meanwhile, from its start to the words `until`; and its console.
    fn run(&self, arguments: &str, until: &str) -> Result<(Cost, String)> {
        let stats = format!("vm stats {GUEST} --json");
        let console = format!("vm console {GUEST} --dump --json");
        let commands = [
            ROOT.to_owned(),
            format!("vm start {GUEST}"),
            format!("vm wait {GUEST} --text '{until}'"),
            ROOT.to_owned(),
            stats.clone(),
            console.clone(),
        ];
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let machine = Machine::new()
            .icount(true)
            .file("kernels/linux", self.kernel.clone())
            .file("initrds/linux", self.initrd.clone())
            .file(format!("vms/{GUEST}.toml"), description(arguments))
            .exec(&commands);
        let outcome = until_it_does_not_hang(&machine)?;
        if outcome.status != ExitKind::Success {
            bail!("{}", outcome.report());
        }
        let side = |command: &str, number| {
            let json = reply_number(&outcome.serial, command, number);
            json.and_then(|json| Side::read(&json))
        };
        let (Some(guest), Some(before), Some(after)) = (side(&stats, 0), side(ROOT, 0), side(ROOT, 1)) else {
            bail!("'{arguments}' left no counters: {}", outcome.report());
        };
        let console = reply_number(&outcome.serial, &console, 0).context("the guest has no console")?;
        let text = console["text"].as_str().unwrap_or_default().to_owned();
        let root = after.since(&before);
        Ok((Cost { guest, root }, text))
    }

    /// What the start costs. The guest and the hypervisor go on a little until the shell has seen the words, and asked.
    fn start(&self) -> Result<Cost> {
        self.run("stay", USER_SPACE).map(|(cost, _)| cost)
    }

    /// What the longer run of a load measured, and what each of its reads cost whom.
    fn read(&self, load: &Load) -> Result<(f64, Cost)> {
        let run = |reads: u64| self.run(&format!("{} {reads}", load.arguments), "linux: done");
        let (shorter, _) = run(load.reads)?;
        let (longer, text) = run(2 * load.reads)?;
        let ticks = number_of(&text, "linux: ", " ticks a read");
        let ticks = ticks.with_context(|| format!("{}: nothing was measured:\n{text}", load.name))?;
        Ok((ticks, longer.since(&shorter).each(load.reads as f64)))
    }
}

fn row(name: &str, measured: impl Into<Option<f64>>, unit: &str, at_most: Option<f64>) -> Row {
    Row {
        name: name.into(),
        measured: measured.into(),
        unit: unit.into(),
        at_most,
    }
}

fn start_rows(cost: &Cost, bare: Option<&BareStart>, rows: &mut Vec<Row>, text: &mut String) {
    let spent = cost.spent();
    if let Some(bare) = bare {
        text.push_str(&format!(
            "bare machine: {:.0} instructions to the first line of user space, firmware ({:.0}) and idle time ({:.0}) not counted\n",
            bare.kernel(),
            bare.firmware,
            bare.idle
        ));
    }
    let kernel = bare.map(BareStart::kernel);
    text.push_str(&cost.text(&format!(
        "guest: {spent:.0} instructions from 'vm start' to the same, of which"
    )));
    rows.push(row("start, bare machine", kernel, "instructions", None));
    rows.push(row("start, guest", spent, "instructions", None));
    rows.push(row(
        "start, guest to bare machine",
        kernel.map(|kernel| (spent / kernel * 1000.0).round() / 1000.0),
        "x",
        Some(START_TARGET),
    ));
    rows.push(row(
        "exits of the start",
        cost.guest.all_exits(),
        "exits",
        Some(EXITS_TARGET),
    ));
}

fn description(arguments: &str) -> String {
    format!(
        "processors = 1\nmemory = \"{MEMORY_MIB}MiB\"\nkernel = \"kernels/linux\"\nmodules = [\"initrds/linux\"]\n\
         command_line = \"{KERNEL_WORDS} -- {arguments}\"\n\n[[disk]]\nsource = \"ram:64MiB\"\n"
    )
}

/// The guest's first program, which is linked statically.
pub(super) fn program() -> Result<Vec<u8>> {
    let mut cargo = images::cargo();
    cargo.args([
        "rustc",
        "--release",
        "--quiet",
        "--package",
        "bench",
        "--bin",
        "linux-load",
    ]);
    let built = cargo
        .args(["--", "-C", "target-feature=+crt-static"])
        .status()
        .context("cannot start cargo")?;
    if !built.success() {
        bail!("the guest's program does not build");
    }
    let path = paths::target()?.join("release/linux-load");
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// What a kernel's start on the bare machine took, in instructions.
struct BareStart {
    /// From the machine's first instruction to the first line of user space.
    whole: f64,
    /// Up to the kernel's first.
    firmware: f64,
    /// Nothing to do; the counter goes on.
    idle: f64,
}

impl BareStart {
    const fn kernel(&self) -> f64 {
        self.whole - self.firmware - self.idle
    }
}

impl Linux {
    /// The same machine, without what the guest does not have either: an IOMMU, a card, and the HPET, which QEMU reads wrongly while
    /// it counts instructions.
    fn bare_start(&self) -> Result<BareStart> {
        let folder = TempDir::new()?;
        let run = |name: &str, kernel: &[u8]| -> Result<Outcome> {
            let path = folder.path().join(name);
            std::fs::write(&path, kernel)?;
            let machine = Machine::new()
                .icount(true)
                .memory_mib(MEMORY_MIB)
                .hypervisor(path)
                .iommu(false)
                .qemu_arg("-machine")
                .qemu_arg("hpet=off")
                .archive(ArchiveSpec::Raw(self.initrd.clone()))
                .separate_log(false)
                .debug_exit(false)
                .cmdline(&format!("{KERNEL_WORDS} -- off"));
            until_it_does_not_hang(&machine)
        };
        let firmware = run("clock", &clock(&self.kernel)?)?;
        let before = firmware.serial.lines().find_map(read_clock);
        let before =
            before.with_context(|| format!("the firmware's part is unknown:\n{}", firmware.report()))?;
        let outcome = run("kernel", &self.kernel)?;
        let whole = number_of(&outcome.serial, USER_SPACE, " ticks");
        let idle = number_of(&outcome.serial, "linux: idle for ", " s");
        let whole = whole.with_context(|| outcome.report())?;
        Ok(BareStart {
            whole,
            firmware: before,
            idle: idle.unwrap_or(0.0) * GIGA,
        })
    }
}

/// A `bzImage` of the same size whose first instructions write the time stamp counter's lower half to the first serial port, as 8
/// letters from `a` to `p`, and then end the machine: what firmware takes to start the kernel.
fn clock(kernel: &[u8]) -> Result<Vec<u8>> {
    /// Where the kernel's real-mode code begins, by a short jump over its header (Linux, "The Linux/x86 Boot Protocol").
    const ENTRY: usize = 0x200;
    #[rustfmt::skip]
    const CODE: [u8; 42] = [
        0x0f, 0x31,                         // rdtsc
        0x66, 0x89, 0xc3,                   // mov ebx, eax
        0xb9, 0x08, 0x00,                   // mov cx, 8
        0xba, 0xfd, 0x03,                   // next: mov dx, line status
        0xec,                               // wait: in al, dx
        0xa8, 0x20,                         // test al, transmitter is empty
        0x74, 0xfb,                         // jz wait
        0x66, 0xc1, 0xc3, 0x04,             // rol ebx, 4
        0x88, 0xd8,                         // mov al, bl
        0x24, 0x0f,                         // and al, 15
        0x04, 0x61,                         // add al, 'a'
        0xba, 0xf8, 0x03,                   // mov dx, data
        0xee,                               // out dx, al
        0xe2, 0xe8,                         // loop next
        0xb0, 0x0a,                         // mov al, line feed
        0xee,                               // out dx, al
        0xba, 0xf4, 0x00,                   // mov dx, debug exit
        0xee,                               // out dx, al
        0xf4,                               // hlt
        0xeb, 0xfd,                         // jmp back
    ];
    let jump = kernel.get(ENTRY..ENTRY + 2);
    let Some(&[0xeb, distance]) = jump else {
        bail!("the kernel has no real-mode entry");
    };
    let start = ENTRY + 2 + usize::from(distance);
    let mut image = kernel.to_vec();
    let place = image.get_mut(start..start + CODE.len());
    place
        .context("the kernel ends before its code")?
        .copy_from_slice(&CODE);
    Ok(image)
}

/// The number that [`clock`] writes.
fn read_clock(line: &str) -> Option<f64> {
    let line = line.trim();
    let letters = line.get(line.len().checked_sub(8)?..)?;
    let digit = |letter: char| ('a'..='p').contains(&letter).then(|| letter as u32 - 'a' as u32);
    let digits: Option<Vec<u32>> = letters.chars().map(digit).collect();
    let number = digits?.iter().fold(0_u32, |number, digit| number << 4 | digit);
    Some(number.into())
}

pub(super) fn until_it_does_not_hang(machine: &Machine) -> Result<Outcome> {
    let machine = machine.clone().silence_limit(SILENCE);
    let mut outcome = machine.run()?;
    for _ in 1..TRIES {
        if outcome.status != ExitKind::Hung {
            break;
        }
        eprintln!("a kernel hung, as some do where instructions are counted: once more");
        outcome = machine.run()?;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_stands_where_the_kernels_jump_leads() {
        let mut kernel = vec![0; 1024];
        kernel[0x200..0x202].copy_from_slice(&[0xeb, 0x6a]);
        let image = clock(&kernel).unwrap();
        assert_eq!((image.len(), &image[0x26c..0x26e]), (1024, &[0x0f, 0x31][..]));
        assert!(clock(&[0; 1024]).is_err() && clock(&kernel[..0x270]).is_err());
    }

    #[test]
    fn the_clocks_letters_are_a_number() {
        assert_eq!(read_clock("aaaabcdp"), Some(f64::from(0x123f)));
        assert_eq!(read_clock("Booting from ROM.."), None);
        assert_eq!(read_clock("short"), None);
    }

    #[test]
    fn a_guest_is_described_with_its_programs_arguments() {
        assert!(description("random 32 4096").contains("quiet -- random 32 4096\""));
    }
}
