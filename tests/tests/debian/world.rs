//! A machine whose boot archive has Debian's kernel and descriptions of guests with it.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tests::{Shell, number};
use xtask::guest::debian::{Debian, KERNEL_NAME, description, disk_description};
use xtask::{Forward, Machine};

/// How long the machine may print nothing: a boot, on a host that is busy with other things.
const SILENCE: Duration = Duration::from_secs(600);
/// Seconds that a guest may take for something. It is less than [`SILENCE`], after which the machine would be given up, and could not be
/// asked what its guests wait for.
const PATIENCE: u32 = 540;
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(500);

/// Where the boot archive has the kernel, decompressed.
pub(crate) const VMLINUX: &str = "kernels/vmlinux";

/// Ctrl-], which leaves a console.
const LEAVE: &str = "\x1d";

/// A shell with Debian guests.
pub(crate) struct World {
    shell: Shell,
    /// Lines typed into guests.
    typed: u32,
    /// Where the guest's disk is.
    _folder: TempDir,
}

impl Deref for World {
    type Target = Shell;

    fn deref(&self) -> &Shell {
        &self.shell
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Shell {
        &mut self.shell
    }
}

/// A guest: its name, its processors, and the commands that it runs in place of a login.
pub(crate) struct Guest<'a> {
    pub(crate) name: &'a str,
    pub(crate) processors: u32,
    pub(crate) commands: &'a str,
    /// More of its description.
    pub(crate) more: &'a str,
    /// Ports of this host that lead to the machine.
    pub(crate) forwards: &'a [Forward],
    /// Its system is on a disk of its own.
    pub(crate) on_disk: bool,
    /// The kernel's file in the boot archive.
    pub(crate) kernel: &'a str,
    /// The kernel prints its log while it boots, which takes most of the time. Others keep it to themselves: `dmesg` tells it, or
    /// [`World::ensure_no_complaints_in`].
    pub(crate) prints: bool,
    /// It has `ethtool`, and this script as `/script`.
    pub(crate) script: Option<&'a str>,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(name: &'a str, processors: u32, commands: &'a str) -> Self {
        Self {
            name,
            processors,
            commands,
            more: "",
            forwards: &[],
            on_disk: false,
            kernel: KERNEL_NAME,
            prints: false,
            script: None,
        }
    }

    /// A guest whose system is on a disk of its own; only one of a machine can be.
    pub(crate) fn on_disk(name: &'a str, processors: u32, commands: &'a str) -> Self {
        Self {
            on_disk: true,
            ..Self::new(name, processors, commands)
        }
    }
}

impl World {
    /// Boots the machine with these guests, of the release's own kernel.
    pub(crate) fn boot(guests: &[Guest<'_>]) -> Result<Self> {
        Self::boot_kernel(&Debian::ensure()?, guests)
    }

    /// Boots the machine with these guests.
    pub(crate) fn boot_kernel(debian: &Debian, guests: &[Guest<'_>]) -> Result<Self> {
        let mut machine = Machine::new().silence_limit(SILENCE);
        for (name, bytes) in debian.files()? {
            machine = machine.file(name, bytes);
        }
        if guests.iter().any(|guest| guest.kernel == VMLINUX) {
            machine = machine.file(VMLINUX, debian.vmlinux()?);
        }
        for guest in guests {
            let text = match guest.on_disk {
                true => disk_description(guest.processors, guest.commands),
                false => description(guest.processors, guest.commands),
            };
            let console = match guest.prints {
                true => "console=ttyS0",
                false => "console=ttyS0 quiet",
            };
            let text = text
                .replace(KERNEL_NAME, guest.kernel)
                .replace("console=ttyS0", console);
            let mut text = text + guest.more + "\n";
            if let Some(script) = guest.script {
                let initrd = format!("initrds/{}", guest.name);
                text = Debian::with_initrd(&text, &initrd);
                machine = machine.file(initrd, debian.initrd_with(&[("script", script)])?);
            }
            machine = machine.file(format!("vms/{}.toml", guest.name), text);
            let forwards = guest.forwards.iter();
            machine = forwards.fold(machine, |machine, forward| machine.forward(*forward));
        }
        let folder = tempfile::tempdir()?;
        if guests.iter().any(|guest| guest.on_disk) {
            let disk = folder.path().join("system.img");
            fs::copy(debian.root_disk()?, &disk)?;
            machine = machine.second_disk(disk);
        }
        Ok(Self {
            shell: Shell::boot(&machine)?,
            typed: 0,
            _folder: folder,
        })
    }

    /// Boots the machine with `guest`, starts it, and has `test` look at it. Where that fails, the error tells all that the
    /// machine can tell of the guest.
    pub(crate) fn with(guest: &Guest<'_>, test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        Self::boot(core::slice::from_ref(guest))?.try_with(guest.name, test)
    }

    /// Starts the guest `name` and has `test` look at it. Where that fails, the error tells all that the machine can tell.
    pub(crate) fn try_with(&mut self, name: &str, test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.try_with_all(&[name], test)
    }

    /// The same with several guests.
    pub(crate) fn try_with_all(
        &mut self,
        names: &[&str],
        test: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let started = names
            .iter()
            .try_for_each(|name| self.text(&format!("vm start {name}")).map(drop));
        started.and_then(|()| test(self)).map_err(|error| {
            let told: Vec<String> = names.iter().map(|name| self.all_about(name)).collect();
            error.context(told.join("\n"))
        })
    }

    /// Runs a line in the shell on a guest's console, which must succeed; returns what it printed.
    pub(crate) fn type_into(&mut self, name: &str, line: &str) -> Result<String> {
        let (status, text) = self.try_type_into(name, line)?;
        ensure!(
            status == 0,
            "'{line}' failed in '{name}' with status {status}:\n{text}"
        );
        Ok(text)
    }

    /// Runs a line in the shell on a guest's console; returns its status and what it printed.
    pub(crate) fn try_type_into(&mut self, name: &str, line: &str) -> Result<(u32, String)> {
        // The console shows again what it has shown before: each line has marks of its own, which its echo does not show.
        self.typed += 1;
        let number = self.typed;
        let (begin, end) = (format!("begin_{number}."), format!("end_{number}."));
        let typed = format!("echo begin_$(({number})).; {line}; echo end_$(({number})).$?.\r");
        let session = self.shell.console();
        session.send(&format!("vm console {name}\r"))?;
        session.wait_for("leaves\n")?;
        session.send(&typed)?;
        session.wait_for(&begin)?;
        let text = session.wait_for(&end)?;
        let status = session.wait_for(".")?;
        session.send(LEAVE)?;
        session.wait_for_shell()?;
        let text = text.strip_suffix(&end).unwrap_or(&text).replace('\r', "");
        let status = status.trim_end_matches('.').parse()?;
        Ok((status, text.trim().to_owned()))
    }

    /// Waits until a guest's console has printed `words`. The root looks for them, which leaves the machine to its guests.
    pub(crate) fn until_said(&mut self, name: &str, words: &str) -> Result<()> {
        self.text(&format!("vm wait {name} --text '{words}' --timeout {PATIENCE}"))
            .map(drop)
    }

    /// The time of day as the root has it, such as `2026-11-21T09:30:06Z`.
    pub(crate) fn time(&mut self) -> Result<String> {
        let info = self.json("root info")?;
        Ok(info["time"]
            .as_str()
            .context("the root knows no time")?
            .to_owned())
    }

    /// That a guest with a shell has the root's time of day, to the second.
    pub(crate) fn ensure_same_time(&mut self, name: &str) -> Result<()> {
        let before = self.time()?;
        let guest = self.type_into(name, "date -u +%Y-%m-%dT%H:%M:%SZ")?;
        let after = self.time()?;
        // Texts of this form stand in the order of their times.
        ensure!(
            before <= guest && guest <= after,
            "it is {before} to {after}, and '{name}' has {guest}"
        );
        Ok(())
    }

    /// What the kernel's log of a guest with a shell tells of something wrong.
    pub(crate) fn ensure_no_complaints_in(&mut self, name: &str) -> Result<()> {
        let pattern = SIGNS.join("|");
        let (_, found) = self.try_type_into(name, &format!("dmesg | grep -E '{pattern}'"))?;
        ensure!(found.is_empty(), "the kernel's log of '{name}' says\n{found}");
        Ok(())
    }

    /// What the machine can tell of a guest.
    fn all_about(&mut self, name: &str) -> String {
        let commands = [
            format!("vm console {name} --dump"),
            format!("vm log {name}"),
            format!("vm stats {name}"),
            format!("vm show {name}"),
            format!("vm regs {name} --all"),
            "bus list".to_owned(),
            "disk list".to_owned(),
            "root log".to_owned(),
            "vm list".to_owned(),
            "net gateway".to_owned(),
            "hv log".to_owned(),
        ];
        let mut told = String::new();
        for command in commands {
            match self.run(&command) {
                Ok(reply) => told += &format!("--- {command} ---\n{}\n", reply.text.replace('\r', "")),
                // The machine itself is gone: what it has printed is all there is.
                Err(error) => return told + &format!("--- {command} ---\n{error:#}\n"),
            }
        }
        told
    }

    /// Waits until a guest is in `state`.
    pub(crate) fn wait(&mut self, name: &str, state: &str) -> Result<()> {
        self.text(&format!("vm wait {name} --state {state} --timeout {PATIENCE}"))
            .map(drop)
    }

    /// What a guest's console has said.
    pub(crate) fn console_of(&mut self, name: &str) -> Result<String> {
        let dump = self.json(&format!("vm console {name} --dump"))?;
        Ok(dump["text"].as_str().unwrap_or_default().replace('\r', ""))
    }

    /// The events of a guest's log, one a line.
    pub(crate) fn log_of(&mut self, name: &str) -> Result<String> {
        let log = self.json(&format!("vm log {name}"))?;
        let events = log["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        let lines: Vec<&str> = events
            .iter()
            .filter_map(|event| event["event"].as_str())
            .collect();
        Ok(lines.join("\n"))
    }

    /// All exits of a guest's VPs since it was started.
    pub(crate) fn exits(&mut self, name: &str) -> Result<u64> {
        let stats = self.json(&format!("vm stats {name}"))?;
        let vps = stats["vps"].as_array().context("there are no VPs")?;
        Ok(vps.iter().filter_map(|vp| vp["exits"].as_u64()).sum())
    }

    /// Looks again and again until `done`.
    pub(crate) fn until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        while !done(self)? {
            ensure!(start.elapsed() < SILENCE, "it did not come to pass that {what}");
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Frames of the root that are free, the heap's among them, in bytes.
    pub(crate) fn free_memory(&mut self) -> Result<u64> {
        let info = self.json("root info")?;
        Ok(["/memory_free_bytes", "/heap_total_bytes", "/pool_free_bytes"]
            .iter()
            .map(|pointer| number(&info, pointer))
            .sum())
    }
}

/// What lines of a kernel's log hold that tell of something wrong.
const SIGNS: [&str; 14] = [
    "WARNING:",
    "BUG:",
    "Call Trace",
    "Hyper-V bug",
    "Hyper-V: WARN",
    "nable to calibrate",
    "nable to read",
    "unchecked MSR access",
    "self-detected stall",
    "soft lockup",
    "timekeeping watchdog",
    "clocksource: timekeeping",
    "imed out",
    "rejecting I/O",
];

/// A shell's command that says `complaints_1=` and how many lines of the kernel's log tell of something wrong, and then those lines. The
/// brackets keep the kernel's own command line from being one of them.
pub(crate) fn grep_complaints() -> String {
    let patterns: Vec<String> = SIGNS
        .iter()
        .map(|sign| format!("[{}]{}", &sign[..1], &sign[1..]))
        .collect();
    let pattern = patterns.join("|");
    format!("echo complaints_$((1))=$(dmesg | grep -cE '{pattern}'); dmesg | grep -E '{pattern}'")
}

/// Lines of a kernel's log that tell of something wrong.
pub(crate) fn complaints(console: &str) -> Vec<&str> {
    console
        .lines()
        .filter(|line| SIGNS.iter().any(|sign| line.contains(sign)))
        .collect()
}
