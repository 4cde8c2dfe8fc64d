//! Boot information by Multiboot2 ("Multiboot2 Specification", 3.6): a list of tags, read with every size checked.

use hypercall_api::pvh::MemoryMapEntry;
use zerocopy::FromBytes;

use super::command_line::CommandLine;
use super::information::{BootError, BootInformation, Protocol, Rsdp};
use crate::memory::address::{Spa, SpaRange};
use crate::memory::physical::{PhysicalMemory, field};

/// What EAX holds at entry.
pub const MAGIC: u32 = 0x36d7_6289;

/// More than a loader has to say; GRUB needs some kilobytes.
const MAX_TOTAL_SIZE: u32 = 1 << 20;

const HEADER: usize = 8;

/// Tag types (Multiboot2, 3.6.2 and following).
mod kind {
    pub(super) const END: u32 = 0;
    pub(super) const COMMAND_LINE: u32 = 1;
    pub(super) const MODULE: u32 = 3;
    pub(super) const MEMORY_MAP: u32 = 6;
    pub(super) const OLD_RSDP: u32 = 14;
    pub(super) const NEW_RSDP: u32 = 15;
}

/// One tag; `body` is what follows its type and size.
struct Tag<'a> {
    kind: u32,
    size: u32,
    offset: usize,
    body: &'a [u8],
}

impl Tag<'_> {
    fn wrong(&self) -> BootError {
        BootError::WrongTag {
            kind: self.kind,
            offset: self.offset,
            size: self.size,
        }
    }

    fn field<T: FromBytes>(&self, offset: usize) -> Result<T, BootError> {
        field(self.body, offset).ok_or(self.wrong())
    }
}

/// Reads the information at `address`, which EBX holds at entry.
pub fn read(memory: &impl PhysicalMemory, address: Spa) -> Result<BootInformation, BootError> {
    let unreadable = BootError::Unreadable {
        what: "the tag list",
        address: address.0,
    };
    let total: u32 = memory.read(address).ok_or(unreadable)?;
    if !(HEADER as u32..=MAX_TOTAL_SIZE).contains(&total) {
        return Err(BootError::WrongTotalSize(total));
    }
    let bytes = memory.bytes(address, total.into()).ok_or(unreadable)?;

    let mut boot = BootInformation::empty(Protocol::Multiboot2);
    let mut offset = HEADER;
    loop {
        let tag = tag_at(bytes, offset)?;
        if tag.kind == kind::END {
            break;
        }
        take(&tag, &mut boot)?;
        offset += (tag.size as usize).next_multiple_of(8);
    }
    if boot.memory_map.is_empty() {
        return Err(BootError::NoMemoryMap);
    }
    Ok(boot)
}

fn tag_at(bytes: &[u8], offset: usize) -> Result<Tag<'_>, BootError> {
    let [kind, size]: [u32; 2] = field(bytes, offset).ok_or(BootError::NoEndTag)?;
    let body = bytes.get(offset + HEADER..).unwrap_or_default();
    let body = (size as usize)
        .checked_sub(HEADER)
        .and_then(|length| body.get(..length));
    let body = body.ok_or(BootError::WrongTag { kind, offset, size })?;
    Ok(Tag {
        kind,
        size,
        offset,
        body,
    })
}

/// Copies what the tag says.
fn take(tag: &Tag<'_>, boot: &mut BootInformation) -> Result<(), BootError> {
    match tag.kind {
        kind::COMMAND_LINE => boot.command_line = CommandLine::new(tag.body)?,
        kind::MODULE => {
            let [start, end]: [u32; 2] = tag.field(0)?;
            let (start, end) = (start.into(), end.into());
            let range = SpaRange::new(Spa(start), Spa(end)).ok_or(BootError::WrongModule { start, end })?;
            boot.archive.get_or_insert(range);
        }
        kind::MEMORY_MAP => {
            let [entry_size, _version]: [u32; 2] = tag.field(0)?;
            if entry_size < size_of::<MemoryMapEntry>() as u32 {
                return Err(tag.wrong());
            }
            // Its entries have the layout of PVH's, and the same numbers for the kinds.
            for entry in tag.body[HEADER..].chunks(entry_size as usize) {
                let entry = field(entry, 0).ok_or(tag.wrong())?;
                boot.memory_map
                    .try_push(entry)
                    .map_err(|_| BootError::TooManyMemoryMapEntries)?;
            }
        }
        kind::OLD_RSDP => {
            let old: [u8; 20] = tag.field(0)?;
            if boot.rsdp == Rsdp::Unknown {
                let mut rsdp = [0; 36];
                rsdp[..20].copy_from_slice(&old);
                boot.rsdp = Rsdp::Copy(rsdp);
            }
        }
        kind::NEW_RSDP => boot.rsdp = Rsdp::Copy(tag.field(0)?),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::physical::FakeMemory;
    use hypercall_api::pvh::MemoryKind;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    const RAM: MemoryMapEntry = MemoryMapEntry {
        address: 0x10_0000,
        size: 0x7ff0_0000,
        kind: MemoryKind::RAM,
        reserved: 0,
    };

    #[derive(Clone)]
    struct Tags(Vec<u8>);

    impl Tags {
        fn new() -> Self {
            Self(vec![0; HEADER])
        }

        fn tag(mut self, kind: u32, body: &[u8]) -> Self {
            self.0.extend([kind, (body.len() + HEADER) as u32].as_bytes());
            self.0.extend(body);
            self.0.resize(self.0.len().next_multiple_of(8), 0);
            self
        }

        fn memory_map(self, entry_size: u32, entries: &[MemoryMapEntry]) -> Self {
            let mut body = [entry_size, 0].as_bytes().to_vec();
            for entry in entries {
                let start = body.len();
                body.extend(entry.as_bytes());
                body.resize((start + entry_size as usize).max(body.len()), 0);
            }
            self.tag(kind::MEMORY_MAP, &body)
        }

        fn end(self) -> Result<BootInformation, BootError> {
            self.tag(kind::END, &[]).read()
        }

        fn read(mut self) -> Result<BootInformation, BootError> {
            let size = self.0.len() as u32;
            self.0[..4].copy_from_slice(size.as_bytes());
            read(FakeMemory::default().put(0x1000, self.0), Spa(0x1000))
        }
    }

    fn module(start: u32, end: u32) -> Vec<u8> {
        [[start, end].as_bytes(), b"boot.cpio\0"].concat()
    }

    #[test]
    fn everything_is_copied() {
        let boot = Tags::new()
            .tag(2, b"GRUB 2.06\0")
            .tag(kind::COMMAND_LINE, b"log=debug\0")
            .tag(kind::MODULE, &module(0x20_0000, 0x20_0123))
            .tag(kind::MODULE, &module(0x30_0000, 0x30_0123))
            .memory_map(32, &[RAM, RAM])
            .tag(kind::NEW_RSDP, &[2; 36])
            .tag(kind::OLD_RSDP, &[1; 20])
            .end()
            .unwrap();
        assert_eq!(boot.protocol, Protocol::Multiboot2);
        assert_eq!(boot.command_line.text(), "log=debug");
        assert_eq!(boot.archive, SpaRange::sized(Spa(0x20_0000), 0x123));
        assert_eq!(boot.memory_map.as_slice(), [RAM, RAM]);
        assert_eq!(boot.rsdp, Rsdp::Copy([2; 36]));
    }

    #[test]
    fn an_old_rsdp_is_filled_up_with_zeroes() {
        let boot = Tags::new()
            .memory_map(24, &[RAM])
            .tag(kind::OLD_RSDP, &[1; 20])
            .end()
            .unwrap();
        let Rsdp::Copy(rsdp) = boot.rsdp else {
            panic!("{:?}", boot.rsdp)
        };
        assert_eq!((&rsdp[..20], &rsdp[20..]), (&[1; 20][..], &[0; 16][..]));
    }

    #[test]
    fn tags_that_are_too_small_for_what_they_hold_are_refused() {
        for (kind, size) in [
            (kind::MODULE, 7),
            (kind::MEMORY_MAP, 7),
            (kind::OLD_RSDP, 19),
            (kind::NEW_RSDP, 35),
        ] {
            let error = Tags::new().tag(kind, &vec![0; size]).end().unwrap_err();
            assert_eq!(
                error,
                BootError::WrongTag {
                    kind,
                    offset: 8,
                    size: size as u32 + 8
                }
            );
        }
        assert!(matches!(
            Tags::new().memory_map(16, &[RAM]).end(),
            Err(BootError::WrongTag { .. })
        ));
    }

    #[test]
    fn a_tag_that_passes_the_end_or_is_smaller_than_its_header_is_refused() {
        for size in [0u32, 7, 9, u32::MAX] {
            let mut tags = Tags::new();
            tags.0.extend([kind::MODULE, size].as_bytes());
            assert_eq!(
                tags.read(),
                Err(BootError::WrongTag {
                    kind: kind::MODULE,
                    offset: 8,
                    size
                })
            );
        }
    }

    #[test]
    fn a_list_without_an_end_or_without_a_memory_map_is_refused() {
        assert_eq!(
            Tags::new().memory_map(24, &[RAM]).read(),
            Err(BootError::NoEndTag)
        );
        assert_eq!(Tags::new().end(), Err(BootError::NoMemoryMap));
    }

    #[test]
    fn a_total_size_out_of_bounds_is_refused() {
        for size in [0u32, 7, MAX_TOTAL_SIZE + 1] {
            let mut memory = FakeMemory::default();
            memory.put(0x1000, size.as_bytes());
            assert_eq!(read(&memory, Spa(0x1000)), Err(BootError::WrongTotalSize(size)));
        }
    }

    #[test]
    fn a_module_that_ends_before_it_starts_is_refused() {
        let error = Tags::new()
            .tag(kind::MODULE, &module(0x2000, 0x1000))
            .end()
            .unwrap_err();
        assert_eq!(
            error,
            BootError::WrongModule {
                start: 0x2000,
                end: 0x1000
            }
        );
    }

    proptest! {
        #[test]
        fn no_tags_make_it_panic(
            tags in prop::collection::vec((0u32..17, prop::collection::vec(any::<u8>(), 0..64)), 0..12),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        ) {
            let mut list = Tags::new().memory_map(24, &[RAM]);
            for (kind, body) in tags {
                list = list.tag(kind, &body);
            }
            for (place, byte) in damage {
                let place = place.index(list.0.len());
                list.0[place] = byte;
            }
            let _ = list.end();
        }
    }
}
