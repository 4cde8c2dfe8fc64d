//! Access to configuration space: memory-mapped where the MCFG says so (PCIe 7.2.2), by ports 0xcf8 and 0xcfc otherwise.
#![allow(unsafe_code)]

use super::{Address, requester};
use crate::acpi::EcamRange;
use crate::hypervisor::hypercalls;
use crate::memory::mmio::Registers;
use alloc::vec::Vec;
use hypercall_api::call::DeviceCalls;
use hypercall_api::device::{DeviceDomain, DeviceDomainId};
use hypercall_api::id::PartitionId;
use hypercall_api::interrupt::DeviceId;
use spin::{Mutex, Once};
use x86_64::instructions::port::Port;

/// Configuration space, in aligned words of 32 bits.
pub trait ConfigSpace: Sync {
    /// The word at `offset`, a multiple of 4; all ones where there is no such function or register.
    fn read(&self, address: Address, offset: u16) -> u32;

    /// Writes the word at `offset`.
    fn write(&self, address: Address, offset: u16, value: u32);

    /// Has the IOMMU let the function reach memory, as the root's.
    fn admit(&self, _address: Address) {}

    /// Segment groups and ranges of buses that can be reached.
    fn buses(&self) -> Vec<(u16, core::ops::RangeInclusive<u8>)>;
}

/// The machine's configuration space.
pub struct Machine {
    ranges: Vec<(EcamRange, Registers)>,
    ports: Mutex<()>,
}

impl Machine {
    /// Configuration space by `ecam`, or by ports where that is empty or cannot be mapped.
    fn new(ecam: &[EcamRange]) -> Self {
        let map = |range: &EcamRange| {
            let base = range.base + (u64::from(range.first_bus) << 20);
            let size = (u64::from(range.last_bus - range.first_bus) + 1) << 20;
            match Registers::map(base, size) {
                Ok(registers) => Some((*range, registers)),
                Err(error) => {
                    log::warn!("PCI configuration space at {base:#x} cannot be mapped: {error}");
                    None
                }
            }
        };
        Self {
            ranges: ecam.iter().filter_map(map).collect(),
            ports: Mutex::new(()),
        }
    }

    /// The registers that hold the configuration space of `address`, and the function's offset in them.
    fn mapped(&self, address: Address) -> Option<(&Registers, u64)> {
        let (range, registers) = self.ranges.iter().find(|(range, _)| {
            range.segment == address.segment && (range.first_bus..=range.last_bus).contains(&address.bus)
        })?;
        let bus = u64::from(address.bus - range.first_bus);
        Some((registers, bus << 20 | u64::from(address.slot) << 12))
    }

    /// Whether `address` and `offset` can be reached by ports.
    fn by_ports(&self, address: Address, offset: u16) -> bool {
        self.ranges.is_empty() && address.segment == 0 && offset < 256
    }
}

static MACHINE: Once<Machine> = Once::new();

/// Finds the machine's configuration space, by `ecam` where that is not empty.
pub fn init(ecam: &[EcamRange]) -> &'static Machine {
    MACHINE.call_once(|| Machine::new(ecam))
}

/// The machine's configuration space, once it has been found.
pub fn machine() -> Option<&'static Machine> {
    MACHINE.get()
}

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;

/// What to write to `CONFIG_ADDRESS`.
fn selector(address: Address, offset: u16) -> u32 {
    1 << 31 | u32::from(address.rid()) << 8 | u32::from(offset & 0xfc)
}

impl ConfigSpace for Machine {
    fn read(&self, address: Address, offset: u16) -> u32 {
        if let Some((registers, base)) = self.mapped(address) {
            return registers.read(base + u64::from(offset & 0xffc));
        }
        if !self.by_ports(address, offset) {
            return u32::MAX;
        }
        let _lock = self.ports.lock();
        // SAFETY: the two ports are used under the lock only, and reading configuration space breaks no memory.
        unsafe {
            Port::new(CONFIG_ADDRESS).write(selector(address, offset));
            Port::new(CONFIG_DATA).read()
        }
    }

    fn write(&self, address: Address, offset: u16, value: u32) {
        if let Some((registers, base)) = self.mapped(address) {
            registers.write(base + u64::from(offset & 0xffc), value);
        } else if self.by_ports(address, offset) {
            let _lock = self.ports.lock();
            // SAFETY: as above; what the device does is its driver's business.
            unsafe {
                Port::new(CONFIG_ADDRESS).write(selector(address, offset));
                Port::new(CONFIG_DATA).write(value);
            }
        }
    }

    fn admit(&self, address: Address) {
        let domain = DeviceDomain::new(PartitionId::SELF, DeviceDomainId::DEFAULT);
        let device = DeviceId::pci(address.segment, requester::find(self, address));
        if let Err(status) = hypercalls().attach_device_domain(domain, device) {
            log::warn!("{address} cannot reach memory: {status}");
        }
    }

    fn buses(&self) -> Vec<(u16, core::ops::RangeInclusive<u8>)> {
        match self.ranges.as_slice() {
            [] => alloc::vec![(0, 0..=255)],
            ranges => ranges
                .iter()
                .map(|(range, _)| (range.segment, range.first_bus..=range.last_bus))
                .collect(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Configuration space in memory: functions of 64 words, of which some have bits that cannot be written.
    #[derive(Default)]
    pub(crate) struct Fake {
        pub(crate) functions: Mutex<BTreeMap<Address, [u32; 64]>>,
        /// Bits of a BAR that can be written, by function and register.
        pub(crate) writable: BTreeMap<(Address, u16), u32>,
    }

    pub(crate) const fn address(bus: u8, device: u8, function: u8) -> Address {
        Address {
            segment: 0,
            bus,
            slot: device << 3 | function,
        }
    }

    impl Fake {
        /// With functions of given words; the others are zero.
        pub(crate) fn with(functions: &[(Address, &[(u16, u32)])]) -> Self {
            let fake = Self::default();
            for (address, words) in functions {
                let mut space = [0; 64];
                for (offset, value) in *words {
                    space[usize::from(offset / 4)] = *value;
                }
                fake.functions.lock().insert(*address, space);
            }
            fake
        }
    }

    impl ConfigSpace for Fake {
        fn read(&self, address: Address, offset: u16) -> u32 {
            let functions = self.functions.lock();
            functions
                .get(&address)
                .and_then(|space| space.get(usize::from(offset / 4)).copied())
                .unwrap_or(u32::MAX)
        }

        fn write(&self, address: Address, offset: u16, value: u32) {
            let mask = self.writable.get(&(address, offset)).copied().unwrap_or(u32::MAX);
            if let Some(space) = self.functions.lock().get_mut(&address) {
                let word = &mut space[usize::from(offset / 4)];
                *word = *word & !mask | value & mask;
            }
        }

        fn buses(&self) -> Vec<(u16, core::ops::RangeInclusive<u8>)> {
            vec![(0, 0..=255)]
        }
    }

    #[test]
    fn the_port_selector_holds_bus_slot_and_register() {
        assert_eq!(selector(address(2, 31, 5), 0x43), 0x8002_fd40);
    }
}
