//! Calls about memory.

use super::{named_child, named_partition};
use crate::partition::Partition;
use crate::partition::memory;
use crate::partition::vp::Vp;
use crate::virtualization::VirtualProcessor;
use core::sync::atomic::Ordering;
use hypercall_api::access::{
    AccessResult, MAX_ACCESS, ReadGpa, ReadGpaResult, TranslateResult, TranslateVirtualAddress,
    TranslatedVirtualAddress, WriteGpa, WriteGpaResult,
};
use hypercall_api::address::{Gpfn, Gva};
use hypercall_api::memory::{
    DepositMemory, GetMemoryBalance, LARGE_PAGE_PAGES, MapGpaFlags, MapGpaPages, MemoryBalance,
    UnmapGpaPages, WithdrawMemory,
};
use hypercall_api::status::HvStatus;

fn root() -> Result<&'static Partition, HvStatus> {
    Partition::root().ok_or(HvStatus::OPERATION_FAILED)
}

/// `HvCallDepositMemory`.
pub(super) fn deposit(vp: &mut Vp, input: &DepositMemory, pages: &[u64]) -> (u16, Result<(), HvStatus>) {
    let partitions = root().and_then(|root| Ok((root, named_partition(vp, input.partition)?)));
    match partitions {
        Ok((root, partition)) => memory::deposit(root, partition, pages),
        Err(status) => (0, Err(status)),
    }
}

/// `HvCallWithdrawMemory`.
pub(super) fn withdraw(vp: &mut Vp, input: &WithdrawMemory, _: &(), _: u16) -> Result<u64, HvStatus> {
    match memory::withdraw(root()?, named_partition(vp, input.partition)?)? {
        Some(page) => Ok(page.0),
        None => Err(HvStatus::NO_RESOURCES),
    }
}

/// `HvCallGetMemoryBalance`.
pub(super) fn balance(vp: &mut Vp, input: &GetMemoryBalance) -> Result<MemoryBalance, HvStatus> {
    let partition = named_partition(vp, input.partition)?;
    let available = partition.pool.lock().free_frames();
    let deposited = partition.deposited.load(Ordering::Relaxed);
    Ok(MemoryBalance {
        available,
        in_use: deposited.saturating_sub(available),
    })
}

/// The page that element `index` of a list is about.
fn target_of(first: Gpfn, index: u16, large: bool) -> Result<Gpfn, HvStatus> {
    let pages = if large { LARGE_PAGE_PAGES } else { 1 };
    let target = first.0.checked_add(index as u64 * pages).map(Gpfn);
    target
        .filter(|target| target.base().is_some())
        .ok_or(HvStatus::INVALID_PARAMETER)
}

/// `HvCallMapGpaPages`.
pub(super) fn map(vp: &mut Vp, input: &MapGpaPages, page: &u64, index: u16) -> Result<(), HvStatus> {
    let child = named_child(vp, input.partition)?;
    let flags = MapGpaFlags::from_bits(input.flags).ok_or(HvStatus::INVALID_PARAMETER)?;
    if input.padding != 0 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let target = target_of(input.target, index, flags.contains(MapGpaFlags::LARGE_PAGE))?;
    child.map_page(root()?, target, Gpfn(*page), flags)
}

/// `HvCallUnmapGpaPages`.
pub(super) fn unmap(vp: &mut Vp, input: &UnmapGpaPages, _: &(), index: u16) -> Result<(), HvStatus> {
    let child = named_child(vp, input.partition)?;
    let large = input.flags & UnmapGpaPages::LARGE_PAGE != 0;
    if input.flags & !UnmapGpaPages::LARGE_PAGE != 0 || input.padding != 0 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let target = target_of(input.target, index, large)?;
    child.unmap_pages(target, if large { LARGE_PAGE_PAGES } else { 1 })
}

/// `HvCallTranslateVirtualAddress`: by the page tables that the VP uses now. Access rights are not looked at.
pub(super) fn translate(
    vp: &mut Vp,
    input: &TranslateVirtualAddress,
) -> Result<TranslatedVirtualAddress, HvStatus> {
    let child = named_child(vp, input.partition)?;
    let slot = child.vp(input.vp).ok_or(HvStatus::INVALID_VP_INDEX)?;
    let guard = slot.stop_and_lock();
    let target = guard.as_ref().ok_or(HvStatus::INVALID_VP_STATE)?;
    let gva = input
        .page
        .checked_mul(4096)
        .map(Gva)
        .ok_or(HvStatus::INVALID_PARAMETER)?;
    let found = child.translate_linear(&target.hardware.paging(), gva);
    Ok(match found {
        None => TranslatedVirtualAddress {
            result: TranslateResult::PAGE_NOT_PRESENT,
            page_info: 0,
            page: Gpfn(0),
        },
        Some(gpa) if child.translate(gpa).is_none() => TranslatedVirtualAddress {
            result: TranslateResult::GPA_UNMAPPED,
            page_info: 0,
            page: gpa.page(),
        },
        Some(gpa) => TranslatedVirtualAddress {
            result: TranslateResult::SUCCESS,
            page_info: 0,
            page: gpa.page(),
        },
    })
}

/// A child's memory that a call is about, and how many bytes of it.
fn accessed(vp: &Vp, input: &ReadGpa) -> Result<(&'static Partition, usize), HvStatus> {
    let child = named_child(vp, input.partition)?;
    child.vp(input.vp).ok_or(HvStatus::INVALID_VP_INDEX)?;
    let size = input.byte_count as usize;
    if size == 0 || size > MAX_ACCESS || !input.gpa.fits_page(size as u64) {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    Ok((child, size))
}

/// `HvCallReadGpa`.
pub(super) fn read_gpa(vp: &mut Vp, input: &ReadGpa) -> Result<ReadGpaResult, HvStatus> {
    let (child, size) = accessed(vp, input)?;
    let mut data = [0; MAX_ACCESS];
    let result = match child.read(input.gpa, &mut data[..size]) {
        Ok(()) => AccessResult::SUCCESS,
        Err(_) => AccessResult::UNMAPPED,
    };
    Ok(ReadGpaResult {
        result,
        reserved: 0,
        data,
    })
}

/// `HvCallWriteGpa`.
pub(super) fn write_gpa(vp: &mut Vp, input: &WriteGpa) -> Result<WriteGpaResult, HvStatus> {
    let (child, size) = accessed(vp, &input.target)?;
    let result = match child.write(input.target.gpa, &input.data[..size]) {
        Ok(()) => AccessResult::SUCCESS,
        Err(_) => AccessResult::UNMAPPED,
    };
    Ok(WriteGpaResult { result, reserved: 0 })
}
