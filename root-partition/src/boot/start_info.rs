//! The PVH start information: every structure is copied once, its counts are bounded, and nothing refers to it afterwards.

use arrayvec::{ArrayString, ArrayVec};
use core::ops::Range;
use hypercall_api::pvh::{MAGIC, MemoryKind, MemoryMapEntry, Module, StartInfo};
use zerocopy::{FromBytes, IntoBytes};

/// Most entries of a memory map that are taken.
pub const MAX_MEMORY_MAP: usize = 256;
/// Longest command line that is taken, in bytes.
pub const MAX_COMMAND_LINE: usize = 1024;

/// Memory as the start information lies in it.
pub trait Memory {
    /// Fills `into` with the bytes at `address`; false where they cannot be read.
    fn copy(&self, address: u64, into: &mut [u8]) -> bool;
}

/// What the hypervisor said, checked.
#[derive(Clone, Debug)]
pub struct BootInfo {
    /// The memory map, as given.
    pub memory_map: ArrayVec<MemoryMapEntry, MAX_MEMORY_MAP>,
    /// Address of the ACPI RSDP; 0 where there is none.
    pub rsdp: u64,
    /// Addresses of the boot archive.
    pub archive: Option<Range<u64>>,
    /// The command line.
    pub command_line: ArrayString<MAX_COMMAND_LINE>,
}

/// Why the start information cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BootError {
    /// A structure lies where nothing can be read.
    #[error("{what} at {address:#x} cannot be read")]
    Unreadable {
        /// Which structure.
        what: &'static str,
        /// Where it should be.
        address: u64,
    },
    /// No PVH loader started this image.
    #[error("the start information has magic {0:#x} instead of {MAGIC:#x}")]
    BadMagic(u32),
    /// Version 0 has no memory map.
    #[error("the start information is of version 0, which has no memory map")]
    NoMemoryMap,
    /// More entries than could be kept, and RAM must not be guessed.
    #[error("the memory map has {0} entries, more than {MAX_MEMORY_MAP}")]
    MemoryMapTooLong(u32),
    /// The archive would wrap around the address space.
    #[error("the boot archive of {size:#x} bytes at {address:#x} is no range of memory")]
    BadModule {
        /// First address.
        address: u64,
        /// Bytes.
        size: u64,
    },
}

impl BootInfo {
    /// Reads the start information at `address`.
    pub fn read(memory: &impl Memory, address: u64) -> Result<Self, BootError> {
        let start: StartInfo = copy(memory, address, "the start information")?;
        if start.magic != MAGIC {
            return Err(BootError::BadMagic(start.magic));
        }
        if start.version == 0 {
            return Err(BootError::NoMemoryMap);
        }
        if start.memory_map_entries as usize > MAX_MEMORY_MAP {
            return Err(BootError::MemoryMapTooLong(start.memory_map_entries));
        }
        let mut memory_map = ArrayVec::new();
        for index in 0..u64::from(start.memory_map_entries) {
            let entry = start
                .memory_map
                .saturating_add(index * size_of::<MemoryMapEntry>() as u64);
            memory_map.push(copy(memory, entry, "the memory map")?);
        }
        let archive = match start.module_count {
            0 => None,
            _ => Some(module_range(copy(memory, start.modules, "the module list")?)?),
        };
        Ok(Self {
            memory_map,
            rsdp: start.rsdp,
            archive,
            command_line: command_line(memory, start.command_line)?,
        })
    }

    /// The ranges of usable RAM.
    pub fn ram(&self) -> impl Iterator<Item = Range<u64>> {
        self.memory_map
            .iter()
            .filter(|entry| entry.kind == MemoryKind::RAM)
            .map(|entry| entry.address..entry.address.saturating_add(entry.size))
    }
}

fn copy<T: FromBytes + IntoBytes>(
    memory: &impl Memory,
    address: u64,
    what: &'static str,
) -> Result<T, BootError> {
    let mut value = T::new_zeroed();
    match memory.copy(address, value.as_mut_bytes()) {
        true => Ok(value),
        false => Err(BootError::Unreadable { what, address }),
    }
}

fn module_range(module: Module) -> Result<Range<u64>, BootError> {
    match module.address.checked_add(module.size) {
        Some(end) => Ok(module.address..end),
        None => Err(BootError::BadModule {
            address: module.address,
            size: module.size,
        }),
    }
}

/// The zero-terminated text at `address`, up to its first byte that is not ASCII or the most that is taken.
fn command_line(memory: &impl Memory, address: u64) -> Result<ArrayString<MAX_COMMAND_LINE>, BootError> {
    let mut text = ArrayString::new();
    while address != 0 && !text.is_full() {
        let byte: u8 = copy(
            memory,
            address.saturating_add(text.len() as u64),
            "the command line",
        )?;
        if byte == 0 || !byte.is_ascii() {
            break;
        }
        text.push(byte as char);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes from address 0x1000 on.
    struct Bytes(Vec<u8>);

    impl Memory for Bytes {
        fn copy(&self, address: u64, into: &mut [u8]) -> bool {
            let Some(start) = address.checked_sub(0x1000) else {
                return false;
            };
            let bytes = usize::try_from(start)
                .ok()
                .and_then(|start| self.0.get(start..start.checked_add(into.len())?));
            bytes.map(|bytes| into.copy_from_slice(bytes)).is_some()
        }
    }

    fn start_info() -> StartInfo {
        StartInfo {
            magic: MAGIC,
            version: 1,
            flags: 0,
            module_count: 1,
            modules: 0x1100,
            command_line: 0x1200,
            rsdp: 0xf_0000,
            memory_map: 0x1300,
            memory_map_entries: 2,
            reserved: 0,
        }
    }

    fn world(start: StartInfo) -> Bytes {
        let mut bytes = vec![0; 0x400];
        let module = Module {
            address: 0x800_0000,
            size: 0x1234,
            command_line: 0,
            reserved: 0,
        };
        let entry = |address, size, kind| MemoryMapEntry {
            address,
            size,
            kind,
            reserved: 0,
        };
        let map = [
            entry(0, 0x9f000, MemoryKind::RAM),
            entry(0xf_0000, 0x1_0000, MemoryKind::RESERVED),
        ];
        bytes[..56].copy_from_slice(start.as_bytes());
        bytes[0x100..0x120].copy_from_slice(module.as_bytes());
        bytes[0x200..0x20b].copy_from_slice(b"log=debug x");
        bytes[0x300..0x330].copy_from_slice(map.as_bytes());
        Bytes(bytes)
    }

    #[test]
    fn a_sound_start_information_is_taken_over() {
        let info = BootInfo::read(&world(start_info()), 0x1000).unwrap();
        assert_eq!(info.archive, Some(0x800_0000..0x800_1234));
        assert_eq!(info.command_line.as_str(), "log=debug x");
        assert_eq!(info.rsdp, 0xf_0000);
        assert!(info.ram().eq(core::iter::once(0..0x9f000)));
    }

    #[test]
    fn no_module_and_no_command_line_are_fine() {
        let start = StartInfo {
            module_count: 0,
            command_line: 0,
            ..start_info()
        };
        let info = BootInfo::read(&world(start), 0x1000).unwrap();
        assert_eq!((info.archive, info.command_line.len()), (None, 0));
    }

    #[test]
    fn another_magic_is_named() {
        let start = StartInfo {
            magic: 0x36d7_6289,
            ..start_info()
        };
        let error = BootInfo::read(&world(start), 0x1000).unwrap_err();
        assert_eq!(error, BootError::BadMagic(0x36d7_6289));
    }

    proptest! {
        #[test]
        fn no_damaged_byte_makes_it_panic(at in 0usize..0x400, value: u8, second in 0usize..56, other: u8) {
            let mut world = world(start_info());
            world.0[at] = value;
            world.0[second] = other;
            let _ = BootInfo::read(&world, 0x1000).map(|info| info.ram().count());
        }
    }

    #[test]
    fn counts_and_addresses_are_bounded() {
        let too_long = StartInfo {
            memory_map_entries: u32::MAX,
            ..start_info()
        };
        assert!(matches!(
            BootInfo::read(&world(too_long), 0x1000),
            Err(BootError::MemoryMapTooLong(_))
        ));
        let nowhere = StartInfo {
            memory_map: u64::MAX - 8,
            ..start_info()
        };
        assert!(matches!(
            BootInfo::read(&world(nowhere), 0x1000),
            Err(BootError::Unreadable { .. })
        ));
        let old = StartInfo {
            version: 0,
            ..start_info()
        };
        assert_eq!(
            BootInfo::read(&world(old), 0x1000).unwrap_err(),
            BootError::NoMemoryMap
        );
    }
}
