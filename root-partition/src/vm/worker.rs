//! All virtual machines, by name: what the shell commands.

use super::archive::description_file;
use super::assignment::Assignments;
use super::bus::view;
use super::child::Child;
use super::description::{Description, DiskDescription, NAME_RULE, is_name};
use super::devices::{self, Devices};
use super::host::{FRAME, Host};
use super::machine::{Files, Machine};
use crate::disk::Registry;
use crate::net::Switches;
use crate::shell::commands::dispatch::closest;
use crate::shell::machines::{
    ChannelInfo, MachineEvent, MachineInfo, MachineState, Machines, Order, VpStatistics,
};
use crate::shell::system::{Pending, SystemError};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::task::{Context, Poll};
use core::time::Duration;
use hypercall_api::address::Gpa;
use hypercall_api::id::VpIndex;
use hypercall_api::register::{RegisterName, RegisterValue};
use hypercall_api::status::HvStatus;
use spin::Mutex;

/// Most machines.
const MOST: usize = 1024;
/// Bytes of a console that are read at once.
const CONSOLE_PIECE: usize = 4096;
/// Most bytes of memory that are read at once.
const MOST_MEMORY: usize = 64 << 10;
/// Units of reference time in a microsecond.
const TICKS: u64 = 10;

/// The machines.
pub struct Worker<H: Host> {
    host: H,
    files: Arc<dyn Files>,
    disks: Arc<Registry>,
    switches: Arc<Switches>,
    /// Physical devices of machines.
    pub assignments: Arc<Assignments>,
    /// Reference time from which the logs count.
    start: u64,
    machines: Mutex<BTreeMap<String, Arc<Machine<H>>>>,
}

impl<H: Host> Worker<H> {
    /// No machines yet. Logs count from the reference time `start`.
    pub fn new(
        host: H,
        files: Arc<dyn Files>,
        disks: Arc<Registry>,
        assignments: Arc<Assignments>,
        start: u64,
    ) -> Self {
        Self {
            host,
            files,
            disks,
            switches: Arc::default(),
            assignments,
            start,
            machines: Mutex::default(),
        }
    }

    /// The switches that network cards are plugged into.
    pub const fn switches(&self) -> &Arc<Switches> {
        &self.switches
    }

    pub(super) const fn host(&self) -> &H {
        &self.host
    }

    /// Reference time.
    pub(super) fn now(&self) -> u64 {
        self.host.now()
    }

    pub(super) fn all(&self) -> Vec<Arc<Machine<H>>> {
        self.machines.lock().values().cloned().collect()
    }

    pub(super) fn get(&self, name: &str) -> Result<Arc<Machine<H>>, SystemError> {
        let machines = self.machines.lock();
        let found = machines
            .get(name)
            .filter(|machine| machine.state() != MachineState::Deleted);
        found.cloned().ok_or_else(|| {
            let descriptions = self.files.descriptions();
            if descriptions.contains(&name) {
                return SystemError::new(format!(
                    "'{name}' has not been created: 'vm create {name}' does it"
                ));
            }
            let mut names: Vec<&str> = machines.keys().map(String::as_str).collect();
            names.extend(&descriptions);
            SystemError::new(match closest(name, &names) {
                Some(near) => format!("there is no virtual machine '{name}': did you mean '{near}'?"),
                None => format!("there is no virtual machine '{name}': 'vm list' shows those that there are"),
            })
        })
    }

    /// Makes the machine of the description `name`, where there is none of that name.
    pub fn ensure(&self, name: &str) -> Result<(), SystemError> {
        self.get_or_create(name).map(drop)
    }

    /// The machine; one of the same description is made where there is none.
    fn get_or_create(&self, name: &str) -> Result<Arc<Machine<H>>, SystemError> {
        match self.get(name) {
            Err(_) if self.files.descriptions().contains(&name) => {
                let name = self.create(name, None)?;
                self.get(&name)
            }
            result => result,
        }
    }

    pub(super) fn child(&self, name: &str) -> Result<Arc<Child<H>>, SystemError> {
        let machine = self.get(name)?;
        machine.child().ok_or_else(|| {
            SystemError::new(format!(
                "'{name}' is {}: it has no memory and no VPs",
                machine.state()
            ))
        })
    }

    pub(super) fn devices(&self, name: &str) -> Result<Arc<Devices>, SystemError> {
        let machine = self.get(name)?;
        machine.devices().ok_or_else(|| {
            let state = machine.state();
            SystemError::new(format!(
                "'{name}' is {state}: its description says which disks and cards it starts with"
            ))
        })
    }

    fn info(&self, machine: &Machine<H>) -> MachineInfo {
        let description = &machine.description;
        let devices = machine.devices();
        let child = machine.child();
        let pairs = devices.as_ref().map(|devices| devices.told()).unwrap_or_default();
        MachineInfo {
            name: machine.name.clone(),
            state: machine.state(),
            since: duration(self.host.now().saturating_sub(machine.since())),
            processors: description.processors,
            memory: description.memory,
            kernel: description.kernel.clone(),
            modules: description.modules.clone(),
            command_line: description.command_line.clone(),
            console: if description.console == 0 { "com1" } else { "com2" },
            weight: description.weight,
            cap: description.cap,
            reserve: description.reserve,
            partition: child.as_ref().map(|child| child.id.0),
            kept: child.and_then(|child| Some(self.host.balance(child.id).ok()?.in_use * FRAME)),
            starts: machine.starts(),
            disks: match &devices {
                Some(devices) => devices.storage.units().collect(),
                None => Vec::new(),
            },
            heartbeat: devices.and_then(|devices| devices::describe(devices.pulse())),
            guest: pairs.into_iter().map(|pair| (pair.key, pair.value)).collect(),
        }
    }
}

fn duration(ticks: u64) -> Duration {
    Duration::from_micros(ticks / TICKS)
}

impl<H: Host> Machines for Worker<H> {
    fn list(&self) -> Vec<MachineInfo> {
        let machines: Vec<_> = self.machines.lock().values().cloned().collect();
        let alive = machines
            .iter()
            .filter(|machine| machine.state() != MachineState::Deleted);
        alive.map(|machine| self.info(machine)).collect()
    }

    fn show(&self, name: &str) -> Result<MachineInfo, SystemError> {
        Ok(self.info(&*self.get(name)?))
    }

    fn descriptions(&self) -> Vec<String> {
        self.files
            .descriptions()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn create(&self, description: &str, name: Option<&str>) -> Result<String, SystemError> {
        let file = description_file(description);
        let text = self.files.file(&file).ok_or_else(|| {
            let names = self.files.descriptions();
            SystemError::new(match closest(description, &names) {
                Some(near) => format!("the boot archive has no {file}: did you mean '{near}'?"),
                None => format!(
                    "the boot archive has no {file}; it describes: {}",
                    names.join(", ")
                ),
            })
        })?;
        let mut description = Description::read(&file, text).map_err(SystemError::new)?;
        if let Some(name) = name {
            if !is_name(name) {
                return Err(SystemError::new(format!("'{name}' is no name: {NAME_RULE}")));
            }
            description.name = name.to_string();
        }
        for file in core::iter::once(&description.kernel).chain(&description.modules) {
            if self.files.file(file).is_none() {
                return Err(SystemError::new(format!(
                    "{}: the boot archive has no file '{file}'",
                    description.name
                )));
            }
        }
        let mut machines = self.machines.lock();
        machines.retain(|_, machine| machine.state() != MachineState::Deleted);
        if machines.contains_key(&description.name) {
            return Err(SystemError::new(format!(
                "there is a virtual machine '{}' already: --name gives the new one another name",
                description.name
            )));
        }
        if machines.len() >= MOST {
            return Err(SystemError::new(format!(
                "there are {MOST} virtual machines already"
            )));
        }
        let machine = Machine::new(
            self.host.clone(),
            self.files.clone(),
            self.disks.clone(),
            self.switches.clone(),
            self.assignments.clone(),
            description,
        );
        self.host.spawn(Box::pin(machine.clone().serve()));
        machines.insert(machine.name.clone(), machine.clone());
        Ok(machine.name.clone())
    }

    fn order<'a>(&'a self, name: &'a str, order: Order) -> Pending<'a, Result<(), SystemError>> {
        Box::pin(async move {
            let machine = match order {
                Order::Start => self.get_or_create(name)?,
                _ => self.get(name)?,
            };
            machine.request(order).await.map_err(SystemError::new)?;
            if order == Order::Delete {
                self.machines
                    .lock()
                    .retain(|_, machine| machine.state() != MachineState::Deleted);
            }
            Ok(())
        })
    }

    fn wait<'a>(
        &'a self,
        name: &'a str,
        states: &'a [MachineState],
    ) -> Pending<'a, Result<MachineState, SystemError>> {
        Box::pin(async move {
            let machine = self.get(name)?;
            let look = || Some(machine.state()).filter(|state| states.contains(state));
            let gone = || (machine.state() == MachineState::Deleted).then_some(MachineState::Deleted);
            Ok(machine.changes.until(|| look().or_else(gone)).await)
        })
    }

    fn console(&self, name: &str, position: u64) -> Result<(u64, Vec<u8>), SystemError> {
        let machine = self.get(name)?;
        Ok(machine.console(machine.description.console, position, CONSOLE_PIECE))
    }

    fn poll_console(&self, name: &str, position: u64, context: &mut Context<'_>) -> Poll<()> {
        let Ok(machine) = self.get(name) else {
            return Poll::Ready(());
        };
        machine.changes.poll(context, || {
            let (_, bytes) = machine.console(machine.description.console, position, 1);
            let ended = matches!(machine.state(), MachineState::Off | MachineState::Deleted);
            (!bytes.is_empty() || ended).then_some(())
        })
    }

    fn type_in(&self, name: &str, bytes: &[u8]) -> Result<(), SystemError> {
        let machine = self.get(name)?;
        // A machine that is off hears nothing.
        if let Some(child) = machine.child() {
            child.receive(machine.description.console, bytes);
        }
        Ok(())
    }

    fn attach<'a>(
        &'a self,
        name: &'a str,
        disk: &'a DiskDescription,
        lun: Option<u8>,
    ) -> Pending<'a, Result<u8, SystemError>> {
        Box::pin(async move {
            let devices = self.devices(name)?;
            devices.storage.attach(disk, lun).await.map_err(SystemError::new)
        })
    }

    fn detach(&self, name: &str, lun: u8) -> Result<(), SystemError> {
        self.devices(name)?.storage.detach(lun).map_err(SystemError::new)
    }

    fn insert<'a>(&'a self, name: &'a str, lun: u8, source: &'a str) -> Pending<'a, Result<(), SystemError>> {
        Box::pin(async move {
            let devices = self.devices(name)?;
            devices
                .storage
                .insert(lun, source)
                .await
                .map_err(SystemError::new)
        })
    }

    fn eject(&self, name: &str, lun: u8) -> Result<(), SystemError> {
        self.devices(name)?.storage.eject(lun).map_err(SystemError::new)
    }

    fn log(&self, name: &str) -> Result<Vec<MachineEvent>, SystemError> {
        let entries = self.get(name)?.log();
        Ok(entries
            .into_iter()
            .map(|entry| MachineEvent {
                time: duration(entry.time.saturating_sub(self.start)),
                text: entry.text,
            })
            .collect())
    }

    fn registers(&self, name: &str, vp: u32) -> Result<Vec<(RegisterName, RegisterValue)>, SystemError> {
        let child = self.child(name)?;
        if vp as usize >= child.vps.len() {
            return Err(SystemError::new(format!(
                "'{name}' has no VP {vp}: its VPs are 0 to {}",
                child.vps.len().saturating_sub(1)
            )));
        }
        let mut found = Vec::new();
        for &register in RegisterName::ALL {
            let mut value = [RegisterValue::default()];
            match child
                .host
                .get_registers(child.id, VpIndex(vp), &[register], &mut value)
            {
                Ok(()) => found.push((register, value[0])),
                // Not every register is there on every processor.
                Err(HvStatus::INVALID_PARAMETER | HvStatus::PROCESSOR_FEATURE_NOT_SUPPORTED) => {}
                Err(status) => return Err(SystemError::new(format!("VP {vp}: {register:?}: {status}"))),
            }
        }
        Ok(found)
    }

    fn channels(&self, name: &str) -> Result<Vec<ChannelInfo>, SystemError> {
        let child = self.child(name)?;
        Ok(child.bus().map_or_else(Vec::new, |bus| view::channels(bus)))
    }

    fn statistics(&self, name: &str) -> Result<Vec<VpStatistics>, SystemError> {
        let child = self.child(name)?;
        let of_vp = |vp: &Arc<super::vp::Vp>| {
            Ok(VpStatistics {
                vp: vp.index.0,
                intercepts: vp.handled(),
                counters: child.host.statistics(child.id, vp.index)?,
            })
        };
        let result: Result<Vec<_>, HvStatus> = child.vps.iter().map(of_vp).collect();
        result.map_err(SystemError::new)
    }

    fn memory(&self, name: &str, address: u64, length: usize) -> Result<Vec<u8>, SystemError> {
        if length > MOST_MEMORY {
            return Err(SystemError::new(format!(
                "at most {MOST_MEMORY:#x} bytes can be shown at once"
            )));
        }
        let child = self.child(name)?;
        let mut bytes = alloc::vec![0; length];
        child
            .memory
            .lock()
            .read(Gpa(address), &mut bytes)
            .map_err(SystemError::new)?;
        Ok(bytes)
    }
}
