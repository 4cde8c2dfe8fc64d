//! What keeps a controller working: a watchdog that gives up late commands, and resets or abandons the controller.
//!
//! A command that is late is first looked for, should its interrupt be lost; then it is given up by `Abort`; if that does
//! not end it, the controller is turned off and on again. Commands that a reset ends are tried again by whoever made them
//! ([`namespace`](super::namespace)). A controller that does not come back is kept from memory by its bus master bit, so
//! that buffers can be freed, and its disks fail from then on.

use super::command::Command;
use super::controller::{Controller, ControllerError};
use super::hardware::{Hardware, MILLISECOND, SECOND};
use super::pair::Data;
use core::sync::atomic::Ordering;
use vsp::storage::disk::DiskError;

/// The watchdog's clock goes by this, in 100 ns, while commands are under way.
const TICK: u64 = 50 * MILLISECOND;
/// Ticks of a look at a controller that does nothing.
const IDLE_TICKS: u32 = 20;
/// Ticks that a command may take: 30 s.
const COMMAND_LIMIT: u32 = (30 * SECOND / TICK) as u32;
/// Ticks that a command which was given up may take to end: 5 s.
const ABORT_PATIENCE: u32 = (5 * SECOND / TICK) as u32;
/// How often commands under way are looked for before a reset, 10 ms apart.
const SETTLE_LOOKS: u32 = 50;
const SETTLE_STEP: u64 = 10 * MILLISECOND;
/// Resets that may fail one after another.
const RESET_ATTEMPTS: u32 = 3;

/// What a look at the controller found.
enum Finding {
    Fine,
    Gone,
    Reset(&'static str),
    /// Somebody wants a reset.
    Asked,
}

impl<H: Hardware> Controller<H> {
    /// Watches over the controller until it has failed for good. To be run as a task once it was started.
    pub async fn watch(&self) {
        while !self.dead.load(Ordering::Acquire) {
            let busy = self.pairs().iter().any(|pair| pair.under_way() > 0);
            let ticks = if busy { 1 } else { IDLE_TICKS };
            self.hardware.sleep(TICK * u64::from(ticks)).await;
            // A machine that stood still for a while makes no command late: the clock counts looks, not time.
            let now = self.clock.fetch_add(ticks, Ordering::Relaxed).wrapping_add(ticks);
            self.pairs().iter().for_each(|pair| pair.set_clock(now));
            match self.look(now).await {
                _ if self.dead.load(Ordering::Acquire) => return,
                Finding::Fine => {}
                Finding::Gone => {
                    log::error!("{}: the controller is gone", self.name);
                    self.give_up(DiskError::Gone);
                }
                Finding::Asked => {
                    log::info!("{}: reset, as asked", self.name);
                    self.recover().await;
                }
                Finding::Reset(reason) => {
                    log::warn!("{}: reset: {reason}", self.name);
                    self.recover().await;
                }
            }
        }
    }

    /// Has the watchdog reset the controller; completes when that is done. `false` where the controller has failed.
    pub async fn reset(&self) -> bool {
        let before = self.resets.load(Ordering::Acquire);
        self.reset_wanted.store(true, Ordering::Release);
        while !self.dead.load(Ordering::Acquire) {
            if self.resets.load(Ordering::Acquire) != before {
                return true;
            }
            self.hardware.sleep(TICK).await;
        }
        false
    }

    /// Resets so far, commands that were late so far, and completions that named no command.
    pub fn troubles(&self) -> (u64, u64, u64) {
        let strays = self.pairs().iter().map(|pair| pair.strays()).sum();
        (
            self.resets.load(Ordering::Relaxed),
            self.timeouts.load(Ordering::Relaxed),
            strays,
        )
    }

    /// Whether it has failed for good.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    async fn look(&self, now: u32) -> Finding {
        let status = self.status();
        if status.is_gone() {
            return Finding::Gone;
        }
        if self.reset_wanted.swap(false, Ordering::AcqRel) {
            return Finding::Asked;
        }
        if status.fatal() {
            return Finding::Reset("it reports a fatal error");
        }
        if status.shut_down() {
            return Finding::Reset("it was shut down, and the machine goes on");
        }
        if !status.ready() {
            return Finding::Reset("it is no longer ready");
        }
        for pair in self.pairs() {
            loop {
                let late = match pair.overdue(now, COMMAND_LIMIT, ABORT_PATIENCE) {
                    Ok(Some(late)) => late,
                    Ok(None) => break,
                    Err(_) => return Finding::Reset("a command does not end"),
                };
                self.timeouts.fetch_add(1, Ordering::Relaxed);
                if pair.process(&self.hardware) > 0 {
                    log::warn!("{}: an interrupt of queue {} was lost", self.name, pair.id);
                    continue;
                }
                log::warn!("{}: a command takes too long, and is given up", self.name);
                let abort = Command::abort(pair.id, late.id());
                match self.admin(abort, Data::None, "abort").await {
                    // Whether it could still be given up shows in its own completion.
                    Ok(_) | Err(ControllerError::Refused(..)) => {}
                    Err(_) => return Finding::Reset("it does not answer"),
                }
            }
        }
        Finding::Fine
    }

    /// Takes no more commands, and lets those under way end that still do.
    ///
    /// A reset ends them too, and they would be made again. But it is better to reset a controller that does nothing: QEMU's
    /// has been seen to crash where one under full load was reset.
    async fn settle(&self) {
        self.close();
        for _ in 0..SETTLE_LOOKS {
            self.process_all();
            if self.pairs().iter().all(|pair| pair.under_way() == 0) {
                return;
            }
            self.hardware.sleep(SETTLE_STEP).await;
        }
    }

    async fn recover(&self) {
        self.settle().await;
        for attempt in 1..=RESET_ATTEMPTS {
            match self.restart().await {
                Ok(()) => {
                    self.resets.fetch_add(1, Ordering::AcqRel);
                    return;
                }
                Err(ControllerError::Gone) => {
                    log::error!("{}: the controller is gone", self.name);
                    return self.give_up(DiskError::Gone);
                }
                Err(error) => log::error!("{}: reset {attempt} failed: {error}", self.name),
            }
        }
        log::error!("{}: the controller has failed, and is used no more", self.name);
        self.give_up(DiskError::Failed);
    }
}
