//! Device interrupts: which VP each belongs to. The owner of a device asks for an interrupt (`HvCallMapDeviceInterrupt`);
//! it gets a vector on the LP of its VP, and what arrives there is requested in the VP's virtual APIC.

use crate::partition::Partition;
use crate::platform::io_apic;
use crate::processor::interrupts::{FIRST_DEVICE_VECTOR, LAST_DEVICE_VECTOR};
use crate::processor::local::Processor;
use core::sync::atomic::{AtomicU32, Ordering};
use hypercall_api::id::{LpIndex, VpIndex};
use hypercall_api::interrupt::{Device, InterruptEntry};
use hypercall_api::status::HvStatus;
use spin::Mutex;

/// An I/O APIC pin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pin {
    /// Id of the I/O APIC.
    pub io_apic: u8,
    /// The pin.
    pub pin: u8,
}

/// Where an interrupt goes: in use 63, level-triggered 62, from a pin 61, I/O APIC 55:48, pin 47:40, VP 39:8, vector 7:0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Route(u64);

impl Route {
    const IN_USE: u64 = 1 << 63;
    const LEVEL: u64 = 1 << 62;
    const FROM_PIN: u64 = 1 << 61;

    fn new(vp: VpIndex, vector: u8, pin: Option<Pin>, level: bool) -> Self {
        let pin = pin.map_or(0, |Pin { io_apic, pin }| {
            Self::FROM_PIN | (io_apic as u64) << 48 | (pin as u64) << 40
        });
        Self(Self::IN_USE | if level { Self::LEVEL } else { 0 } | pin | (vp.0 as u64) << 8 | vector as u64)
    }

    fn get(self) -> Option<Self> {
        (self.0 & Self::IN_USE != 0).then_some(self)
    }

    fn vp(self) -> VpIndex {
        VpIndex((self.0 >> 8) as u32)
    }

    fn vector(self) -> u8 {
        self.0 as u8
    }

    fn is_level(self) -> bool {
        self.0 & Self::LEVEL != 0
    }

    fn pin(self) -> Option<Pin> {
        let pin = Pin {
            io_apic: (self.0 >> 48) as u8,
            pin: (self.0 >> 40) as u8,
        };
        (self.0 & Self::FROM_PIN != 0).then_some(pin)
    }
}

/// Level-triggered routes; while there are none, an EOI need not look for one.
static LEVEL_ROUTES: AtomicU32 = AtomicU32::new(0);
/// Serialises changes of routes.
static CHANGES: Mutex<()> = Mutex::new(());

/// A device interrupt has arrived at physical `vector` of a processor.
pub fn raised(lp: LpIndex, vector: u8) {
    let Some(processor) = Processor::get(lp) else {
        return;
    };
    let index = (vector - FIRST_DEVICE_VECTOR) as usize;
    let Some(route) = processor
        .routes
        .get(index)
        .and_then(|route| Route(route.load(Ordering::Acquire)).get())
    else {
        crate::rate_limited!(
            log::Level::Warn,
            "processor {lp}: interrupt {vector:#x} belongs to nobody"
        );
        return;
    };
    // A level-triggered pin would raise it again at once: it stays masked until the owner has ended it.
    if let (true, Some(pin)) = (route.is_level(), route.pin()) {
        io_apic::set_masked(pin.io_apic, pin.pin, true);
    }
    if let Some(vp) = Partition::root().and_then(|root| root.vp(route.vp())) {
        vp.shared.request_interrupt(route.vector());
    }
}

/// A VP has ended an interrupt: a level-triggered pin may raise it again.
#[inline]
pub fn ended(vp: VpIndex, vector: u8) {
    if LEVEL_ROUTES.load(Ordering::Relaxed) != 0 {
        unmask_ended(vp, vector);
    }
}

fn unmask_ended(vp: VpIndex, vector: u8) {
    let routes = Processor::all().flat_map(|processor| processor.routes.iter());
    for route in routes.filter_map(|route| Route(route.load(Ordering::Acquire)).get()) {
        if let (true, Some(pin)) = (
            route.is_level() && route.vp() == vp && route.vector() == vector,
            route.pin(),
        ) {
            io_apic::set_masked(pin.io_apic, pin.pin, false);
        }
    }
}

/// What an owner asks for.
pub struct Request {
    /// The device.
    pub device: Device,
    /// The pin, for an I/O APIC.
    pub pin: Option<Pin>,
    /// VP that takes it.
    pub vp: VpIndex,
    /// Vector that the VP takes.
    pub vector: u8,
    /// Whether it is level-triggered.
    pub level: bool,
}

/// Gives a device an interrupt: what its owner writes into the device. An I/O APIC's pin is programmed here, since its
/// registers are the hypervisor's.
pub fn map(partition: &Partition, request: &Request) -> Result<InterruptEntry, HvStatus> {
    let vp = partition.vp(request.vp).ok_or(HvStatus::INVALID_VP_INDEX)?;
    let processor = Processor::get(vp.shared.lp).ok_or(HvStatus::INVALID_LP_INDEX)?;
    // Without interrupt remapping, an MSI and a redirection entry have eight bits for the target.
    let target = u8::try_from(processor.apic_id).map_err(|_| HvStatus::NO_RESOURCES)?;
    if request
        .pin
        .is_some_and(|pin| !io_apic::has_pin(pin.io_apic, pin.pin))
    {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let _changes = CHANGES.lock();
    if request.pin.is_some_and(|pin| find_pin(pin).is_some()) {
        return Err(HvStatus::OPERATION_DENIED);
    }
    let free = processor
        .routes
        .iter()
        .position(|route| Route(route.load(Ordering::Acquire)).get().is_none());
    let index = free.ok_or(HvStatus::NO_RESOURCES)?;
    let physical = FIRST_DEVICE_VECTOR + index as u8;
    debug_assert!(physical <= LAST_DEVICE_VECTOR);
    let route = Route::new(request.vp, request.vector, request.pin, request.level);
    processor.routes[index].store(route.0, Ordering::Release);
    let Some(pin) = request.pin else {
        return Ok(InterruptEntry::msi(
            0xfee0_0000 | (target as u32) << 12,
            physical as u32,
        ));
    };
    if request.level {
        LEVEL_ROUTES.fetch_add(1, Ordering::Relaxed);
    }
    // Level-triggered pins are PCI's and active low, edge-triggered ones ISA's and active high.
    let trigger = if request.level { 1 << 15 | 1 << 13 } else { 0 };
    let entry = physical as u64 | trigger | (target as u64) << 56;
    io_apic::set_entry(pin.io_apic, pin.pin, entry);
    Ok(InterruptEntry::io_apic(entry))
}

fn find_pin(pin: Pin) -> Option<&'static core::sync::atomic::AtomicU64> {
    Processor::all()
        .flat_map(|processor| processor.routes.iter())
        .find(|route| {
            Route(route.load(Ordering::Acquire))
                .get()
                .is_some_and(|route| route.pin() == Some(pin))
        })
}

/// Takes an interrupt back, by the entry that [`map`] returned.
pub fn unmap(device: Device, entry: InterruptEntry) -> Result<(), HvStatus> {
    let _changes = CHANGES.lock();
    let (target, physical) = match entry.source {
        InterruptEntry::MSI => ((entry.data >> 12) as u8, (entry.data >> 32) as u8),
        _ => ((entry.data >> 56) as u8, entry.data as u8),
    };
    let processor = Processor::all()
        .find(|processor| processor.apic_id == target as u32)
        .ok_or(HvStatus::NOT_FOUND)?;
    let index = physical
        .checked_sub(FIRST_DEVICE_VECTOR)
        .ok_or(HvStatus::NOT_FOUND)? as usize;
    let slot = processor.routes.get(index).ok_or(HvStatus::NOT_FOUND)?;
    let route = Route(slot.load(Ordering::Acquire))
        .get()
        .ok_or(HvStatus::NOT_FOUND)?;
    match (route.pin(), device) {
        (Some(pin), Device::IoApic(id)) if pin.io_apic == id => {
            io_apic::set_masked(pin.io_apic, pin.pin, true);
            if route.is_level() {
                LEVEL_ROUTES.fetch_sub(1, Ordering::Relaxed);
            }
        }
        (None, Device::Pci { .. }) => {}
        _ => return Err(HvStatus::NOT_FOUND),
    }
    slot.store(0, Ordering::Release);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_keeps_what_it_is_made_of() {
        let pin = Pin { io_apic: 2, pin: 23 };
        let route = Route::new(VpIndex(300), 0x51, Some(pin), true).get().unwrap();
        assert_eq!(
            (route.vp(), route.vector(), route.pin(), route.is_level()),
            (VpIndex(300), 0x51, Some(pin), true)
        );
        let msi = Route::new(VpIndex(0), 0x20, None, false).get().unwrap();
        assert_eq!((msi.pin(), msi.is_level()), (None, false));
        assert_eq!(Route(0).get(), None);
    }
}
