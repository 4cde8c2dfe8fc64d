//! Every mapping is judged by a walk of its own, written from the specification (VT-d, 9.8), that reads the tables as hardware
//! does.
#![allow(unsafe_code)]

use super::*;
use crate::memory::address::FRAME_SIZE;
use crate::memory::frames::FrameAllocator;
use crate::memory::frames::tests::TestFrames;
use proptest::prelude::*;
use std::collections::BTreeMap;

const MIB2: u64 = 2 << 20;
const GIB: u64 = 1 << 30;

/// What the hardware makes of an address: where it leads, and what may be done there. Panics on what it would call reserved.
fn walk(space: &AddressSpace, address: u64) -> Option<(u64, bool, bool)> {
    let (root, width) = space.root();
    let levels = width as u32 + 2;
    if address >= 1 << (12 + 9 * levels) {
        return None;
    }
    let (mut table, mut read, mut write) = (root.start().0, true, true);
    for level in (1..=levels).rev() {
        let shift = 12 + 9 * (level - 1);
        let index = address >> shift & 511;
        // SAFETY: tables of the space are the test's own frames.
        let entry = unsafe { *((table + index * 8) as *const u64) };
        (read, write) = (read && entry & 1 != 0, write && entry & 2 != 0);
        if entry & 3 == 0 {
            assert_eq!(entry, 0, "an absent entry is empty");
            return None;
        }
        let is_page = level == 1 || entry & 1 << 7 != 0;
        assert!(!is_page || level <= 3, "no page is larger than 1 GiB");
        assert_eq!(entry & 1 << 11, 0, "bit 11 is reserved without snoop control");
        assert_eq!(entry & 1 << 62, 0, "bit 62 is reserved");
        let target = entry & 0x000f_ffff_ffff_f000;
        if is_page {
            let offset = address & ((1 << shift) - 1);
            assert_eq!(target & ((1 << shift) - 1), 0, "a page is aligned");
            return Some((target + offset, read, write));
        }
        table = target;
    }
    unreachable!("level 1 holds pages")
}

fn with_space(levels: u8, largest: PageSize, test: impl FnOnce(&mut AddressSpace, &mut FrameAllocator)) {
    let mut frames = TestFrames::new(64);
    let frames = &mut frames.allocator;
    let before = frames.free_frames();
    let mut space = AddressSpace::new(levels, 48, largest, frames).unwrap();
    test(&mut space, frames);
    space.destroy(frames);
    assert_eq!(frames.free_frames(), before, "a table frame was lost");
}

#[test]
fn entries_are_as_the_specification_draws_them() {
    assert_eq!(SecondStage::bits(DmaAccess::ALL), 3);
    let read_only = DmaAccess {
        read: true,
        write: false,
    };
    assert_eq!(SecondStage::bits(read_only), 1);
    assert_eq!(SecondStage::access(SecondStage::bits(read_only)), read_only);
}

#[test]
fn three_levels_begin_at_the_table_of_the_first_512_gib() {
    for (levels, width) in [(3, 1), (4, 2)] {
        with_space(levels, PageSize::Huge1G, |space, frames| {
            assert_eq!(space.root().1, width);
            let root = space.root();
            space
                .map(0, Spa(0), 3 * GIB + MIB2 + 0x1000, DmaAccess::ALL, frames)
                .unwrap();
            assert_eq!(space.root(), root, "the root stays");
            for address in [0x123, GIB + 5, 3 * GIB + 7, 3 * GIB + MIB2 + 0xfff] {
                assert_eq!(walk(space, address), Some((address, true, true)), "{address:#x}");
            }
            assert_eq!(walk(space, 3 * GIB + MIB2 + 0x1000), None);
        });
    }
}

#[test]
fn what_the_hardware_cannot_translate_cannot_be_mapped() {
    with_space(3, PageSize::Large2M, |space, frames| {
        assert_eq!(space.limit(), 1 << 39);
        let beyond = space.map((1 << 39) - 0x1000, Spa(0), 0x2000, DmaAccess::ALL, frames);
        assert!(matches!(beyond, Err(TableError::OutOfRange { .. })));
        space
            .map((1 << 39) - 0x1000, Spa(0x5000), 0x1000, DmaAccess::ALL, frames)
            .unwrap();
        assert_eq!(walk(space, (1 << 39) - 1), Some((0x5fff, true, true)));
    });
}

#[test]
fn one_page_out_of_a_large_one_leaves_the_others() {
    for largest in [PageSize::Large2M, PageSize::Huge1G] {
        with_space(4, largest, |space, frames| {
            space.map(0, Spa(0), GIB, DmaAccess::ALL, frames).unwrap();
            space.unmap(0x5000, 0x1000, frames).unwrap();
            assert_eq!(walk(space, 0x5000), None);
            for address in [0x4fff, 0x6000, MIB2, GIB - 1] {
                assert_eq!(walk(space, address), Some((address, true, true)));
            }
        });
    }
}

#[test]
fn without_frames_nothing_changes() {
    let mut frames = TestFrames::new(8);
    let frames = &mut frames.allocator;
    let mut space = AddressSpace::new(4, 48, PageSize::Small4K, frames).unwrap();
    let failed = space.map(0, Spa(0), 16 * MIB2, DmaAccess::ALL, frames);
    assert!(matches!(failed, Err(TableError::OutOfMemory(_))));
    assert_eq!((walk(&space, 0), space.next_mapped(0)), (None, None));
    space.destroy(frames);
    while frames.allocate().is_some() {}
    assert!(AddressSpace::new(3, 39, PageSize::Small4K, frames).is_err());
}

/// A change in a window of 4 MiB around a GiB boundary.
#[derive(Clone, Debug)]
enum Change {
    Map {
        page: u64,
        pages: u64,
        to: u64,
        write: bool,
    },
    Unmap {
        page: u64,
        pages: u64,
    },
}

const WINDOW: u64 = 1024;

fn change() -> impl Strategy<Value = Change> {
    let span = (0..WINDOW, 1..WINDOW).prop_map(|(page, pages)| (page, pages.min(WINDOW - page)));
    prop_oneof![
        // Targets of the same alignment are common, so that large pages are.
        (
            span.clone(),
            prop_oneof![Just(0), Just(512), 0..WINDOW],
            any::<bool>()
        )
            .prop_map(|((page, pages), shift, write)| Change::Map {
                page,
                pages,
                to: page + shift,
                write
            }),
        (Just((0, 512)), Just(512), any::<bool>()).prop_map(|((page, pages), to, write)| Change::Map {
            page,
            pages,
            to,
            write
        }),
        span.prop_map(|(page, pages)| Change::Unmap { page, pages }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_hardware_finds_what_a_list_of_pages_would(
        levels in 3u8..=4,
        largest in prop::sample::select(PageSize::ALL.to_vec()),
        changes in prop::collection::vec(change(), 1..24),
    ) {
        const BASE: u64 = GIB - MIB2;
        let mut model = BTreeMap::new();
        with_space(levels, largest, |space, frames| {
            for change in &changes {
                match *change {
                    Change::Map { page, pages, to, write } => {
                        let access = DmaAccess { read: true, write };
                        let (address, spa) = (BASE + page * FRAME_SIZE, Spa(4 * GIB + to * FRAME_SIZE));
                        space.map(address, spa, pages * FRAME_SIZE, access, frames).unwrap();
                        model.extend((0..pages).map(|n| (page + n, (spa.0 + n * FRAME_SIZE, write))));
                    }
                    Change::Unmap { page, pages } => {
                        space.unmap(BASE + page * FRAME_SIZE, pages * FRAME_SIZE, frames).unwrap();
                        (page..page + pages).for_each(|page| { model.remove(&page); });
                    }
                }
            }
            for page in 0..WINDOW {
                let address = BASE + page * FRAME_SIZE + page % 7;
                let expected = model.get(&page).map(|&(spa, write)| (spa + page % 7, true, write));
                assert_eq!(walk(space, address), expected, "{address:#x}");
                let translated = space.translate(address).map(|found| (found.spa.0, found.access.write));
                assert_eq!(translated, expected.map(|(spa, _, write)| (spa, write)));
            }
            let first = model.keys().next().map(|page| BASE + page * FRAME_SIZE);
            assert_eq!(space.next_mapped(0), first);
            assert_eq!((walk(space, BASE - 1), walk(space, BASE + WINDOW * FRAME_SIZE)), (None, None));
        });
    }
}
