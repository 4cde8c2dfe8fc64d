//! What the boot loader told us, copied out of its memory, whichever loader it was.

use arrayvec::ArrayVec;
use hypercall_api::pvh::MemoryMapEntry;

use super::command_line::{CommandLine, CommandLineError};
use crate::memory::address::{Spa, SpaRange};
use crate::memory::map;

/// The boot loader's side of the boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootInformation {
    /// Who booted us.
    pub protocol: Protocol,
    /// The firmware's memory map, as it is.
    pub memory_map: ArrayVec<MemoryMapEntry, { map::CAPACITY }>,
    /// Our command line.
    pub command_line: CommandLine,
    /// The boot archive: the first module.
    pub archive: Option<SpaRange>,
    /// Where the ACPI tables begin.
    pub rsdp: Rsdp,
}

/// The boot protocol that was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// PVH: QEMU.
    Pvh,
    /// Multiboot2: GRUB.
    Multiboot2,
}

/// Where the ACPI root system description pointer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rsdp {
    /// The loader does not say: to be searched for.
    Unknown,
    /// At this address.
    At(Spa),
    /// The loader gave its bytes; 20 of them in ACPI 1.0, zeroes behind.
    Copy([u8; 36]),
}

/// Why the boot loader's information was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BootError {
    /// Something is where nothing can be read.
    #[error("boot information: {what} at {address:#x} cannot be read")]
    Unreadable {
        /// What.
        what: &'static str,
        /// Where.
        address: u64,
    },
    /// The start info begins with something else.
    #[error("boot information: start info has magic {0:#x}")]
    WrongMagic(u32),
    /// There is no memory map; PVH has one from version 1 on.
    #[error("boot information: there is no memory map")]
    NoMemoryMap,
    /// The memory map is too long.
    #[error("boot information: the memory map has more than {max} entries", max = map::CAPACITY)]
    TooManyMemoryMapEntries,
    /// The boot archive's addresses make no range.
    #[error("boot information: the module from {start:#x} to {end:#x} is no range")]
    WrongModule {
        /// First address.
        start: u64,
        /// What should be the address after it.
        end: u64,
    },
    /// The Multiboot2 information cannot have this size.
    #[error("boot information: a total size of {0} bytes")]
    WrongTotalSize(u32),
    /// A Multiboot2 tag does not fit where it is, or its contents do not fit it.
    #[error("boot information: tag of type {kind} at offset {offset:#x} has wrong size {size}")]
    WrongTag {
        /// The tag's type.
        kind: u32,
        /// Its place.
        offset: usize,
        /// Its size.
        size: u32,
    },
    /// The Multiboot2 information ends without an end tag.
    #[error("boot information: there is no end tag")]
    NoEndTag,
    /// The command line cannot be used.
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
}

impl BootInformation {
    /// Nothing known yet.
    pub(super) fn empty(protocol: Protocol) -> Self {
        Self {
            protocol,
            memory_map: ArrayVec::new(),
            command_line: CommandLine::default(),
            archive: None,
            rsdp: Rsdp::Unknown,
        }
    }
}
