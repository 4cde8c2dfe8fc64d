//! A child partition and what it is made of: memory, devices, VPs. Created in the order that the TLFS wants, and taken
//! apart so that every page comes back.

use super::bus::host::Bus;
use super::bus::memory::ChildMemory;
use super::bus::port::Port;
use super::chipset::{Chipset, Effect, Effects};
use super::description::{Description, MsrPolicy};
use super::host::{BLOCK, FRAME, Host, Listener};
use super::intercept::crash::Report;
use super::loader::Entry;
use super::memory::GuestMemory;
use super::pool::{self, PoolError, with_deposits};
use super::signal::yield_now;
use super::vp::Vp;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use hypercall_api::address::Gpfn;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::interrupt::{AssertVirtualInterrupt, InterruptType};
use hypercall_api::memory::MapGpaFlags;
use hypercall_api::partition::{CPU_SHARE_ALL, PartitionProperty};
use hypercall_api::register::{RegisterAssociation, RegisterName};
use hypercall_api::status::HvStatus;
use spin::Mutex;

/// Frames that are allocated at once where a whole block is too much.
const RUN: usize = 64;
/// Extents that are mapped before other tasks may run.
const MAPPED_AT_ONCE: usize = 16;

/// What a child tells the machine that it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The guest powered itself off.
    PowerOff,
    /// The guest reset itself.
    Reset,
    /// A VP faulted three times over.
    TripleFault {
        /// The VP.
        vp: VpIndex,
        /// Where.
        rip: u64,
    },
    /// A VP cannot go on.
    Crash(String),
    /// The guest says that it has crashed.
    GuestCrash(Report),
    /// Something for the log.
    Note(String),
}

/// The machine, as its child sees it.
pub trait Owner: Send + Sync {
    /// A serial port has sent a byte.
    fn serial(&self, port: usize, byte: u8);
    /// Something has happened in the child `partition`.
    fn event(&self, partition: PartitionId, event: Event);
}

/// Why a child could not be made or kept.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChildError {
    /// The machine's memory is not there.
    #[error("the root partition has no {0} MiB of memory left: give the machine less, or end another")]
    OutOfMemory(u64),
    /// The bookkeeping's memory is not there, or the hypervisor refused.
    #[error("{what}: {error}")]
    Failed {
        /// What was to be done.
        what: &'static str,
        /// Why it was not.
        error: PoolError,
    },
    /// Somebody wanted it to end.
    #[error("it was killed while it started")]
    Killed,
}

/// A child partition.
pub struct Child<H: Host> {
    /// The kernel and the hypervisor below.
    pub host: H,
    /// Its id.
    pub id: PartitionId,
    /// Its RAM.
    pub memory: Mutex<GuestMemory>,
    /// Its devices.
    pub chipset: Mutex<Chipset>,
    /// Its VPs, by index.
    pub vps: Vec<Arc<Vp>>,
    /// Its bus, but while it is made.
    bus: Option<Arc<Bus<H>>>,
    /// Its ports to itself, until it ends.
    loopback: Mutex<Option<[Port<H>; 2]>>,
    /// What becomes of MSRs that it does not have.
    pub msrs: MsrPolicy,
    /// The machine that it is.
    pub owner: Arc<dyn Owner>,
}

impl<H: Host> Child<H> {
    /// Makes a child as `description` has it, its VPs suspended, its memory empty. Ends early where `killed` says so.
    pub async fn create(
        host: H,
        description: &Description,
        owner: Arc<dyn Owner>,
        killed: impl Fn() -> bool,
    ) -> Result<Arc<Self>, ChildError> {
        let id = match with_deposits(&host, PartitionId::SELF, || host.create_partition()) {
            Ok(id) => id,
            Err(error) => {
                // What was deposited in vain.
                if let Err(status) = pool::drain_own(&host) {
                    log::error!("the root's own pool cannot be emptied: {status}");
                }
                return Err(failed("creating the partition")(error));
            }
        };
        let mut child = Self {
            host,
            id,
            memory: Mutex::new(GuestMemory::new()),
            chipset: Mutex::new(Chipset::default()),
            vps: Vec::new(),
            bus: None,
            loopback: Mutex::new(None),
            msrs: description.msrs.clone(),
            owner,
        };
        match child.build(description, killed).await {
            Ok(()) => {
                let child = Arc::new(child);
                child.host.listen(id, Some(child.clone()));
                Ok(child)
            }
            Err(error) => {
                child.release().await;
                Err(error)
            }
        }
    }

    async fn build(
        &mut self,
        description: &Description,
        killed: impl Fn() -> bool,
    ) -> Result<(), ChildError> {
        self.call("initializing the partition", || {
            self.host.initialize_partition(self.id)
        })?;
        let percent = |percent: u64| percent * CPU_SHARE_ALL / 100;
        for (property, value) in [
            (PartitionProperty::CPU_WEIGHT, Some(description.weight)),
            (PartitionProperty::CPU_CAP, description.cap.map(percent)),
            (
                PartitionProperty::CPU_RESERVE,
                Some(percent(description.reserve)).filter(|share| *share != 0),
            ),
        ] {
            if let Some(value) = value {
                self.call("setting its share of the processors", || {
                    self.host.set_property(self.id, property, value)
                })?;
            }
        }
        let mut policies = description.enlightenments.cpuid(self.id);
        for mask in &description.cpuid {
            mask.add_to(&mut policies, self.id);
        }
        for policy in policies {
            self.call("setting what CPUID says", || self.host.register_cpuid(&policy))?;
        }
        if !description.msrs.is_plain() {
            self.call("asking to hear of its MSRs", || self.host.intercept_msrs(self.id))?;
        }
        self.allocate_memory(description.memory, &killed).await?;
        self.map_memory(&killed).await?;
        for index in (0..description.processors).map(VpIndex) {
            self.call("creating a VP", || self.host.create_vp(self.id, index))?;
            let page = self.call("mapping a VP's message page", || {
                self.host.map_message_page(self.id, index)
            })?;
            self.vps.push(Arc::new(Vp::new(index, page)));
        }
        if description.loopback {
            let ports = Port::loopback(&self.host, self.id).map_err(failed("making its ports to itself"))?;
            *self.loopback.lock() = Some(ports);
        }
        let memory = Arc::new(ChildMemory::of(&self.memory.lock()));
        let bus = Bus::new(self.host.clone(), self.id, description.processors, memory);
        self.bus = Some(bus.map_err(failed("making its bus"))?);
        Ok(())
    }

    /// Its bus.
    pub fn bus(&self) -> Option<&Arc<Bus<H>>> {
        self.bus.as_ref()
    }

    /// Makes `call`, with deposits to the child's pool.
    fn call<T>(
        &self,
        what: &'static str,
        call: impl FnMut() -> Result<T, HvStatus>,
    ) -> Result<T, ChildError> {
        with_deposits(&self.host, self.id, call).map_err(failed(what))
    }

    /// Takes RAM from the root: blocks as far as there are, then shorter runs.
    async fn allocate_memory(&self, size: u64, killed: &impl Fn() -> bool) -> Result<(), ChildError> {
        let mut left = size;
        let mut blocks = true;
        while left > 0 {
            if killed() {
                return Err(ChildError::Killed);
            }
            let block = match left >= BLOCK && blocks {
                true => self.host.allocate_block(),
                false => None,
            };
            // Runs after blocks: an extent that begins at a multiple of a block's size must be one.
            let (host, length) = match block {
                Some(host) => (host, BLOCK),
                None => {
                    blocks = false;
                    let frames = (left / FRAME).min(RUN as u64);
                    let run =
                        |frames: u64| Some((self.host.allocate_frames(frames as usize)?, frames * FRAME));
                    run(frames)
                        .or_else(|| run(1))
                        .ok_or(ChildError::OutOfMemory(size >> 20))?
                }
            };
            self.extend(host, length);
            left -= length;
            yield_now().await;
        }
        Ok(())
    }

    #[allow(unsafe_code)]
    fn extend(&self, host: u64, length: u64) {
        // SAFETY: the range was just allocated by `host`, which maps all RAM, and `release` gives it back only after the
        // memory has forgotten it.
        unsafe { self.memory.lock().add(host, length) };
    }

    async fn map_memory(&self, killed: &impl Fn() -> bool) -> Result<(), ChildError> {
        let extents: Vec<_> = self.memory.lock().extents().collect();
        for (count, (gpa, host, size)) in extents.into_iter().enumerate() {
            if killed() {
                return Err(ChildError::Killed);
            }
            let large = size == BLOCK && gpa.is_aligned(BLOCK) && host.is_multiple_of(BLOCK);
            let (flags, pages): (_, Vec<Gpfn>) = match large {
                true => (
                    MapGpaFlags::RAM | MapGpaFlags::LARGE_PAGE,
                    alloc::vec![Gpfn(host / FRAME)],
                ),
                false => {
                    let frames = host / FRAME..(host + size) / FRAME;
                    (MapGpaFlags::RAM, frames.map(Gpfn).collect())
                }
            };
            let mut done = 0;
            self.call("mapping its memory", || {
                let target = Gpfn(gpa.page().0 + done as u64);
                self.host
                    .map(self.id, target, flags, &pages[done..])
                    .map_err(|error| {
                        done += error.completed;
                        error.status
                    })
            })?;
            if count % MAPPED_AT_ONCE == 0 {
                yield_now().await;
            }
        }
        Ok(())
    }

    /// Puts VP 0 where the loader wants it to begin.
    pub fn set_entry(&self, entry: &Entry) -> Result<(), ChildError> {
        let registers = super::boot_state::registers(entry);
        self.call("setting VP 0's registers", || {
            self.host.set_registers(self.id, VpIndex(0), &registers)
        })
    }

    /// Lets all VPs run, or none.
    pub fn set_suspended(&self, suspended: bool) -> Result<(), ChildError> {
        let register = RegisterAssociation::new(RegisterName::EXPLICIT_SUSPEND, u64::from(suspended));
        // VP 0 last where they begin: the others wait for it.
        for vp in self.vps.iter().rev() {
            self.call("starting or suspending a VP", || {
                self.host.set_registers(self.id, vp.index, &[register])
            })?;
        }
        Ok(())
    }

    /// Ends the child, whatever it does, and gives everything back. Returns what was in the way, if anything.
    pub async fn destroy(&self) -> Option<HvStatus> {
        let suspended = self.set_suspended(true);
        for vp in &self.vps {
            vp.close();
        }
        self.host.listen(self.id, None);
        if let Err(error) = suspended {
            log::warn!("partition {}: {error}", self.id);
        }
        self.release().await
    }

    async fn release(&self) -> Option<HvStatus> {
        if let Some(bus) = &self.bus {
            // Afterwards no device and no transfer uses its memory.
            bus.close().await;
        }
        drop(self.loopback.lock().take());
        let finalized = self.host.finalize_partition(self.id);
        if let Err(status) = finalized {
            // Its memory may still be in use: better lost than shared.
            log::error!(
                "partition {} cannot be finalized, and its memory is lost: {status}",
                self.id
            );
            return Some(status);
        }
        let ranges: Vec<Range<u64>> = self.memory.lock().take();
        ranges.into_iter().for_each(|range| self.host.release(range));
        yield_now().await;
        let drained = pool::drain(&self.host, self.id).map(|_| ());
        let deleted = drained.and_then(|()| self.host.delete_partition(self.id));
        let result = deleted.and_then(|()| pool::drain_own(&self.host));
        if let Err(status) = result {
            log::error!("partition {} could not be deleted: {status}", self.id);
        }
        result.err()
    }

    /// Gives bytes to a serial port.
    pub fn receive(&self, port: usize, bytes: &[u8]) {
        let mut effects = Effects::new();
        self.chipset.lock().receive(port, bytes, &mut effects);
        self.apply(&effects);
    }

    /// Does what devices want done. False where the VP that caused it is not to go on.
    pub fn apply(&self, effects: &[Effect]) -> bool {
        let mut goes_on = true;
        for effect in effects {
            match *effect {
                Effect::Serial { port, byte } => self.owner.serial(port, byte),
                Effect::Interrupt(interrupt) => self.interrupt(&interrupt),
                Effect::PowerOff | Effect::Reset => {
                    goes_on = false;
                    let event = match effect {
                        Effect::PowerOff => Event::PowerOff,
                        _ => Event::Reset,
                    };
                    self.owner.event(self.id, event);
                }
            }
        }
        goes_on
    }

    fn interrupt(&self, interrupt: &super::chipset::io_apic::Interrupt) {
        let flag = |set, bit| if set { bit } else { 0 };
        let input = AssertVirtualInterrupt {
            interrupt_type: InterruptType(interrupt.delivery_mode.into()),
            flags: flag(interrupt.level, AssertVirtualInterrupt::LEVEL_TRIGGERED)
                | flag(interrupt.logical, AssertVirtualInterrupt::LOGICAL_DESTINATION),
            ..AssertVirtualInterrupt::edge(self.id, interrupt.destination.into(), interrupt.vector)
        };
        if let Err(status) = self.host.assert_interrupt(&input) {
            // The guest may have programmed nonsense.
            log::debug!("partition {}: interrupt {interrupt:?}: {status}", self.id);
        }
    }
}

impl<H: Host> Listener for Child<H> {
    fn intercept(self: Arc<Self>, vp: VpIndex) {
        let Some(vp) = self.vps.get(vp.0 as usize).cloned() else {
            log::warn!(
                "partition {}: an intercept of VP {vp}, which it does not have",
                self.id
            );
            return;
        };
        vp.intercepted(&self);
    }

    fn end_of_interrupt(&self, vector: u8) {
        let mut effects = Effects::new();
        self.chipset.lock().end_of_interrupt(vector, &mut effects);
        self.apply(&effects);
    }
}

fn failed(what: &'static str) -> impl Fn(PoolError) -> ChildError {
    move |error| ChildError::Failed { what, error }
}
