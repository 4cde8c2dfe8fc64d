//! A device of a child's: it reaches the child's memory at the child's addresses, as that changes, and nothing else. Two partitions
//! without VPs are enough for it.

use super::Outcome;
use super::dma::{
    DEFAULT, NO_DOMAIN, NOT_READABLE, NOT_WRITABLE, PAGE, Page, find, id_of, refused, state, text,
};
use super::refused::HYPERVISOR_IMAGE;
use crate::drivers::edu::{BUFFER_SIZE, Direction, Edu};
use crate::hypervisor::hypercalls;
use crate::vm::host::Host;
use crate::vm::pool::{self, with_deposits};
use crate::vm::root_host::RootHost;
use alloc::format;
use alloc::string::String;
use hypercall_api::address::Gpfn;
use hypercall_api::call::{DeviceCalls, PartitionCalls};
use hypercall_api::device::{DeviceDomain, DeviceDomainId};
use hypercall_api::id::PartitionId;
use hypercall_api::memory::MapGpaFlags;
use hypercall_api::operator::IommuFlags;

/// Where the child has its first page; others follow.
const AT: u64 = 0x10_0000;

/// A partition with memory, and nothing to run.
struct Child(PartitionId);

impl Child {
    fn new() -> Result<Self, String> {
        let id = with_deposits(&RootHost, PartitionId::SELF, || RootHost.create_partition()).map_err(text)?;
        let child = Self(id);
        with_deposits(&RootHost, id, || RootHost.initialize_partition(id)).map_err(text)?;
        Ok(child)
    }

    fn domain(&self) -> DeviceDomain {
        DeviceDomain::new(self.0, DeviceDomainId::DEFAULT)
    }

    fn map(&self, address: u64, page: &Page) -> Result<(), String> {
        let map = || {
            let mapped = RootHost.map(self.0, Gpfn(address / PAGE), MapGpaFlags::RAM, &[page.number()]);
            mapped.map_err(|error| error.status)
        };
        with_deposits(&RootHost, self.0, map).map_err(text)
    }

    fn unmap(&self, address: u64) -> Result<(), String> {
        let unmapped = hypercalls().unmap_gpa_pages(self.0, Gpfn(address / PAGE), false, 1);
        unmapped.map_err(|error| text(error.status))
    }

    /// Ends all that it has.
    fn finalize(&self) -> Result<(), String> {
        RootHost.finalize_partition(self.0).map_err(text)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Where it was finalized before, this does nothing.
        let _ = self.finalize();
        let drained = pool::drain(&RootHost, self.0).and_then(|_| RootHost.delete_partition(self.0));
        if let Err(status) = drained.and_then(|()| pool::drain_own(&RootHost)) {
            log::error!(
                "partition {} of a self-test could not be deleted: {status}",
                self.0
            );
        }
    }
}

/// `hv selftest dma-child`.
pub(super) async fn run() -> Outcome {
    let edu = match find()? {
        Ok(edu) => edu,
        Err(reason) => return Ok(reason),
    };
    let flags = IommuFlags::from_bits_truncate(state()?.flags);
    let (child, other) = (Child::new()?, Child::new()?);
    if !flags.contains(IommuFlags::TRANSLATES | IommuFlags::REMAPS_INTERRUPTS) {
        return match hypercalls().attach_device_domain(child.domain(), id_of(&edu)) {
            Ok(()) => Err(String::from(
                "a child has got a device, though it cannot be contained",
            )),
            Err(_) => Ok(String::from(
                "devices cannot be contained here, and no child gets one",
            )),
        };
    }
    let pages = [Page::new(0x1000)?, Page::new(0x2000)?, Page::new(0x3000)?];
    let outcome = with_device(&edu, &child, &other, &pages).await;
    // Back to where a device of the root's belongs, whatever came of it.
    let _ = hypercalls().detach_device_domain(child.0, id_of(&edu));
    drop((child, other));
    hypercalls()
        .attach_device_domain(DEFAULT, id_of(&edu))
        .map_err(text)?;
    outcome?;
    Ok(format!(
        "{}: reaches a child's memory as it is mapped and unmapped, and neither another's nor the hypervisor's",
        edu.function.address
    ))
}

async fn with_device(
    edu: &Edu<'_>,
    child: &Child,
    other: &Child,
    [own, later, others]: &[Page; 3],
) -> Result<(), String> {
    let (calls, device) = (hypercalls(), id_of(edu));
    child.map(AT, own)?;
    other.map(AT, others)?;
    calls
        .detach_device_domain(PartitionId::SELF, device)
        .map_err(text)?;
    with_deposits(&RootHost, child.0, || {
        calls.attach_device_domain(child.domain(), device)
    })
    .map_err(text)?;
    for second in [DEFAULT, other.domain()] {
        if with_deposits(&RootHost, other.0, || calls.attach_device_domain(second, device)).is_ok() {
            return Err(String::from("the device has a second owner"));
        }
    }
    edu.copy(Direction::Read, AT, BUFFER_SIZE).await;
    own.fill(0x4000);
    edu.copy(Direction::Write, AT, BUFFER_SIZE).await;
    if !own.holds(0x1000) {
        return Err(String::from("the device did not copy the child's memory"));
    }
    for (address, what) in [
        (others.0, "a write to another child's page"),
        (own.0, "a write to where the child's page is for the root"),
        (HYPERVISOR_IMAGE, "a write to the hypervisor"),
    ] {
        refused(edu, Direction::Write, address, NOT_WRITABLE, what).await?;
    }
    // What is mapped from now on is reached too, until it is unmapped, though the device has it cached by then.
    child.map(AT + PAGE, later)?;
    edu.copy(Direction::Write, AT + PAGE, BUFFER_SIZE).await;
    if !later.holds(0x1000) {
        return Err(String::from(
            "the device does not reach a page that was mapped later",
        ));
    }
    child.unmap(AT + PAGE)?;
    later.fill(0x5000);
    let what = "an access to a page that was unmapped";
    refused(edu, Direction::Write, AT + PAGE, NOT_WRITABLE, what).await?;
    refused(edu, Direction::Read, AT + PAGE, NOT_READABLE, what).await?;
    if !later.holds(0x5000) || !others.holds(0x3000) {
        return Err(String::from("a refused write has changed memory"));
    }
    // The child's end takes the device from it.
    child.finalize()?;
    refused(
        edu,
        Direction::Write,
        AT,
        NO_DOMAIN,
        "a write for a child that has ended",
    )
    .await?;
    match own.holds(0x1000) {
        true => Ok(()),
        false => Err(String::from(
            "a device has written to the memory of a child that has ended",
        )),
    }
}
