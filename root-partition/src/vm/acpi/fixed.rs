//! Tables of a fixed form.

use super::super::chipset::{RESET, RESET_VALUE, SERIAL, SLEEP_CONTROL, SLEEP_STATUS, io_apic};
use super::{Machine, OEM, OEM_REVISION, OEM_TABLE};
use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::sdt::{GenericAddress, Sdt};

/// Address of the local APICs.
const LOCAL_APIC: u32 = 0xfee0_0000;

/// FADT, boot architecture: there is no VGA, no ASPM, no CMOS clock. That there are neither legacy devices nor a keyboard
/// controller is told by bits that are clear.
const NO_VGA_ASPM_CMOS: u16 = 1 << 2 | 1 << 4 | 1 << 5;

/// SPCR, interface: a 16550 with the registers that its address tells of.
const SPCR_16550: u8 = 0x12;
/// SPCR, interrupt: by an IOAPIC.
const SPCR_IO_APIC: u8 = 1 << 1;
/// SPCR, speed: 115200 baud.
const SPCR_115200: u8 = 7;
/// SPCR, terminal: VT-UTF8, ANSI.
const SPCR_ANSI: u8 = 3;
const SPCR_SIZE: u32 = 80;

/// Least and most random bytes that Linux takes (arch/x86/kernel/cpu/mshyperv.c, ms_hyperv_late_init).
const ENTROPY_SIZES: core::ops::RangeInclusive<usize> = 8..=4096;

/// FADT: hardware-reduced, with the chipset's power registers.
pub fn fadt(dsdt: u64) -> FADT {
    let register = |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into());
    let mut table = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        // Buttons, if there were any, would be devices.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .flag(Flags::HwReducedAcpi);
    table.iapc_boot_arch = NO_VGA_ASPM_CMOS.into();
    table.reset_reg = register(RESET);
    table.reset_value = RESET_VALUE;
    table.sleep_control_reg = register(SLEEP_CONTROL);
    table.sleep_status_reg = register(SLEEP_STATUS);
    table.finalize()
}

/// MADT: a local APIC for each VP, whose id is its index, and the IOAPIC, whose pins are the interrupts from 0.
pub fn madt(machine: &Machine<'_>) -> MADT {
    let mut table = MADT::new(
        OEM,
        OEM_TABLE,
        OEM_REVISION,
        LocalInterruptController::Address(LOCAL_APIC),
    );
    // A description has at most 64 processors: their numbers fit.
    for index in (0..machine.processors).filter_map(|index| u8::try_from(index).ok()) {
        table.add_structure(ProcessorLocalApic::new(index, index, EnabledStatus::Enabled));
    }
    table.add_structure(IoApic::new(0, io_apic::BASE as u32, 0));
    table
}

/// SPCR: which serial port is the console.
pub fn console(machine: &Machine<'_>) -> Sdt {
    let (port, pin) = SERIAL.get(machine.console).copied().unwrap_or(SERIAL[0]);
    let mut table = Sdt::new(*b"SPCR", SPCR_SIZE, 2, OEM, OEM_TABLE, OEM_REVISION);
    table.write_u8(36, SPCR_16550);
    table.write(40, GenericAddress::io_port_address::<u8>(port));
    table.write_u8(52, SPCR_IO_APIC);
    table.write_u32(54, pin as u32);
    table.write_u8(58, SPCR_115200);
    // One stop bit, no flow control.
    table.write_u8(60, 1);
    table.write_u8(62, SPCR_ANSI);
    // No PCI device.
    table.write_u16(64, 0xffff);
    table.write_u16(66, 0xffff);
    table
}

/// OEM0: random bytes, for which Linux looks in a table of this name on Hyper-V.
pub fn entropy(bytes: &[u8]) -> Option<Sdt> {
    if !ENTROPY_SIZES.contains(&bytes.len()) {
        return None;
    }
    let mut table = Sdt::new(*b"OEM0", 36, 1, OEM, *b"MICROSFT", OEM_REVISION);
    table.append_slice(bytes);
    Some(table)
}
