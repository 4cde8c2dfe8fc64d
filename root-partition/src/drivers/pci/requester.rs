//! By which id the IOMMU knows a function. PCI Express carries each function's own; a bridge to conventional PCI puts its own in
//! their place, so that all that is behind it is one device to the IOMMU (VT-d, 3.4.1 and 5.1; PCIe-to-PCI Bridge 1.0, 2.3).

use super::Address;
use super::config::ConfigSpace;
use super::function::Function;
use super::scan::{self, Identity};
use alloc::vec::Vec;

const PCI_EXPRESS: u8 = 0x10;
const BUSES: u16 = 0x18;
const BRIDGE: u8 = 1;
/// Kind of port in a PCI Express capability: a bridge from PCI Express to conventional PCI.
const TO_CONVENTIONAL: u32 = 7;
/// Most bridges on the way to a function, so that a circle ends.
const MAX_DEPTH: usize = 32;

/// The bus behind a bridge.
pub fn secondary_bus(space: &dyn ConfigSpace, bridge: &Identity) -> Option<u8> {
    (bridge.header == BRIDGE).then(|| (space.read(bridge.address, BUSES) >> 8) as u8)
}

/// The bridge that a bus is behind; `None` where it is a host bridge's.
pub fn bridge_to(space: &dyn ConfigSpace, functions: &[Identity], segment: u16, bus: u8) -> Option<Identity> {
    let leads = |bridge: &&Identity| {
        bridge.address.segment == segment
            && bridge.address.bus != bus
            && secondary_bus(space, bridge) == Some(bus)
    };
    functions.iter().find(leads).copied()
}

/// The id by which the IOMMU knows the function at `address`, one of `functions`.
pub fn requester(space: &dyn ConfigSpace, functions: &[Identity], address: Address) -> u16 {
    let mut requester = address.rid();
    let mut bus = address.bus;
    for _ in 0..MAX_DEPTH {
        let Some(bridge) = bridge_to(space, functions, address.segment, bus) else {
            break;
        };
        let function = Function::new(space, bridge.address);
        match function
            .capability(PCI_EXPRESS)
            .map(|at| function.read(at) >> 20 & 0xf)
        {
            Some(TO_CONVENTIONAL) => requester = u16::from(bus) << 8,
            // Any other port of PCI Express passes ids on.
            Some(_) => {}
            None => requester = bridge.address.rid(),
        }
        bus = bridge.address.bus;
    }
    requester
}

/// The same where it is not known yet what functions there are.
pub fn find(space: &dyn ConfigSpace, address: Address) -> u16 {
    // Nothing is between a host bridge and its own bus, whose number is mostly 0.
    match address.bus {
        0 => address.rid(),
        _ => requester(space, &scan::functions(space), address),
    }
}

/// The functions that the IOMMU cannot tell from the one at `address`, which is left out.
pub fn companions(space: &dyn ConfigSpace, functions: &[Identity], address: Address) -> Vec<Address> {
    let id = requester(space, functions, address);
    let same = |other: &Address| {
        *other != address && other.segment == address.segment && requester(space, functions, *other) == id
    };
    functions
        .iter()
        .filter(|function| function.header != BRIDGE)
        .map(|function| function.address)
        .filter(same)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::{Fake, address};
    use super::*;

    const LIST: u32 = 1 << 20;
    const BRIDGE_HEADER: u32 = 1 << 16;

    /// A bridge to `bus`, of a kind of PCI Express port, or a conventional one.
    fn bridge(bus: u32, kind: Option<u32>) -> Vec<(u16, u32)> {
        let mut words = vec![
            (0, 0x1111_8086),
            (0x0c, BRIDGE_HEADER),
            (0x18, bus << 8 | bus << 16),
        ];
        if let Some(kind) = kind {
            words.extend([(4, LIST), (0x34, 0x40), (0x40, kind << 20 | 0x10)]);
        }
        words
    }

    /// On bus 1, behind a root port, an endpoint; on bus 2, behind a PCIe-to-PCI bridge, two; on bus 3, behind a conventional
    /// bridge that is on bus 2, one.
    fn space() -> Fake {
        let endpoint = [(0, 0x2222_8086)];
        let (port, converter, conventional) = (bridge(1, Some(4)), bridge(2, Some(7)), bridge(3, None));
        Fake::with(&[
            (address(0, 1, 0), &port),
            (address(0, 2, 0), &converter),
            (address(1, 0, 0), &endpoint),
            (address(2, 1, 0), &endpoint),
            (address(2, 2, 0), &endpoint),
            (address(2, 3, 0), &conventional),
            (address(3, 4, 0), &endpoint),
            (address(0, 5, 0), &endpoint),
        ])
    }

    #[test]
    fn what_is_behind_a_conventional_bridge_has_the_bridges_id() {
        let space = space();
        let functions = scan::functions(&space);
        let id = |at| requester(&space, &functions, at);
        assert_eq!(id(address(0, 5, 0)), 0x0028);
        assert_eq!(id(address(1, 0, 0)), 0x0100);
        assert_eq!(id(address(2, 1, 0)), 0x0200);
        assert_eq!(id(address(2, 2, 0)), 0x0200);
        // The last bridge before PCI Express counts.
        assert_eq!(id(address(3, 4, 0)), 0x0200);
        assert_eq!(find(&space, address(3, 4, 0)), 0x0200);
    }

    #[test]
    fn those_behind_one_bridge_are_companions() {
        let space = space();
        let functions = scan::functions(&space);
        let with = companions(&space, &functions, address(2, 1, 0));
        assert_eq!(with, [address(2, 2, 0), address(3, 4, 0)]);
        assert!(companions(&space, &functions, address(1, 0, 0)).is_empty());
    }

    #[test]
    fn bridges_in_a_circle_end() {
        let (first, second) = (bridge(2, None), bridge(1, None));
        let space = Fake::with(&[(address(1, 0, 0), &first), (address(2, 0, 0), &second)]);
        let functions = scan::functions(&space);
        requester(&space, &functions, address(1, 0, 0));
    }
}
