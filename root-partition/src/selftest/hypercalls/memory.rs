//! Mapping, depositing, reading and writing a child's memory.
#![allow(unsafe_code)]

use super::VP;
use crate::hypervisor::hypercalls;
use crate::selftest::refused::HYPERVISOR_IMAGE;
use crate::selftest::report::{Report, text};
use crate::vm::host::FRAME;
use crate::vm::pool::with_deposits;
use crate::vm::root_host::RootHost;
use alloc::string::String;
use hypercall_api::access::AccessResult;
use hypercall_api::address::{Gpa, Gpfn};
use hypercall_api::call::{PartitionCalls, VpCalls};
use hypercall_api::id::PartitionId;
use hypercall_api::memory::MapGpaFlags;
use hypercall_api::status::HvStatus;

pub(super) fn memory(report: &mut Report, child: PartitionId, page: u64) -> Result<(), String> {
    let calls = hypercalls();
    let invalid = HvStatus::INVALID_PARAMETER;
    let source = [Gpfn(page / FRAME)];
    let map = |target, flags, source: &[Gpfn]| -> Result<(), HvStatus> {
        // SAFETY: the page is this test's.
        Ok(unsafe { calls.map_gpa_pages(child, target, flags, source) }?)
    };
    with_deposits(&RootHost, child, || map(Gpfn(16), MapGpaFlags::RAM, &source)).map_err(text)?;
    let name = "HvCallMapGpaPages";
    let twice = map(Gpfn(16), MapGpaFlags::RAM, &source);
    report.refuses(
        name,
        "what is mapped already is refused",
        twice,
        HvStatus::OPERATION_DENIED,
    );
    let reserved = map(Gpfn(17), MapGpaFlags::from_bits_retain(1 << 30), &source);
    report.refuses(name, "a reserved flag is refused", reserved, invalid);
    let beyond = map(Gpfn(u64::MAX / 4096), MapGpaFlags::RAM, &source);
    report.refuses(name, "a page past the last is refused", beyond, invalid);
    let large = map(Gpfn(513), MapGpaFlags::RAM | MapGpaFlags::LARGE_PAGE, &source);
    report.refuses(
        name,
        "a large page at a small one's place is refused",
        large,
        invalid,
    );
    let hypervisor = map(Gpfn(17), MapGpaFlags::RAM, &[Gpfn(HYPERVISOR_IMAGE / FRAME)]);
    report.equal(
        name,
        "the hypervisor's own memory is refused",
        hypervisor.is_err(),
        true,
    );
    let nothing = map(Gpfn(17), MapGpaFlags::RAM, &[Gpfn(1 << 39)]);
    report.equal(name, "what is no memory is refused", nothing.is_err(), true);
    let mut byte = [0];
    let unmapped = calls.read_gpa(child, VP, Gpa(17 * FRAME), &mut byte);
    report.equal(
        name,
        "what was refused is not mapped",
        unmapped,
        Ok(AccessResult::UNMAPPED),
    );

    // SAFETY: the call is refused: a child has the page.
    let lent: Result<(), _> = unsafe { calls.deposit_memory(child, &source) }.map_err(HvStatus::from);
    report.equal(
        "HvCallDepositMemory",
        "a page that a child has is refused",
        lent.is_err(),
        true,
    );

    let written = calls.write_gpa(child, VP, Gpa(16 * FRAME + 8), b"0123456789abcdef");
    report.equal(
        "HvCallWriteGpa",
        "16 bytes are written",
        written,
        Ok(AccessResult::SUCCESS),
    );
    let mut seen = [0; 16];
    let read = calls.read_gpa(child, VP, Gpa(16 * FRAME + 8), &mut seen);
    let same = read == Ok(AccessResult::SUCCESS) && seen == *b"0123456789abcdef";
    report.equal("HvCallReadGpa", "they are read back", same, true);
    let crossing = calls.read_gpa(child, VP, Gpa(17 * FRAME - 8), &mut seen);
    report.refuses(
        "HvCallReadGpa",
        "bytes of two pages are refused",
        crossing,
        invalid,
    );
    let none = calls.read_gpa(child, VP, Gpa(16 * FRAME), &mut []);
    report.refuses("HvCallReadGpa", "no bytes are refused", none, invalid);
    let crossing = calls.write_gpa(child, VP, Gpa(17 * FRAME - 8), &seen);
    report.refuses(
        "HvCallWriteGpa",
        "bytes of two pages are refused",
        crossing,
        invalid,
    );
    Ok(())
}
