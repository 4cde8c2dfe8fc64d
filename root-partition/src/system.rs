//! What the shell sees of the world, over hypercalls and drivers.

use crate::acpi::sleep::SleepType;
use crate::disk::{self, Registry};
use crate::drivers::pci::Address;
use crate::drivers::pci::scan::Identity;
use crate::hypervisor::{hypercalls, statistics, time};
use crate::memory::{address_space, heap};
use crate::selftest::Targets;
use crate::shell::disks::Disks;
use crate::shell::machines::Machines;
use crate::shell::network::RootNetwork;
use crate::shell::system::{
    AssignedDevice, Devices, LogText, Measurement, Named, PciDevice, Pending, RootInfo, Selftest, Statistics,
    System, SystemError,
};
use crate::vm::root_host::RootHost;
use crate::vm::worker::Worker;
use crate::{bench, executor, logger, net, selftest, stop, wall_clock};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll};
use core::time::Duration;
use embassy_time::Timer;
use hypercall_api::address::PAGE_SIZE;
use hypercall_api::call::{DeviceCalls, Hypercalls, PartitionCalls};
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::memory::MemoryBalance;
use hypercall_api::operator::{IommuState, LOG_CHUNK, SystemInfo};

/// Reference time ticks a microsecond.
const TICKS_PER_MICROSECOND: u64 = 10;

/// The machine as found at the start.
pub struct Machine {
    /// VPs that run.
    pub vps: u32,
    /// PCI functions.
    pub pci: Vec<Identity>,
    /// The disks.
    pub disks: Arc<Registry>,
    /// How to power off.
    pub soft_off: Option<SleepType>,
    /// What the self-tests aim at.
    pub targets: Targets,
    /// The virtual machines.
    pub worker: Worker<RootHost>,
    /// Reference time when the root was entered.
    pub entered: u64,
    /// TSC when the shell first prompted; 0 before.
    pub tsc_at_prompt: AtomicU64,
}

impl System for Machine {
    fn information(&self) -> Result<SystemInfo, SystemError> {
        hypercalls().query_system().map_err(SystemError::new)
    }

    fn iommu(&self) -> Result<Box<IommuState>, SystemError> {
        hypercalls().query_iommu().map(Box::new).map_err(SystemError::new)
    }

    fn hypervisor_log(&self, position: u64) -> Result<LogText, SystemError> {
        let chunk = hypercalls().read_log(position).map_err(SystemError::new)?;
        let length = (chunk.length as usize).min(LOG_CHUNK);
        Ok(LogText {
            position: chunk.position,
            next: chunk.next,
            text: chunk.data[..length].to_vec(),
        })
    }

    fn root_log(&self, position: u64) -> LogText {
        let (position, text) = logger::read(position, LOG_CHUNK);
        LogText {
            position,
            next: position + text.len() as u64,
            text,
        }
    }

    fn vp_count(&self) -> u32 {
        self.vps
    }

    fn statistics(&self, vp: u32) -> Result<Box<Statistics>, SystemError> {
        statistics::read(PartitionId::SELF, VpIndex(vp)).map_err(SystemError::new)
    }

    fn pci_devices(&self) -> Vec<PciDevice> {
        let device = |function: &Identity| PciDevice {
            segment: function.address.segment,
            bus: function.address.bus,
            device: function.address.device(),
            function: function.address.function(),
            vendor_id: function.vendor,
            device_id: function.device,
            class: function.class,
            driver: disk::start::driver_of(function.address)
                .or_else(|| net::start::driver_of(function.address)),
            machine: self.worker.assignments.machine_of(function.address),
        };
        self.pci.iter().map(device).collect()
    }

    fn root(&self) -> RootInfo {
        let (heap_total, heap_used) = heap::usage(self.targets.heap);
        let ticks = time::now().saturating_sub(self.entered);
        // Without an answer there is nothing to show but zeros.
        let pool = hypercalls()
            .memory_balance(PartitionId::SELF)
            .unwrap_or(MemoryBalance {
                available: 0,
                in_use: 0,
            });
        RootInfo {
            heap_total,
            memory_free: address_space::free_bytes(),
            pool_free: pool.available * PAGE_SIZE,
            pool_used: pool.in_use * PAGE_SIZE,
            heap_used,
            tasks: executor::task_count(),
            gpadls: crate::vm::bus::mapping::count(),
            uptime: Duration::from_micros(ticks / TICKS_PER_MICROSECOND),
            unix_time: wall_clock::unix_time(),
            tsc_at_prompt: self.tsc_at_prompt.load(Ordering::Relaxed),
        }
    }

    fn benchmarks(&self) -> Vec<Named> {
        bench::list().collect()
    }

    fn run_benchmark<'a>(&'a self, name: &'a str) -> Pending<'a, Result<Measurement, SystemError>> {
        Box::pin(
            async move { bench::run(name).ok_or_else(|| SystemError::new("there is no such benchmark")) },
        )
    }

    fn selftests(&self) -> Vec<Selftest> {
        selftest::list().collect()
    }

    fn run_selftest<'a>(&'a self, name: &'a str) -> Pending<'a, Result<String, SystemError>> {
        Box::pin(async move {
            selftest::run(name, &self.targets)
                .await
                .unwrap_or_else(|| Err(String::from("there is no such self-test")))
                .map_err(SystemError)
        })
    }

    fn sleep(&self, duration: Duration) -> Pending<'_, ()> {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / TICKS_PER_MICROSECOND);
        Box::pin(Timer::after(embassy_time::Duration::from_micros(micros)))
    }

    fn power_off(&self) -> Result<(), SystemError> {
        disk::start::shut_down();
        Err(SystemError::new(stop::power_off(self.soft_off)))
    }

    fn reboot(&self) -> Result<(), SystemError> {
        disk::start::shut_down();
        stop::reset();
        Ok(())
    }

    fn machines(&self) -> Option<&dyn Machines> {
        Some(&self.worker)
    }

    fn devices(&self) -> Option<&dyn Devices> {
        Some(self)
    }

    fn disks(&self) -> Option<&dyn Disks> {
        Some(&self.disks)
    }

    fn network(&self) -> Option<&dyn RootNetwork> {
        net::start::network().map(|network| network as &dyn RootNetwork)
    }

    fn poll_notice(&self, context: &mut Context<'_>) -> Poll<String> {
        logger::poll_notice(context)
    }
}

impl Devices for Machine {
    fn assign<'a>(
        &'a self,
        device: &'a str,
        machine: &'a str,
        without_reset: bool,
    ) -> Pending<'a, Result<AssignedDevice, SystemError>> {
        Box::pin(async move {
            let address: Address = device.parse().map_err(SystemError::new)?;
            self.worker.ensure(machine)?;
            // The drivers have looked for what is theirs.
            self.disks.ready().await;
            let driver = |address| {
                let devices = self.pci_devices();
                devices
                    .into_iter()
                    .zip(&self.pci)
                    .find(|(_, function)| function.address == address)
                    .and_then(|(device, _)| device.driver)
            };
            let assignments = &self.worker.assignments;
            let assigned = assignments.assign(&RootHost, address, machine, driver, without_reset);
            let assigned = assigned.await.map_err(SystemError::new)?;
            let requester = Address {
                segment: address.segment,
                bus: (assigned.requester >> 8) as u8,
                slot: assigned.requester as u8,
            };
            Ok(AssignedDevice {
                address: format!("{address}"),
                requester: format!("{requester}"),
                reset: assigned.reset.map(|method| format!("{method}")),
            })
        })
    }

    fn release<'a>(&'a self, device: &'a str) -> Pending<'a, Result<(), SystemError>> {
        Box::pin(async move {
            let address = device.parse().map_err(SystemError::new)?;
            let released = self.worker.assignments.release(&RootHost, address);
            released.await.map_err(SystemError::new)
        })
    }
}
