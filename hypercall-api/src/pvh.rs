//! The PVH boot protocol (Xen's x86/HVM direct boot ABI): QEMU starts the hypervisor by it, the hypervisor the root,
//! the root its ELF guests. On entry EBX holds the address of a [`StartInfo`], the processor is in 32-bit protected
//! mode with flat segments, paging and interrupts off.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Value of [`StartInfo::magic`].
pub const MAGIC: u32 = 0x336e_c578;

/// Type of the ELF note that holds the 32-bit entry point; the note's name is "Xen".
pub const NOTE_ENTRY: u32 = 18;

/// `hvm_start_info`, version 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct StartInfo {
    /// [`MAGIC`].
    pub magic: u32,
    /// 1; version 0 ends before `memory_map`.
    pub version: u32,
    /// Zero.
    pub flags: u32,
    /// Elements of the module list.
    pub module_count: u32,
    /// Address of [`Module`]s.
    pub modules: u64,
    /// Address of the zero-terminated command line, or 0.
    pub command_line: u64,
    /// Address of the ACPI RSDP, or 0.
    pub rsdp: u64,
    /// Address of [`MemoryMapEntry`]s.
    pub memory_map: u64,
    /// Elements of the memory map.
    pub memory_map_entries: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<StartInfo>() == 56);

/// `hvm_modlist_entry`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Module {
    /// Address of the module.
    pub address: u64,
    /// Its size, in bytes.
    pub size: u64,
    /// Address of its zero-terminated command line, or 0.
    pub command_line: u64,
    /// Zero.
    pub reserved: u64,
}
const _: () = assert!(size_of::<Module>() == 32);

/// `hvm_memmap_table_entry`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MemoryMapEntry {
    /// First address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// What is there.
    pub kind: MemoryKind,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<MemoryMapEntry>() == 24);

/// Kind of memory; the numbers are E820's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct MemoryKind(pub u32);

impl MemoryKind {
    /// Usable RAM.
    pub const RAM: Self = Self(1);
    /// Not to be used.
    pub const RESERVED: Self = Self(2);
    /// ACPI tables, RAM once they have been read.
    pub const ACPI: Self = Self(3);
    /// The firmware's, to be kept.
    pub const NVS: Self = Self(4);
    /// RAM with errors.
    pub const UNUSABLE: Self = Self(5);
}
