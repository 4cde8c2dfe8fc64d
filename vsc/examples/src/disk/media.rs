//! What is in a DVD drive, whenever that has changed.

use super::{DiskError, checksum_of};
use alloc::sync::Arc;
use core::future::pending;
use vsc::bus::Bus;
use vsc::storage::{Controller, DeviceType, Disk};
use vsc_runtime::hal::Kernel;
use vsc_runtime::println;

/// Between two looks, in 100 ns.
const PAUSE: u64 = 2_000_000;

/// Says what is in the first drive, again and again.
pub(super) fn watch(bus: &Bus<Kernel>, controller: &Arc<Controller>) -> Result<(), DiskError> {
    let mut found = bus.block_on(controller.scan())?.into_iter();
    let Some(drive) = found.find(|found| found.device_type == DeviceType::DVD) else {
        return Err(DiskError::NoDrive);
    };
    let drive = bus.block_on(Disk::open(controller, drive.address))?;
    let mut seen = None;
    loop {
        let geometry = bus.block_on(drive.refresh())?;
        // Media of the same size differ by what is on them.
        let holds = match geometry.blocks {
            0 => None,
            // It may be taken out meanwhile.
            blocks => checksum_of(bus, &drive).ok().map(|sum| (blocks, sum)),
        };
        if seen != Some(holds) {
            match holds {
                Some((blocks, sum)) => {
                    println!(
                        "disk: {} holds {blocks} blocks, CRC-32 {sum:08x}",
                        drive.address()
                    );
                }
                None => println!("disk: {} is empty", drive.address()),
            }
            seen = Some(holds);
        }
        let _ = bus.block_on_for(PAUSE, pending::<()>());
    }
}
