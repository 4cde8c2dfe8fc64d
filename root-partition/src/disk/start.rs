//! Finding the machine's disks, and leaving them in good order.

use super::registry::{DiskRefused, Registry};
use super::root_disk::Backend;
use crate::drivers::nvme::namespace::Namespace;
use crate::drivers::nvme::start::{self as nvme, Started};
use crate::drivers::pci::Address;
use crate::drivers::pci::config;
use crate::drivers::pci::device::PciDevice;
use crate::drivers::pci::scan::Identity;
use crate::executor::{self, Task};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use embassy_time::{Duration, Instant, with_deadline};
use spin::Once;

/// How long disks may take to give their partition tables before users of others go on.
const PATIENCE: Duration = Duration::from_secs(15);

static CONTROLLERS: Once<Vec<Started>> = Once::new();
static REGISTRY: Once<Arc<Registry>> = Once::new();

/// Has the drivers of the disks among `functions` started, as a task that fills `registry`.
pub fn begin(registry: &Arc<Registry>, functions: &'static [Identity]) {
    REGISTRY.call_once(|| registry.clone());
    executor::spawn(run(registry.clone(), functions)).detach();
}

/// Starts the drivers of the disks among `functions`, enters the disks that they find and their partitions, and lets those
/// go on who wait for that.
async fn run(registry: Arc<Registry>, functions: &[Identity]) {
    let started = match config::machine() {
        Some(space) => nvme::all(space, functions).await,
        None => Vec::new(),
    };
    let mut names = Vec::new();
    for started in CONTROLLERS.call_once(|| started) {
        let model = started
            .controller
            .identity()
            .map(|identity| identity.model.clone());
        for namespace in &started.namespaces {
            let name = match namespace.id() {
                1 => started.controller.name.clone(),
                id => format!("{}n{id}", started.controller.name),
            };
            names.push(name.clone());
            registry.add_device(name, Backend::Nvme(namespace.clone()), model.clone());
        }
    }
    let scans: Vec<Task<()>> = names
        .into_iter()
        .map(|name| executor::spawn(scan(registry.clone(), name)))
        .collect();
    // A disk that does not answer must not keep the others from being used; its partitions come when it does.
    let limit = Instant::now() + PATIENCE;
    for mut task in scans {
        if with_deadline(limit, &mut task).await.is_err() {
            task.detach();
        }
    }
    registry.set_ready();
}

async fn scan(registry: Arc<Registry>, name: String) {
    match registry.scan(&name).await {
        Ok(partitions) => log::info!("{name}: {partitions} partitions"),
        Err(error @ DiskRefused::Table(..)) => log::warn!("{error}"),
        Err(error) => log::error!("{error}"),
    }
}

/// The driver that owns the PCI function at `address`, if it is a disk's.
pub fn driver_of(address: Address) -> Option<String> {
    let mut controllers = CONTROLLERS.get()?.iter();
    controllers
        .any(|started| started.identity.address == address)
        .then(|| String::from("nvme"))
}

/// The first disk that a controller of the machine has, once the drivers have looked.
pub async fn first() -> Option<Namespace<PciDevice>> {
    REGISTRY.get()?.ready().await;
    let started = CONTROLLERS.get()?;
    started
        .iter()
        .find_map(|started| started.namespaces.first().cloned())
}

/// Has all disks write down what they hold, as the machine ends.
pub fn shut_down() {
    for started in CONTROLLERS.get().into_iter().flatten() {
        started.controller.shut_down();
    }
}
