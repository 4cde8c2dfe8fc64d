//! Device interrupts: which VP each belongs to. The owner of a device asks for an interrupt (`HvCallMapDeviceInterrupt`);
//! it gets a vector on the LP of its VP, and what arrives there is requested in the VP's virtual APIC.

use crate::iommu::device::{self, DeviceName};
use crate::iommu::interrupt_table::{self, Remapped, Target};
use crate::iommu::{self, InterruptSource};
use crate::partition::Partition;
use crate::platform::io_apic;
use crate::processor::interrupts::{FIRST_DEVICE_VECTOR, LAST_DEVICE_VECTOR};
use crate::processor::local::Processor;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
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

/// Where an interrupt goes: in use 63, level-triggered 62, from a pin 61, retired 60, I/O APIC 55:48, pin 47:40, place of the
/// partition 39:24, VP 23:8, vector 7:0. A retired route was given up; until its processor has taken what was on its way, it
/// still leads where its interrupt goes now, or nowhere. It has the processor's epoch in 55:40.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Route(u64);

impl Route {
    const IN_USE: u64 = 1 << 63;
    const LEVEL: u64 = 1 << 62;
    const FROM_PIN: u64 = 1 << 61;
    const RETIRED: u64 = 1 << 60;

    fn new(partition: u16, vp: VpIndex, vector: u8, pin: Option<Pin>, level: bool) -> Self {
        let pin = pin.map_or(0, |Pin { io_apic, pin }| {
            Self::FROM_PIN | (io_apic as u64) << 48 | (pin as u64) << 40
        });
        let level = if level { Self::LEVEL } else { 0 };
        let target = u64::from(partition) << 24 | u64::from(vp.0 as u16) << 8 | u64::from(vector);
        Self(Self::IN_USE | level | pin | target)
    }

    /// What is in a place.
    fn at(place: &AtomicU64) -> Self {
        Self(place.load(Ordering::Acquire))
    }

    /// The route, if it leads anywhere.
    fn get(self) -> Option<Self> {
        (self.0 & Self::IN_USE != 0).then_some(self)
    }

    /// The route, if it is nobody's former one.
    fn current(self) -> Option<Self> {
        self.get().filter(|route| route.0 & Self::RETIRED == 0)
    }

    /// A former route that leads where `heir` does, if anywhere.
    fn retired(heir: Option<Self>, epoch: u64) -> Self {
        const TARGET: u64 = (1 << 40) - 1;
        let lead = heir.map_or(0, |heir| Self::IN_USE | heir.0 & TARGET);
        Self(Self::RETIRED | (epoch & 0xffff) << 40 | lead)
    }

    /// Whether its place can be given away.
    fn is_free(self, processor: &Processor) -> bool {
        if self.0 & Self::RETIRED == 0 {
            return self.0 == 0;
        }
        // An interrupt that is pending ends the next guest's turn at once, and is taken before another begins; asleep, a
        // processor has nothing pending.
        let epoch = processor.guest_epoch.load(Ordering::SeqCst) as u16;
        epoch.wrapping_sub((self.0 >> 40) as u16) > 4 || processor.sleeping.load(Ordering::SeqCst)
    }

    fn partition(self) -> u16 {
        (self.0 >> 24) as u16
    }

    fn vp(self) -> VpIndex {
        VpIndex((self.0 >> 8) as u16 as u32)
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
    let route = processor.routes.get(index).map_or(Route(0), Route::at);
    let Some(route) = route.get() else {
        if route.0 == 0 {
            crate::rate_limited!(
                log::Level::Warn,
                "processor {lp}: interrupt {vector:#x} belongs to nobody"
            );
        }
        return;
    };
    // A level-triggered pin would raise it again at once: it stays masked until the owner has ended it.
    if let (true, Some(pin)) = (route.is_level(), route.pin()) {
        io_apic::set_masked(pin.io_apic, pin.pin, true);
    }
    if let Some(vp) = Partition::at_place(route.partition()).and_then(|partition| partition.vp(route.vp())) {
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
    for route in routes.filter_map(|route| Route::at(route).current()) {
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

/// A place for a route: a vector of a processor.
struct Place {
    processor: &'static Processor,
    index: usize,
}

impl Place {
    /// A free place on the processor of a VP.
    fn free(partition: &Partition, vp: VpIndex) -> Result<Self, HvStatus> {
        let vp = partition.vp(vp).ok_or(HvStatus::INVALID_VP_INDEX)?;
        let processor = Processor::get(vp.shared.lp()).ok_or(HvStatus::INVALID_LP_INDEX)?;
        let index = processor
            .routes
            .iter()
            .position(|route| Route::at(route).is_free(processor))
            .ok_or(HvStatus::NO_RESOURCES)?;
        Ok(Self { processor, index })
    }

    /// The place that interrupts for a vector of a processor come to.
    fn of(target: Target) -> Option<Self> {
        let processor = Processor::all().find(|processor| processor.apic_id == target.apic_id)?;
        let index = target.vector.checked_sub(FIRST_DEVICE_VECTOR)? as usize;
        (index < processor.routes.len()).then_some(Self { processor, index })
    }

    fn route(&self) -> &'static AtomicU64 {
        &self.processor.routes[self.index]
    }

    fn target(&self) -> Target {
        debug_assert!(self.index <= (LAST_DEVICE_VECTOR - FIRST_DEVICE_VECTOR) as usize);
        Target {
            apic_id: self.processor.apic_id,
            vector: FIRST_DEVICE_VECTOR + self.index as u8,
        }
    }

    /// Gives the place up; what is still on its way to it goes where `heir` leads.
    fn retire(&self, heir: Option<Route>) {
        let epoch = self.processor.guest_epoch.load(Ordering::SeqCst);
        self.route()
            .store(Route::retired(heir, epoch).0, Ordering::Release);
    }
}

/// Level-triggered pins are PCI's and active low, edge-triggered ones ISA's and active high.
const fn trigger_bits(level: bool) -> u64 {
    if level { 1 << 15 | 1 << 13 } else { 0 }
}

/// Gives a device an interrupt: what its owner writes into the device. An I/O APIC's pin is programmed here, since its
/// registers are the hypervisor's.
pub fn map(partition: &Partition, request: &Request) -> Result<InterruptEntry, HvStatus> {
    let source = iommu::interrupt_source(request.device)?;
    match request.device {
        Device::Pci { segment, rid } => {
            let name = DeviceName { segment, rid };
            device::with_owned(partition, name, || map_owned(partition, request, source))
        }
        Device::IoApic(_) => map_owned(partition, request, source),
    }
}

fn map_owned(
    partition: &Partition,
    request: &Request,
    source: Option<InterruptSource>,
) -> Result<InterruptEntry, HvStatus> {
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
    let place = Place::free(partition, request.vp)?;
    let route = Route::new(
        partition.place(),
        request.vp,
        request.vector,
        request.pin,
        request.level,
    );
    let entry = match source {
        Some(source) => remapped_entry(source, &place, route)?,
        None => plain_entry(&place, route)?,
    };
    place.route().store(route.0, Ordering::Release);
    if let (Some(pin), InterruptEntry::IO_APIC) = (request.pin, entry.source) {
        if request.level {
            LEVEL_ROUTES.fetch_add(1, Ordering::Relaxed);
        }
        io_apic::set_entry(pin.io_apic, pin.pin, entry.data);
    }
    Ok(entry)
}

/// An entry that names the processor and the vector.
fn plain_entry(place: &Place, route: Route) -> Result<InterruptEntry, HvStatus> {
    let Target { apic_id, vector } = place.target();
    // Without interrupt remapping, an MSI and a redirection entry have eight bits for the target.
    let target = u8::try_from(apic_id).map_err(|_| HvStatus::NO_RESOURCES)?;
    Ok(match route.pin() {
        None => InterruptEntry::msi(0xfee0_0000 | u32::from(target) << 12, vector.into()),
        Some(_) => InterruptEntry::io_apic(
            u64::from(vector) | trigger_bits(route.is_level()) | u64::from(target) << 56,
        ),
    })
}

/// An entry that names an entry of the interrupt remapping table, made for it.
fn remapped_entry(source: InterruptSource, place: &Place, route: Route) -> Result<InterruptEntry, HvStatus> {
    let target = place.target();
    if !source.table.reaches(target.apic_id) {
        return Err(HvStatus::NO_RESOURCES);
    }
    let remapped = Remapped {
        target,
        level: route.is_level(),
        source: source.name.rid,
    };
    let index = source.table.allocate(remapped).ok_or(HvStatus::NO_RESOURCES)?;
    source.forget(index).inspect_err(|_| source.table.free(index))?;
    Ok(match route.pin() {
        None => {
            let (address, data) = interrupt_table::message(index);
            InterruptEntry::msi(address, data)
        }
        Some(_) => InterruptEntry::io_apic(interrupt_table::redirection(
            index,
            target.vector,
            trigger_bits(route.is_level()),
        )),
    })
}

fn find_pin(pin: Pin) -> Option<&'static AtomicU64> {
    Processor::all()
        .flat_map(|processor| processor.routes.iter())
        .find(|route| {
            Route::at(route)
                .current()
                .is_some_and(|route| route.pin() == Some(pin))
        })
}

/// The place that a plain entry names.
fn plain_place(entry: InterruptEntry) -> Option<Place> {
    let (target, vector) = match entry.source {
        InterruptEntry::MSI => ((entry.data >> 12) as u8, (entry.data >> 32) as u8),
        _ => ((entry.data >> 56) as u8, entry.data as u8),
    };
    Place::of(Target {
        apic_id: target.into(),
        vector,
    })
}

/// The entry of the interrupt remapping table that `entry` names, if it is the device's.
fn remapped_index(source: InterruptSource, entry: InterruptEntry) -> Option<(u16, Place)> {
    let index = match entry.source {
        InterruptEntry::MSI => interrupt_table::index_of_message(entry.msi_address_data().0)?,
        _ => interrupt_table::index_of_redirection(entry.data)?,
    };
    let remapped = source
        .table
        .get(index)
        .filter(|remapped| remapped.source == source.name.rid)?;
    Some((index, Place::of(remapped.target)?))
}

/// The route of a device's entry, if it is one of `partition`'s.
fn owned_route(partition: &Partition, device: Device, place: &Place) -> Result<Route, HvStatus> {
    let route = Route::at(place.route()).current().ok_or(HvStatus::NOT_FOUND)?;
    let fits = match (route.pin(), device) {
        (Some(pin), Device::IoApic(id)) => pin.io_apic == id,
        (None, Device::Pci { .. }) => true,
        _ => false,
    };
    if fits && route.partition() == partition.place() {
        Ok(route)
    } else {
        Err(HvStatus::NOT_FOUND)
    }
}

/// Takes an interrupt back, by the entry that [`map`] returned.
pub fn unmap(partition: &Partition, device: Device, entry: InterruptEntry) -> Result<(), HvStatus> {
    let source = iommu::interrupt_source(device)?;
    let _changes = CHANGES.lock();
    let (index, place) = match source {
        Some(source) => remapped_index(source, entry).map(|(index, place)| (Some(index), place)),
        None => plain_place(entry).map(|place| (None, place)),
    }
    .ok_or(HvStatus::NOT_FOUND)?;
    let route = owned_route(partition, device, &place)?;
    if let Some(pin) = route.pin() {
        io_apic::set_masked(pin.io_apic, pin.pin, true);
        if route.is_level() {
            LEVEL_ROUTES.fetch_sub(1, Ordering::Relaxed);
        }
    }
    if let (Some(source), Some(index)) = (source, index) {
        source.table.free(index);
        source.forget(index)?;
    }
    place.retire(None);
    Ok(())
}

/// Sends an interrupt to another VP, or at another vector. The device keeps its entry, so interrupts must be remapped. None is
/// lost: what is on its way to the old place goes to the new VP from there.
pub fn retarget(
    partition: &Partition,
    device: Device,
    entry: InterruptEntry,
    vp: VpIndex,
    vector: u8,
) -> Result<(), HvStatus> {
    let source = iommu::interrupt_source(device)?.ok_or(HvStatus::FEATURE_UNAVAILABLE)?;
    let _changes = CHANGES.lock();
    let (index, old) = remapped_index(source, entry).ok_or(HvStatus::NOT_FOUND)?;
    let route = owned_route(partition, device, &old)?;
    let heir = Route::new(partition.place(), vp, vector, route.pin(), route.is_level());
    let new = Place::free(partition, vp)?;
    if new.processor.index == old.processor.index {
        old.route().store(heir.0, Ordering::Release);
        return Ok(());
    }
    if !source.table.reaches(new.processor.apic_id) {
        return Err(HvStatus::NO_RESOURCES);
    }
    new.route().store(heir.0, Ordering::Release);
    source.table.retarget(index, new.target());
    if let Some(pin) = route.pin() {
        io_apic::set_vector(pin.io_apic, pin.pin, new.target().vector);
    }
    let forgotten = source.forget(index);
    old.retire(Some(heir));
    forgotten
}

/// Takes every interrupt of a device back: it changes its owner.
pub fn release(name: DeviceName) {
    let device = Device::Pci {
        segment: name.segment,
        rid: name.rid,
    };
    let Ok(Some(source)) = iommu::interrupt_source(device) else {
        return;
    };
    let _changes = CHANGES.lock();
    for (index, remapped) in source.table.all() {
        if remapped.source == name.rid {
            source.table.free(index);
            // A unit that does not answer was told of; the entry is absent for whoever reads it.
            let _ = source.forget(index);
            if let Some(place) = Place::of(remapped.target) {
                place.retire(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_keeps_what_it_is_made_of() {
        let pin = Pin { io_apic: 2, pin: 23 };
        let route = Route::new(511, VpIndex(300), 0x51, Some(pin), true)
            .current()
            .unwrap();
        assert_eq!(
            (route.vp(), route.vector(), route.pin(), route.is_level()),
            (VpIndex(300), 0x51, Some(pin), true)
        );
        assert_eq!(route.partition(), 511);
        let msi = Route::new(1, VpIndex(0), 0x20, None, false).get().unwrap();
        assert_eq!((msi.pin(), msi.is_level()), (None, false));
        assert_eq!(Route(0).get(), None);
    }

    #[test]
    fn a_retired_route_leads_where_its_heir_does_and_is_nobodys() {
        let heir = Route::new(7, VpIndex(3), 0x61, None, false);
        let retired = Route::retired(Some(heir), 0x1_2345);
        let lead = retired.get().unwrap();
        assert_eq!(
            (lead.partition(), lead.vp(), lead.vector()),
            (7, VpIndex(3), 0x61)
        );
        assert_eq!((retired.current(), lead.pin()), (None, None));
        let gone = Route::retired(None, 5);
        assert_eq!(gone.get(), None);
        assert_ne!(gone.0, 0);
    }
}
