//! `cargo xtask bench linux`: what Debian's kernel costs as a guest: its start, beside the same kernel and initial RAM disk started directly
//! on the same emulated machine, and reads from a disk of memory.
//!
//! The first program and its load are `tests/bench/src/linux`. Where instructions go is told by the statistics of two guests, one of which
//! reads twice as often as the other.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::bench::{Row, event, number_of, reply_number};
use super::cost::{Cost, Side};
use crate::guest::debian::Debian;
use crate::machine::Machine;
use crate::outcome::{ExitKind, Outcome};
use crate::{ArchiveSpec, images, paths};

/// The root's counters.
const ROOT: &str = "hv stats --json";
/// Memory of the machine that the kernel has for itself, and of the guest.
const MEMORY_MIB: u64 = 256;
/// What the kernel is told, before `--` and the first program's arguments.
const KERNEL_WORDS: &str = "console=ttyS0 panic=-1 quiet";
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

/// The rows, and where the instructions went.
pub fn measure() -> Result<(Vec<Row>, String)> {
    let debian = Debian::ensure()?;
    let kernel = debian.kernel()?;
    let initrd = debian.initrd_of(&program()?)?;
    let bare = bare_start(&kernel, &initrd);
    if let Err(error) = &bare {
        eprintln!("warning: the bare machine was not measured: {error:#}");
    }
    let bare = bare.ok();
    let mut machine = Machine::new()
        .icount(true)
        .file("kernels/linux", kernel)
        .file("initrds/linux", initrd);
    let mut commands = Vec::new();
    let start = ("linux-start".to_owned(), "stay".to_owned(), USER_SPACE);
    let loads = RANDOM.iter().chain([&SEQUENTIAL]).flat_map(|load| {
        [load.reads, 2 * load.reads].map(|reads| {
            let arguments = format!("{} {reads}", load.arguments);
            (guest(load, reads), arguments, "linux: done")
        })
    });
    for (guest, arguments, until) in [start].into_iter().chain(loads) {
        machine = machine.file(format!("vms/{guest}.toml"), description(&arguments));
        commands.extend([
            ROOT.to_owned(),
            format!("vm start {guest}"),
            format!("vm wait {guest} --text '{until}' --json"),
            ROOT.to_owned(),
            format!("vm stats {guest} --json"),
            format!("vm log {guest} --json"),
            format!("vm console {guest} --dump --json"),
            format!("vm kill {guest}"),
        ]);
    }
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let outcome = until_it_does_not_hang(&machine.exec(&commands))?;
    if outcome.status != ExitKind::Success {
        bail!("{}", outcome.report());
    }
    let serial = &outcome.serial;
    let mut rows = Vec::new();
    let mut text = String::new();
    start_rows(serial, bare.as_ref(), &mut rows, &mut text)?;
    for (index, load) in RANDOM.iter().chain([&SEQUENTIAL]).enumerate() {
        let (ticks, cost) = read(serial, index, load)?;
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

fn row(name: &str, measured: impl Into<Option<f64>>, unit: &str, at_most: Option<f64>) -> Row {
    Row {
        name: name.into(),
        measured: measured.into(),
        unit: unit.into(),
        at_most,
    }
}

fn start_rows(serial: &str, bare: Option<&BareStart>, rows: &mut Vec<Row>, text: &mut String) -> Result<()> {
    let cost = cost(serial, 0, "linux-start")?;
    let waited = reply_number(
        serial,
        "vm wait linux-start --text 'linux: user space at ' --json",
        0,
    );
    let log = reply_number(serial, "vm log linux-start --json", 0);
    let (Some(waited), Some(log)) = (waited, log) else {
        bail!("the start of the guest left no times");
    };
    let running = waited["since_ns"].as_f64().context("the wait tells no time")?;
    let before = event(&log, "running as partition").zip(event(&log, "starting"));
    let elapsed = running
        + before
            .map(|(running, starting)| running - starting)
            .unwrap_or(0.0);
    let spent = cost.guest.own + cost.guest.hypervisor + cost.root.own + cost.root.hypervisor;
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
        "guest: {elapsed:.0} ns from 'vm start' to the same, {spent:.0} instructions by the counters, of which"
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
    Ok(())
}

fn guest(load: &Load, reads: u64) -> String {
    format!("linux-{}-{reads}", load.arguments.replace(' ', "-"))
}

fn description(arguments: &str) -> String {
    format!(
        "processors = 1\nmemory = \"{MEMORY_MIB}MiB\"\nkernel = \"kernels/linux\"\nmodules = [\"initrds/linux\"]\n\
         command_line = \"{KERNEL_WORDS} -- {arguments}\"\n\n[[disk]]\nsource = \"ram:64MiB\"\n"
    )
}

/// What the guest that was started as number `number` cost, and the root meanwhile.
fn cost(serial: &str, number: usize, guest: &str) -> Result<Cost> {
    let child = reply_number(serial, &format!("vm stats {guest} --json"), 0);
    let child = child.and_then(|json| Side::read(&json));
    let root = |number| reply_number(serial, ROOT, number).and_then(|json| Side::read(&json));
    let (Some(child), Some(before), Some(after)) = (child, root(2 * number), root(2 * number + 1)) else {
        bail!("{guest} left no counters");
    };
    let root = after.since(&before);
    Ok(Cost { guest: child, root })
}

/// What the longer run of the load `index` measured, and what each of its reads cost whom.
fn read(serial: &str, index: usize, load: &Load) -> Result<(f64, Cost)> {
    let cost = |longer: usize| cost(serial, 1 + 2 * index + longer, &guest(load, load.reads << longer));
    let console = format!("vm console {} --dump --json", guest(load, 2 * load.reads));
    let console = reply_number(serial, &console, 0).context("a guest has no console")?;
    let text = console["text"].as_str().unwrap_or_default();
    let ticks = number_of(text, "linux: ", " ticks a read");
    let ticks = ticks.with_context(|| format!("{}: nothing was measured:\n{text}", load.name))?;
    Ok((ticks, cost(1)?.since(&cost(0)?).each(load.reads as f64)))
}

/// The guest's first program, which is linked statically.
fn program() -> Result<Vec<u8>> {
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

fn bare_start(kernel: &[u8], initrd: &[u8]) -> Result<BareStart> {
    let folder = TempDir::new()?;
    let run = |name: &str, kernel: &[u8]| -> Result<Outcome> {
        let path = folder.path().join(name);
        std::fs::write(&path, kernel)?;
        let machine = Machine::new()
            .icount(true)
            .memory_mib(MEMORY_MIB)
            .hypervisor(path)
            .archive(ArchiveSpec::Raw(initrd.to_vec()))
            .separate_log(false)
            .debug_exit(false)
            .cmdline(&format!("{KERNEL_WORDS} -- off"));
        until_it_does_not_hang(&machine)
    };
    let firmware = run("clock", &clock(kernel)?)?;
    let before = firmware.serial.lines().find_map(read_clock);
    let before = before.with_context(|| format!("the firmware's part is unknown:\n{}", firmware.report()))?;
    let outcome = run("kernel", kernel)?;
    let whole = number_of(&outcome.serial, USER_SPACE, " ticks");
    let idle = number_of(&outcome.serial, "linux: idle for ", " s");
    let whole = whole.with_context(|| outcome.report())?;
    Ok(BareStart {
        whole,
        firmware: before,
        idle: idle.unwrap_or(0.0) * GIGA,
    })
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

fn until_it_does_not_hang(machine: &Machine) -> Result<Outcome> {
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
        assert_eq!(guest(&RANDOM[1], 4096), "linux-random-32-4096");
        assert!(description("random 32 4096").contains("quiet -- random 32 4096\""));
    }
}
