//! A VP as the worker has it: its task, and the page in which the hypervisor says why the VP stopped.

use super::child::{Child, Event};
use super::host::{Host, Job};
use super::intercept::{self, Answer};
use super::signal::Signal;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hypercall_api::address::Gpfn;
use hypercall_api::id::VpIndex;
use spin::Mutex;

/// A VP.
#[derive(Debug)]
pub struct Vp {
    /// Its index.
    pub index: VpIndex,
    /// Its intercept message page, until the VP is to end. The lock is held while a message is handled.
    page: Mutex<Option<Gpfn>>,
    signal: Signal,
    has_task: AtomicBool,
    handled: AtomicU64,
}

impl Vp {
    /// A VP whose messages come in `page`.
    pub fn new(index: VpIndex, page: Gpfn) -> Self {
        Self {
            index,
            page: Mutex::new(Some(page)),
            signal: Signal::default(),
            has_task: AtomicBool::new(false),
            handled: AtomicU64::new(0),
        }
    }

    /// Intercepts that were handled.
    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// An intercept has suspended it. The first starts its task: on this processor, as this is the one on which the
    /// hypervisor runs the VP.
    pub fn intercepted<H: Host>(self: &Arc<Self>, child: &Arc<Child<H>>) {
        self.signal.raise();
        if !self.has_task.swap(true, Ordering::Relaxed) {
            let job: Job = Box::pin(run(self.clone(), child.clone()));
            child.host.spawn(job);
        }
    }

    /// Ends its task. Nothing of the VP is touched once this returns.
    pub fn close(&self) {
        *self.page.lock() = None;
        self.signal.raise();
    }

    /// Handles the message in the page; false once the VP is closed.
    fn handle<H: Host>(&self, child: &Child<H>) -> bool {
        let page = self.page.lock();
        let Some(page) = *page else {
            return false;
        };
        self.handled.fetch_add(1, Ordering::Relaxed);
        let message = child.host.read_message(page);
        let mut registers = intercept::Registers::new();
        let event = match intercept::handle(child, self.index, &message, &mut registers) {
            Answer::Resume => match child.host.set_registers(child.id, self.index, &registers) {
                Ok(()) => return true,
                Err(status) => Event::Crash(alloc::format!("VP {} cannot be resumed: {status}", self.index)),
            },
            Answer::Stay => return true,
            Answer::Event(event) => event,
        };
        child.owner.event(child.id, event);
        true
    }
}

/// The task of a VP.
async fn run<H: Host>(vp: Arc<Vp>, child: Arc<Child<H>>) {
    loop {
        vp.signal.wait().await;
        if !vp.handle(&child) {
            return;
        }
    }
}
