//! Debian's own VMBus driver and the host's end of the bus.

use anyhow::{Result, ensure};

use crate::world::{Guest, World, complaints};

/// The bus driver finds its bus, and drivers of devices come and go; the kernel prints what they say.
const LOAD: &str = "dmesg -n 7; \
    modprobe hv_vmbus; echo loaded_$((1))=$?; \
    echo interrupts_$((1))=$(grep HYP: /proc/interrupts); \
    modprobe hv_utils; modprobe hv_storvsc; modprobe hv_netvsc; echo drivers_$((1))=$?; \
    rmmod hv_netvsc; rmmod hv_storvsc; rmmod hv_utils; echo unloaded_$((1))=$?; \
    modprobe hv_utils; echo drivers_$((2))=$?; \
    poweroff -f";

const LOAD_AND_UNLOAD: &str = "modprobe hv_vmbus; rmmod hv_vmbus; echo unloaded_$((1))=$?; \
    modprobe hv_vmbus; echo loaded_$((2))=$?; modprobe hv_utils; echo utils_$((2))=$?; \
    dmesg | grep -E 'W[A]RNING|B[U]G|imed[ ]out'; poweroff -f";

/// Without synthetic timers: the driver takes them along when it goes, and Linux 6.1 has nothing to put in their place. Those
/// of the direct mode stay the guest's only clock events (drivers/clocksource/hyperv_timer.c, hv_stimer_cleanup); those that
/// are told by messages cannot be given up, as an APIC timer that never stops has become the broadcast device meanwhile
/// (`unbind_device` in sysfs says "busy" then). Either way it is the guest that stands still, and kexec is not concerned.
#[test]
fn its_bus_driver_goes_and_comes_again() -> Result<()> {
    let guest = Guest {
        more: "[enlightenments]\nsynthetic_timers = false\n",
        ..Guest::new("bus", 1, LOAD_AND_UNLOAD)
    };
    World::with(&guest, |world| {
        world.wait("bus", "off")?;
        let console = world.console_of("bus")?;
        for mark in ["unloaded_1=0", "loaded_2=0", "utils_2=0"] {
            ensure!(console.lines().any(|line| line == mark), "{mark} is not there");
        }
        ensure!(complaints(&console).is_empty(), "{:#?}", complaints(&console));
        Ok(())
    })
}

#[test]
fn its_bus_driver_connects() -> Result<()> {
    World::with(&Guest::new("bus", 2, LOAD), |world| {
        world.wait("bus", "off")?;
        let console = world.console_of("bus")?;
        for mark in ["loaded_1=0", "drivers_1=0", "unloaded_1=0", "drivers_2=0"] {
            ensure!(console.lines().any(|line| line == mark), "{mark} is not there");
        }
        let contacts = console.matches("Vmbus version:5.3").count();
        ensure!(contacts == 1, "{contacts} contacts");
        let interrupts = console.lines().find(|line| line.starts_with("interrupts_1="));
        let count: u64 = interrupts
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|word| word.parse::<u64>().ok())
            .sum();
        ensure!(count > 0, "{interrupts:?}");
        ensure!(complaints(&console).is_empty(), "{:#?}", complaints(&console));
        Ok(())
    })
}
