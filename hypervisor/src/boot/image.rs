//! The root image: an ELF file with a PVH entry, checked whole before a byte of it is copied.

use arrayvec::ArrayVec;
use elf::ElfBytes;
use elf::abi::{ELFMAGIC, EM_X86_64, ET_EXEC, PF_W, PF_X, PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::note::{Note, NoteIterator};
use elf::parse::ParseError;
use elf::segment::ProgramHeader;

use hypercall_api::pvh::NOTE_ENTRY;

use crate::memory::address::{Spa, SpaRange};
use crate::memory::physical::field;

/// Most loadable segments of an image.
pub const MAX_SEGMENTS: usize = 16;

/// PVH enters in 32-bit mode, so the whole image lies below 4 GiB.
const LIMIT: u64 = 1 << 32;

/// Why a file is no root image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImageError {
    /// It does not begin as ELF files do.
    #[error("it is not an ELF file")]
    NotElf,
    /// Its headers contradict themselves or the file's size.
    #[error("its ELF headers are damaged or cut off")]
    DamagedHeaders,
    /// It is for another kind of machine.
    #[error("it is not a 64-bit x86-64 executable linked for a fixed address")]
    WrongKind,
    /// It has nothing to load.
    #[error("it has no loadable segment")]
    NoSegments,
    /// More than [`MAX_SEGMENTS`].
    #[error("it has more than {MAX_SEGMENTS} loadable segments")]
    TooManySegments,
    /// The file ends before the segment does, or the segment is larger in the file than in memory.
    #[error("its segment for {address:#x} is larger than the file or than its own memory")]
    SegmentOutsideFile {
        /// The segment's physical address.
        address: u64,
    },
    /// The segment is not between 4 KiB and 4 GiB.
    #[error("its segment for {address:#x} ({size:#x} bytes) does not lie between 4 KiB and 4 GiB")]
    SegmentOutsideMemory {
        /// The segment's physical address.
        address: u64,
        /// Bytes in memory.
        size: u64,
    },
    /// Two segments claim the same memory.
    #[error("its segments for {first} and {second} overlap")]
    Overlap {
        /// One.
        first: SpaRange,
        /// The other.
        second: SpaRange,
    },
    /// There is no PVH note.
    #[error("it has no PVH entry (an ELF note of type 18 named Xen)")]
    NoEntry,
    /// The entry lies in no executable segment.
    #[error("its PVH entry {0:#x} is not in an executable segment")]
    EntryOutsideText(u64),
}

/// A segment to be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Where its bytes begin in the file.
    pub file_offset: usize,
    /// How many there are; memory behind them is zeroed. Not more than `memory` holds.
    pub file_size: usize,
    /// Where it goes.
    pub memory: SpaRange,
    /// Whether it is to be written to.
    pub writable: bool,
    /// Whether it is to be executed.
    pub executable: bool,
}

impl Segment {
    /// Its bytes in `file`, which [`plan`] has checked.
    pub fn bytes<'a>(&self, file: &'a [u8]) -> &'a [u8] {
        file.get(self.file_offset..self.file_offset + self.file_size)
            .unwrap_or_default()
    }
}

/// How to load an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What to load; disjoint.
    pub segments: ArrayVec<Segment, MAX_SEGMENTS>,
    /// From the lowest to the highest address of any segment.
    pub extent: SpaRange,
    /// The PVH entry point.
    pub entry: u32,
}

/// Checks `file` and says how to load it.
pub fn plan(file: &[u8]) -> Result<Plan, ImageError> {
    if !file.starts_with(&ELFMAGIC) {
        return Err(ImageError::NotElf);
    }
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|error| match error {
        ParseError::UnsupportedElfClass(_) | ParseError::UnsupportedElfEndianness(_) => ImageError::WrongKind,
        _ => ImageError::DamagedHeaders,
    })?;
    if elf.ehdr.class != Class::ELF64 || elf.ehdr.e_machine != EM_X86_64 || elf.ehdr.e_type != ET_EXEC {
        return Err(ImageError::WrongKind);
    }

    let mut segments = ArrayVec::<Segment, MAX_SEGMENTS>::new();
    let mut entry = None;
    for header in elf.segments().ok_or(ImageError::NoSegments)? {
        match header.p_type {
            PT_LOAD if header.p_memsz > 0 => {
                let segment = segment(&header, file)?;
                if let Some(other) = segments
                    .iter()
                    .find(|other| other.memory.overlaps(segment.memory))
                {
                    return Err(ImageError::Overlap {
                        first: other.memory,
                        second: segment.memory,
                    });
                }
                segments
                    .try_push(segment)
                    .map_err(|_| ImageError::TooManySegments)?;
            }
            PT_NOTE => {
                let notes = elf
                    .segment_data_as_notes(&header)
                    .map_err(|_| ImageError::DamagedHeaders)?;
                entry = entry.or_else(|| pvh_entry(notes));
            }
            _ => {}
        }
    }

    let start = segments.iter().map(|segment| segment.memory.start()).min();
    let end = segments.iter().map(|segment| segment.memory.end()).max();
    let extent = start.zip(end).and_then(|(start, end)| SpaRange::new(start, end));
    let extent = extent.ok_or(ImageError::NoSegments)?;
    let entry = entry.ok_or(ImageError::NoEntry)?;
    let text = segments
        .iter()
        .find(|segment| segment.executable && segment.memory.contains(Spa(entry)));
    match (text, u32::try_from(entry)) {
        (Some(_), Ok(entry)) => Ok(Plan {
            segments,
            extent,
            entry,
        }),
        _ => Err(ImageError::EntryOutsideText(entry)),
    }
}

fn segment(header: &ProgramHeader, file: &[u8]) -> Result<Segment, ImageError> {
    let outside_file = ImageError::SegmentOutsideFile {
        address: header.p_paddr,
    };
    let outside_memory = ImageError::SegmentOutsideMemory {
        address: header.p_paddr,
        size: header.p_memsz,
    };
    let end = header.p_offset.checked_add(header.p_filesz).ok_or(outside_file)?;
    if end > file.len() as u64 || header.p_filesz > header.p_memsz {
        return Err(outside_file);
    }
    let memory = SpaRange::sized(Spa(header.p_paddr), header.p_memsz).ok_or(outside_memory)?;
    if memory.start().0 < 0x1000 || memory.end().0 > LIMIT {
        return Err(outside_memory);
    }
    Ok(Segment {
        file_offset: header.p_offset as usize,
        file_size: header.p_filesz as usize,
        memory,
        writable: header.p_flags & PF_W != 0,
        executable: header.p_flags & PF_X != 0,
    })
}

/// The entry that the note of type 18 named Xen gives, in 4 or 8 bytes.
fn pvh_entry(notes: NoteIterator<'_, LittleEndian>) -> Option<u64> {
    for note in notes {
        let Note::Unknown(note) = note else { continue };
        if note.n_type == u64::from(NOTE_ENTRY) && note.name == b"Xen\0" {
            return field(note.desc, 0).or_else(|| field::<u32>(note.desc, 0).map(u64::from));
        }
    }
    None
}

#[cfg(test)]
mod tests;
