//! Finding the machine's controllers, and giving each its interrupts.

use super::controller::{Controller, ControllerError};
use super::hardware::Hardware;
use super::identify;
use super::namespace::Namespace;
use crate::drivers::pci::config::ConfigSpace;
use crate::drivers::pci::device::{Device as _, NoRegisters, PciDevice};
use crate::drivers::pci::function::Function;
use crate::drivers::pci::msi::{self, MsiError, Table};
use crate::drivers::pci::scan::Identity;
use crate::executor::{self, Task};
use crate::hypervisor::time;
use crate::interrupt::Interrupt;
use crate::processor::{self, local};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use embassy_time::{Duration, Timer};

/// Base class, subclass and programming interface of a controller.
const CLASS: [u8; 3] = [0x01, 0x08, 0x02];
/// 100 ns in a microsecond.
const MICROSECOND: u64 = 10;

impl Hardware for PciDevice {
    fn now(&self) -> u64 {
        time::now()
    }

    fn sleep(&self, ticks: u64) -> impl Future<Output = ()> + Send {
        Timer::after(Duration::from_micros(ticks.div_ceil(MICROSECOND)))
    }

    fn processor(&self) -> usize {
        local().vp as usize
    }
}

/// A controller that runs, and its namespaces.
pub struct Started {
    /// Where it is.
    pub identity: Identity,
    /// The controller.
    pub controller: Arc<Controller<PciDevice>>,
    /// Its namespaces that can be used.
    pub namespaces: Vec<Namespace<PciDevice>>,
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Registers(#[from] NoRegisters),
    #[error("it gets no interrupt: {0}")]
    Interrupt(#[from] MsiError),
    #[error(transparent)]
    Controller(#[from] ControllerError),
}

/// Starts all controllers among `functions`, named `nvme0` and so on in that order. Those that cannot be used are logged.
pub async fn all(space: &'static dyn ConfigSpace, functions: &[Identity]) -> Vec<Started> {
    let controllers = functions.iter().filter(|function| function.class == CLASS);
    let starting: Vec<Task<Option<Started>>> = controllers
        .enumerate()
        .map(|(index, &identity)| {
            let name = format!("nvme{index}");
            executor::spawn(async move {
                match one(space, identity, name.clone()).await {
                    Ok(started) => Some(started),
                    Err(error) => {
                        log::error!("{name} at {}: cannot be used: {error}", identity.address);
                        None
                    }
                }
            })
        })
        .collect();
    let mut started = Vec::new();
    for task in starting {
        started.extend(task.await);
    }
    started
}

async fn one(
    space: &'static dyn ConfigSpace,
    identity: Identity,
    name: String,
) -> Result<Started, StartError> {
    let device = PciDevice::find(space, identity.address)?;
    let interrupts = interrupts(device.function).await?;
    device.function.enable();
    let controller = Arc::new(Controller::new(device, name, interrupts.len())?);
    let tasks: Vec<Task<()>> = interrupts
        .into_iter()
        .enumerate()
        .map(|(line, (vp, interrupt))| executor::spawn_on(vp, serve(controller.clone(), line, interrupt)))
        .collect();
    let namespaces = match bring_up(&controller).await {
        Ok(namespaces) => namespaces,
        Err(error) => {
            // Its queues are freed now, and it must not write to them.
            controller.hardware.cut_off();
            return Err(error.into());
        }
    };
    tasks.into_iter().for_each(Task::detach);
    let watched = controller.clone();
    executor::spawn(async move { watched.watch().await }).detach();
    Ok(Started {
        identity,
        controller,
        namespaces,
    })
}

/// Starts the controller and reads what namespaces it has.
async fn bring_up(
    controller: &Arc<Controller<PciDevice>>,
) -> Result<Vec<Namespace<PciDevice>>, ControllerError> {
    controller.start(processor::local::all().len()).await?;
    let mut namespaces = Vec::new();
    for (id, namespace) in controller.namespaces().await? {
        match namespace {
            Ok(identity) => namespaces.push(Namespace::new(controller.clone(), id, &identity)),
            Err(error) => log::warn!("{}: namespace {id} cannot be used: {error}", controller.name),
        }
    }
    let model = controller
        .identity()
        .map_or("", |identity: &identify::Controller| &identity.model);
    log::info!(
        "{}: {model}, {} queue pairs, {} namespaces",
        controller.name,
        controller.pairs().len(),
        namespaces.len()
    );
    Ok(namespaces)
}

/// The function's interrupts, each with the VP that it comes to: the first for the admin queue, and one a VP as far as they
/// reach. Where there is only one, it is for everything.
async fn interrupts(function: Function<'static>) -> Result<Vec<(u32, Interrupt)>, MsiError> {
    let Some(table) = Table::find(&function)? else {
        let only = executor::spawn_on(0, async move { msi::enable_msi(&function) }).await?;
        return Ok(alloc::vec![(0, only)]);
    };
    let vps = processor::local::all().len() as u32;
    let table = Arc::new(table);
    let mut interrupts = Vec::new();
    for line in 0..u32::from(table.entries()).min(vps + 1) {
        let vp = line.saturating_sub(1);
        let table = table.clone();
        // An interrupt comes to the processor that asks for it.
        match executor::spawn_on(vp, async move { table.enable(line as u16) }).await {
            Ok(interrupt) => interrupts.push((vp, interrupt)),
            Err(error) if line == 0 => return Err(error),
            Err(error) => {
                log::warn!("{}: only {line} interrupts: {error}", function.address);
                break;
            }
        }
    }
    Ok(interrupts)
}

/// Hands the controller its interrupts.
async fn serve(controller: Arc<Controller<PciDevice>>, line: usize, mut interrupt: Interrupt) {
    loop {
        interrupt.wait().await;
        controller.interrupt(line);
    }
}
