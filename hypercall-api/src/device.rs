//! Device domains: what devices reach (names and layouts as Linux's `mshv` root uses them). A domain belongs to a partition and
//! translates the addresses that the devices in it use. Domain 0 of a partition is its default domain: the partition's own GPA
//! space, which it follows by itself. The others map what is mapped in them.

use crate::id::PartitionId;
use crate::interrupt::DeviceId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Names a domain among those of a partition: its type in bits 3:0, its number in bits 63:32.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct DeviceDomainId(pub u64);

impl DeviceDomainId {
    /// The default domain.
    pub const DEFAULT: Self = Self::second_stage(0);

    /// A domain whose mappings the hypervisor keeps (`HV_DEVICE_DOMAIN_TYPE_S2`).
    pub const fn second_stage(number: u32) -> Self {
        Self((number as u64) << 32)
    }

    /// The number of a second-stage domain; `None` for other types and where reserved bits are set.
    pub const fn number(self) -> Option<u32> {
        if self.0 as u32 == 0 {
            Some((self.0 >> 32) as u32)
        } else {
            None
        }
    }
}

/// A domain of a partition; also the input of `HvCallDeleteDeviceDomain`, which wants no device in it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DeviceDomain {
    /// The partition.
    pub partition: PartitionId,
    /// Zero.
    pub owner_vtl: u8,
    /// Zero.
    pub padding: [u8; 7],
    /// The domain.
    pub domain: DeviceDomainId,
}
const _: () = assert!(size_of::<DeviceDomain>() == 24);

impl DeviceDomain {
    /// A domain of `partition`.
    pub const fn new(partition: PartitionId, domain: DeviceDomainId) -> Self {
        Self {
            partition,
            owner_vtl: 0,
            padding: [0; 7],
            domain,
        }
    }
}

/// Input of `HvCallCreateDeviceDomain`: makes a domain with frames of the partition's pool.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CreateDeviceDomain {
    /// The new domain; its number is the caller's choice.
    pub domain: DeviceDomain,
    /// Zero.
    pub flags: u32,
    /// Zero.
    pub padding: u32,
}
const _: () = assert!(size_of::<CreateDeviceDomain>() == 32);

/// Input of `HvCallAttachDeviceDomain`: the device reaches what the domain maps. A device that is in a domain must be detached
/// first.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AttachDeviceDomain {
    /// The domain.
    pub domain: DeviceDomain,
    /// The device.
    pub device: DeviceId,
}
const _: () = assert!(size_of::<AttachDeviceDomain>() == 32);

/// Input of `HvCallDetachDeviceDomain`: the device reaches nothing, and raises no interrupt.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DetachDeviceDomain {
    /// The partition that has the device.
    pub partition: PartitionId,
    /// The device.
    pub device: DeviceId,
}
const _: () = assert!(size_of::<DetachDeviceDomain>() == 16);

/// Input of `HvCallMapDeviceGpaPages`, before the list of pages of the partition (64-bit page numbers).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MapDeviceGpaPages {
    /// The domain.
    pub domain: DeviceDomain,
    /// Zero.
    pub target_vtl: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// [`MapGpaFlags`](crate::memory::MapGpaFlags): readable, and perhaps writable.
    pub flags: u32,
    /// Address by which devices reach the first page, a multiple of 4096; the others follow.
    pub address: u64,
}
const _: () = assert!(size_of::<MapDeviceGpaPages>() == 40);

/// Input of `HvCallUnmapDeviceGpaPages`, a rep call without a list.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UnmapDeviceGpaPages {
    /// The domain.
    pub domain: DeviceDomain,
    /// Address of the first page.
    pub address: u64,
}
const _: () = assert!(size_of::<UnmapDeviceGpaPages>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_named_by_type_and_number() {
        assert_eq!(DeviceDomainId::second_stage(7).number(), Some(7));
        assert_eq!(DeviceDomainId::DEFAULT.number(), Some(0));
        // First-stage domains (type 1) are not known.
        assert_eq!(DeviceDomainId(7 << 32 | 1).number(), None);
    }
}
