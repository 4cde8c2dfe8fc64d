//! A virtual machine: its description, its state, its console, its log, and the child partition that it is while it
//! runs. One task serves it: commands come in a queue, from the shell and from the guest, and are done one by one.

use super::acpi;
use super::assignment::{AssignError, Assignments};
use super::bus::storage::StorageError;
use super::child::{Child, ChildError, Event, Owner};
use super::chipset::SERIAL_PORTS;
use super::description::{Description, TripleFault};
use super::devices::Devices;
use super::enlightenments::VMBUS;
use super::firmware;
use super::host::Host;
use super::intercept::crash::Report;
use super::loader::{self, LoadError};
use super::memory::GuestMemory;
use super::ring::Ring;
use super::signal::{Changes, Signal, yield_now};
use crate::disk::Registry;
use crate::net::Switches;
use crate::shell::machines::{MachineState as State, Order};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crossbeam_queue::SegQueue;
use hypercall_api::id::PartitionId;
use spin::Mutex;
use vmbus::protocol::integration::shutdown::Action;
use vmbus::server::OfferError;
use vsp::integration::session::NotNow;
use vsp::integration::shutdown::ShutdownError;
use vsp::switch::AttachError;

/// Bytes that a console keeps.
const CONSOLE: usize = 64 << 10;
/// Entries that the log keeps.
const LOG: usize = 200;
/// Longest entry, in bytes.
const LOG_ENTRY: usize = 300;
/// Lines of a guest's last words that the log takes.
const CRASH_LINES: usize = 80;
/// Random bytes that a guest gets for its own generator.
const ENTROPY: usize = 64;

/// Why a machine did not do it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MachineError {
    /// Not in this state.
    #[error("'{name}' is {state}: {advice}")]
    WrongState {
        /// The machine.
        name: String,
        /// Its state.
        state: State,
        /// What would help.
        advice: &'static str,
    },
    /// A file is not in the boot archive.
    #[error("the boot archive has no file '{0}'")]
    NoFile(String),
    /// The kernel cannot be loaded.
    #[error("{file}: {error}")]
    Kernel {
        /// The kernel's file.
        file: String,
        /// What is wrong with it.
        error: LoadError,
    },
    /// The machine cannot be described to its guest.
    #[error(transparent)]
    Acpi(#[from] acpi::AcpiError),
    /// The child could not be made or kept.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// A network card finds no place at its switch.
    #[error("a network card cannot be plugged in: {0}")]
    Network(#[from] AttachError),
    /// No further card fits in.
    #[error("a machine has at most {0} network cards")]
    TooManyCards(usize),
    /// There is no such card.
    #[error("it has no network card {0}: 'net list' shows those that there are")]
    NoCard(usize),
    /// A device finds no place on the bus.
    #[error(transparent)]
    Device(#[from] OfferError),
    /// A device of its own is not to be had.
    #[error(transparent)]
    Assignment(#[from] AssignError),
    /// A disk cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The guest cannot be asked.
    #[error(transparent)]
    ShutDown(#[from] ShutdownError),
    /// The machine was deleted meanwhile.
    #[error("'{0}' has been deleted")]
    Deleted(String),
}

/// Where files come from: the boot archive.
pub trait Files: Send + Sync {
    /// The contents of `name`.
    fn file(&self, name: &str) -> Option<&'static [u8]>;
    /// The names of the descriptions, `web` for `vms/web.toml`.
    fn descriptions(&self) -> Vec<&'static str>;
}

enum Command {
    Do(Order, Arc<Reply>),
    Guest(PartitionId, Event),
}

#[derive(Default)]
struct Reply {
    result: Mutex<Option<Result<(), MachineError>>>,
    done: Signal,
}

/// The state and since when.
#[derive(Clone, Copy, Debug)]
struct Status {
    state: State,
    since: u64,
}

/// An entry of a machine's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// When, in 100 ns of reference time.
    pub time: u64,
    /// What happened.
    pub text: String,
}

/// A virtual machine.
pub struct Machine<H: Host> {
    /// Its name.
    pub name: String,
    /// As it was described.
    pub description: Description,
    host: H,
    files: Arc<dyn Files>,
    disks: Arc<Registry>,
    switches: Arc<Switches>,
    assignments: Arc<Assignments>,
    status: Mutex<Status>,
    /// Changes of state, or of a console.
    pub changes: Changes,
    consoles: [Mutex<Ring>; SERIAL_PORTS],
    log: Mutex<VecDeque<Entry>>,
    commands: SegQueue<Command>,
    wanted: Signal,
    kill: AtomicBool,
    starts: AtomicU64,
    child: Mutex<Option<Arc<Child<H>>>>,
    /// What is on its bus, from a start until it is off: a reset keeps them.
    devices: Mutex<Option<Arc<Devices>>>,
}

impl<H: Host> Machine<H> {
    /// A machine that is off. [`serve`](Self::serve) has to run for it to do anything.
    pub fn new(
        host: H,
        files: Arc<dyn Files>,
        disks: Arc<Registry>,
        switches: Arc<Switches>,
        assignments: Arc<Assignments>,
        description: Description,
    ) -> Arc<Self> {
        let since = host.now();
        let machine = Self {
            name: description.name.clone(),
            description,
            host,
            files,
            disks,
            switches,
            assignments,
            status: Mutex::new(Status {
                state: State::Off,
                since,
            }),
            changes: Changes::default(),
            consoles: [const { Mutex::new(Ring::new(CONSOLE)) }; SERIAL_PORTS],
            log: Mutex::default(),
            commands: SegQueue::new(),
            wanted: Signal::default(),
            kill: AtomicBool::new(false),
            starts: AtomicU64::new(0),
            child: Mutex::new(None),
            devices: Mutex::new(None),
        };
        machine.note("created");
        Arc::new(machine)
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.status.lock().state
    }

    /// Since when, in 100 ns of reference time.
    pub fn since(&self) -> u64 {
        self.status.lock().since
    }

    /// How often it has been started or reset.
    pub fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// The child that it is, unless it is off.
    pub fn child(&self) -> Option<Arc<Child<H>>> {
        self.child.lock().clone()
    }

    /// What is on its bus, unless it is off.
    pub fn devices(&self) -> Option<Arc<Devices>> {
        self.devices.lock().clone()
    }

    /// What serial port `port` sent: from `position` on, up to `most` bytes; and where that begins.
    pub fn console(&self, port: usize, position: u64, most: usize) -> (u64, Vec<u8>) {
        match self.consoles.get(port) {
            Some(ring) => ring.lock().read(position, most),
            None => (position, Vec::new()),
        }
    }

    /// The log's entries.
    pub fn log(&self) -> Vec<Entry> {
        self.log.lock().iter().cloned().collect()
    }

    /// Has the machine's task do `order`; it is done even where nobody waits for the result.
    pub async fn request(&self, order: Order) -> Result<(), MachineError> {
        if self.state() == State::Deleted {
            return Err(MachineError::Deleted(self.name.clone()));
        }
        if matches!(order, Order::Kill) {
            // Seen by a start that is under way.
            self.kill.store(true, Ordering::Release);
        }
        let reply = Arc::new(Reply::default());
        self.commands.push(Command::Do(order, reply.clone()));
        self.wanted.raise();
        loop {
            if let Some(result) = reply.result.lock().take() {
                return result;
            }
            reply.done.wait().await;
        }
    }

    /// The machine's task: serves commands until the machine is deleted.
    pub async fn serve(self: Arc<Self>) {
        while self.state() != State::Deleted {
            let Some(command) = self.commands.pop() else {
                self.wanted.wait().await;
                continue;
            };
            match command {
                Command::Guest(partition, event) => self.hear(partition, event).await,
                Command::Do(order, reply) => {
                    let result = self.perform(order).await;
                    *reply.result.lock() = Some(result);
                    reply.done.raise();
                }
            }
        }
        // Whoever came too late.
        while let Some(command) = self.commands.pop() {
            if let Command::Do(_, reply) = command {
                *reply.result.lock() = Some(Err(MachineError::Deleted(self.name.clone())));
                reply.done.raise();
            }
        }
    }

    async fn perform(self: &Arc<Self>, order: Order) -> Result<(), MachineError> {
        let state = self.state();
        let wrong = |advice| {
            Err(MachineError::WrongState {
                name: self.name.clone(),
                state,
                advice,
            })
        };
        match (order, state) {
            (Order::Start, State::Off) => self.start().await,
            (Order::Start, State::Crashed) => {
                self.end(State::Off).await;
                self.start().await
            }
            (Order::Start, State::Paused) => wrong("'vm resume' lets it go on"),
            (Order::Start, _) => wrong("it need not be started"),
            (Order::Kill, _) => {
                self.kill.store(false, Ordering::Release);
                if state != State::Off {
                    self.note("killed");
                    self.end(State::Off).await;
                }
                Ok(())
            }
            (Order::Reset, State::Off) => wrong("'vm start' starts it"),
            (Order::Reset, _) => {
                self.note("reset");
                self.end(State::Starting).await;
                self.start().await
            }
            (Order::Pause, State::Running) => self.suspend(true, State::Paused),
            (Order::Pause, _) => wrong("only a running machine can be paused"),
            (Order::Resume, State::Paused) => self.suspend(false, State::Running),
            (Order::Resume, _) => wrong("only a paused machine can go on"),
            (Order::Stop, State::Running) => {
                let devices = self.devices();
                let devices = devices.ok_or(ShutdownError::NotNow(NotNow::Absent))?;
                devices.shut_down(Action::PowerOff)?;
                self.note("the guest is asked to power itself off");
                Ok(())
            }
            (Order::Stop, State::Paused) => wrong("'vm resume' lets it go on, so that it can be asked"),
            (Order::Stop, _) => wrong("only a running machine can be asked to power itself off"),
            (Order::Delete, State::Off | State::Crashed) => {
                self.end(State::Deleted).await;
                self.assignments.release_all(&self.host, &self.name).await;
                Ok(())
            }
            (Order::Delete, _) => wrong("'vm kill' ends it first"),
        }
    }

    async fn start(self: &Arc<Self>) -> Result<(), MachineError> {
        self.kill.store(false, Ordering::Release);
        self.set_state(State::Starting);
        self.note("starting");
        let result = self.try_start().await;
        match &result {
            Ok(()) => {
                self.starts.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.note(&format!("not started: {error}"));
                self.end(State::Off).await;
            }
        }
        result
    }

    async fn try_start(self: &Arc<Self>) -> Result<(), MachineError> {
        let kernel = self.file(&self.description.kernel)?;
        let modules = self.modules()?;
        let devices = self.make_devices().await?;
        let owner: Arc<dyn Owner> = self.clone();
        let killed = || self.kill.load(Ordering::Acquire);
        let child = Child::create(self.host.clone(), &self.description, owner, killed).await?;
        *self.child.lock() = Some(child.clone());
        let mut command_line = self.description.command_line.clone();
        command_line += &self.assignments.connect(&self.host, &self.name, child.id).await?;
        let boot = loader::Boot {
            kernel,
            modules: &modules,
            command_line: &command_line,
            rsdp: self.place_firmware(&child.memory.lock())?,
        };
        let loaded = loader::load(&boot, &child.memory.lock());
        let entry = loaded.map_err(|error| MachineError::Kernel {
            file: self.description.kernel.clone(),
            error,
        })?;
        yield_now().await;
        if killed() {
            return Err(ChildError::Killed.into());
        }
        child.set_entry(&entry)?;
        if let Some(bus) = child.bus() {
            devices.put_on(bus, child.id)?;
        }
        self.set_state(State::Running);
        self.note(&format!("running as partition {}", child.id));
        child.set_suspended(false)?;
        Ok(())
    }

    /// The devices; they are made where there are none yet.
    async fn make_devices(&self) -> Result<Arc<Devices>, MachineError> {
        let there = self.devices();
        if let Some(devices) = there {
            return Ok(devices);
        }
        let devices = Devices::new(&self.host, self.disks.clone(), &self.switches, &self.description).await?;
        *self.devices.lock() = Some(devices.clone());
        Ok(devices)
    }

    /// Writes what a guest finds besides its kernel: ACPI tables, whose root pointer's address it returns, and the start of
    /// the firmware.
    fn place_firmware(&self, memory: &GuestMemory) -> Result<u64, MachineError> {
        let mut entropy = [0; ENTROPY];
        let random = self.host.fill_random(&mut entropy);
        let tables = acpi::Machine {
            profile: match self.description.enlightenments.is_on(VMBUS) {
                true => acpi::Profile::VmBus,
                false => acpi::Profile::Plain,
            },
            processors: self.description.processors,
            console: self.description.console,
            ram_end: memory.ranges().last().map_or(0, |range| range.end),
            entropy: if random { &entropy } else { &[] },
        };
        firmware::place(memory).map_err(acpi::AcpiError::from)?;
        Ok(acpi::place(&tables, memory)?)
    }

    fn file(&self, name: &str) -> Result<&'static [u8], MachineError> {
        self.files
            .file(name)
            .ok_or_else(|| MachineError::NoFile(name.to_string()))
    }

    /// The modules' files; each has its name as its command line.
    fn modules(&self) -> Result<Vec<loader::Module<'_>>, MachineError> {
        let mut modules = Vec::new();
        for name in &self.description.modules {
            modules.push(loader::Module {
                bytes: self.file(name)?,
                command_line: name,
            });
        }
        Ok(modules)
    }

    /// Suspends all VPs, or lets them go on.
    fn suspend(&self, suspended: bool, state: State) -> Result<(), MachineError> {
        if let Some(child) = self.child() {
            child.set_suspended(suspended)?;
        }
        self.note(if suspended { "paused" } else { "resumed" });
        if let Some(devices) = self.devices().filter(|_| !suspended) {
            devices.woken();
        }
        self.set_state(state);
        Ok(())
    }

    /// Destroys the child, if there is one.
    async fn end(&self, state: State) {
        let child = self.child.lock().take();
        if let Some(child) = child {
            self.set_state(State::Stopping);
            // Its devices are reset when it cannot work with them any more, and leave before its memory does.
            if let Err(error) = child.set_suspended(true) {
                self.note(&error.to_string());
            }
            self.assignments.disconnect(&self.host, &self.name).await;
            if let Some(status) = child.destroy().await {
                self.note(&format!("some of its memory is lost: {status}"));
            }
        }
        if state != State::Starting {
            drop(self.devices.lock().take());
        }
        self.set_state(state);
        if state == State::Off {
            self.note("off");
        }
    }

    /// Something has happened in a child; it may be one that is no more.
    async fn hear(self: &Arc<Self>, partition: PartitionId, event: Event) {
        let Some(child) = self.child().filter(|child| child.id == partition) else {
            return;
        };
        match event {
            Event::Note(text) => self.note(&text),
            Event::PowerOff => {
                self.note("the guest powered itself off");
                self.end(State::Off).await;
            }
            Event::Reset => {
                self.note("the guest reset itself");
                self.restart().await;
            }
            Event::TripleFault { vp, rip } if self.description.triple_fault == TripleFault::Reset => {
                self.note(&format!("triple fault of VP {vp} at {rip:#x}: reset"));
                self.restart().await;
            }
            Event::TripleFault { vp, rip } => {
                self.crash(&child, &format!("triple fault of VP {vp} at {rip:#x}"));
            }
            Event::Crash(why) => self.crash(&child, &why),
            Event::GuestCrash(report) => self.guest_crash(&child, &report),
        }
    }

    async fn restart(self: &Arc<Self>) {
        self.end(State::Starting).await;
        // What went wrong is in the log, and the machine is off.
        let _ = self.start().await;
    }

    /// Stops all VPs, and keeps everything for a look.
    fn crash(&self, child: &Child<H>, why: &str) {
        if self.state() == State::Crashed {
            self.note(why);
            return;
        }
        self.note(&format!("crashed: {why}"));
        if let Err(error) = child.set_suspended(true) {
            self.note(&error.to_string());
        }
        self.set_state(State::Crashed);
    }

    /// The guest has told of its crash: its text, the newest part of it, goes to the log.
    fn guest_crash(&self, child: &Child<H>, report: &Report) {
        let [p0, p1, p2, p3, p4] = report.parameters;
        let parameters = format!("{p0:#x} {p1:#x} {p2:#x} {p3:#x} {p4:#x}");
        let Some(text) = &report.text else {
            return self.crash(child, &format!("the guest says that it has: {parameters}"));
        };
        let lines: Vec<&str> = text
            .lines()
            .map(|line| line.trim_end_matches(['\0', '\r']))
            .filter(|line| !line.is_empty())
            .collect();
        let newest = lines.len().saturating_sub(CRASH_LINES);
        lines[newest..]
            .iter()
            .for_each(|line| self.note(&format!("guest: {line}")));
        self.crash(child, "the guest says that it has, with the text above");
    }

    fn set_state(&self, state: State) {
        *self.status.lock() = Status {
            state,
            since: self.host.now(),
        };
        self.changes.tell();
    }

    fn note(&self, text: &str) {
        let end = text.floor_char_boundary(LOG_ENTRY);
        let mut log = self.log.lock();
        if log.len() == LOG {
            log.pop_front();
        }
        log.push_back(Entry {
            time: self.host.now(),
            text: text[..end].to_string(),
        });
    }
}

impl<H: Host> Owner for Machine<H> {
    fn serial(&self, port: usize, byte: u8) {
        if let Some(ring) = self.consoles.get(port) {
            ring.lock().push(byte);
            self.changes.tell();
        }
    }

    fn event(&self, partition: PartitionId, event: Event) {
        self.commands.push(Command::Guest(partition, event));
        self.wanted.raise();
    }
}
