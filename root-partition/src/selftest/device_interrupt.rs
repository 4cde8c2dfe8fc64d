//! Message-signalled interrupts for real: an Intel 82574L (`e1000e`), which nearly every emulated machine has, is told to
//! raise one. One that no driver has does so by MSI-X and then by MSI, and is left as it was, with no interrupt; the uplink
//! does so by the interrupt that its driver has.

use super::Outcome;
use crate::drivers::pci::function::{Bar, Function};
use crate::drivers::pci::msi::{self, MsiError};
use crate::drivers::pci::{config, scan};
use crate::interrupt::Interrupt;
use crate::memory::mmio::Registers;
use crate::net;
use alloc::format;
use alloc::string::String;
use embassy_time::{Duration, with_timeout};

const INTEL: u16 = 0x8086;
const I82574L: u16 = 0x10d3;

// Registers of the 82574 (Intel 82574 datasheet, 10.2.4).
const CAUSE_READ: u64 = 0xc0;
const CAUSE_SET: u64 = 0xc8;
const MASK_SET: u64 = 0xd0;
const MASK_CLEAR: u64 = 0xd8;
const VECTOR_ALLOCATION: u64 = 0xe4;
/// Link status change, and the cause that stands for it and others in MSI-X mode.
const CAUSES: u32 = 1 << 2 | 1 << 24;
/// Other causes have MSI-X entry 0.
const OTHER_TO_ENTRY_0: u32 = 8 << 16;

/// How long an interrupt may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Raises the interrupts and waits for them.
pub(super) async fn run() -> Outcome {
    let Some(space) = config::machine() else {
        return Err(String::from("PCI has not been looked at"));
    };
    net::start::settled().await;
    let mut found = scan::functions(space);
    found.retain(|function| (function.vendor, function.device) == (INTEL, I82574L));
    let free = found
        .iter()
        .find(|function| net::start::driver_of(function.address).is_none());
    let Some(device) = free else {
        return match net::start::raise_interrupt(PATIENCE).await {
            Some(true) => Ok(String::from("the uplink's interrupt came by MSI")),
            Some(false) => Err(format!(
                "the uplink's interrupt did not come within {} s",
                PATIENCE.as_secs()
            )),
            None => Ok(String::from("there is no e1000e to raise one")),
        };
    };
    let function = Function::new(space, device.address);
    let registers = registers(&function)?;
    registers.write(VECTOR_ALLOCATION, OTHER_TO_ENTRY_0);
    let outcome = raise_both(&function, &registers).await;
    registers.write(MASK_CLEAR, u32::MAX);
    outcome.map(|()| format!("{}: interrupts came by MSI-X and by MSI", device.address))
}

fn registers(function: &Function<'_>) -> Result<Registers, String> {
    let Some(Bar::Memory { base, size }) = function.bar(0) else {
        return Err(format!("{} has no registers in memory", function.address));
    };
    function.enable();
    Registers::map(base, size).map_err(|error| format!("{error}"))
}

async fn raise_both(function: &Function<'_>, registers: &Registers) -> Result<(), String> {
    let refused = |error: MsiError| format!("{}: {error}", function.address);
    let table = msi::Table::find(function).map_err(refused)?;
    if let Some(table) = table {
        let interrupt = table.enable(0).map_err(refused)?;
        let came = raise(registers, interrupt).await;
        table.disable();
        came.map_err(|reason| format!("MSI-X: {reason}"))?;
    }
    let interrupt = msi::enable_msi(function).map_err(refused)?;
    let came = raise(registers, interrupt).await;
    msi::disable_msi(function);
    came.map_err(|reason| format!("MSI: {reason}"))
}

async fn raise(registers: &Registers, mut interrupt: Interrupt) -> Result<(), String> {
    // Reading the causes clears them.
    registers.read(CAUSE_READ);
    registers.write(MASK_SET, CAUSES);
    registers.write(CAUSE_SET, CAUSES);
    let came = with_timeout(PATIENCE, interrupt.wait()).await;
    registers.write(MASK_CLEAR, u32::MAX);
    registers.read(CAUSE_READ);
    came.map_err(|_| format!("no interrupt came within {} s", PATIENCE.as_secs()))
}
