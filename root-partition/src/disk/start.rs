//! Finding the machine's disks, and leaving them in good order.

use super::registry::{DiskRefused, Registry};
use super::root_disk::Backend;
use crate::drivers::nvme::start::{self as nvme, Started};
use crate::drivers::pci::Address;
use crate::drivers::pci::config;
use crate::drivers::pci::scan::Identity;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use spin::Once;

static CONTROLLERS: Once<Vec<Started>> = Once::new();

/// Starts the drivers of the disks among `functions`, enters the disks that they find and their partitions, and lets those
/// go on who wait for that.
pub async fn run(registry: Arc<Registry>, functions: &[Identity]) {
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
    for name in names {
        match registry.scan(&name).await {
            Ok(partitions) => log::info!("{name}: {partitions} partitions"),
            Err(error @ DiskRefused::Table(..)) => log::warn!("{error}"),
            Err(error) => log::error!("{error}"),
        }
    }
    registry.set_ready();
}

/// The driver that owns the PCI function at `address`, if it is a disk's.
pub fn driver_of(address: Address) -> Option<String> {
    let mut controllers = CONTROLLERS.get()?.iter();
    controllers
        .any(|started| started.identity.address == address)
        .then(|| String::from("nvme"))
}

/// Has all disks write down what they hold, as the machine ends.
pub fn shut_down() {
    for started in CONTROLLERS.get().into_iter().flatten() {
        started.controller.shut_down();
    }
}
