//! What a parent wants to hear of beyond what it must answer anyway (`HvCallInstallIntercept`): MSRs that the hypervisor would
//! refuse, CPUID leaves, exceptions.

use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use hypercall_api::intercept::{AccessMask, InstallIntercept, InterceptType};
use hypercall_api::status::HvStatus;
use spin::Mutex;

/// CPUID leaves that can be intercepted.
const LEAVES: usize = 16;

/// The intercepts of a partition.
#[derive(Default)]
pub struct InstalledIntercepts {
    /// [`AccessMask`] bits.
    msr: AtomicU8,
    exceptions: AtomicU32,
    leaf_count: AtomicU8,
    leaves: Mutex<ArrayVec<u32, LEAVES>>,
}

impl InstalledIntercepts {
    /// None.
    pub const fn new() -> Self {
        Self {
            msr: AtomicU8::new(0),
            exceptions: AtomicU32::new(0),
            leaf_count: AtomicU8::new(0),
            leaves: Mutex::new(ArrayVec::new_const()),
        }
    }

    /// Installs an intercept, or takes it away where it is for no access.
    pub fn install(&self, input: &InstallIntercept) -> Result<(), HvStatus> {
        let access = AccessMask::from_bits(input.access).ok_or(HvStatus::INVALID_PARAMETER)?;
        let only = |allowed: AccessMask| {
            if allowed.contains(access) {
                Ok(())
            } else {
                Err(HvStatus::INVALID_PARAMETER)
            }
        };
        match input.intercept {
            // Every port is the parent's already.
            InterceptType::IO_PORT | InterceptType::IO_PORT_RANGE => {
                only(AccessMask::READ | AccessMask::WRITE)
            }
            InterceptType::MSR => {
                only(AccessMask::READ | AccessMask::WRITE)?;
                self.msr.store(access.bits() as u8, Ordering::Relaxed);
                Ok(())
            }
            InterceptType::EXCEPTION => {
                only(AccessMask::EXECUTE)?;
                let vector = u32::try_from(input.parameter).ok().filter(|&vector| vector < 32);
                let bit = 1 << vector.ok_or(HvStatus::INVALID_PARAMETER)?;
                match access.is_empty() {
                    true => self.exceptions.fetch_and(!bit, Ordering::Relaxed),
                    false => self.exceptions.fetch_or(bit, Ordering::Relaxed),
                };
                Ok(())
            }
            InterceptType::CPUID => {
                only(AccessMask::EXECUTE)?;
                self.install_leaf(input.parameter as u32, !access.is_empty())
            }
            _ => Err(HvStatus::INVALID_PARAMETER),
        }
    }

    fn install_leaf(&self, leaf: u32, wanted: bool) -> Result<(), HvStatus> {
        let mut leaves = self.leaves.lock();
        leaves.retain(|other| *other != leaf);
        if wanted {
            leaves.try_push(leaf).map_err(|_| HvStatus::NO_RESOURCES)?;
        }
        self.leaf_count.store(leaves.len() as u8, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the parent wants to hear of a read or write of an MSR that the hypervisor would refuse.
    pub fn wants_msr(&self, write: bool) -> bool {
        let bit = if write {
            AccessMask::WRITE
        } else {
            AccessMask::READ
        };
        self.msr.load(Ordering::Relaxed) & bit.bits() as u8 != 0
    }

    /// Whether the parent wants to answer a CPUID leaf.
    #[inline]
    pub fn wants_leaf(&self, leaf: u32) -> bool {
        self.leaf_count.load(Ordering::Relaxed) != 0 && self.leaves.lock().contains(&leaf)
    }

    /// The exceptions that the parent wants to hear of, a bit a vector.
    #[inline]
    pub fn exceptions(&self) -> u32 {
        self.exceptions.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercall_api::id::PartitionId;

    fn intercept(intercept: InterceptType, access: AccessMask, parameter: u64) -> InstallIntercept {
        InstallIntercept {
            partition: PartitionId(2),
            access: access.bits(),
            intercept,
            parameter,
        }
    }

    #[test]
    fn an_intercept_for_no_access_takes_it_away() {
        let installed = InstalledIntercepts::new();
        installed
            .install(&intercept(InterceptType::CPUID, AccessMask::EXECUTE, 7))
            .unwrap();
        assert!(installed.wants_leaf(7) && !installed.wants_leaf(8));
        installed
            .install(&intercept(InterceptType::CPUID, AccessMask::empty(), 7))
            .unwrap();
        assert!(!installed.wants_leaf(7));
    }

    #[test]
    fn what_cannot_be_is_refused_and_changes_nothing() {
        let installed = InstalledIntercepts::new();
        for wrong in [
            intercept(InterceptType::EXCEPTION, AccessMask::EXECUTE, 32),
            intercept(InterceptType::EXCEPTION, AccessMask::READ, 3),
            intercept(InterceptType::MSR, AccessMask::EXECUTE, 0),
            intercept(InterceptType::APIC_EOI, AccessMask::EXECUTE, 0),
        ] {
            assert_eq!(installed.install(&wrong), Err(HvStatus::INVALID_PARAMETER));
        }
        assert_eq!((installed.exceptions(), installed.wants_msr(false)), (0, false));
    }
}
