//! Finding the functions.
//!
//! Every bus of every segment group is looked at, whether a bridge leads to it or not: that also finds what is behind the
//! further host bridges of a large machine, needs no recursion over numbers that devices give, and costs a few thousand
//! reads.

use super::Address;
use super::config::ConfigSpace;
use alloc::vec::Vec;

const HEADER_TYPE: u16 = 0x0c;
const MULTI_FUNCTION: u32 = 1 << 23;
/// Vendor id of a function that is not there.
const NO_VENDOR: u16 = 0xffff;

/// What the first words of a function's configuration space say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Where it is.
    pub address: Address,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Base class, subclass, programming interface.
    pub class: [u8; 3],
    /// Kind of header: 0 endpoint, 1 bridge.
    pub header: u8,
}

/// All functions, in the order of their addresses.
pub fn functions(space: &dyn ConfigSpace) -> Vec<Identity> {
    let mut found = Vec::new();
    for (segment, buses) in space.buses() {
        for bus in buses {
            for device in 0..32u8 {
                scan_device(space, segment, bus, device, &mut found);
            }
        }
    }
    found.sort_unstable_by_key(|function| function.address);
    found.dedup_by_key(|function| function.address);
    found
}

fn scan_device(space: &dyn ConfigSpace, segment: u16, bus: u8, device: u8, found: &mut Vec<Identity>) {
    let address = |function| Address {
        segment,
        bus,
        slot: device << 3 | function,
    };
    let Some(first) = identify(space, address(0)) else {
        return;
    };
    found.push(first);
    if space.read(address(0), HEADER_TYPE) & MULTI_FUNCTION != 0 {
        found.extend((1..8).filter_map(|function| identify(space, address(function))));
    }
}

fn identify(space: &dyn ConfigSpace, address: Address) -> Option<Identity> {
    let id = space.read(address, 0);
    let vendor = id as u16;
    if vendor == NO_VENDOR {
        return None;
    }
    let [_, interface, subclass, class] = space.read(address, 8).to_le_bytes();
    Some(Identity {
        address,
        vendor,
        device: (id >> 16) as u16,
        class: [class, subclass, interface],
        header: (space.read(address, HEADER_TYPE) >> 16) as u8 & 0x7f,
    })
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::{Fake, address};
    use super::*;

    #[test]
    fn functions_of_all_buses_are_found_in_order() {
        let space = Fake::with(&[
            (address(3, 0, 0), &[(0, 0x0010_1b36), (8, 0x0108_0202)]),
            (address(0, 31, 0), &[(0, 0x2918_8086), (0x0c, MULTI_FUNCTION)]),
            (address(0, 31, 3), &[(0, 0x2930_8086)]),
            (address(0, 1, 0), &[(0, 0x1111_1234)]),
            (address(0, 1, 1), &[(0, 0x1111_1234)]),
        ]);
        let found = functions(&space);
        let addresses: Vec<_> = found.iter().map(|function| function.address).collect();
        assert_eq!(
            addresses,
            [
                address(0, 1, 0),
                address(0, 31, 0),
                address(0, 31, 3),
                address(3, 0, 0)
            ]
        );
        assert_eq!(found[3].class, [1, 8, 2]);
        assert_eq!((found[3].vendor, found[3].device), (0x1b36, 0x10));
    }
}
