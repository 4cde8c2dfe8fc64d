//! The hypercall page (TLFS, "Establishing the Hypercall Interface"): an overlay. While it is enabled, it lies over the
//! guest's own page, which comes back as it was when the overlay goes. One frame serves all partitions; no guest can write
//! to it.

use super::Partition;
use crate::memory::address::{FRAME_SIZE, Frame, Spa};
use crate::memory::frames::FrameSource;
use crate::memory::nested::{Access, NestedTables, Npt};
use crate::memory::tables::TableError;
use crate::processor::quiesce;
use core::sync::atomic::Ordering;
use hypercall_api::address::{Gpa, Gpfn};
use hypercall_api::msr::PageMsr;

const ENABLED: u64 = 1;
const LOCKED: u64 = 1 << 1;
/// ENDBR64, because kernels with indirect branch tracking look for it; then VMMCALL and RET.
const CODE: [u8; 8] = [0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x01, 0xd9, 0xc3];

/// The guest did something that raises #GP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// A page of a guest's that an overlay lies over: where, and what is mapped there otherwise.
#[derive(Clone, Copy)]
pub struct Covered {
    gpa: Gpa,
    spa: Spa,
    access: Access,
}

/// The page's contents.
pub fn contents() -> [u8; 4096] {
    let mut page = [0xcc; 4096];
    page[..CODE.len()].copy_from_slice(&CODE);
    page
}

/// Sets HV_X64_MSR_HYPERCALL. Without a guest OS id the page stays disabled. The root has a page of the hypervisor's, and
/// can have no other.
pub fn set(partition: &Partition, value: u64) -> Result<(), Refused> {
    let current = partition.hypercall_msr.load(Ordering::Relaxed);
    if current & LOCKED != 0 {
        return Err(Refused);
    }
    let identified = partition.guest_os_id.load(Ordering::Relaxed) != 0;
    let value = if identified { value } else { value & !ENABLED };
    let page = PageMsr(value);
    if partition.is_root() {
        if page.is_enabled() && !partition.owns_overlay(page.page()) {
            return Err(Refused);
        }
    } else {
        partition.cover(page.is_enabled().then(|| page.page()))?;
    }
    partition.hypercall_msr.store(value, Ordering::Relaxed);
    Ok(())
}

/// Disables the page, whatever has been locked: the guest says that it is no guest OS any more.
pub fn disable(partition: &Partition) {
    partition.hypercall_msr.fetch_and(!ENABLED, Ordering::Relaxed);
    // Uncovering a page needs no memory, so there is nothing to refuse.
    let _ = partition.cover(None);
}

impl Partition {
    /// Lays the overlay over `page`, or over nothing.
    fn cover(&self, page: Option<Gpfn>) -> Result<(), Refused> {
        let overlay = Partition::root().and_then(|root| root.overlay).ok_or(Refused)?;
        let frame = overlay.base().map(|gpa| Frame::containing(Spa(gpa.0)));
        let target = page.map(|page| page.base().ok_or(Refused)).transpose()?;
        let frame = frame.ok_or(Refused)?;
        let (uncovered, covered) = {
            let mut memory = self.memory.lock();
            let memory = memory.as_mut().ok_or(Refused)?;
            let uncovered = self.uncover(memory, |_| true);
            (
                uncovered,
                target.map_or(Ok(()), |gpa| self.cover_page(memory, gpa, frame)),
            )
        };
        if uncovered || target.is_some() {
            self.memory_changed();
            quiesce::stop_guests();
        }
        covered
    }

    fn cover_page(&self, memory: &mut NestedTables<Npt>, gpa: Gpa, frame: Frame) -> Result<(), Refused> {
        let below = memory
            .translate(gpa)
            .filter(|mapping| mapping.is_ram() && mapping.access.write)
            .ok_or(Refused)?;
        let access = Access {
            write: false,
            ..Access::ALL
        };
        let mut pool = self.pool.lock();
        let mut map =
            |pool: &mut dyn FrameSource| memory.map_range(gpa, frame.start(), FRAME_SIZE, access, pool);
        let mut mapped = map(&mut *pool);
        // A large page that is split needs a table.
        if matches!(mapped, Err(TableError::OutOfMemory(_)))
            && let Some(spare) = self.spare.lock().take()
        {
            pool.free(spare);
            mapped = map(&mut *pool);
        }
        if mapped.is_err() {
            crate::rate_limited!(
                log::Level::Warn,
                "partition {}: no memory for a table to lay the hypercall page over {gpa}",
                self.id
            );
            return Err(Refused);
        }
        *self.covered.lock() = Some(Covered {
            gpa,
            spa: below.spa,
            access: below.access,
        });
        Ok(())
    }

    /// Maps the guest's own page again, where the overlay lies over one that `which` says. Returns whether it did.
    pub(super) fn uncover(&self, memory: &mut NestedTables<Npt>, which: impl FnOnce(Gpa) -> bool) -> bool {
        let mut covered = self.covered.lock();
        let Some(Covered { gpa, spa, access }) = covered.take_if(|covered| which(covered.gpa)) else {
            return false;
        };
        // The tables are split down to this page already.
        let mapped = memory.map_range(gpa, spa, FRAME_SIZE, access, &mut *self.pool.lock());
        debug_assert!(mapped.is_ok());
        true
    }

    /// Whether the overlay lies over the page of `gpa`.
    pub fn is_covered(&self, gpa: Gpa) -> bool {
        let covered = *self.covered.lock();
        covered.is_some_and(|covered| covered.gpa.0 / FRAME_SIZE == gpa.0 / FRAME_SIZE)
    }
}
