//! What a device may reach, and what not: QEMU's `edu` device is told to try both. Each refusal must be recorded, and must have
//! changed nothing.
#![allow(unsafe_code)]

use super::Outcome;
use super::refused::HYPERVISOR_IMAGE;
use crate::drivers::edu::{ADDRESS_LIMIT, BUFFER_SIZE, Direction, Edu};
use crate::drivers::pci::function::Function;
use crate::drivers::pci::{config, msi, scan};
use crate::hypervisor::hypercalls;
use crate::interrupt::Interrupt;
use crate::memory::address_space;
use crate::processor::local;
use crate::vm::assignment;
use crate::vm::pool::with_deposits;
use crate::vm::root_host::RootHost;
use alloc::format;
use alloc::string::String;
use core::fmt::Display;
use embassy_time::{Duration, with_timeout};
use hypercall_api::address::Gpfn;
use hypercall_api::call::{DeviceCalls, PartitionCalls};
use hypercall_api::device::{DeviceDomain, DeviceDomainId};
use hypercall_api::id::PartitionId;
use hypercall_api::interrupt::DeviceId;
use hypercall_api::memory::MapGpaFlags;
use hypercall_api::operator::{DmaDeviceState, DmaFault, IommuFlags, IommuState};

/// How long an interrupt may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for one that must not come.
const SHORT: Duration = Duration::from_millis(200);
/// Interrupts that are raised while they are moved from VP to VP.
const MOVES: u32 = 200;
/// A domain of the root's own for the test.
const DOMAIN: DeviceDomain = DeviceDomain::new(PartitionId::SELF, DeviceDomainId::second_stage(0x7e57));
pub(super) const DEFAULT: DeviceDomain = DeviceDomain::new(PartitionId::SELF, DeviceDomainId::DEFAULT);
/// Where the test maps pages for the device.
const WINDOW: u64 = 0x10_0000;
pub(super) const PAGE: u64 = 4096;

// Fault reasons (VT-d, 7.1.3).
pub(super) const NO_DOMAIN: u8 = 0x02;
pub(super) const NOT_WRITABLE: u8 = 0x05;
pub(super) const NOT_READABLE: u8 = 0x06;
/// Address of a message by which the data, a subhandle, is the number of the remapping entry (VT-d, 5.1.5.2).
const FIRST_ENTRY_BY_SUBHANDLE: u32 = 0xfee0_0018;
const ENTRY_ABSENT: u8 = 0x22;
const ENTRY_OF_ANOTHER: u8 = 0x26;

/// A page that the device can reach, given back at the end.
pub(super) struct Page(pub(super) u64);

impl Page {
    pub(super) fn new(word: u64) -> Result<Self, String> {
        let address = address_space::allocate_run(1).ok_or("no memory is left")?;
        if address >= ADDRESS_LIMIT {
            return Err(String::from("no memory is left that the device can address"));
        }
        let page = Self(address);
        page.fill(word);
        Ok(page)
    }

    fn words(&self) -> impl Iterator<Item = *mut u64> {
        let start = self.0 as *mut u64;
        (0..512).map(move |index| start.wrapping_add(index))
    }

    pub(super) fn fill(&self, word: u64) {
        // SAFETY: the page is the test's own; a device may write to it at the same time, hence volatile.
        self.words()
            .enumerate()
            .for_each(|(index, place)| unsafe { place.write_volatile(word.wrapping_add(index as u64)) });
    }

    /// Whether it holds what `fill` of `word` left.
    pub(super) fn holds(&self, word: u64) -> bool {
        // SAFETY: as above.
        self.words()
            .enumerate()
            .all(|(index, place)| unsafe { place.read_volatile() } == word.wrapping_add(index as u64))
    }

    pub(super) fn number(&self) -> Gpfn {
        Gpfn(self.0 / PAGE)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, and the device is done with it.
        unsafe { address_space::release(self.0..self.0 + PAGE) };
    }
}

pub(super) fn text(error: impl Display) -> String {
    format!("{error}")
}

pub(super) fn state() -> Result<IommuState, String> {
    hypercalls().query_iommu().map_err(text)
}

/// The last fault, if there has been one since `before` faults.
fn new_fault(before: u64) -> Result<Option<DmaFault>, String> {
    let state = state()?;
    let last = (state.faults_kept as usize).checked_sub(1);
    Ok(last
        .filter(|_| state.fault_count > before)
        .and_then(|index| state.faults.get(index).copied()))
}

/// The device with what the tests need of it; `None` where the machine lacks it, with the reason.
pub(super) fn find() -> Result<Result<Edu<'static>, String>, String> {
    let Some(space) = config::machine() else {
        return Err(String::from("PCI has not been looked at"));
    };
    let Some(address) = Edu::address(&scan::functions(space)) else {
        return Ok(Err(String::from("there is no edu device to try it with")));
    };
    if let Some(machine) = assignment::machine_of(address) {
        return Ok(Err(format!(
            "the edu device {address} is assigned to '{machine}'"
        )));
    }
    Edu::new(Function::new(space, address)).map(Ok)
}

pub(super) fn id_of(edu: &Edu<'_>) -> DeviceId {
    let address = edu.function.address;
    DeviceId::pci(address.segment, address.rid())
}

/// Has the device try something that must be refused for `reason`, at `address`.
pub(super) async fn refused(
    edu: &Edu<'_>,
    direction: Direction,
    address: u64,
    reason: u8,
    what: &str,
) -> Result<(), String> {
    let before = state()?.fault_count;
    edu.copy(direction, address, BUFFER_SIZE).await;
    match new_fault(before)? {
        Some(fault) if fault.rid != edu.function.address.rid() => Err(format!(
            "{what}: the fault is recorded of device {:#x}",
            fault.rid
        )),
        Some(fault) if fault.reason != reason || fault.address != address => Err(format!(
            "{what}: reason {:#x} at {:#x} is recorded, not {reason:#x} at {address:#x}",
            fault.reason, fault.address
        )),
        Some(fault) if (fault.is_read != 0) != (direction == Direction::Read) => {
            Err(format!("{what}: the wrong direction is recorded"))
        }
        Some(_) => Ok(()),
        None => Err(format!("{what}: nothing is recorded")),
    }
}

/// `hv selftest dma`.
pub(super) async fn run() -> Outcome {
    let edu = match find()? {
        Ok(edu) => edu,
        Err(reason) => return Ok(reason),
    };
    let (source, target) = (Page::new(0x1000)?, Page::new(0x2000)?);
    edu.copy(Direction::Read, source.0, BUFFER_SIZE).await;
    edu.copy(Direction::Write, target.0, BUFFER_SIZE).await;
    if !target.holds(0x1000) {
        return Err(String::from("what the device copied is not what it read"));
    }
    if state()?.flags & IommuFlags::TRANSLATES.bits() == 0 {
        return Ok(String::from(
            "the device reads and writes; DMA is not translated, so nothing is refused",
        ));
    }
    refused(
        &edu,
        Direction::Write,
        HYPERVISOR_IMAGE,
        NOT_WRITABLE,
        "a write to the hypervisor",
    )
    .await?;
    refused(
        &edu,
        Direction::Read,
        HYPERVISOR_IMAGE,
        NOT_READABLE,
        "a read of the hypervisor",
    )
    .await?;
    deposited(&edu).await?;
    let made = with_deposits(&RootHost, PartitionId::SELF, || {
        hypercalls().create_device_domain(DOMAIN)
    });
    made.map_err(text)?;
    let outcome = own_domain(&edu, &source, &target).await;
    // Back to where a device of the root's belongs, whatever came of it.
    let _ = hypercalls().detach_device_domain(PartitionId::SELF, id_of(&edu));
    let deleted = hypercalls().delete_device_domain(DOMAIN).map_err(text);
    outcome?;
    deleted?;
    refused(
        &edu,
        Direction::Write,
        target.0,
        NO_DOMAIN,
        "a write without a domain",
    )
    .await?;
    hypercalls()
        .attach_device_domain(DEFAULT, id_of(&edu))
        .map_err(text)?;
    edu.copy(Direction::Write, target.0, BUFFER_SIZE).await;
    Ok(format!(
        "{}: reads and writes memory; the hypervisor, a deposited page, an unmapped page and a read-only one are refused",
        edu.function.address
    ))
}

/// A page leaves the device's reach with its deposit, though the device has it cached, and is back with its withdrawal.
async fn deposited(edu: &Edu<'_>) -> Result<(), String> {
    let page = Page::new(0x3000)?;
    edu.copy(Direction::Write, page.0, BUFFER_SIZE).await;
    // SAFETY: the page is the test's own, and nobody uses it until it is withdrawn.
    unsafe { hypercalls().deposit_memory(PartitionId::SELF, &[page.number()]) }.map_err(text)?;
    let tried = refused(
        edu,
        Direction::Write,
        page.0,
        NOT_WRITABLE,
        "a write to a deposited page",
    )
    .await;
    let mut back = [Gpfn(0)];
    let count = hypercalls()
        .withdraw_memory(PartitionId::SELF, &mut back)
        .map_err(text)?;
    if (count, back[0]) != (1, page.number()) {
        core::mem::forget(page);
        return Err(String::from("another page came back than the one deposited"));
    }
    tried?;
    // Its first word chained it while it was deposited; the hypervisor has cleared it all.
    if page.words().any(|place| {
        // SAFETY: the page is the test's own again.
        unsafe { place.read_volatile() != 0 }
    }) {
        return Err(String::from("a withdrawn page is not empty"));
    }
    edu.copy(Direction::Write, page.0, BUFFER_SIZE).await;
    match page.holds(0) {
        true => Err(String::from("a withdrawn page is out of the device's reach")),
        false => Ok(()),
    }
}

/// In a domain of its own the device reaches what is mapped there, until it is unmapped.
async fn own_domain(edu: &Edu<'_>, source: &Page, target: &Page) -> Result<(), String> {
    let calls = hypercalls();
    let device = id_of(edu);
    if calls.attach_device_domain(DOMAIN, device).is_ok() {
        return Err(String::from("the device came into a second domain"));
    }
    calls
        .detach_device_domain(PartitionId::SELF, device)
        .map_err(text)?;
    calls.attach_device_domain(DOMAIN, device).map_err(text)?;
    let map = |address, page: &Page, flags| {
        with_deposits(&RootHost, PartitionId::SELF, || {
            // SAFETY: the pages are the test's own.
            unsafe { calls.map_device_pages(DOMAIN, address, flags, &[page.number()]) }
                .map_err(|error| error.status)
        })
        .map_err(text)
    };
    map(WINDOW, target, MapGpaFlags::READABLE | MapGpaFlags::WRITABLE)?;
    map(WINDOW + PAGE, source, MapGpaFlags::READABLE)?;
    // SAFETY: it must be refused while a domain maps the page.
    if unsafe { calls.deposit_memory(PartitionId::SELF, &[target.number()]) }.is_ok() {
        return Err(String::from("a page that a domain maps was deposited"));
    }
    source.fill(0x5000);
    // Before the read: of a page that is in the IOTLB for reading, QEMU drops a write without a record.
    refused(
        edu,
        Direction::Write,
        WINDOW + PAGE,
        NOT_WRITABLE,
        "a write to a read-only page",
    )
    .await?;
    edu.copy(Direction::Read, WINDOW + PAGE, BUFFER_SIZE).await;
    edu.copy(Direction::Write, WINDOW, BUFFER_SIZE).await;
    if !target.holds(0x5000) {
        return Err(String::from("the device did not reach what its domain maps"));
    }
    source.fill(0x5800);
    edu.copy(Direction::Write, WINDOW + PAGE, BUFFER_SIZE).await;
    refused(
        edu,
        Direction::Write,
        target.0,
        NOT_WRITABLE,
        "a write beside the domain",
    )
    .await?;
    calls.unmap_device_pages(DOMAIN, WINDOW, 1).map_err(text)?;
    target.fill(0x6000);
    refused(
        edu,
        Direction::Write,
        WINDOW,
        NOT_WRITABLE,
        "a write to a page that was unmapped",
    )
    .await?;
    refused(
        edu,
        Direction::Read,
        WINDOW,
        NOT_READABLE,
        "a read of a page that was unmapped",
    )
    .await?;
    match source.holds(0x5800) && target.holds(0x6000) {
        true => Ok(()),
        false => Err(String::from("a refused write has changed memory")),
    }
}

/// `hv selftest dma-interrupts`.
pub(super) async fn interrupts() -> Outcome {
    let edu = match find()? {
        Ok(edu) => edu,
        Err(reason) => return Ok(reason),
    };
    let function = edu.function;
    let mut own = msi::enable_msi(&function).map_err(text)?;
    let outcome = raise_all(&edu, &mut own).await;
    msi::disable_msi(&function);
    edu.acknowledge();
    outcome
}

async fn came(edu: &Edu<'_>, interrupt: &mut Interrupt, patience: Duration) -> bool {
    let came = with_timeout(patience, interrupt.wait()).await.is_ok();
    edu.acknowledge();
    came
}

async fn raise_all(edu: &Edu<'_>, own: &mut Interrupt) -> Outcome {
    edu.raise();
    if !came(edu, own, PATIENCE).await {
        return Err(String::from("the device's interrupt did not come"));
    }
    if state()?.flags & IommuFlags::REMAPS_INTERRUPTS.bits() == 0 {
        return Ok(String::from(
            "it came; interrupts are not remapped, so none is refused",
        ));
    }
    // Raised while it moves, an interrupt comes at the old VP or at the new one.
    let vps = local::all().len().max(1) as u32;
    for round in 0..MOVES {
        edu.raise();
        own.move_to(round % vps).map_err(text)?;
        if !came(edu, own, PATIENCE).await {
            return Err(format!("interrupt {round} was lost while it moved to another VP"));
        }
    }
    let function = edu.function;
    let message = own.message();
    // An entry that is another device's: that of a function which is not there.
    let other = function.address.rid() ^ 7;
    let mut others = Interrupt::message_signalled(function.address.segment, other).map_err(text)?;
    msi::set_message(&function, others.message()).map_err(text)?;
    raise_refused(edu, &mut others, ENTRY_OF_ANOTHER, "an entry of another device").await?;
    let by_subhandle = (FIRST_ENTRY_BY_SUBHANDLE, entry_of(others.message()));
    msi::set_message(&function, by_subhandle).map_err(text)?;
    raise_refused(edu, &mut others, ENTRY_OF_ANOTHER, "a subhandle that leads to it").await?;
    // The entry has the vector, whatever the device puts into its message.
    msi::set_message(&function, (message.0, others.vector().into())).map_err(text)?;
    edu.raise();
    if !came(edu, own, PATIENCE).await {
        return Err(String::from(
            "with another vector in its message, the device's interrupt did not come",
        ));
    }
    if came(edu, &mut others, SHORT).await {
        return Err(String::from("the device raised a vector that is another's"));
    }
    // Its end leaves the entry absent.
    let absent = others.message();
    drop(others);
    hypercalls()
        .detach_device_domain(PartitionId::SELF, DeviceId::pci(function.address.segment, other))
        .map_err(text)?;
    msi::set_message(&function, absent).map_err(text)?;
    raise_refused(edu, own, ENTRY_ABSENT, "an entry that is not in use").await?;
    msi::set_message(&function, message).map_err(text)?;
    edu.raise();
    match came(edu, own, PATIENCE).await {
        true => Ok(format!(
            "{}: {MOVES} interrupts came while they moved between {vps} VPs; those of other entries are refused, and a vector in the message counts for nothing",
            function.address
        )),
        false => Err(String::from(
            "after refused interrupts, the device's own did not come",
        )),
    }
}

/// The remapping entry that a message's address names (VT-d, 5.1.5.2).
const fn entry_of((address, _): (u32, u32)) -> u32 {
    address >> 5 & 0x7fff | (address >> 2 & 1) << 15
}

async fn raise_refused(
    edu: &Edu<'_>,
    interrupt: &mut Interrupt,
    reason: u8,
    what: &str,
) -> Result<(), String> {
    let before = state()?.fault_count;
    edu.raise();
    if came(edu, interrupt, SHORT).await {
        return Err(format!("an interrupt came by {what}"));
    }
    match new_fault(before)? {
        Some(fault) if fault.reason == reason => Ok(()),
        Some(fault) => Err(format!("{what}: reason {:#x} is recorded", fault.reason)),
        None => Err(format!("{what}: nothing is recorded")),
    }
}

/// `hv selftest dma-silence`: a device that goes on trying is silenced, and is heard again when it is attached again.
pub(super) async fn silence() -> Outcome {
    let edu = match find()? {
        Ok(edu) => edu,
        Err(reason) => return Ok(reason),
    };
    if state()?.flags & IommuFlags::TRANSLATES.bits() == 0 {
        return Ok(String::from("DMA is not translated, so nothing is refused"));
    }
    let rid = edu.function.address.rid();
    let standing = || -> Result<DmaDeviceState, String> {
        let state = state()?;
        let device = state.devices.iter().find(|device| device.rid == rid);
        Ok(device.map_or(DmaDeviceState::BLOCKED, |device| device.state))
    };
    let mut tries = 0;
    while standing()? != DmaDeviceState::SILENCED {
        if tries == 200 {
            return Err(String::from("the device is heard after 200 refused accesses"));
        }
        edu.copy(Direction::Write, HYPERVISOR_IMAGE, BUFFER_SIZE).await;
        tries += 1;
    }
    let before = state()?.fault_count;
    edu.copy(Direction::Write, HYPERVISOR_IMAGE, BUFFER_SIZE).await;
    if new_fault(before)?.is_some() {
        return Err(String::from("the device is heard though it was silenced"));
    }
    let page = Page::new(0x7000)?;
    edu.copy(Direction::Write, page.0, BUFFER_SIZE).await;
    if !page.holds(0x7000) {
        return Err(String::from("a silenced device has written"));
    }
    hypercalls()
        .attach_device_domain(DEFAULT, id_of(&edu))
        .map_err(text)?;
    edu.copy(Direction::Read, page.0, BUFFER_SIZE).await;
    page.fill(0x8000);
    edu.copy(Direction::Write, page.0, BUFFER_SIZE).await;
    match page.holds(0x7000) {
        true => Ok(format!(
            "{} was silenced after {tries} refused accesses, and works again",
            edu.function.address
        )),
        false => Err(String::from("the device does not work again")),
    }
}
