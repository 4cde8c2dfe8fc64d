//! One controller: bringing it up, its admin commands, its queue pairs.

use super::command::{self, Command, Subject};
use super::hardware::{Hardware, MILLISECOND, SECOND};
use super::identify::{self, ANSWER};
use super::pair::{Data, Pair, Request};
use super::prp::{MOST_BYTES, Position};
use super::registers::{
    ACQ, AQA, ASQ, CAP, CC, CSTS, Capabilities, Configuration, ControllerStatus, VS, Version,
};
use super::slots::{Failure, Outcome};
use crate::memory::dma;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use embassy_futures::select::{Either, select};
use spin::Once;
use vsp::storage::disk::DiskError;

/// Entries of the admin queues.
const ADMIN_ENTRIES: u32 = 32;
/// Entries of an I/O queue: one more than commands that can be under way.
const IO_ENTRIES: u32 = 64;
/// Most I/O queue pairs.
const MOST_PAIRS: usize = 256;
/// How long an admin command may take.
const ADMIN_LIMIT: u64 = 10 * SECOND;
/// How often the completions of admin commands are looked for, should an interrupt be lost.
const ADMIN_POLL: u64 = 20 * MILLISECOND;
/// Least time that a controller gets to become ready, whatever it says: it may be emulated on a busy machine.
const LEAST_READY_LIMIT: u64 = 10 * SECOND;
/// How long a shutdown may take.
const SHUTDOWN_LIMIT: u64 = 5 * SECOND;

/// Why a controller cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControllerError {
    /// It does not answer.
    #[error("it does not answer")]
    Gone,
    /// It lacks something.
    #[error("it has no {0}")]
    Lacks(&'static str),
    /// Its register window is too small for its queues.
    #[error("its register window of {0:#x} bytes is too small")]
    Window(u64),
    /// It did not become ready, or not disabled.
    #[error("it did not become {0} in time")]
    Stuck(&'static str),
    /// It says that it has failed.
    #[error("it reports a fatal error")]
    Fatal,
    /// It did not answer a command.
    #[error("it did not answer the command '{0}'")]
    Silent(&'static str),
    /// It refused a command.
    #[error("it refused the command '{0}': {1}")]
    Refused(&'static str, Failure),
    /// There is no memory for its queues.
    #[error("there is no memory for its queues")]
    OutOfMemory,
}

/// A controller.
pub struct Controller<H> {
    /// Its registers and the world.
    pub hardware: H,
    /// Its name in the log: `nvme0`.
    pub name: String,
    capabilities: Capabilities,
    admin: Pair,
    io: Once<Box<[Pair]>>,
    /// Interrupts that it may raise: the first for the admin queue, one more for each I/O pair, or one for all.
    lines: usize,
    identity: Once<identify::Controller>,
    most_bytes: Once<usize>,
    pub(super) dead: AtomicBool,
    pub(super) reset_wanted: AtomicBool,
    pub(super) clock: AtomicU32,
    pub(super) resets: AtomicU64,
    pub(super) timeouts: AtomicU64,
}

impl<H: Hardware> Controller<H> {
    /// The controller behind `hardware`, which may raise `lines` interrupts, at least one. It is looked at and left alone.
    pub fn new(hardware: H, name: String, lines: usize) -> Result<Self, ControllerError> {
        if hardware.window() < super::registers::DOORBELLS + 8 {
            return Err(ControllerError::Window(hardware.window()));
        }
        if ControllerStatus(hardware.read(CSTS)).is_gone() {
            return Err(ControllerError::Gone);
        }
        let capabilities =
            Capabilities(u64::from(hardware.read(CAP + 4)) << 32 | u64::from(hardware.read(CAP)));
        if !capabilities.has_nvm_commands() {
            return Err(ControllerError::Lacks("NVM command set"));
        }
        if !capabilities.has_4_kib_pages() {
            return Err(ControllerError::Lacks("pages of 4 KiB"));
        }
        let entries = ADMIN_ENTRIES.min(capabilities.most_entries()) as u16;
        if capabilities.doorbells(0).1 + 4 > hardware.window() {
            return Err(ControllerError::Window(hardware.window()));
        }
        Ok(Self {
            admin: Pair::new(0, entries, capabilities).ok_or(ControllerError::OutOfMemory)?,
            hardware,
            name,
            capabilities,
            io: Once::new(),
            lines: lines.max(1),
            identity: Once::new(),
            most_bytes: Once::new(),
            dead: AtomicBool::new(false),
            reset_wanted: AtomicBool::new(false),
            clock: AtomicU32::new(0),
            resets: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
        })
    }

    /// Brings the controller up, with up to `pairs` I/O queue pairs.
    pub async fn start(&self, pairs: usize) -> Result<(), ControllerError> {
        self.disable().await?;
        self.enable().await?;
        let identity = self.identify().await?;
        if !identity.entry_sizes_fit {
            return Err(ControllerError::Lacks("queue entries of the usual sizes"));
        }
        let limit = identity.most_bytes.unwrap_or(u64::MAX).min(MOST_BYTES as u64);
        self.most_bytes.call_once(|| limit as usize);
        let pairs = self.make_pairs(pairs).await?;
        self.io.call_once(|| pairs);
        self.identity.call_once(|| identity);
        self.tell_of_queues().await?;
        self.open();
        Ok(())
    }

    async fn identify(&self) -> Result<identify::Controller, ControllerError> {
        let answer = self.answer(Subject::Controller, "identify controller").await?;
        Ok(identify::Controller::parse(&answer))
    }

    /// As many I/O pairs as asked for, and as the controller, its interrupts and its window allow.
    async fn make_pairs(&self, wanted: usize) -> Result<Box<[Pair]>, ControllerError> {
        let lines = self.lines.saturating_sub(1).max(1);
        let room = (1..=MOST_PAIRS)
            .take_while(|&id| self.capabilities.doorbells(id as u16).1 + 4 <= self.hardware.window())
            .count();
        let wanted = wanted.min(lines).min(room);
        if wanted == 0 {
            return Err(ControllerError::Window(self.hardware.window()));
        }
        let granted = match self.ask_for_pairs(wanted as u16).await {
            Ok(granted) => usize::from(granted),
            // A controller that does not know the feature has one pair.
            Err(ControllerError::Refused(..)) => 1,
            Err(error) => return Err(error),
        };
        let entries = IO_ENTRIES.min(self.capabilities.most_entries()) as u16;
        let mut pairs: Vec<Pair> = (1..=wanted.min(granted))
            .map_while(|id| Pair::new(id as u16, entries, self.capabilities))
            .collect();
        pairs.shrink_to_fit();
        match pairs.is_empty() {
            true => Err(ControllerError::OutOfMemory),
            false => Ok(pairs.into_boxed_slice()),
        }
    }

    async fn ask_for_pairs(&self, wanted: u16) -> Result<u16, ControllerError> {
        let granted = self
            .admin(Command::set_queue_pairs(wanted), Data::None, "set queues")
            .await?;
        Ok(command::granted_pairs(granted))
    }

    /// Tells the controller of the I/O queues.
    async fn tell_of_queues(&self) -> Result<(), ControllerError> {
        for pair in self.pairs() {
            let (entries, submission, completion) = pair.layout();
            let line = if self.lines > 1 { pair.id } else { 0 };
            let make = Command::create_completion_queue(pair.id, entries, completion, line);
            self.admin(make, Data::None, "create completion queue").await?;
            let make = Command::create_submission_queue(pair.id, entries, submission);
            self.admin(make, Data::None, "create submission queue").await?;
        }
        Ok(())
    }

    fn open(&self) {
        self.pairs().iter().for_each(Pair::open);
    }

    /// Takes no more I/O commands for now: they wait.
    pub(super) fn close(&self) {
        self.pairs().iter().for_each(Pair::close);
    }

    /// Turns the controller off and ends what it was doing with `failure`. Once this succeeds it reaches no memory.
    pub(super) async fn disable(&self) -> Result<(), ControllerError> {
        self.admin.close();
        self.close();
        if self.status().is_gone() {
            return Err(ControllerError::Gone);
        }
        self.hardware.write(CC, Configuration::DISABLED.0);
        self.wait_until_ready(false).await?;
        self.abandon(Failure::Reset);
        Ok(())
    }

    /// Turns the controller on, with its admin queue.
    async fn enable(&self) -> Result<(), ControllerError> {
        let (entries, submission, completion) = self.admin.layout();
        let size = u32::from(entries - 1);
        self.hardware.write(AQA, size << 16 | size);
        for (register, address) in [(ASQ, submission), (ACQ, completion)] {
            self.hardware.write(register, address as u32);
            self.hardware.write(register + 4, (address >> 32) as u32);
        }
        self.hardware.write(CC, Configuration::ENABLED.0);
        self.wait_until_ready(true).await?;
        self.admin.open();
        Ok(())
    }

    async fn wait_until_ready(&self, wanted: bool) -> Result<(), ControllerError> {
        let limit = self.capabilities.ready_limit().max(LEAST_READY_LIMIT);
        let start = self.hardware.now();
        loop {
            let status = self.status();
            if status.is_gone() {
                return Err(ControllerError::Gone);
            }
            // A failed controller may be turned off, which is how it is mended.
            if wanted && status.fatal() {
                return Err(ControllerError::Fatal);
            }
            if status.ready() == wanted {
                return Ok(());
            }
            if self.hardware.now().saturating_sub(start) > limit {
                return Err(ControllerError::Stuck(if wanted { "ready" } else { "disabled" }));
            }
            self.hardware.sleep(MILLISECOND).await;
        }
    }

    /// Turns it off and on again, with the queues that it had.
    pub(super) async fn restart(&self) -> Result<(), ControllerError> {
        self.disable().await?;
        self.enable().await?;
        let pairs = self.pairs().len();
        if usize::from(self.ask_for_pairs(pairs as u16).await.or_else(unless_refused)?) < pairs {
            return Err(ControllerError::Lacks("room for the queues that it had before"));
        }
        self.tell_of_queues().await?;
        self.open();
        Ok(())
    }

    /// Gives the controller up: it reaches no memory any more, and all commands fail with `error`.
    pub(super) fn give_up(&self, error: DiskError) {
        self.dead.store(true, Ordering::Release);
        self.hardware.cut_off();
        self.abandon(Failure::Dead(error));
    }

    fn abandon(&self, failure: Failure) {
        self.admin.abandon_all(failure);
        self.pairs().iter().for_each(|pair| pair.abandon_all(failure));
    }

    /// What it says of its state.
    pub(super) fn status(&self) -> ControllerStatus {
        ControllerStatus(self.hardware.read(CSTS))
    }

    /// Makes an admin command, whose result is the completion's.
    pub(super) async fn admin(
        &self,
        command: Command,
        data: Data<'_>,
        what: &'static str,
    ) -> Result<u32, ControllerError> {
        let mut request = pin!(self.admin.request(&self.hardware, command, data));
        let start = self.hardware.now();
        loop {
            let sleep = pin!(self.hardware.sleep(ADMIN_POLL));
            match select(request.as_mut(), sleep).await {
                Either::First(outcome) => {
                    return outcome.map_err(|failure| ControllerError::Refused(what, failure));
                }
                Either::Second(()) => {
                    self.admin.process(&self.hardware);
                    if self.hardware.now().saturating_sub(start) > ADMIN_LIMIT {
                        return Err(ControllerError::Silent(what));
                    }
                }
            }
        }
    }

    async fn answer(
        &self,
        subject: Subject,
        what: &'static str,
    ) -> Result<Box<[u8; ANSWER]>, ControllerError> {
        let buffer = dma::buffer(ANSWER).ok_or(ControllerError::OutOfMemory)?;
        let data = Data::Buffer {
            buffer: &buffer,
            start: Position::default(),
            length: ANSWER,
        };
        self.admin(Command::identify(subject), data, what).await?;
        let mut answer = Box::new([0; ANSWER]);
        match buffer.copy_to(0, &mut answer[..]) {
            Ok(()) => Ok(answer),
            Err(_) => Err(ControllerError::OutOfMemory),
        }
    }

    /// The active namespaces, and why others cannot be used.
    pub async fn namespaces(
        &self,
    ) -> Result<Vec<(u32, Result<identify::Namespace, identify::Unusable>)>, ControllerError> {
        let mut found = Vec::new();
        for id in self.namespace_ids().await? {
            let answer = self.answer(Subject::Namespace(id), "identify namespace").await?;
            match identify::Namespace::parse(&answer) {
                Err(identify::Unusable::Inactive) => {}
                parsed => found.push((id, parsed)),
            }
        }
        Ok(found)
    }

    async fn namespace_ids(&self) -> Result<Vec<u32>, ControllerError> {
        if Version(self.hardware.read(VS)) >= Version::LISTS_NAMESPACES {
            let list = self
                .answer(Subject::NamespacesAbove(0), "list namespaces")
                .await?;
            return Ok(identify::namespace_list(&list).collect());
        }
        let count = self.identity.get().map_or(0, |identity| identity.namespaces);
        Ok((1..=count).take(identify::MAX_NAMESPACES).collect())
    }

    /// Takes the completions that interrupt `line` may stand for.
    pub fn interrupt(&self, line: usize) {
        if line == 0 {
            self.admin.process(&self.hardware);
        }
        if self.lines == 1 {
            self.process_all();
        } else if let Some(pair) = line.checked_sub(1).and_then(|index| self.pairs().get(index)) {
            pair.process(&self.hardware);
        }
    }

    /// Takes all completions of I/O commands; returns how many there were.
    pub(super) fn process_all(&self) -> usize {
        self.pairs().iter().map(|pair| pair.process(&self.hardware)).sum()
    }

    /// An I/O command, by the running processor's queues. It fails only once the controller runs.
    pub fn io<'a>(&'a self, command: Command, data: Data<'a>) -> Request<'a, H> {
        let pairs = self.pairs();
        let pair = match pairs.len() {
            0 => &self.admin,
            1 => &pairs[0],
            count => &pairs[self.hardware.processor() % count],
        };
        pair.request(&self.hardware, command, data)
    }

    /// Its I/O queue pairs.
    pub fn pairs(&self) -> &[Pair] {
        self.io.get().map_or(&[], |pairs| pairs)
    }

    /// What it says of itself, once it has been started.
    pub fn identity(&self) -> Option<&identify::Controller> {
        self.identity.get()
    }

    /// Bytes of the largest transfer.
    pub fn most_bytes(&self) -> usize {
        self.most_bytes.get().copied().unwrap_or(dma::PAGE)
    }

    /// Tells the controller that the power goes, and waits until what it holds is on the medium, in one go. Where the
    /// machine goes on all the same, the watchdog resets the controller, which then works as before.
    pub fn shut_down(&self) {
        if self.dead.load(Ordering::Acquire) || self.status().is_gone() {
            return;
        }
        self.hardware.write(CC, Configuration::SHUTDOWN.0);
        let start = self.hardware.now();
        while !self.status().shut_down() {
            if self.hardware.now().saturating_sub(start) > SHUTDOWN_LIMIT {
                log::warn!("{}: it did not shut down in time", self.name);
                return;
            }
            core::hint::spin_loop();
        }
    }
}

/// One pair, from a controller that does not know the feature.
fn unless_refused(error: ControllerError) -> Result<u16, ControllerError> {
    match error {
        ControllerError::Refused(_, Failure::Refused(_)) => Ok(1),
        error => Err(error),
    }
}

/// An outcome's error for a command without data.
pub(super) fn plain(outcome: Outcome) -> Result<(), DiskError> {
    outcome
        .map(|_| ())
        .map_err(|failure| failure.error(command::Purpose::Other))
}
