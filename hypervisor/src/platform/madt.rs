//! MADT: processors and interrupt controllers (ACPI 6.5, 5.2.12).

use arrayvec::ArrayVec;

use super::table::{AcpiError, Part, Prefix};
use crate::memory::address::Spa;

/// Most processors.
pub const MAX_PROCESSORS: usize = 256;
/// Most I/O APICs.
pub const MAX_IO_APICS: usize = 16;
/// Most interrupt overrides: one an ISA interrupt.
pub const MAX_OVERRIDES: usize = 16;

/// Processors and interrupt controllers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interrupts {
    /// Processors, each once, in the table's order.
    pub processors: ArrayVec<Processor, MAX_PROCESSORS>,
    /// I/O APICs.
    pub io_apics: ArrayVec<IoApic, MAX_IO_APICS>,
    /// ISA interrupts that are not what they would be by default.
    pub overrides: ArrayVec<InterruptOverride, MAX_OVERRIDES>,
    /// Where the local APICs are in xAPIC mode.
    pub local_apic_address: Spa,
    /// Whether there are two 8259s, which must be masked.
    pub has_8259: bool,
}

/// A processor, by its local APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Processor {
    /// Local APIC id.
    pub apic_id: u32,
    /// Whether it can be started; if not, it is an empty socket or switched off.
    pub enabled: bool,
}

/// An I/O APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoApic {
    /// Its id.
    pub id: u8,
    /// Its registers.
    pub address: Spa,
    /// The global system interrupt of its pin 0.
    pub gsi_base: u32,
}

/// How an ISA interrupt is wired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptOverride {
    /// ISA interrupt.
    pub irq: u8,
    /// Global system interrupt.
    pub gsi: u32,
    /// Active low rather than high.
    pub active_low: bool,
    /// Level-triggered rather than edge.
    pub level_triggered: bool,
}

/// Structure types (ACPI 6.5, table 5.45).
mod kind {
    pub(super) const LOCAL_APIC: u16 = 0;
    pub(super) const IO_APIC: u16 = 1;
    pub(super) const INTERRUPT_SOURCE_OVERRIDE: u16 = 2;
    pub(super) const LOCAL_APIC_ADDRESS_OVERRIDE: u16 = 5;
    pub(super) const LOCAL_X2APIC: u16 = 9;
}

pub(super) fn read(madt: Part<'_>) -> Result<Interrupts, AcpiError> {
    let mut interrupts = Interrupts {
        processors: ArrayVec::new(),
        io_apics: ArrayVec::new(),
        overrides: ArrayVec::new(),
        local_apic_address: Spa(madt.field::<u32>(36)?.into()),
        has_8259: madt.field::<u32>(40)? & 1 != 0,
    };
    for structure in madt.structures(44, Prefix::Bytes) {
        let (kind, part) = structure?;
        take(kind, part, &mut interrupts)?;
    }
    if !interrupts.processors.iter().any(|processor| processor.enabled) {
        return Err(madt.damaged(44, "it lists no enabled processor"));
    }
    Ok(interrupts)
}

fn take(kind: u16, part: Part<'_>, interrupts: &mut Interrupts) -> Result<(), AcpiError> {
    let full = |_| part.damaged(0, "there are more of its kind than are supported");
    match kind {
        kind::LOCAL_APIC => {
            let apic_id = part.field::<u8>(3)?;
            // 255 is no id but the broadcast; firmware fills up with it.
            if apic_id != u8::MAX {
                add_processor(apic_id.into(), part.field(4)?, interrupts).map_err(|()| full(()))?;
            }
        }
        kind::LOCAL_X2APIC => {
            let apic_id = part.field(4)?;
            if apic_id != u32::MAX {
                add_processor(apic_id, part.field(8)?, interrupts).map_err(|()| full(()))?;
            }
        }
        kind::IO_APIC => {
            let address = Spa(part.field::<u32>(4)?.into());
            if !address.is_aligned(1 << 10) || address.0 == 0 {
                return Err(part.damaged(4, "an I/O APIC has an impossible address"));
            }
            let io_apic = IoApic {
                id: part.field(2)?,
                address,
                gsi_base: part.field(8)?,
            };
            interrupts.io_apics.try_push(io_apic).map_err(|_| full(()))?;
        }
        kind::INTERRUPT_SOURCE_OVERRIDE => {
            let flags: u16 = part.field(8)?;
            let source = InterruptOverride {
                irq: part.field(3)?,
                gsi: part.field(4)?,
                active_low: flags & 0b11 == 0b11,
                level_triggered: flags >> 2 & 0b11 == 0b11,
            };
            interrupts.overrides.try_push(source).map_err(|_| full(()))?;
        }
        kind::LOCAL_APIC_ADDRESS_OVERRIDE => interrupts.local_apic_address = Spa(part.field(4)?),
        _ => {}
    }
    Ok(())
}

/// Adds a processor; one that is listed both as local APIC and as local x2APIC is one processor.
fn add_processor(apic_id: u32, flags: u32, interrupts: &mut Interrupts) -> Result<(), ()> {
    let enabled = flags & 1 != 0;
    match interrupts
        .processors
        .iter_mut()
        .find(|processor| processor.apic_id == apic_id)
    {
        Some(processor) => processor.enabled |= enabled,
        None => interrupts
            .processors
            .try_push(Processor { apic_id, enabled })
            .map_err(|_| ())?,
    }
    Ok(())
}
