//! What the hypervisor must know of PCI before the root runs, by ports and in segment 0: where the paths of device scopes
//! lead, and which devices firmware has left able to write to memory. Afterwards configuration space is the root's.
#![allow(unsafe_code)]

use crate::platform::dmar::DeviceScope;
use x86_64::instructions::port::Port;

const COMMAND: u8 = 0x04;
const HEADER_TYPE: u8 = 0x0c;
const BUSES: u8 = 0x18;
const BUS_MASTER: u32 = 1 << 2;
const BRIDGE: u8 = 1;

/// Configuration space, in words of 32 bits.
pub trait Config {
    /// The word at `offset` of a function; all ones where there is none.
    fn read(&mut self, rid: u16, offset: u8) -> u32;
    /// Writes it.
    fn write(&mut self, rid: u16, offset: u8, value: u32);
}

/// By ports 0xcf8 and 0xcfc.
pub struct Ports(());

impl Ports {
    /// # Safety
    /// The root does not run yet: the two ports are used by nobody else.
    pub const unsafe fn new() -> Self {
        Self(())
    }

    fn select(rid: u16, offset: u8) {
        // SAFETY: selecting a register has no effect but on the next access.
        unsafe { Port::new(0xcf8).write(1 << 31 | u32::from(rid) << 8 | u32::from(offset & 0xfc)) }
    }
}

impl Config for Ports {
    fn read(&mut self, rid: u16, offset: u8) -> u32 {
        Self::select(rid, offset);
        // SAFETY: reading configuration space changes no memory.
        unsafe { Port::new(0xcfc).read() }
    }

    fn write(&mut self, rid: u16, offset: u8, value: u32) {
        Self::select(rid, offset);
        // SAFETY: this module writes command registers only, to take bus mastering away.
        unsafe { Port::new(0xcfc).write(value) }
    }
}

fn header(config: &mut impl Config, rid: u16) -> Option<u8> {
    if config.read(rid, 0) as u16 == u16::MAX {
        return None;
    }
    Some((config.read(rid, HEADER_TYPE) >> 16) as u8)
}

/// The bus behind a bridge.
fn secondary_bus(config: &mut impl Config, rid: u16) -> Option<u8> {
    let is_bridge = header(config, rid)? & 0x7f == BRIDGE;
    is_bridge.then(|| (config.read(rid, BUSES) >> 8) as u8)
}

/// The function that a scope's path leads to (VT-d, 8.3.1).
pub fn resolve(config: &mut impl Config, scope: &DeviceScope) -> Option<u16> {
    let rid = |bus: u8, [device, function]: [u8; 2]| {
        u16::from(bus) << 8 | u16::from(device & 0x1f) << 3 | u16::from(function & 7)
    };
    let (last, bridges) = scope.path.split_last()?;
    let mut bus = scope.start_bus;
    for &step in bridges {
        bus = secondary_bus(config, rid(bus, step))?;
    }
    Some(rid(bus, *last))
}

/// Takes bus mastering away from every function that is no bridge, but for those that `keep`s it. Returns how many had it.
pub fn contain(config: &mut impl Config, keep: impl Fn(u16) -> bool) -> u32 {
    let mut seen = [false; 256];
    let mut waiting = arrayvec::ArrayVec::<u8, 256>::new();
    waiting.push(0);
    seen[0] = true;
    let mut contained = 0;
    while let Some(bus) = waiting.pop() {
        for device in 0..32u16 {
            for function in 0..8u16 {
                let rid = u16::from(bus) << 8 | device << 3 | function;
                let Some(kind) = header(config, rid) else {
                    if function == 0 {
                        break;
                    }
                    continue;
                };
                if let Some(behind) = secondary_bus(config, rid) {
                    // Each bus is looked at once, so there is room for each.
                    if !core::mem::replace(&mut seen[behind as usize], true) {
                        waiting.push(behind);
                    }
                } else if !keep(rid) {
                    let command = config.read(rid, COMMAND);
                    if command & BUS_MASTER != 0 {
                        config.write(rid, COMMAND, command & 0xffff & !BUS_MASTER);
                        contained += 1;
                    }
                }
                if function == 0 && kind & 0x80 == 0 {
                    break;
                }
            }
        }
    }
    contained
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::platform::dmar::ScopeKind;
    use std::collections::BTreeMap;

    #[derive(Default)]
    pub(crate) struct Fake(BTreeMap<(u16, u8), u32>);

    impl Fake {
        fn function(mut self, rid: u16, header: u8, command: u32, buses: u32) -> Self {
            self.0.insert((rid, 0), 0x1111_8086);
            self.0.insert((rid, COMMAND), command);
            self.0.insert((rid, HEADER_TYPE), u32::from(header) << 16);
            self.0.insert((rid, BUSES), buses);
            self
        }
    }

    impl Config for Fake {
        fn read(&mut self, rid: u16, offset: u8) -> u32 {
            self.0.get(&(rid, offset)).copied().unwrap_or(u32::MAX)
        }

        fn write(&mut self, rid: u16, offset: u8, value: u32) {
            self.0.insert((rid, offset), value);
        }
    }

    /// The same with one more function, that does not master the bus.
    pub(crate) fn with_function(machine: Fake, rid: u16) -> Fake {
        machine.function(rid, 0, 0, 0)
    }

    fn scope(start_bus: u8, path: &[[u8; 2]]) -> DeviceScope {
        DeviceScope {
            kind: ScopeKind::PCI_ENDPOINT,
            enumeration_id: 0,
            start_bus,
            path: path.iter().copied().collect(),
        }
    }

    /// A bridge at 0:1.0 to bus 5, on which device 3 masters the bus, as functions 0:2.0 and 0:2.1 do.
    pub(crate) fn bridge_and_devices() -> Fake {
        Fake::default()
            .function(0x0008, BRIDGE, 7, 0x0005_0500)
            .function(0x0010, 0x80, 6, 0)
            .function(0x0011, 0x00, 0x0010_0006, 0)
            .function(0x0018, 0x00, 2, 0)
            .function(0x0518, 0x00, 7, 0)
    }

    #[test]
    fn a_path_goes_through_bridges() {
        let mut machine = bridge_and_devices();
        assert_eq!(resolve(&mut machine, &scope(0, &[[2, 1]])), Some(0x0011));
        assert_eq!(resolve(&mut machine, &scope(0, &[[1, 0], [3, 0]])), Some(0x0518));
        assert_eq!(resolve(&mut machine, &scope(0, &[[2, 0], [3, 0]])), None);
        assert_eq!(resolve(&mut machine, &scope(0, &[[9, 0], [3, 0]])), None);
    }

    #[test]
    fn bus_mastering_is_taken_from_all_but_bridges_and_those_to_keep() {
        let mut machine = bridge_and_devices();
        assert_eq!(contain(&mut machine, |rid| rid == 0x0010), 2);
        assert_eq!(machine.read(0x0008, COMMAND), 7);
        assert_eq!(machine.read(0x0010, COMMAND), 6);
        assert_eq!(machine.read(0x0011, COMMAND), 2);
        assert_eq!(machine.read(0x0518, COMMAND), 3);
    }

    #[test]
    fn bridges_in_a_circle_end() {
        let mut machine = bridge_and_devices().function(0x0508, BRIDGE, 7, 0x0000_0500);
        assert_eq!(contain(&mut machine, |_| false), 3);
    }
}
