//! What the loader said, by the PVH protocol: copied once, bounded, and checked.

use arrayvec::{ArrayString, ArrayVec};
use core::ops::Range;
use hypercall_api::pvh::{MAGIC, MemoryKind, MemoryMapEntry, Module, StartInfo};
use zerocopy::{FromBytes, IntoBytes};

/// Most entries of a memory map that are taken.
pub const MAX_MEMORY_MAP: usize = 64;
/// Most modules that are taken.
pub const MAX_MODULES: usize = 8;
/// Longest command line that is taken, in bytes.
pub const MAX_COMMAND_LINE: usize = 512;

/// Memory in which the start information lies.
pub trait Memory {
    /// Fills `into` with the bytes at `address`; false where they cannot be read.
    fn copy(&self, address: u64, into: &mut [u8]) -> bool;
}

/// What the loader said.
#[derive(Clone, Debug)]
pub struct BootInfo {
    /// The memory map.
    pub memory_map: ArrayVec<MemoryMapEntry, MAX_MEMORY_MAP>,
    /// Addresses of the modules.
    pub modules: ArrayVec<Range<u64>, MAX_MODULES>,
    /// The command line, up to its first byte that is not ASCII.
    pub command_line: ArrayString<MAX_COMMAND_LINE>,
    /// Address of the ACPI RSDP; 0 where there is none.
    pub rsdp: u64,
}

/// Why the start information cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootError {
    /// A structure lies where nothing can be read.
    Unreadable,
    /// It is not start information.
    BadMagic,
    /// It has no memory map, or one with too many entries.
    NoMemoryMap,
    /// It has too many modules, or one that is no range of memory.
    BadModules,
}

impl BootError {
    /// A sentence for a person.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unreadable => "the start information cannot be read",
            Self::BadMagic => "there is no PVH start information",
            Self::NoMemoryMap => "the start information has no usable memory map",
            Self::BadModules => "the start information has modules that cannot be used",
        }
    }
}

impl BootInfo {
    /// Reads the start information at `address`.
    pub fn read(memory: &impl Memory, address: u64) -> Result<Self, BootError> {
        let start: StartInfo = copy(memory, address)?;
        if start.magic != MAGIC {
            return Err(BootError::BadMagic);
        }
        if start.version == 0 || start.memory_map_entries as usize > MAX_MEMORY_MAP {
            return Err(BootError::NoMemoryMap);
        }
        if start.module_count as usize > MAX_MODULES {
            return Err(BootError::BadModules);
        }
        let mut memory_map = ArrayVec::new();
        for index in 0..u64::from(start.memory_map_entries) {
            let size = size_of::<MemoryMapEntry>() as u64;
            memory_map.push(copy(memory, start.memory_map.saturating_add(index * size))?);
        }
        let mut modules = ArrayVec::new();
        for index in 0..u64::from(start.module_count) {
            let size = size_of::<Module>() as u64;
            let module: Module = copy(memory, start.modules.saturating_add(index * size))?;
            let end = module.address.checked_add(module.size);
            modules.push(module.address..end.ok_or(BootError::BadModules)?);
        }
        Ok(Self {
            memory_map,
            modules,
            command_line: text(memory, start.command_line)?,
            rsdp: start.rsdp,
        })
    }

    /// The ranges of usable RAM.
    pub fn ram(&self) -> impl Iterator<Item = Range<u64>> {
        ram(&self.memory_map)
    }

    /// Whether `word` stands on the command line.
    pub fn has_option(&self, word: &str) -> bool {
        self.command_line
            .split_ascii_whitespace()
            .any(|other| other == word)
    }

    /// The value of `name=value` on the command line.
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut words = self.command_line.split_ascii_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

/// The ranges of usable RAM in a memory map.
pub fn ram(map: &[MemoryMapEntry]) -> impl Iterator<Item = Range<u64>> {
    map.iter()
        .filter(|entry| entry.kind == MemoryKind::RAM)
        .map(|entry| entry.address..entry.address.saturating_add(entry.size))
}

fn copy<T: FromBytes + IntoBytes>(memory: &impl Memory, address: u64) -> Result<T, BootError> {
    let mut value = T::new_zeroed();
    match memory.copy(address, value.as_mut_bytes()) {
        true => Ok(value),
        false => Err(BootError::Unreadable),
    }
}

fn text(memory: &impl Memory, address: u64) -> Result<ArrayString<MAX_COMMAND_LINE>, BootError> {
    let mut text = ArrayString::new();
    while address != 0 && !text.is_full() {
        let byte: u8 = copy(memory, address.saturating_add(text.len() as u64))?;
        if byte == 0 || !byte.is_ascii() {
            break;
        }
        text.push(byte as char);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// Bytes from address 0x1000 on.
    struct Bytes(Vec<u8>);

    impl Memory for Bytes {
        fn copy(&self, address: u64, into: &mut [u8]) -> bool {
            let Some(start) = address.checked_sub(0x1000) else {
                return false;
            };
            match self.0.get(start as usize..start as usize + into.len()) {
                Some(bytes) => into.copy_from_slice(bytes),
                None => return false,
            }
            true
        }
    }

    fn start_info(modules: u32) -> Vec<u8> {
        let info = StartInfo {
            magic: MAGIC,
            version: 1,
            flags: 0,
            module_count: modules,
            modules: 0x1100,
            command_line: 0x1200,
            rsdp: 0,
            memory_map: 0x1300,
            memory_map_entries: 1,
            reserved: 0,
        };
        let entry = MemoryMapEntry {
            address: 0,
            size: 0x9_0000,
            kind: MemoryKind::RAM,
            reserved: 0,
        };
        let module = Module {
            address: 0x20_0000,
            size: 0x1000,
            command_line: 0,
            reserved: 0,
        };
        let mut bytes = std::vec![0; 0x400];
        bytes[..56].copy_from_slice(info.as_bytes());
        bytes[0x100..0x120].copy_from_slice(module.as_bytes());
        bytes[0x200..0x210].copy_from_slice(b"quick cpus=3 x\0\0");
        bytes[0x300..0x318].copy_from_slice(entry.as_bytes());
        bytes
    }

    #[test]
    fn options_are_found_by_name() {
        let boot = BootInfo::read(&Bytes(start_info(1)), 0x1000).unwrap();
        assert_eq!(boot.option("cpus"), Some("3"));
        assert!(boot.has_option("quick") && !boot.has_option("cpus"));
        assert_eq!(boot.modules[0], 0x20_0000..0x20_1000);
        assert_eq!(boot.ram().next(), Some(0..0x9_0000));
    }

    #[test]
    fn start_information_that_is_none_is_refused() {
        let mut bytes = start_info(0);
        bytes[0] ^= 1;
        assert_eq!(
            BootInfo::read(&Bytes(bytes), 0x1000).unwrap_err(),
            BootError::BadMagic
        );
        let error = BootInfo::read(&Bytes(start_info(9)), 0x1000).unwrap_err();
        assert_eq!(error, BootError::BadModules);
        let error = BootInfo::read(&Bytes(start_info(0)), 0x5000).unwrap_err();
        assert_eq!(error, BootError::Unreadable);
    }
}
