//! Boot information by PVH (Xen, "x86/HVM direct boot ABI").

use hypercall_api::pvh::{MAGIC, MemoryMapEntry, Module, StartInfo};

use super::command_line::{self, CommandLine, CommandLineError};
use super::information::{BootError, BootInformation, Protocol, Rsdp};
use crate::memory::address::{Spa, SpaRange};
use crate::memory::physical::PhysicalMemory;

/// Reads the start info at `address` and all that it leads to.
pub fn read(memory: &impl PhysicalMemory, address: Spa) -> Result<BootInformation, BootError> {
    let unreadable = |what, address| BootError::Unreadable { what, address };
    let info: StartInfo = memory.read(address).ok_or(unreadable("start info", address.0))?;
    if info.magic != MAGIC {
        return Err(BootError::WrongMagic(info.magic));
    }
    if info.version == 0 || info.memory_map_entries == 0 {
        return Err(BootError::NoMemoryMap);
    }

    let mut boot = BootInformation::empty(Protocol::Pvh);
    let entry_size = size_of::<MemoryMapEntry>() as u64;
    for index in 0..u64::from(info.memory_map_entries) {
        let entry = Spa(info.memory_map)
            .checked_add(index * entry_size)
            .and_then(|entry| memory.read(entry));
        let entry = entry.ok_or(unreadable("the memory map", info.memory_map))?;
        boot.memory_map
            .try_push(entry)
            .map_err(|_| BootError::TooManyMemoryMapEntries)?;
    }
    if info.command_line != 0 {
        boot.command_line = read_command_line(memory, info.command_line)?;
    }
    if info.module_count != 0 {
        let module: Module = memory
            .read(Spa(info.modules))
            .ok_or(unreadable("the module list", info.modules))?;
        let end = module.address.wrapping_add(module.size);
        let range = SpaRange::sized(Spa(module.address), module.size);
        boot.archive = Some(range.ok_or(BootError::WrongModule {
            start: module.address,
            end,
        })?);
    }
    if info.rsdp != 0 {
        boot.rsdp = Rsdp::At(Spa(info.rsdp));
    }
    Ok(boot)
}

/// Copies the zero-terminated string at `address`.
fn read_command_line(memory: &impl PhysicalMemory, address: u64) -> Result<CommandLine, BootError> {
    let mut bytes = [0; command_line::CAPACITY];
    for (offset, byte) in bytes.iter_mut().enumerate() {
        let place = Spa(address).checked_add(offset as u64);
        *byte = place
            .and_then(|place| memory.read(place))
            .ok_or(BootError::Unreadable {
                what: "the command line",
                address,
            })?;
        if *byte == 0 {
            return Ok(CommandLine::new(&bytes[..offset])?);
        }
    }
    Err(CommandLineError::TooLong.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::physical::FakeMemory;
    use hypercall_api::pvh::MemoryKind;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    const RAM: MemoryMapEntry = MemoryMapEntry {
        address: 0,
        size: 0x8000_0000,
        kind: MemoryKind::RAM,
        reserved: 0,
    };

    fn start_info() -> StartInfo {
        StartInfo {
            magic: MAGIC,
            version: 1,
            flags: 0,
            module_count: 1,
            modules: 0x2000,
            command_line: 0x3000,
            rsdp: 0xf_5000,
            memory_map: 0x4000,
            memory_map_entries: 2,
            reserved: 0,
        }
    }

    fn read_from(
        info: StartInfo,
        change: impl FnOnce(&mut FakeMemory),
    ) -> Result<BootInformation, BootError> {
        let mut memory = FakeMemory::default();
        change(&mut memory);
        let module = Module {
            address: 0x100_0000,
            size: 0x4321,
            command_line: 0,
            reserved: 0,
        };
        memory.put(0x1000, info.as_bytes()).put(0x2000, module.as_bytes());
        memory
            .put(0x3000, *b"log=debug quiet\0")
            .put(0x4000, [RAM, RAM].as_bytes());
        read(&memory, Spa(0x1000))
    }

    #[test]
    fn everything_is_copied() {
        let boot = read_from(start_info(), |_| ()).unwrap();
        assert_eq!(boot.protocol, Protocol::Pvh);
        assert_eq!(boot.memory_map.as_slice(), [RAM, RAM]);
        assert_eq!(boot.command_line.get("log"), Some("debug"));
        assert_eq!(boot.archive, SpaRange::sized(Spa(0x100_0000), 0x4321));
        assert_eq!(boot.rsdp, Rsdp::At(Spa(0xf_5000)));
    }

    #[test]
    fn what_is_not_given_is_absent() {
        let info = StartInfo {
            module_count: 0,
            command_line: 0,
            rsdp: 0,
            ..start_info()
        };
        let boot = read_from(info, |_| ()).unwrap();
        assert_eq!(
            (boot.archive, boot.rsdp, boot.command_line.text()),
            (None, Rsdp::Unknown, "")
        );
    }

    #[test]
    fn a_wrong_magic_is_refused() {
        let info = StartInfo {
            magic: 7,
            ..start_info()
        };
        assert_eq!(read_from(info, |_| ()), Err(BootError::WrongMagic(7)));
    }

    #[test]
    fn no_memory_map_is_refused() {
        for info in [
            StartInfo {
                version: 0,
                ..start_info()
            },
            StartInfo {
                memory_map_entries: 0,
                ..start_info()
            },
        ] {
            assert_eq!(read_from(info, |_| ()), Err(BootError::NoMemoryMap));
        }
    }

    #[test]
    fn a_memory_map_that_is_too_long_is_refused() {
        let info = StartInfo {
            memory_map_entries: u32::MAX,
            memory_map: 0x10_0000,
            ..start_info()
        };
        let result = read_from(info, |memory| {
            memory.put(0x10_0000, [RAM; 200].as_bytes());
        });
        assert_eq!(result, Err(BootError::TooManyMemoryMapEntries));
    }

    #[test]
    fn pointers_to_nowhere_are_refused() {
        for info in [
            StartInfo {
                memory_map: u64::MAX - 10,
                ..start_info()
            },
            StartInfo {
                modules: 0x9000,
                ..start_info()
            },
            StartInfo {
                command_line: u64::MAX,
                ..start_info()
            },
        ] {
            assert!(matches!(
                read_from(info, |_| ()),
                Err(BootError::Unreadable { .. })
            ));
        }
    }

    #[test]
    fn a_command_line_without_an_end_is_refused() {
        let info = StartInfo {
            command_line: 0x10_0000,
            ..start_info()
        };
        let result = read_from(info, |memory| {
            memory.put(0x10_0000, [b'a'; 2000]);
        });
        assert_eq!(result, Err(CommandLineError::TooLong.into()));
    }

    proptest! {
        #[test]
        fn no_start_info_makes_it_panic(bytes in prop::array::uniform32(any::<u8>()), rest in prop::array::uniform24(0u8..2)) {
            let mut all = [bytes.as_slice(), &rest].concat();
            all[..8].copy_from_slice(start_info().as_bytes()[..8].try_into().unwrap());
            let _ = read(FakeMemory::default().put(0x1000, all).put(0, [1; 4096]), Spa(0x1000));
        }
    }
}
