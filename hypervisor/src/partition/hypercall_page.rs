//! The hypercall page (TLFS, "Establishing the Hypercall Interface").

use super::Partition;
use super::guest_memory;
use core::sync::atomic::Ordering;
use hypercall_api::msr::PageMsr;

const LOCKED: u64 = 1 << 1;
/// ENDBR64, because kernels with indirect branch tracking look for it; then VMMCALL and RET.
const CODE: [u8; 8] = [0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x01, 0xd9, 0xc3];

/// The guest did something that raises #GP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// The page's contents.
pub fn contents() -> [u8; 4096] {
    let mut page = [0xcc; 4096];
    page[..CODE.len()].copy_from_slice(&CODE);
    page
}

/// Sets HV_X64_MSR_HYPERCALL. Without a guest OS id the page stays disabled.
pub fn set(partition: &Partition, value: u64) -> Result<(), Refused> {
    let current = partition.hypercall_msr.load(Ordering::Relaxed);
    if current & LOCKED != 0 {
        return Err(Refused);
    }
    let identified = partition.guest_os_id.load(Ordering::Relaxed) != 0;
    let value = if identified { value } else { value & !1 };
    let page = PageMsr(value);
    if page.is_enabled() && !partition.owns_overlay(page.page()) {
        let written = partition.with_frame(page.page(), |frame| {
            guest_memory::write_frame(frame, 0, &contents())
        });
        written.ok_or(Refused)?;
    }
    partition.hypercall_msr.store(value, Ordering::Relaxed);
    Ok(())
}
