use super::*;
use proptest::prelude::*;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const CONTENTS: usize = 0x1000;

#[derive(Clone, Copy)]
struct Header {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
}

const TEXT: Header = Header {
    kind: PT_LOAD,
    flags: PF_X | 4,
    offset: CONTENTS as u64,
    address: 0x40_0000,
    file_size: 0x80,
    memory_size: 0x80,
};
const DATA: Header = Header {
    kind: PT_LOAD,
    flags: PF_W | 4,
    offset: CONTENTS as u64 + 0x80,
    address: 0x40_1000,
    file_size: 0x10,
    memory_size: 0x3000,
};
const NOTE: Header = Header {
    kind: PT_NOTE,
    flags: 4,
    offset: CONTENTS as u64 + 0x100,
    address: 0,
    file_size: 0x38,
    memory_size: 0,
};

fn note(name: &[u8; 4], kind: u32, desc: &[u8]) -> Vec<u8> {
    let header = [4u32, desc.len() as u32, kind].map(u32::to_le_bytes).concat();
    [header.as_slice(), name, desc].concat()
}

/// A file of which only the headers and notes matter.
fn file(headers: &[Header]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([ET_EXEC, EM_X86_64].map(u16::to_le_bytes).concat());
    file.extend(1u32.to_le_bytes());
    file.extend([0x40_0000, HEADER as u64, 0].map(u64::to_le_bytes).concat());
    file.extend(0u32.to_le_bytes());
    let sizes = [
        HEADER as u16,
        PROGRAM_HEADER as u16,
        headers.len() as u16,
        64,
        0,
        0,
    ];
    file.extend(sizes.map(u16::to_le_bytes).concat());
    for h in headers {
        file.extend([h.kind, h.flags].map(u32::to_le_bytes).concat());
        let rest = [h.offset, h.address, h.address, h.file_size, h.memory_size, 4];
        file.extend(rest.map(u64::to_le_bytes).concat());
    }
    file.resize(NOTE.offset as usize, 0xcc);
    file.extend(note(b"GNU\0", 3, &[0; 4]));
    file.extend(note(b"Xen\0", 6, &[0; 4]));
    file.truncate(NOTE.offset as usize + 20);
    file.extend(note(b"Xen\0", NOTE_ENTRY, &0x40_0010u64.to_le_bytes()));
    file.resize(NOTE.offset as usize + NOTE.file_size as usize, 0);
    file
}

#[test]
fn a_good_file_is_planned_segment_by_segment() {
    let file = file(&[TEXT, DATA, NOTE]);
    let plan = plan(&file).unwrap();
    assert_eq!(plan.entry, 0x40_0010);
    assert_eq!(
        plan.extent,
        SpaRange::new(Spa(0x40_0000), Spa(0x40_4000)).unwrap()
    );
    let [text, data] = plan.segments.as_slice() else {
        panic!("{:?}", plan.segments)
    };
    assert_eq!((text.executable, text.writable), (true, false));
    assert_eq!((data.executable, data.writable), (false, true));
    assert_eq!(data.memory, SpaRange::sized(Spa(0x40_1000), 0x3000).unwrap());
    assert_eq!(data.bytes(&file), [0xcc; 0x10]);
}

#[test]
fn a_file_of_another_kind_is_refused() {
    assert_eq!(plan(b""), Err(ImageError::NotElf));
    assert_eq!(plan(b"#!/bin/sh\n"), Err(ImageError::NotElf));
    assert_eq!(plan(b"\x7fELF"), Err(ImageError::DamagedHeaders));
    for (offset, value) in [(4, 1), (5, 2), (16, 3), (18, 3)] {
        let mut file = file(&[TEXT, NOTE]);
        file[offset] = value;
        assert!(
            plan(&file).is_err_and(|e| e == ImageError::WrongKind || e == ImageError::DamagedHeaders),
            "byte {offset}"
        );
    }
}

#[test]
fn a_file_that_is_cut_off_is_refused() {
    let file = file(&[TEXT, DATA, NOTE]);
    for length in 0..file.len() {
        assert!(plan(&file[..length]).is_err(), "{length}");
    }
}

#[test]
fn segments_that_do_not_fit_are_refused() {
    let plan_with = |header| plan(&file(&[TEXT, header, NOTE])).unwrap_err();
    for header in [
        Header {
            file_size: 0x10_0000,
            memory_size: 0x10_0000,
            ..DATA
        },
        Header {
            offset: u64::MAX,
            ..DATA
        },
        Header {
            memory_size: 0xf,
            ..DATA
        },
    ] {
        assert_eq!(
            plan_with(header),
            ImageError::SegmentOutsideFile {
                address: DATA.address
            }
        );
    }
    for (address, size) in [(0, 0x1000), (u64::MAX - 0x10, 0x1000), (LIMIT - 0x1000, 0x1001)] {
        let header = Header {
            address,
            memory_size: size,
            ..DATA
        };
        assert_eq!(
            plan_with(header),
            ImageError::SegmentOutsideMemory { address, size }
        );
    }
}

#[test]
fn segments_that_overlap_are_refused() {
    let overlapping = Header {
        address: TEXT.address + 0x7f,
        ..DATA
    };
    let error = plan(&file(&[TEXT, overlapping, NOTE])).unwrap_err();
    assert!(matches!(error, ImageError::Overlap { .. }));
}

#[test]
fn too_many_or_no_segments_are_refused() {
    let many: Vec<_> = (0..=MAX_SEGMENTS as u64)
        .map(|i| Header {
            address: 0x10_0000 + i * 0x1000,
            memory_size: 0x10,
            ..DATA
        })
        .collect();
    assert_eq!(plan(&file(&many)), Err(ImageError::TooManySegments));
    assert_eq!(plan(&file(&[NOTE])), Err(ImageError::NoSegments));
    assert_eq!(plan(&file(&[])), Err(ImageError::NoSegments));
}

#[test]
fn an_entry_is_needed_and_must_be_in_text() {
    assert_eq!(plan(&file(&[TEXT, DATA])), Err(ImageError::NoEntry));
    let elsewhere = Header {
        address: 0x50_0000,
        ..TEXT
    };
    assert_eq!(
        plan(&file(&[elsewhere, NOTE])),
        Err(ImageError::EntryOutsideText(0x40_0010))
    );
    let not_executable = Header { flags: 4, ..TEXT };
    assert_eq!(
        plan(&file(&[not_executable, NOTE])),
        Err(ImageError::EntryOutsideText(0x40_0010))
    );
}

#[test]
fn a_4_byte_entry_is_taken_too() {
    let mut file = file(&[TEXT, NOTE]);
    let place = NOTE.offset as usize + 20;
    let note = note(b"Xen\0", NOTE_ENTRY, &0x40_0020u32.to_le_bytes());
    file[place..place + note.len()].copy_from_slice(&note);
    assert_eq!(plan(&file).map(|plan| plan.entry), Ok(0x40_0020));
}

proptest! {
    #[test]
    fn no_damage_makes_it_panic_or_plan_nonsense(
        damage in prop::collection::vec((0usize..0x1200, any::<u8>()), 1..12),
        length in 0usize..0x1200,
    ) {
        let mut file = file(&[TEXT, DATA, NOTE]);
        // Half of the damage goes where it hurts: the headers and notes.
        for (i, (place, byte)) in damage.into_iter().enumerate() {
            let place = if i % 2 == 0 { place % 0x110 } else { place };
            if let Some(old) = file.get_mut(place) {
                *old = byte;
            }
        }
        file.truncate(length.max(0x1000));
        if let Ok(plan) = plan(&file) {
            for segment in &plan.segments {
                prop_assert_eq!(segment.bytes(&file).len(), segment.file_size);
                prop_assert!(segment.file_size as u64 <= segment.memory.size());
                prop_assert!(plan.extent.contains_range(segment.memory));
            }
        }
    }
}
