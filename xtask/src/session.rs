//! A running machine: its process, its console, and its end.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;
use tempfile::TempDir;

use crate::console::{PROMPT, Reply, Transcript};
use crate::iso::{self, Contents};
use crate::lock::MachineToken;
use crate::machine::{Boot, Console, Files, Firmware, Machine};
use crate::outcome::{ExitKind, Outcome};
use crate::packages::OVMF;
use crate::qmp::Qmp;
use crate::{images, process, setup};

/// The size of the NVMe disk.
const DISK_BYTES: u64 = 256 << 20;
/// How long QEMU may take to end once it has closed its monitor.
const EXIT_LIMIT: Duration = Duration::from_secs(30);
/// How many characters of a typed line's end [`Session::command`] looks for in the echo.
const ECHOED: usize = 16;
/// How often a waiting thread looks at what raises no event.
const POLL: Duration = Duration::from_millis(200);

/// A machine that runs under the control of this program. Dropping it ends the machine.
#[derive(Debug)]
pub struct Session {
    child: Child,
    input: Option<ChildStdin>,
    output: Arc<Output>,
    readers: Option<(JoinHandle<()>, JoinHandle<String>)>,
    tether: Option<Sender<()>>,
    monitor: Option<Qmp>,
    silence_limit: Duration,
    files: Files,
    _folder: TempDir,
    _token: MachineToken,
}

/// What the machine has printed, shared with the thread that reads it.
#[derive(Debug, Default)]
struct Output {
    state: Mutex<OutputState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct OutputState {
    transcript: Transcript,
    bytes: u64,
    ended: bool,
}

impl Output {
    fn state(&self) -> MutexGuard<'_, OutputState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine {
    /// Starts the machine and waits for its end.
    pub fn run(&self) -> Result<Outcome> {
        self.spawn()?.finish()
    }

    /// Starts the machine under this program's control, when the host has room for it.
    ///
    /// Room is shared with every other machine of this user, so that whoever holds one machine and starts a second may
    /// wait for ever where the host has room for one only.
    pub fn spawn(&self) -> Result<Session> {
        let qemu = setup::qemu()?;
        let folder = tempfile::Builder::new().prefix("partita-").tempdir()?;
        let files = self.files(folder.path())?;
        let arguments = self.arguments(&files, Console::Pipes)?;
        let token = MachineToken::wait(self.memory.mib())?;
        let mut command = process::tied(&qemu.program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = Arc::new(Output::default());
        let (tether, tethered) = mpsc::channel();
        let (mut child, reader) = start(command, Arc::clone(&output), self.echo, tethered)?;
        let input = child.stdin.take();
        let mut errors = child.stderr.take().context("QEMU has no stderr")?;
        let messages = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = errors.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut session = Session {
            child,
            input,
            output,
            readers: Some((reader, messages)),
            tether: Some(tether),
            monitor: None,
            silence_limit: self.silence_limit,
            files,
            _folder: folder,
            _token: token,
        };
        let running = || !session.output.state().ended;
        match release(&session.files.monitor, self.gdb, running) {
            Ok(monitor) => session.monitor = Some(monitor),
            Err(error) if !ends(running) => return Err(error),
            // The outcome will carry what QEMU said.
            Err(_) => {}
        }
        Ok(session)
    }

    /// Gives the terminal to the machine's console until it ends; Ctrl-A X ends it.
    pub fn interact(&self) -> Result<ExitKind> {
        let qemu = setup::qemu()?;
        let folder = tempfile::Builder::new().prefix("partita-").tempdir()?;
        let files = self.files(folder.path())?;
        let mut command = process::tied(&qemu.program);
        let mut child = command
            .args(self.arguments(&files, Console::Terminal)?)
            .spawn()
            .context("cannot start QEMU")?;
        let alive = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        let monitor = match release(&files.monitor, self.gdb, || alive(&mut child)) {
            Ok(monitor) => Some(monitor),
            Err(error) if !ends(|| alive(&mut child)) => {
                child.kill()?;
                return Err(error);
            }
            // QEMU has said on stderr what it does not like.
            Err(_) => None,
        };
        let status = child.wait()?;
        let reason = monitor.and_then(Qmp::shutdown_reason);
        Ok(ExitKind::from_qemu(code(status), reason.as_deref()))
    }

    /// Makes the files that the machine boots from, in a folder of this run.
    fn files(&self, folder: &Path) -> Result<Files> {
        let disk = self.disk.clone().unwrap_or_else(|| folder.join("disk.img"));
        create_disk(&disk)?;
        let hypervisor = match &self.hypervisor {
            Some(path) => path.clone(),
            None => images::built()?.hypervisor,
        };
        let archive = images::archive(&self.archive, &self.exec, &self.files)?;
        let boot = match self.firmware {
            Firmware::Pvh => {
                let path = self
                    .archive_file
                    .clone()
                    .unwrap_or_else(|| folder.join("boot.cpio"));
                if let Some(archive) = &archive {
                    fs::write(&path, archive)?;
                }
                Boot::Pvh {
                    hypervisor,
                    archive: archive.map(|_| path),
                }
            }
            Firmware::GrubBios | Firmware::GrubUefi => {
                let image = folder.join("partita.iso");
                let cmdline = self.full_cmdline();
                iso::write(
                    &Contents {
                        hypervisor: &hypervisor,
                        archive,
                        cmdline: &cmdline,
                    },
                    &image,
                )?;
                let uefi = match self.firmware {
                    Firmware::GrubUefi => Some(OVMF.ensure()?.file("usr/share/ovmf/OVMF.fd")),
                    _ => None,
                };
                Boot::Cd { image, uefi }
            }
        };
        let log = self.log.clone().unwrap_or_else(|| folder.join("hypervisor.log"));
        let log = std::path::absolute(log)?;
        Ok(Files {
            disk,
            log,
            monitor: folder.join("monitor"),
            boot,
        })
    }
}

impl Session {
    /// Types text into the console. Enter is `\r`, as on a terminal; [`Session::command`] types it by itself.
    pub fn send(&mut self, text: &str) -> Result<()> {
        let input = self.input.as_mut().context("the machine's input is closed")?;
        let sent = input.write_all(text.as_bytes()).and_then(|()| input.flush());
        sent.map_err(|error| self.failure(&format!("cannot type {text:?} ({error})")))
    }

    /// Waits until the console has printed `pattern`, after what was waited for before, and returns what came up to
    /// its end. A machine that ends or hangs meanwhile is an error.
    pub fn wait_for(&mut self, pattern: &str) -> Result<String> {
        self.wait_for_any(&[pattern]).map(|(_, text)| text)
    }

    /// Waits for whichever pattern the console prints first; returns which it was, and what came up to its end.
    pub fn wait_for_any(&mut self, patterns: &[&str]) -> Result<(usize, String)> {
        match self.wait(|state| state.transcript.find(patterns)) {
            Waited::For(found) => Ok(found),
            Waited::End => Err(self.failure(&format!("the machine ended before it printed {patterns:?}"))),
            Waited::Silence => {
                Err(self.failure(&format!("the machine fell silent before it printed {patterns:?}")))
            }
        }
    }

    /// Waits for the root partition's shell to prompt.
    pub fn wait_for_shell(&mut self) -> Result<()> {
        self.wait_for(PROMPT).map(drop)
    }

    /// Runs one command in the root partition's shell, which stands at its prompt.
    pub fn command(&mut self, line: &str) -> Result<Reply> {
        self.send(&format!("{line}\r"))?;
        // A line that is wider than the terminal scrolls: only its end is sure to be echoed in one piece.
        let end = line
            .char_indices()
            .rev()
            .nth(ECHOED - 1)
            .map_or(line, |(at, _)| &line[at..]);
        self.wait_for(end)?;
        self.wait_for("\n")?;
        let text = self.wait_for(PROMPT)?;
        Ok(Reply::parse(text.strip_suffix(PROMPT).unwrap_or(&text)))
    }

    /// Runs a command of QEMU's monitor for people, such as `info mtree`.
    pub fn monitor(&mut self, line: &str) -> Result<String> {
        self.monitor
            .as_mut()
            .context("the machine has no monitor")?
            .monitor(line)
    }

    /// All that the console has printed so far, as clean text.
    pub fn serial(&self) -> String {
        self.output.state().transcript.text().to_owned()
    }

    /// The hypervisor's separate log so far.
    pub fn hypervisor_log(&self) -> String {
        let mut transcript = Transcript::default();
        transcript.push(&fs::read(&self.files.log).unwrap_or_default());
        transcript.text().to_owned()
    }

    /// Waits for the machine's end. One that falls silent for too long is ended and counts as hung.
    pub fn finish(mut self) -> Result<Outcome> {
        let hung = matches!(self.wait(|_| None::<()>), Waited::Silence);
        self.end(hung)
    }

    /// Ends the machine at once and returns what it left behind; its status is `Hung` unless it had ended before.
    pub fn kill(mut self) -> Result<Outcome> {
        let running = self.child.try_wait()?.is_none();
        self.end(running)
    }

    fn wait<T>(&mut self, mut look: impl FnMut(&mut OutputState) -> Option<T>) -> Waited<T> {
        let output = Arc::clone(&self.output);
        let mut state = output.state();
        let mut seen = (0, 0);
        let mut since = Instant::now();
        loop {
            if let Some(found) = look(&mut state) {
                return Waited::For(found);
            }
            if state.ended {
                return Waited::End;
            }
            let now = (
                state.bytes,
                fs::metadata(&self.files.log).map_or(0, |data| data.len()),
            );
            if now != seen {
                seen = now;
                since = Instant::now();
            } else if since.elapsed() >= self.silence_limit {
                return Waited::Silence;
            }
            let (next, _) = output
                .changed
                .wait_timeout(state, POLL)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
    }

    fn end(&mut self, kill: bool) -> Result<Outcome> {
        let mut registers = String::new();
        if kill {
            if let Some(monitor) = &mut self.monitor {
                registers = without_vectors(&monitor.monitor("info registers -a").unwrap_or_default());
            }
            self.child.kill()?;
        }
        self.input = None;
        let status = self.child.wait()?;
        self.tether = None;
        let (reader, messages) = self.readers.take().context("the machine was ended before")?;
        reader
            .join()
            .map_err(|_| anyhow!("the reader of the console died"))?;
        let qemu_messages = messages
            .join()
            .map_err(|_| anyhow!("the reader of QEMU's messages died"))?;
        let reason = self.monitor.take().and_then(Qmp::shutdown_reason);
        let status = if kill {
            ExitKind::Hung
        } else {
            ExitKind::from_qemu(code(status), reason.as_deref())
        };
        let serial = self.output.state().transcript.text().to_owned();
        Ok(Outcome {
            status,
            serial,
            hypervisor_log: self.hypervisor_log(),
            qemu_messages,
            registers,
        })
    }

    /// An error with all that the machine has printed; ends it.
    fn failure(&mut self, what: &str) -> anyhow::Error {
        let running = matches!(self.child.try_wait(), Ok(None)) && !self.output.state().ended;
        match self.end(running) {
            Ok(outcome) if running => {
                let report = outcome.report();
                anyhow!(
                    "{what}\n{}",
                    report.split_once('\n').map_or("", |(_, report)| report)
                )
            }
            Ok(outcome) => anyhow!("{what}: {}", outcome.report()),
            Err(error) => error.context(what.to_owned()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects to the monitor and lets the processors go, unless a debugger will.
fn release(monitor: &Path, gdb: bool, mut alive: impl FnMut() -> bool) -> Result<Qmp> {
    let mut monitor = Qmp::connect(monitor, &mut alive)?;
    if !gdb
        && let Err(error) = monitor.execute("cont", json!({}))
        // A machine may end before QEMU has answered; its monitor still knows why.
        && !ends(alive)
    {
        return Err(error);
    }
    Ok(monitor)
}

/// Whether QEMU, whose monitor has just failed, is about to end by itself.
fn ends(mut alive: impl FnMut() -> bool) -> bool {
    let since = Instant::now();
    while alive() && since.elapsed() < EXIT_LIMIT {
        thread::sleep(Duration::from_millis(5));
    }
    !alive()
}

enum Waited<T> {
    For(T),
    End,
    Silence,
}

/// Starts QEMU from the thread that then reads its console. The kernel ends QEMU when the thread that started it ends,
/// so that thread lives until the other end of `tethered` is dropped.
fn start(
    mut command: Command,
    output: Arc<Output>,
    echo: bool,
    tethered: Receiver<()>,
) -> Result<(Child, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel();
    let reader = thread::spawn(move || {
        let stdout = match command.spawn() {
            Ok(mut child) => {
                let stdout = child.stdout.take();
                let _ = sender.send(Ok(child));
                stdout
            }
            Err(error) => {
                let _ = sender.send(Err(error));
                None
            }
        };
        if let Some(stdout) = stdout {
            read_console(stdout, &output, echo);
        }
        output.state().ended = true;
        output.changed.notify_all();
        let _ = tethered.recv();
    });
    let child = receiver
        .recv()
        .context("the thread of QEMU died")?
        .context("cannot start QEMU")?;
    Ok((child, reader))
}

fn read_console(mut stdout: impl Read, output: &Output, echo: bool) {
    let mut buffer = [0; 4096];
    loop {
        let bytes = match stdout.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => &buffer[..length],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if echo {
            let mut terminal = io::stdout().lock();
            let _ = terminal.write_all(bytes).and_then(|()| terminal.flush());
        }
        let mut state = output.state();
        state.transcript.push(bytes);
        state.bytes += bytes.len() as u64;
        drop(state);
        output.changed.notify_all();
    }
}

/// The monitor's register dump without floating point and vector registers.
fn without_vectors(registers: &str) -> String {
    let vector = |line: &&str| {
        !["FCW", "FPR", "XMM", "YMM"]
            .iter()
            .any(|name| line.starts_with(name))
    };
    registers
        .lines()
        .filter(vector)
        .map(|line| format!("{line}\n"))
        .collect()
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
}

fn create_disk(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let file = fs::File::create_new(path).with_context(|| format!("cannot create {}", path.display()))?;
    if let Err(error) = file.set_len(DISK_BYTES) {
        bail!("cannot make the disk {}: {error}", path.display());
    }
    Ok(())
}
