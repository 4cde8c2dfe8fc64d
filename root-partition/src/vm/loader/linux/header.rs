//! The setup header of a `bzImage` and the "zero page" that it goes into (Linux, `Documentation/arch/x86/boot.rst` and
//! `zero-page.rst`).

use core::mem::offset_of;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Where the header lies, in the file and in the zero page.
pub const OFFSET: usize = 0x1f1;
/// Byte that says how far the header goes: the target of the jump in front of it.
const END_BYTE: usize = 0x201;
/// Where the header ends at the latest.
const LIMIT: usize = 0x290;
/// "HdrS".
pub const MAGIC: u32 = 0x5372_6448;
/// End of a boot sector.
pub const BOOT_FLAG: u16 = 0xaa55;
/// Entries of the memory map.
pub const MAP_ENTRIES: usize = 128;

/// Bytes of a sector.
const SECTOR: usize = 512;
/// First protocol that tells of a 64-bit entry.
const OLDEST: u16 = 0x20c;
/// The kernel has a 64-bit entry.
const XLF_KERNEL_64: u16 = 1 << 0;

/// The header.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SetupHeader {
    /// Sectors of setup code behind the first.
    pub setup_sectors: u8,
    root_flags: U16,
    /// Size of what follows the setup code, in 16 bytes.
    pub system_size: U32,
    ram_size: U16,
    video_mode: U16,
    root_device: U16,
    /// [`BOOT_FLAG`].
    pub boot_flag: U16,
    /// A jump over the header.
    pub jump: U16,
    /// [`MAGIC`].
    pub magic: U32,
    /// Version of the protocol.
    pub version: U16,
    real_mode_switch: U32,
    start_segment: U16,
    kernel_version: U16,
    /// Who loaded it: 0xff where nobody has assigned a number.
    pub loader: u8,
    /// Bit 0: loaded high.
    pub load_flags: u8,
    move_size: U16,
    code32_start: U32,
    /// Address of the initial RAM disk.
    pub initrd: U32,
    /// Its size.
    pub initrd_size: U32,
    boot_sector: U32,
    heap_end: U16,
    loader_version: u8,
    loader_extension: u8,
    /// Address of the command line.
    pub command_line: U32,
    /// Highest address that the initial RAM disk may have.
    pub initrd_max: U32,
    alignment: U32,
    relocatable: u8,
    min_alignment: u8,
    /// What the kernel's entries can.
    pub entry_flags: U16,
    /// Longest command line, without its end.
    pub command_line_size: U32,
    hardware: U32,
    hardware_data: U64,
    payload_offset: U32,
    payload_length: U32,
    setup_data: U64,
    /// Where it wants to be.
    pub preferred_address: U64,
    /// Memory that it needs there before it knows of any other.
    pub init_size: U32,
    handover: U32,
    kernel_info: U32,
}
const _: () = assert!(size_of::<SetupHeader>() == 0x26c - OFFSET);
const _: () = assert!(OFFSET + offset_of!(SetupHeader, initrd) == 0x218);
const _: () = assert!(OFFSET + offset_of!(SetupHeader, init_size) == 0x260);

/// An entry of the memory map.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MapEntry {
    /// First address.
    pub address: U64,
    /// Bytes.
    pub size: U64,
    /// As the firmware call E820 has it, which PVH does too.
    pub kind: U32,
}
const _: () = assert!(size_of::<MapEntry>() == 20);

/// The zero page (`struct boot_params`).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BootParameters {
    screen: [u8; 0x40],
    firmware: [u8; 0x30],
    /// Address of the ACPI RSDP.
    pub rsdp: U64,
    more_firmware: [u8; 0x1e8 - 0x78],
    /// Entries of `map`.
    pub map_entries: u8,
    reserved: [u8; OFFSET - 0x1e9],
    /// The header, filled in.
    pub header: SetupHeader,
    signatures: [u8; 0x2d0 - 0x26c],
    /// The memory map.
    pub map: [MapEntry; MAP_ENTRIES],
    rest: [u8; 0x1000 - 0xcd0],
}
const _: () = assert!(size_of::<BootParameters>() == 0x1000);
const _: () = assert!(offset_of!(BootParameters, rsdp) == 0x70);
const _: () = assert!(offset_of!(BootParameters, header) == OFFSET);
const _: () = assert!(offset_of!(BootParameters, map) == 0x2d0);

/// What is wrong with a `bzImage`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinuxError {
    /// The file ends in its header or before what the header says.
    #[error("it is a Linux kernel that is cut off: it has {has:#x} bytes of at least {needed:#x}")]
    CutOff {
        /// Bytes of the file.
        has: usize,
        /// Bytes that there must be.
        needed: usize,
    },
    /// Older than the 64-bit entry.
    #[error("it is a Linux kernel of boot protocol {}.{:02}; 2.12 is the oldest that can be started", .0 >> 8, .0 & 0xff)]
    OldProtocol(u16),
    /// No 64-bit entry.
    #[error("it is a Linux kernel for 32-bit processors: give one for x86-64")]
    No64BitEntry,
    /// The numbers in the header make no sense.
    #[error("it is a Linux kernel whose header is damaged: {0}")]
    DamagedHeader(&'static str),
    /// More memory is needed.
    #[error(
        "it is a Linux kernel that needs {needed} MiB of memory at the least, and the virtual machine has {has}"
    )]
    TooLittleMemory {
        /// MiB that it needs.
        needed: u64,
        /// MiB that there are below the devices' addresses.
        has: u64,
    },
    /// The command line does not fit.
    #[error("its command line may have {most} bytes, but this one has {has}")]
    LongCommandLine {
        /// Bytes that fit.
        most: u32,
        /// Bytes that it has.
        has: usize,
    },
}

/// A `bzImage` that was looked through.
pub struct Image<'a> {
    /// Its header.
    pub header: SetupHeader,
    /// The protected-mode code, to be loaded at the preferred address.
    pub code: &'a [u8],
}

/// Whether `file` has the setup header of Linux's x86 boot protocol.
pub fn is_linux(file: &[u8]) -> bool {
    file.get(0x202..0x206) == Some(b"HdrS") && file.get(0x1fe..0x200) == Some(&[0x55, 0xaa])
}

impl<'a> Image<'a> {
    /// Looks through `file`, for which [`is_linux`] holds.
    pub fn read(file: &'a [u8]) -> Result<Self, LinuxError> {
        let cut_off = |needed| LinuxError::CutOff {
            has: file.len(),
            needed,
        };
        let end = usize::from(*file.get(END_BYTE).ok_or(cut_off(END_BYTE + 1))?) + END_BYTE + 1;
        let end = end.min(LIMIT);
        let bytes = file.get(OFFSET..end).ok_or(cut_off(end))?;
        let mut header = SetupHeader::new_zeroed();
        let known = bytes.len().min(size_of::<SetupHeader>());
        header.as_mut_bytes()[..known].copy_from_slice(&bytes[..known]);
        if header.version.get() < OLDEST {
            return Err(LinuxError::OldProtocol(header.version.get()));
        }
        if header.entry_flags.get() & XLF_KERNEL_64 == 0 {
            return Err(LinuxError::No64BitEntry);
        }
        let sectors = match header.setup_sectors {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let start = (sectors + 1) * SECTOR;
        let end = start + header.system_size.get() as usize * 16;
        let code = file.get(start..end).ok_or(cut_off(end))?;
        if code.len() <= ENTRY_64 as usize {
            return Err(LinuxError::DamagedHeader("it has no code"));
        }
        if code.len() as u64 > header.init_size.get().into() {
            return Err(LinuxError::DamagedHeader(
                "it needs less memory than it has bytes",
            ));
        }
        Ok(Self { header, code })
    }
}

/// The 64-bit entry, from the beginning of the code.
pub const ENTRY_64: u64 = 0x200;
