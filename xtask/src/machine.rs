//! A whole machine under QEMU: what it is made of, and the command line that says so.
//!
//! ```no_run
//! use xtask::{ExitKind, Machine};
//! let outcome = Machine::new().cpus(1).memory_mib(512).exec(&["hv info"]).run()?;
//! assert_eq!(outcome.status, ExitKind::Success, "{}", outcome.report());
//! # Ok::<(), anyhow::Error>(())
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::archive::ArchiveSpec;
use crate::forward::Forward;
use crate::size::MemorySize;

/// The port of the device through which the root ends a machine with a result.
pub const DEBUG_EXIT_PORT: u16 = 0xf4;

/// QEMU's arguments for counting instructions.
const COUNTING: &str = "-accel tcg,thread=single -icount shift=0,sleep=off,align=off \
                        -seed 1 -rtc base=2026-01-01,clock=vm";

/// How the hypervisor is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Firmware {
    /// QEMU's own loader, by the PVH protocol.
    #[default]
    Pvh,
    /// GRUB from a BIOS, by multiboot2.
    #[value(name = "bios")]
    GrubBios,
    /// GRUB from UEFI, by multiboot2.
    #[value(name = "uefi")]
    GrubUefi,
}

/// The machine's IOMMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Iommu {
    /// VT-d with interrupt remapping, x2APIC mode included.
    On,
    /// None.
    Off,
    /// A QEMU device with its properties, such as `intel-iommu,intremap=off`.
    Custom(String),
}

impl From<bool> for Iommu {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

impl From<&str> for Iommu {
    fn from(device: &str) -> Self {
        Self::Custom(device.to_owned())
    }
}

/// The description of a machine; [`Machine::run`] and [`Machine::spawn`] start it.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(crate) cpus: u32,
    pub(crate) memory: MemorySize,
    pub(crate) firmware: Firmware,
    pub(crate) cmdline: Vec<String>,
    pub(crate) exec: Vec<String>,
    pub(crate) archive: ArchiveSpec,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) qemu_args: Vec<OsString>,
    pub(crate) cpu: String,
    pub(crate) iommu: Iommu,
    pub(crate) icount: bool,
    pub(crate) silence_limit: Duration,
    pub(crate) forwards: Vec<Forward>,
    pub(crate) wire: Option<[PathBuf; 2]>,
    pub(crate) disk: Option<PathBuf>,
    pub(crate) second_disk: Option<PathBuf>,
    pub(crate) archive_file: Option<PathBuf>,
    pub(crate) hypervisor: Option<PathBuf>,
    pub(crate) log: Option<PathBuf>,
    pub(crate) separate_log: bool,
    pub(crate) debug_exit: bool,
    pub(crate) restarts: bool,
    pub(crate) usb_stick: bool,
    pub(crate) gdb: bool,
    pub(crate) echo: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// The default machine: two processors, 2 GiB, VT-d, an empty NVMe disk, a network card; its log on COM2.
    pub fn new() -> Self {
        Self {
            cpus: 2,
            memory: MemorySize::from_mib(2048),
            firmware: Firmware::Pvh,
            cmdline: Vec::new(),
            exec: Vec::new(),
            archive: ArchiveSpec::Default,
            files: Vec::new(),
            qemu_args: Vec::new(),
            cpu: "max".to_owned(),
            iommu: Iommu::On,
            icount: false,
            silence_limit: Duration::from_secs(300),
            forwards: Vec::new(),
            wire: None,
            disk: None,
            second_disk: None,
            archive_file: None,
            hypervisor: None,
            log: None,
            separate_log: true,
            debug_exit: true,
            restarts: false,
            usb_stick: false,
            gdb: false,
            echo: false,
        }
    }

    /// The number of processors.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// The memory in MiB.
    #[must_use]
    pub fn memory_mib(mut self, mib: u64) -> Self {
        self.memory = MemorySize::from_mib(mib);
        self
    }

    /// How the hypervisor is started.
    #[must_use]
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.firmware = firmware;
        self
    }

    /// Adds words to the hypervisor's command line.
    #[must_use]
    pub fn cmdline(mut self, words: &str) -> Self {
        self.cmdline.push(words.to_owned());
        self
    }

    /// Adds commands for the root's shell; it runs them, then ends the machine with their result.
    #[must_use]
    pub fn exec(mut self, commands: &[&str]) -> Self {
        self.exec
            .extend(commands.iter().map(|&command| command.to_owned()));
        self
    }

    /// What the machine gets as its boot archive.
    #[must_use]
    pub fn archive(mut self, archive: ArchiveSpec) -> Self {
        self.archive = archive;
        self
    }

    /// Adds a file to the boot archive.
    #[must_use]
    pub fn file(mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.into(), bytes.into()));
        self
    }

    /// Adds an argument to QEMU's command line.
    #[must_use]
    pub fn qemu_arg(mut self, argument: impl Into<OsString>) -> Self {
        self.qemu_args.push(argument.into());
        self
    }

    /// QEMU's processor model, such as `max,-svm`.
    #[must_use]
    pub fn cpu(mut self, model: &str) -> Self {
        self.cpu = model.to_owned();
        self
    }

    /// The IOMMU: `true`, `false`, or a QEMU device with its properties.
    #[must_use]
    pub fn iommu(mut self, iommu: impl Into<Iommu>) -> Self {
        self.iommu = iommu.into();
        self
    }

    /// Counts instructions: one processor whose time stamp counter is the number of instructions it has executed.
    #[must_use]
    pub fn icount(mut self, on: bool) -> Self {
        self.icount = on;
        if on {
            self.cpus = 1;
        }
        self
    }

    /// How long the machine may print nothing before it counts as hung. The host may be slow: be generous.
    #[must_use]
    pub fn silence_limit(mut self, limit: Duration) -> Self {
        self.silence_limit = limit;
        self
    }

    /// Brings what comes to a port of this host to the machine's network card.
    #[must_use]
    pub fn forward(mut self, forward: Forward) -> Self {
        self.forwards.push(forward);
        self
    }

    /// Puts the network card on a wire in place of QEMU's own network: frames, one a datagram, between two Unix sockets, of which QEMU
    /// makes the first and sends to the second. Forwards come to nothing then.
    #[must_use]
    pub fn wire(mut self, own: impl Into<PathBuf>, other: impl Into<PathBuf>) -> Self {
        self.wire = Some([own.into(), other.into()]);
        self
    }

    /// The NVMe disk's file, kept; without it the machine gets an empty disk for this run only.
    #[must_use]
    pub fn disk(mut self, path: impl Into<PathBuf>) -> Self {
        self.disk = Some(path.into());
        self
    }

    /// Adds a second NVMe disk, with the contents of this file.
    #[must_use]
    pub fn second_disk(mut self, path: impl Into<PathBuf>) -> Self {
        self.second_disk = Some(path.into());
        self
    }

    /// Keeps the boot archive in this file.
    #[must_use]
    pub fn archive_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.archive_file = Some(path.into());
        self
    }

    /// The hypervisor's ELF file; without it the one that [`crate::images::built`] builds.
    #[must_use]
    pub fn hypervisor(mut self, path: impl Into<PathBuf>) -> Self {
        self.hypervisor = Some(path.into());
        self
    }

    /// Whether the hypervisor logs to a serial line of its own (COM2), apart from the root's console. It does by default.
    #[must_use]
    pub fn separate_log(mut self, on: bool) -> Self {
        self.separate_log = on;
        self
    }

    /// Keeps the hypervisor's separate log in this file.
    #[must_use]
    pub fn log_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self.separate_log(true)
    }

    /// Whether the root is told to end the machine through the debug port. It is by default.
    #[must_use]
    pub fn debug_exit(mut self, on: bool) -> Self {
        self.debug_exit = on;
        self
    }

    /// Whether a reset starts the machine again. By default it ends it, so that nothing boots in circles unseen.
    #[must_use]
    pub fn restarts(mut self, on: bool) -> Self {
        self.restarts = on;
        self
    }

    /// Whether firmware finds the bootable image on a USB stick. By default it finds it on a CD.
    #[must_use]
    pub fn usb_stick(mut self, on: bool) -> Self {
        self.usb_stick = on;
        self
    }

    /// Waits for a debugger on port 1234 before the first instruction.
    #[must_use]
    pub fn gdb(mut self, on: bool) -> Self {
        self.gdb = on;
        self
    }

    /// Copies the serial console to stdout as it comes.
    #[must_use]
    pub fn echo(mut self, on: bool) -> Self {
        self.echo = on;
        self
    }

    /// The hypervisor's whole command line.
    pub fn full_cmdline(&self) -> String {
        let mut words = self.cmdline.clone();
        if self.debug_exit {
            words.push(format!("debug-exit={DEBUG_EXIT_PORT:#x}"));
        }
        if self.separate_log {
            words.push("log=com2".to_owned());
        }
        words.join(" ")
    }

    /// QEMU's command line, with the machine stopped before its first instruction.
    pub(crate) fn arguments(&self, files: &Files, console: Console) -> Result<Vec<OsString>> {
        if self.icount && self.cpus != 1 {
            bail!("counting instructions needs one processor, not {}", self.cpus);
        }
        let mut line = CommandLine::default();
        line.add("-nodefaults -no-user-config -S -display none -machine q35");
        if !self.restarts {
            line.add("-no-reboot");
        }
        match self.icount {
            false => line.add("-accel tcg,thread=multi"),
            true => line.add(COUNTING),
        };
        line.option("-cpu", &self.cpu);
        // The hypervisor leaves the first of TCG's processors alone where there are more (see its `platform::emulator`).
        let spare = u32::from(self.cpus > 1);
        line.option("-smp", (self.cpus + spare).to_string());
        line.option("-m", format!("{}M", self.memory.mib()));
        match &self.iommu {
            Iommu::On => line.option("-device", "intel-iommu,intremap=on,eim=on"),
            Iommu::Off => &mut line,
            Iommu::Custom(device) => line.option("-device", device),
        };
        line.option(
            "-drive",
            format!(
                "if=none,id=disk0,format=raw,discard=unmap,file={}",
                escaped(&files.disk)?
            ),
        );
        line.add("-device nvme,drive=disk0,serial=partita0");
        if let Some(disk) = &self.second_disk {
            line.option(
                "-drive",
                format!("if=none,id=disk1,format=raw,file={}", escaped(disk)?),
            );
            line.add("-device nvme,drive=disk1,serial=partita1");
        }
        let network = match &self.wire {
            None => {
                let forwards = self.forwards.iter().map(Forward::option);
                format!("user,id=net0{}", forwards.collect::<String>())
            }
            Some([own, other]) => format!(
                "dgram,id=net0,local.type=unix,local.path={},remote.type=unix,remote.path={}",
                escaped(own)?,
                escaped(other)?
            ),
        };
        line.option("-netdev", network);
        line.add("-device e1000e,netdev=net0,romfile=");
        line.option(
            "-device",
            format!("isa-debug-exit,iobase={DEBUG_EXIT_PORT:#x},iosize=4"),
        );
        match console {
            Console::Terminal => line.add("-serial mon:stdio"),
            Console::Pipes => line.add("-chardev stdio,id=com1,signal=off -serial chardev:com1"),
        };
        if self.separate_log {
            line.option("-chardev", format!("file,id=com2,path={}", escaped(&files.log)?));
            line.add("-serial chardev:com2");
        }
        line.option(
            "-qmp",
            format!("unix:{},server=on,wait=off", escaped(&files.monitor)?),
        );
        self.boot_arguments(files, &mut line)?;
        if self.gdb {
            line.add("-gdb tcp:127.0.0.1:1234");
        }
        line.words.extend(self.qemu_args.iter().cloned());
        Ok(line.words)
    }

    fn boot_arguments(&self, files: &Files, line: &mut CommandLine) -> Result<()> {
        match &files.boot {
            Boot::Pvh { hypervisor, archive } => {
                line.option("-kernel", hypervisor);
                line.option("-append", self.full_cmdline());
                if let Some(archive) = archive {
                    line.option("-initrd", archive);
                }
            }
            Boot::Cd { image, uefi } => {
                let (medium, device) = match self.usb_stick {
                    false => ("media=cdrom", "-device ide-cd,drive=boot0,bootindex=0"),
                    true => (
                        "format=raw",
                        "-device qemu-xhci -device usb-storage,drive=boot0,bootindex=0",
                    ),
                };
                line.option(
                    "-drive",
                    format!("if=none,id=boot0,{medium},readonly=on,file={}", escaped(image)?),
                );
                line.add(device);
                if let Some(firmware) = uefi {
                    line.option("-bios", firmware);
                }
            }
        }
        Ok(())
    }
}

/// Who holds the other end of the first serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Console {
    /// A person's terminal, with QEMU's own keys (Ctrl-A X).
    Terminal,
    /// This program.
    Pipes,
}

/// The files of one running machine.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) disk: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) monitor: PathBuf,
    pub(crate) boot: Boot,
}

/// What the machine boots.
#[derive(Debug)]
pub(crate) enum Boot {
    Pvh {
        hypervisor: PathBuf,
        archive: Option<PathBuf>,
    },
    Cd {
        image: PathBuf,
        uefi: Option<PathBuf>,
    },
}

#[derive(Debug, Default)]
struct CommandLine {
    words: Vec<OsString>,
}

impl CommandLine {
    /// Adds words that hold no spaces of their own.
    fn add(&mut self, words: &str) -> &mut Self {
        self.words.extend(words.split_whitespace().map(OsString::from));
        self
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.words.extend([OsString::from(name), value.into()]);
        self
    }
}

/// A path inside one of QEMU's comma-separated options: a comma is written twice.
fn escaped(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) => Ok(text.replace(',', ",,")),
        None => bail!("{} is not UTF-8", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(machine: &Machine) -> Result<String> {
        let files = Files {
            disk: "/t/a,b.img".into(),
            log: "/t/log".into(),
            monitor: "/t/monitor".into(),
            boot: Boot::Pvh {
                hypervisor: "/t/hv".into(),
                archive: Some("/t/boot.cpio".into()),
            },
        };
        let words = machine.arguments(&files, Console::Pipes)?;
        Ok(words
            .iter()
            .map(|word| word.to_str().unwrap())
            .collect::<Vec<_>>()
            .join(" "))
    }

    #[test]
    fn the_default_machine_is_the_one_that_the_readme_promises() {
        let line = arguments(&Machine::new()).unwrap();
        for part in [
            "-machine q35",
            "-accel tcg,thread=multi",
            "-cpu max",
            "-smp 3",
            "-m 2048M",
            "-device intel-iommu,intremap=on,eim=on",
            "-append debug-exit=0xf4 log=com2 ",
            "-initrd /t/boot.cpio",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn a_wire_takes_the_place_of_the_network() {
        let line = arguments(&Machine::new().wire("/t/a,b", "/t/other")).unwrap();
        let wanted =
            "-netdev dgram,id=net0,local.type=unix,local.path=/t/a,,b,remote.type=unix,remote.path=/t/other ";
        assert!(line.contains(wanted), "{wanted} in {line}");
        assert!(!line.contains("user,id=net0"), "{line}");
    }

    #[test]
    fn ports_of_the_host_are_forwarded_to_the_network_card() {
        let machine = Machine::new()
            .forward("tcp:8080:80".parse().unwrap())
            .forward("udp:5353".parse().unwrap());
        let wanted = "-netdev user,id=net0,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:127.0.0.1:5353-:5353 ";
        let line = arguments(&machine).unwrap();
        assert!(line.contains(wanted), "{line}");
    }

    #[test]
    fn a_comma_in_a_path_stays_in_the_path() {
        assert!(arguments(&Machine::new()).unwrap().contains("file=/t/a,,b.img"));
    }

    #[test]
    fn a_reset_ends_the_machine_unless_it_restarts() {
        assert!(arguments(&Machine::new()).unwrap().contains("-no-reboot "));
        assert!(
            !arguments(&Machine::new().restarts(true))
                .unwrap()
                .contains("-no-reboot")
        );
    }

    #[test]
    fn counting_instructions_takes_one_processor() {
        let line = arguments(&Machine::new().icount(true)).unwrap();
        assert!(line.contains("-icount shift=0,sleep=off,align=off") && line.contains("-smp 1"));
        assert!(arguments(&Machine::new().icount(true).cpus(2)).is_err());
    }

    #[test]
    fn the_iommu_can_be_left_out_or_replaced() {
        assert!(!arguments(&Machine::new().iommu(false)).unwrap().contains("iommu"));
        let custom = arguments(&Machine::new().iommu("intel-iommu,intremap=off")).unwrap();
        assert!(custom.contains("-device intel-iommu,intremap=off "));
    }

    #[test]
    fn the_command_line_of_the_hypervisor_is_joined_in_order() {
        let machine = Machine::new().cmdline("a b").cmdline("c=1").separate_log(false);
        assert_eq!(machine.full_cmdline(), "a b c=1 debug-exit=0xf4");
    }
}
