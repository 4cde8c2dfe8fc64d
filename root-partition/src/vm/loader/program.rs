//! ELF executables as what matters for loading: segments and entries. Every offset and size of the file is checked.

use alloc::vec::Vec;
use core::ops::Range;
use elf::ElfBytes;
use elf::abi::{EM_386, EM_X86_64, ET_DYN, ET_EXEC, PT_INTERP, PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use elf::note::{Note, NoteIterator};
use elf::parse::ParseError;
use elf::segment::ProgramHeader;
use hypercall_api::pvh::NOTE_ENTRY;

/// Most loadable segments.
pub const MAX_SEGMENTS: usize = 64;
/// Most notes that are looked at.
const MAX_NOTES: usize = 256;

/// Why a file is no executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProgramError {
    /// It begins neither as a `bzImage` nor as ELF files do; what it may be in their place.
    #[error("it is neither a Linux bzImage nor an ELF file{0}")]
    NotElf(&'static str),
    /// Its headers contradict themselves or the file's size.
    #[error("its ELF headers are damaged or cut off")]
    DamagedHeaders,
    /// It is for another kind of machine.
    #[error("it is an ELF file for another machine than x86")]
    WrongMachine,
    /// It wants a dynamic linker, as programs do.
    #[error("it is a program or library, not a kernel: it wants to be linked when it is loaded")]
    Program,
    /// An object file or a core.
    #[error("it is an ELF file, but not an executable")]
    NotExecutable,
    /// It has nothing to load.
    #[error("it has no loadable segment")]
    NoSegments,
    /// More than [`MAX_SEGMENTS`].
    #[error("it has more than {MAX_SEGMENTS} loadable segments")]
    TooManySegments,
    /// The file ends before the segment does, the segment is larger in the file than in memory, or wraps around.
    #[error(
        "its segment for {address:#x} is larger than the file, than its own memory or than the address space"
    )]
    BadSegment {
        /// The segment's physical address.
        address: u64,
    },
    /// Two segments claim the same memory.
    #[error("its segments for {first:#x} and {second:#x} overlap")]
    Overlap {
        /// One's physical address.
        first: u64,
        /// The other's.
        second: u64,
    },
}

/// A segment to be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    /// Its bytes; memory behind them is zero.
    pub bytes: &'a [u8],
    /// Its physical address.
    pub address: u64,
    /// Its size in memory, not less than `bytes`.
    pub size: u64,
    virtual_address: u64,
}

impl Segment<'_> {
    /// The memory that it takes.
    pub fn range(&self) -> Range<u64> {
        self.address..self.address + self.size
    }
}

/// An executable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program<'a> {
    /// What to load; disjoint, none empty.
    pub segments: Vec<Segment<'a>>,
    /// The file's entry point, as a physical address.
    pub entry: u64,
    /// The PVH entry point.
    pub pvh_entry: Option<u64>,
}

/// What people take for a kernel, and what to do then: how a file begins, what it is.
const RESEMBLED: [(&[u8], &str); 7] = [
    (b"", ": it is empty"),
    (b"\x1f\x8b", ": it is compressed by gzip; decompress it"),
    (b"\xfd7zXZ", ": it is compressed by xz; decompress it"),
    (b"\x28\xb5\x2f\xfd", ": it is compressed by zstd; decompress it"),
    (b"\x02\x21\x4c\x18", ": it is compressed by lz4; decompress it"),
    (
        b"070701",
        ": it is an archive, as initial RAM disks are, which belong into 'modules'",
    ),
    (b"MZ", ": it is a program for EFI or Windows"),
];

/// Behind "neither a bzImage nor an ELF file".
fn resembles(file: &[u8]) -> &'static str {
    let begins = |start: &[u8]| match start {
        [] => file.is_empty(),
        start => file.starts_with(start),
    };
    let found = RESEMBLED.iter().find(|(start, _)| begins(start));
    found.map_or("", |(_, what)| what)
}

impl<'a> Program<'a> {
    /// The memory that its segments take.
    pub fn taken(&self) -> Vec<Range<u64>> {
        self.segments.iter().map(Segment::range).collect()
    }

    /// Reads the ELF file `file`.
    pub fn read(file: &'a [u8]) -> Result<Self, ProgramError> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|error| match error {
            ParseError::BadMagic(_) => ProgramError::NotElf(resembles(file)),
            ParseError::UnsupportedElfClass(_) | ParseError::UnsupportedElfEndianness(_) => {
                ProgramError::WrongMachine
            }
            _ if file.get(..4) != Some(b"\x7fELF") => ProgramError::NotElf(resembles(file)),
            _ => ProgramError::DamagedHeaders,
        })?;
        if !matches!(elf.ehdr.e_machine, EM_X86_64 | EM_386) {
            return Err(ProgramError::WrongMachine);
        }
        if !matches!(elf.ehdr.e_type, ET_EXEC | ET_DYN) {
            return Err(ProgramError::NotExecutable);
        }
        let mut segments = Vec::new();
        let mut pvh_entry = None;
        for header in elf.segments().ok_or(ProgramError::NoSegments)? {
            match header.p_type {
                PT_INTERP => return Err(ProgramError::Program),
                PT_LOAD if header.p_memsz > 0 => push(&mut segments, segment(&header, file)?)?,
                PT_NOTE => {
                    let notes = elf
                        .segment_data_as_notes(&header)
                        .map_err(|_| ProgramError::DamagedHeaders)?;
                    pvh_entry = pvh_entry.or_else(|| find_pvh_entry(notes));
                }
                _ => {}
            }
        }
        if segments.is_empty() {
            return Err(ProgramError::NoSegments);
        }
        Ok(Self {
            entry: physical(&segments, elf.ehdr.e_entry),
            segments,
            pvh_entry,
        })
    }
}

fn push<'a>(segments: &mut Vec<Segment<'a>>, new: Segment<'a>) -> Result<(), ProgramError> {
    let range = new.range();
    let overlaps = |other: &&Segment<'_>| other.address < range.end && range.start < other.range().end;
    if let Some(other) = segments.iter().find(overlaps) {
        return Err(ProgramError::Overlap {
            first: other.address,
            second: new.address,
        });
    }
    if segments.len() == MAX_SEGMENTS {
        return Err(ProgramError::TooManySegments);
    }
    segments.push(new);
    Ok(())
}

fn segment<'a>(header: &ProgramHeader, file: &'a [u8]) -> Result<Segment<'a>, ProgramError> {
    let bad = ProgramError::BadSegment {
        address: header.p_paddr,
    };
    let end = header.p_offset.checked_add(header.p_filesz).ok_or(bad)?;
    let range = usize::try_from(header.p_offset).map_err(|_| bad)?..usize::try_from(end).map_err(|_| bad)?;
    let bytes = file.get(range).ok_or(bad)?;
    header.p_paddr.checked_add(header.p_memsz).ok_or(bad)?;
    if header.p_filesz > header.p_memsz {
        return Err(bad);
    }
    Ok(Segment {
        bytes,
        address: header.p_paddr,
        size: header.p_memsz,
        virtual_address: header.p_vaddr,
    })
}

/// The physical address of the virtual address `entry`; the entry itself where no segment has it.
fn physical(segments: &[Segment<'_>], entry: u64) -> u64 {
    let offset = |segment: &Segment<'_>| {
        let offset = entry.checked_sub(segment.virtual_address)?;
        (offset < segment.size).then_some(segment.address + offset)
    };
    segments.iter().find_map(offset).unwrap_or(entry)
}

/// The entry that the note of type 18 named Xen gives, in 4 or 8 bytes.
fn find_pvh_entry(notes: NoteIterator<'_, LittleEndian>) -> Option<u64> {
    for note in notes.take(MAX_NOTES) {
        let Note::Unknown(note) = note else { continue };
        if note.n_type == u64::from(NOTE_ENTRY) && note.name == b"Xen\0" {
            let mut word = [0; 8];
            let length = if note.desc.len() >= 8 { 8 } else { 4 };
            word[..length].copy_from_slice(note.desc.get(..length)?);
            return Some(u64::from_le_bytes(word));
        }
    }
    None
}
