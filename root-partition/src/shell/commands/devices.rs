//! `dev list`: the PCI functions. `dev assign`, `dev release`: which virtual machine has one.

use alloc::{boxed::Box, format, string::String};

use super::arguments::{Argument, Flag};
use super::{Invocation, Outcome, dma};
use crate::shell::output::{Report, Table, Value};
use crate::shell::system::{Devices, PciDevice, Pending, System, SystemError};

pub(super) const DEVICE: Argument = Argument {
    name: "DEVICE",
    help: "Its address, as 'dev list' shows it",
    required: true,
    repeated: false,
    values: Some(|system| system.pci_devices().iter().map(address).collect()),
};

pub(super) const NO_RESET: Flag = Flag {
    name: "--no-reset",
    value: None,
    help: "Give it away though it cannot be reset, with what its last user has left in it",
};

fn address(device: &PciDevice) -> String {
    format!(
        "{:04x}:{:02x}:{:02x}.{}",
        device.segment, device.bus, device.device, device.function
    )
}

fn devices(system: &dyn System) -> Result<&dyn Devices, SystemError> {
    let devices = system.devices();
    devices.ok_or_else(|| SystemError::new("devices cannot be assigned on this system"))
}

pub(super) fn assign<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let word = |index| invocation.arguments.word(index).unwrap_or_default();
        let (device, machine) = (word(0), word(1));
        let devices = devices(invocation.system)?;
        let iommu = invocation.system.iommu()?;
        if let Some(lacking) = dma::forbids_assignment(&invocation.system.information()?, &iommu) {
            let why = format!("no device can be assigned on this machine: it lacks {lacking}");
            return Err(SystemError(why).into());
        }
        if let Some(reason) = dma::is_reserved(&iommu, device) {
            return Err(SystemError(reason).into());
        }
        let without_reset = invocation.arguments.flag(NO_RESET.name);
        let assigned = devices.assign(device, machine, without_reset).await?;
        let mut report = Report::new();
        report.push_fields(
            "",
            [
                ("device", "device", Value::Text(assigned.address)),
                ("machine", "machine", Value::Text(String::from(machine))),
                (
                    "requester",
                    "known to the IOMMU as",
                    Value::Text(assigned.requester),
                ),
                ("reset", "reset by", Value::optional(assigned.reset)),
            ],
        );
        Ok(report)
    })
}

pub(super) fn release<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let device = invocation.arguments.word(0).unwrap_or_default();
        devices(invocation.system)?.release(device).await?;
        Ok(Report::new())
    })
}

pub(super) fn list(invocation: &Invocation<'_>) -> Outcome {
    let mut table = Table::new(
        "devices",
        &[
            ("address", "address"),
            ("class", "class"),
            ("class_code", ""),
            ("vendor_id", ""),
            ("device_id", ""),
            ("", "id"),
            ("driver", "driver"),
            ("machine", "machine"),
        ],
    );
    for device in invocation.system.pci_devices() {
        let [base, sub, interface] = device.class;
        table.row([
            Value::Text(address(&device)),
            Value::text(class_name(device.class)),
            Value::Text(format!("{base:02x}{sub:02x}{interface:02x}")),
            Value::Text(format!("{:04x}", device.vendor_id)),
            Value::Text(format!("{:04x}", device.device_id)),
            Value::Text(format!("{:04x}:{:04x}", device.vendor_id, device.device_id)),
            Value::optional(device.driver),
            Value::optional(device.machine),
        ]);
    }
    Ok(Report::table(table))
}

/// Any value of a class code byte.
const ANY: u16 = 0x100;

/// Base class, subclass, interface; the first match counts (PCI Code and ID Assignment Specification).
#[rustfmt::skip]
static CLASSES: &[(u8, u16, u16, &str)] = &[
    (0x00, ANY,  ANY,  "Unclassified"),
    (0x01, 0x01, ANY,  "IDE controller"),
    (0x01, 0x04, ANY,  "RAID controller"),
    (0x01, 0x06, 0x01, "AHCI controller"),
    (0x01, 0x06, ANY,  "SATA controller"),
    (0x01, 0x07, ANY,  "SAS controller"),
    (0x01, 0x08, 0x02, "NVMe controller"),
    (0x01, 0x08, ANY,  "Non-volatile memory"),
    (0x01, 0x00, ANY,  "SCSI controller"),
    (0x01, ANY,  ANY,  "Mass storage"),
    (0x02, 0x00, ANY,  "Ethernet controller"),
    (0x02, ANY,  ANY,  "Network controller"),
    (0x03, 0x00, ANY,  "VGA controller"),
    (0x03, ANY,  ANY,  "Display controller"),
    (0x04, 0x03, ANY,  "Audio device"),
    (0x04, ANY,  ANY,  "Multimedia device"),
    (0x05, ANY,  ANY,  "Memory controller"),
    (0x06, 0x00, ANY,  "Host bridge"),
    (0x06, 0x01, ANY,  "ISA bridge"),
    (0x06, 0x04, ANY,  "PCI bridge"),
    (0x06, ANY,  ANY,  "Bridge"),
    (0x07, 0x00, ANY,  "Serial controller"),
    (0x07, ANY,  ANY,  "Communication controller"),
    (0x08, 0x06, ANY,  "IOMMU"),
    (0x08, ANY,  ANY,  "System peripheral"),
    (0x09, ANY,  ANY,  "Input device"),
    (0x0b, ANY,  ANY,  "Processor"),
    (0x0c, 0x03, 0x00, "USB UHCI controller"),
    (0x0c, 0x03, 0x10, "USB OHCI controller"),
    (0x0c, 0x03, 0x20, "USB EHCI controller"),
    (0x0c, 0x03, 0x30, "USB xHCI controller"),
    (0x0c, 0x03, ANY,  "USB controller"),
    (0x0c, 0x05, ANY,  "SMBus controller"),
    (0x0c, ANY,  ANY,  "Serial bus controller"),
    (0x0d, ANY,  ANY,  "Wireless controller"),
    (0x10, ANY,  ANY,  "Encryption controller"),
    (0x11, ANY,  ANY,  "Signal processing"),
    (0x12, ANY,  ANY,  "Accelerator"),
];

fn class_name([base, sub, interface]: [u8; 3]) -> &'static str {
    let matches = |wanted: u16, found: u8| wanted == ANY || wanted == u16::from(found);
    CLASSES
        .iter()
        .find(|row| row.0 == base && matches(row.1, sub) && matches(row.2, interface))
        .map_or("Unknown", |row| row.3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_class_name_is_taken() {
        assert_eq!(class_name([1, 8, 2]), "NVMe controller");
        assert_eq!(class_name([1, 8, 0]), "Non-volatile memory");
        assert_eq!(class_name([1, 0x99, 0]), "Mass storage");
        assert_eq!(class_name([0x99, 0, 0]), "Unknown");
    }

    #[test]
    fn no_row_is_hidden_by_an_earlier_one() {
        for (index, row) in CLASSES.iter().enumerate() {
            let hidden = CLASSES[..index].iter().any(|earlier| {
                earlier.0 == row.0
                    && [(earlier.1, row.1), (earlier.2, row.2)]
                        .iter()
                        .all(|(early, late)| *early == ANY || early == late)
            });
            assert!(!hidden, "{}", row.3);
        }
    }
}
