//! `cargo xtask run`: builds all images and starts the machine.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::forward::Forward;
use crate::guest::debian::Debian;
use crate::machine::{Firmware, Machine};
use crate::outcome::ExitKind;
use crate::size::MemorySize;
use crate::{images, paths, setup};

/// Options of `cargo xtask run`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Run this command in the root partition's shell, then power off; may be given several times
    #[arg(long, value_name = "COMMAND")]
    exec: Vec<String>,
    /// Number of processors [default: 2, or 1 with --icount]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    cpus: Option<u32>,
    /// Put this guest into the boot archive: `vm start` in the shell starts it
    #[arg(long, value_enum)]
    guest: Option<Guest>,
    /// Put a file of this host into the boot archive, as in vms/web.toml=web.toml; may be given several times
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file)]
    file: Vec<(String, PathBuf)>,
    /// Bring what comes to a TCP or UDP port of this host to the machine, as in tcp:8080:80; may be given several times.
    /// `net forward add` in the shell leads it on to a guest
    #[arg(long, value_name = "PROTOCOL:PORT:PORT")]
    forward: Vec<Forward>,
    /// Memory, such as 512MiB or 4GiB
    #[arg(long, default_value = "2GiB")]
    memory: MemorySize,
    /// Wait for gdb on port 1234 before the first instruction
    #[arg(long)]
    gdb: bool,
    /// Write the hypervisor's log to this file, over a serial line of its own
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Count instructions: one processor, whose time stamp counter counts the instructions that it executes
    #[arg(long)]
    icount: bool,
    /// How the hypervisor is started
    #[arg(long, value_enum, default_value_t)]
    firmware: Firmware,
    /// Add an argument to QEMU's command line; may be given several times
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    qemu_arg: Vec<OsString>,
    /// With --exec: the machine counts as hung when it prints nothing for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Add text to the hypervisor's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Start this ELF file as the hypervisor instead of the one built here
    #[arg(long, value_name = "FILE", hide = true)]
    hypervisor: Option<PathBuf>,
}

/// Guests that are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Guest {
    /// Debian's cloud kernel, that of this machine's release, and a system of Debian's packages on a disk
    Debian,
    /// The same with the newest kernel that this release offers: on Debian 12, that of its backports
    DebianNewest,
}

impl Guest {
    fn ensure(self) -> Result<Debian> {
        match self {
            Self::Debian => Debian::ensure(),
            Self::DebianNewest => Debian::ensure_newest(),
        }
    }

    /// The name of its own disk's file.
    fn disk(self) -> &'static str {
        match self {
            Self::Debian => "debian.img",
            Self::DebianNewest => "debian-newest.img",
        }
    }
}

/// Runs the machine; its exit code says whether every command succeeded.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let machine = machine(arguments)?;
    setup::qemu()?;
    let images = images::build()?;
    let machine = with_files(machine, arguments)?;
    if arguments.gdb {
        let hypervisor = arguments.hypervisor.as_ref().unwrap_or(&images.hypervisor);
        eprintln!(
            "waiting for a debugger: gdb {} -ex 'target remote localhost:1234'",
            hypervisor.display()
        );
    }
    if arguments.exec.is_empty() {
        interactive(&machine)
    } else {
        scripted(&machine)
    }
}

/// `NAME=FILE`, for the boot archive.
fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("give a name and a file, as in vms/web.toml=web.toml".to_owned()),
    }
}

/// Adds the files that were asked for; those that are named go before the guest's.
fn with_files(machine: Machine, arguments: &Arguments) -> Result<Machine> {
    let mut files = Vec::new();
    for (name, path) in &arguments.file {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        files.push((name.clone(), bytes));
    }
    let mut machine = machine;
    if let Some(guest) = arguments.guest {
        let debian = guest.ensure()?;
        machine = machine.second_disk(own_disk(&debian, guest.disk())?);
        for (name, bytes) in debian.files()? {
            if !arguments.file.iter().any(|(given, _)| *given == name) {
                files.push((name, bytes));
            }
        }
    }
    Ok(files
        .into_iter()
        .fold(machine, |machine, (name, bytes)| machine.file(name, bytes)))
}

/// The guest's own disk, which stays from run to run.
fn own_disk(debian: &Debian, name: &str) -> Result<PathBuf> {
    let disk = paths::work()?.join(name);
    if !disk.exists() {
        let image = debian.root_disk()?;
        eprintln!(
            "the guest's disk is {}; delete it to get a fresh one",
            disk.display()
        );
        fs::copy(&image, &disk).with_context(|| format!("cannot copy {}", image.display()))?;
    }
    Ok(disk)
}

fn machine(arguments: &Arguments) -> Result<Machine> {
    let cpus = match (arguments.icount, arguments.cpus) {
        (true, Some(cpus)) if cpus != 1 => {
            bail!("--icount counts the instructions of one processor; drop --cpus {cpus}")
        }
        (true, _) => 1,
        (false, cpus) => cpus.unwrap_or(2),
    };
    let exec: Vec<&str> = arguments.exec.iter().map(String::as_str).collect();
    let limit = if arguments.gdb {
        Duration::MAX
    } else {
        Duration::from_secs(arguments.timeout)
    };
    let mut machine = Machine::new()
        .icount(arguments.icount)
        .cpus(cpus)
        .memory_mib(arguments.memory.mib())
        .firmware(arguments.firmware)
        .exec(&exec)
        .gdb(arguments.gdb)
        .silence_limit(limit)
        .separate_log(false)
        .debug_exit(!exec.is_empty())
        .echo(true);
    machine = arguments
        .append
        .iter()
        .fold(machine, |machine, words| machine.cmdline(words));
    machine = arguments
        .qemu_arg
        .iter()
        .fold(machine, |machine, argument| machine.qemu_arg(argument));
    machine = arguments
        .forward
        .iter()
        .fold(machine, |machine, forward| machine.forward(*forward));
    if let Some(log) = &arguments.log {
        machine = machine.log_file(log);
    }
    if let Some(hypervisor) = &arguments.hypervisor {
        machine = machine.hypervisor(hypervisor);
    }
    Ok(machine)
}

fn interactive(machine: &Machine) -> Result<ExitCode> {
    let work = paths::work()?;
    let disk = work.join("disk.img");
    eprintln!("Ctrl-A X ends the machine; its disk is {}", disk.display());
    match machine
        .clone()
        .disk(disk)
        .archive_file(work.join("boot.cpio"))
        .restarts(true)
        .interact()?
    {
        ExitKind::Success | ExitKind::PowerOff => Ok(ExitCode::SUCCESS),
        status => bail!("{}", status.describe()),
    }
}

fn scripted(machine: &Machine) -> Result<ExitCode> {
    let outcome = machine.run()?;
    let asked = match machine.exec.last().map(|command| command.trim()) {
        Some("poweroff") => ExitKind::PowerOff,
        Some("reboot") => ExitKind::Reset,
        _ => ExitKind::Success,
    };
    if [ExitKind::Success, asked].contains(&outcome.status) {
        return Ok(ExitCode::SUCCESS);
    }
    // The console is on stdout already.
    let rest = crate::outcome::Outcome {
        serial: String::new(),
        ..outcome
    };
    bail!("{}", rest.report())
}
