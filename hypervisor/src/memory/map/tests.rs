use super::*;
use proptest::prelude::*;

fn entry(address: u64, size: u64, kind: MemoryKind) -> MemoryMapEntry {
    MemoryMapEntry {
        address,
        size,
        kind,
        reserved: 0,
    }
}

fn map(entries: &[MemoryMapEntry]) -> MemoryMap {
    MemoryMap::from_firmware(entries.iter().copied()).unwrap()
}

fn range(start: u64, end: u64) -> SpaRange {
    SpaRange::new(Spa(start), Spa(end)).unwrap()
}

#[test]
fn ram_is_clipped_inward_and_the_rest_outward() {
    let map = map(&[
        entry(0x800, 0x2000, MemoryKind::RAM),
        entry(0x10_0800, 0x10, MemoryKind::NVS),
    ]);
    assert_eq!(map.ram_ranges().collect::<Vec<_>>(), [range(0x1000, 0x2000)]);
    assert_eq!(map.ranges()[1].range, range(0x10_0000, 0x10_1000));
}

#[test]
fn where_entries_overlap_the_reserved_one_wins() {
    let map = map(&[
        entry(0x1_0000, 0x8000, MemoryKind::RESERVED),
        entry(0, 0x10_0000, MemoryKind::RAM),
    ]);
    assert_eq!(
        map.ram_ranges().collect::<Vec<_>>(),
        [range(0, 0x1_0000), range(0x1_8000, 0x10_0000)]
    );
}

#[test]
fn neighbours_of_one_kind_become_one_range() {
    let map = map(&[
        entry(0x2000, 0x1000, MemoryKind::RAM),
        entry(0x1000, 0x1000, MemoryKind::RAM),
    ]);
    assert_eq!(map.ranges().len(), 1);
    assert_eq!(map.total_ram(), 0x2000);
}

#[test]
fn a_kind_that_nobody_knows_is_reserved() {
    assert_eq!(
        map(&[entry(0x1000, 0x1000, MemoryKind(77))]).ranges()[0].kind,
        MemoryKind::RESERVED
    );
}

#[test]
fn an_entry_without_bytes_is_left_out() {
    assert!(map(&[entry(u64::MAX, 0, MemoryKind::RAM)]).ranges().is_empty());
}

#[test]
fn an_entry_that_wraps_is_refused() {
    let wrapping = entry(0xffff_ffff_ffff_f000, 0x2000, MemoryKind::RESERVED);
    let error = MemoryMap::from_firmware([wrapping]).unwrap_err();
    assert_eq!(
        error,
        MapError::OutsideAddressSpace {
            address: wrapping.address,
            size: 0x2000
        }
    );
}

#[test]
fn more_entries_than_the_map_holds_are_refused() {
    let entries = (0..=CAPACITY as u64).map(|i| entry(i * 0x2000, 0x1000, MemoryKind::RAM));
    assert_eq!(MemoryMap::from_firmware(entries), Err(MapError::TooManyRanges));
}

#[test]
fn a_carve_out_that_does_not_fit_leaves_the_map_as_it_was() {
    let entries = (0..CAPACITY as u64).map(|i| entry(i * 0x10000, 0x8000, MemoryKind::RAM));
    let mut map = MemoryMap::from_firmware(entries).unwrap();
    let before = map.clone();
    assert_eq!(
        map.reserve(range(0x2000, 0x3000), MemoryKind::RESERVED),
        Err(MapError::TooManyRanges)
    );
    assert_eq!(map, before);
}

#[test]
fn free_memory_is_found_from_the_top_around_what_is_taken() {
    let map = map(&[
        entry(0, 0x10_0000, MemoryKind::RAM),
        entry(0x20_0000, 0x10_0000, MemoryKind::RAM),
    ]);
    let found = map.find_free(0x1_0000, 0x1_0000, Spa(u64::MAX), &[range(0x2f_8000, 0x2f_9000)]);
    assert_eq!(found, Some(range(0x2e_0000, 0x2f_0000)));
    assert_eq!(
        map.find_free(0x1000, 0x1000, Spa(0x8800), &[]),
        Some(range(0x7000, 0x8000))
    );
}

#[test]
fn frame_zero_is_never_free() {
    let map = map(&[entry(0, 0x1000, MemoryKind::RAM)]);
    assert_eq!(map.find_free(0x1000, 0x1000, Spa(u64::MAX), &[]), None);
}

#[test]
fn the_entries_for_the_root_build_the_same_map() {
    let first = map(&[
        entry(0x5000, 0x3000, MemoryKind::ACPI),
        entry(0, 0x10_0000, MemoryKind::RAM),
    ]);
    assert_eq!(MemoryMap::from_firmware(first.entries()), Ok(first));
}

fn any_entry() -> impl Strategy<Value = MemoryMapEntry> {
    // A small space, so that entries overlap, touch and share frames often.
    (0u64..0x40_000, 0u64..0x8_000, 0u32..8)
        .prop_map(|(address, size, kind)| entry(address, size, MemoryKind(kind)))
}

/// The kind of one frame by the rules, found without ranges.
fn model(entries: &[MemoryMapEntry], frame: u64) -> Option<MemoryKind> {
    let (start, end) = (frame * FRAME_SIZE, (frame + 1) * FRAME_SIZE);
    let mut whole_ram = false;
    let mut strictest = None;
    for e in entries.iter().filter(|e| e.size > 0) {
        let last = e.address + e.size;
        if e.kind == MemoryKind::RAM {
            whole_ram |= e.address <= start && end <= last;
        } else if e.address < end && start < last {
            let kind = if strictness(e.kind) == 3 {
                MemoryKind::RESERVED
            } else {
                e.kind
            };
            strictest = strictest
                .filter(|k| strictness(*k) > strictness(kind))
                .or(Some(kind));
        }
    }
    strictest.or(whole_ram.then_some(MemoryKind::RAM))
}

fn kind_of(map: &MemoryMap, frame: u64) -> Option<MemoryKind> {
    let mut over = map
        .ranges()
        .iter()
        .filter(|r| r.range.contains(Spa(frame * FRAME_SIZE)));
    let kind = over.next().map(|r| r.kind);
    assert!(over.next().is_none(), "frame {frame:#x} lies in two ranges");
    kind
}

proptest! {
    #[test]
    fn every_frame_has_the_kind_that_the_rules_give_it(entries in prop::collection::vec(any_entry(), 0..24)) {
        let map = map(&entries);
        for frame in 0..0x50 {
            prop_assert_eq!(kind_of(&map, frame), model(&entries, frame));
        }
        for pair in map.ranges().windows(2) {
            prop_assert!(pair[0].range.end() <= pair[1].range.start());
        }
    }

    #[test]
    fn a_carve_out_never_remains_ram_and_takes_nothing_else(
        entries in prop::collection::vec(any_entry(), 0..24),
        start in 0u64..0x40_000,
        size in 1u64..0x8000,
    ) {
        let mut map = map(&entries);
        let before = map.clone();
        let hole = SpaRange::sized(Spa(start), size).unwrap();
        map.reserve(hole, MemoryKind::RESERVED).unwrap();
        let hole = hole.grow_to_frames().unwrap();
        let lost: u64 = (0..0x50).filter(|f| hole.contains(Spa(f * FRAME_SIZE)))
            .filter(|f| kind_of(&before, *f) == Some(MemoryKind::RAM)).count() as u64;
        prop_assert_eq!(map.total_ram() + lost * FRAME_SIZE, before.total_ram());
        prop_assert!(map.ram_ranges().all(|ram| !ram.overlaps(hole)));
    }

    #[test]
    fn what_is_found_free_is_aligned_ram_that_avoids_what_is_taken(
        entries in prop::collection::vec(any_entry(), 0..16),
        taken in prop::collection::vec((0u64..0x40_000, 0u64..0x2000), 0..6),
        pages in 1u64..16,
        order in 0u32..4,
        below in 0u64..0x50_000,
    ) {
        let map = map(&entries);
        let taken: Vec<_> = taken.iter().map(|(a, s)| SpaRange::sized(Spa(*a), *s).unwrap()).collect();
        let (size, align) = (pages * FRAME_SIZE, FRAME_SIZE << order);
        let fits = |start: u64| {
            let candidate = SpaRange::sized(Spa(start), size).unwrap();
            start > 0 && candidate.end().0 <= below
                && map.ram_ranges().any(|ram| ram.contains_range(candidate))
                && !taken.iter().any(|t| t.overlaps(candidate))
        };
        let expected = (0..0x50_000 / align).rev().map(|i| i * align).find(|start| fits(*start));
        prop_assert_eq!(map.find_free(size, align, Spa(below), &taken).map(|r| r.start().0), expected);
    }

    #[test]
    fn no_entry_makes_it_panic(entries in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u32>()), 0..200)) {
        let _ = MemoryMap::from_firmware(entries.iter().map(|(a, s, k)| entry(*a, *s, MemoryKind(*k))));
    }
}
