//! The DSDT: what devices there are.

use super::super::chipset::{POWER_OFF_TYPE, SERIAL, io_apic};
use super::super::memory::LOW_END;
use super::{Machine, OEM, OEM_REVISION, OEM_TABLE, Profile};
use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Name, Package, ResourceTemplate,
    Scope,
};
use acpi_tables::sdt::Sdt;
use alloc::format;
use alloc::vec;
use core::ops::Range;

/// Addresses below 4 GiB for VMBus devices, where Hyper-V has them; they end before the IOAPIC.
pub const LOW_WINDOW: Range<u64> = 0xf800_0000..io_apic::BASE;
const _: () = assert!(LOW_WINDOW.start >= LOW_END);
/// Where the window above 4 GiB begins, unless there is RAM.
const HIGH_WINDOW: u64 = 0xf_e000_0000;
/// Its size.
const HIGH_WINDOW_SIZE: u64 = 0x2000_0000;
/// It begins at a multiple of this.
const HIGH_WINDOW_ALIGN: u64 = 1 << 30;

/// A device is present, enabled, shown, and works.
const WORKS: u8 = 0x0f;
/// ACPI 2.0 and later: integers of 64 bits.
const REVISION: u8 = 2;

/// The window above 4 GiB for VMBus devices of a machine whose RAM ends at `ram_end`.
pub fn high_window(ram_end: u64) -> Range<u64> {
    let start = HIGH_WINDOW.max(ram_end.next_multiple_of(HIGH_WINDOW_ALIGN));
    start..start + HIGH_WINDOW_SIZE
}

/// The table.
pub fn table(machine: &Machine<'_>) -> Sdt {
    let mut table = Sdt::new(
        *b"DSDT",
        size_of::<[u8; 36]>() as u32,
        REVISION,
        OEM,
        OEM_TABLE,
        OEM_REVISION,
    );
    let kind = POWER_OFF_TYPE;
    Name::new("_S5_".into(), &Package::new(vec![&kind, &kind, &0u8, &0u8])).to_aml_bytes(&mut table);
    for (index, &(port, pin)) in SERIAL.iter().enumerate() {
        serial_port(index, port, pin, &mut table);
    }
    if machine.profile == Profile::VmBus {
        vmbus(machine, &mut table);
    }
    table
}

fn serial_port(index: usize, port: u16, pin: usize, table: &mut Sdt) {
    let name = format!("COM{}", index + 1);
    Scope::new(
        "_SB_".into(),
        vec![&Device::new(
            name.as_str().into(),
            vec![
                &Name::new("_HID".into(), &EISAName::new("PNP0501")),
                &Name::new("_UID".into(), &(index as u8 + 1)),
                &Name::new("_STA".into(), &WORKS),
                &Name::new(
                    "_CRS".into(),
                    &ResourceTemplate::new(vec![
                        &IO::new(port, port, 0, 8),
                        // Consumer, edge, active high, exclusive.
                        &Interrupt::new(true, true, false, false, pin as u32),
                    ]),
                ),
            ],
        )],
    )
    .to_aml_bytes(table);
}

/// VMBus under a module device, whose resources are the windows for its devices: Linux looks for them from the bus upwards.
fn vmbus(machine: &Machine<'_>, table: &mut Sdt) {
    let high = high_window(machine.ram_end);
    let cache = AddressSpaceCacheable::NotCacheable;
    let low = AddressSpace::new_memory(
        cache,
        true,
        LOW_WINDOW.start as u32,
        LOW_WINDOW.end as u32 - 1,
        None,
    );
    let high = AddressSpace::new_memory(cache, true, high.start, high.end - 1, None);
    Scope::new(
        "_SB_".into(),
        vec![&Device::new(
            "VMOD".into(),
            vec![
                &Name::new("_HID".into(), &"ACPI0004"),
                &Name::new("_UID".into(), &0u8),
                &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&low, &high])),
                &Device::new(
                    "VMBS".into(),
                    vec![
                        &Name::new("_HID".into(), &"VMBUS"),
                        &Name::new("_UID".into(), &0u8),
                        &Name::new("_STA".into(), &WORKS),
                    ],
                ),
            ],
        )],
    )
    .to_aml_bytes(table);
}
