use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::address::FRAME_SIZE;
use super::super::frames::tests::TestFrames;
use super::super::frames::{FrameAllocator, FrameSource};
use super::*;

const GIB: u64 = 1 << 30;
const MIB2: u64 = 2 << 20;

fn with_tables<F: Format<Access = Access>>(test: impl FnOnce(&mut NestedTables<F>, &mut FrameAllocator)) {
    let mut frames = TestFrames::new(64);
    let frames = &mut frames.allocator;
    let before = frames.free_frames();
    let mut tables = NestedTables::new(PageSize::Huge1G, frames).unwrap();
    test(&mut tables, frames);
    tables.destroy(frames);
    assert_eq!(frames.free_frames(), before, "a table frame was lost");
}

fn any_access() -> impl Strategy<Value = Access> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(read, write, execute, device)| {
        let memory_type = if device {
            MemoryType::Uncacheable
        } else {
            MemoryType::WriteBack
        };
        Access {
            read,
            write: read && write,
            execute: read && execute,
            memory_type,
        }
    })
}

#[test]
fn npt_entries_are_as_the_apm_draws_them() {
    assert_eq!(Npt::bits(Access::ALL), 0x67);
    assert_eq!(Npt::bits(Access::READ_EXECUTE), 0x65);
    assert_eq!(Npt::bits(Access::DEVICE), 1 << 63 | 0x7f);
    assert_eq!(Npt::bits(Access::NONE) & 1, 0);
}

#[test]
fn ept_entries_are_as_the_sdm_draws_them() {
    assert_eq!(Ept::bits(Access::ALL), 0x77);
    assert_eq!(Ept::bits(Access::READ_EXECUTE), 0x75);
    assert_eq!(Ept::bits(Access::DEVICE), 0x03);
    assert_eq!(Ept::bits(Access::NONE) & 7, 0);
}

#[test]
fn no_access_without_read_reaches_the_hardware() {
    let write_only = Access {
        read: false,
        ..Access::ALL
    };
    assert_eq!(Ept::access(Ept::bits(write_only)), Access::NONE);
    assert_eq!(Npt::access(Npt::bits(write_only)), Access::NONE);
}

#[test]
fn a_mapping_translates_every_byte_of_its_page() {
    with_tables::<Npt>(|tables, frames| {
        tables
            .map(Gpa(MIB2), Spa(GIB), PageSize::Large2M, Access::ALL, frames)
            .unwrap();
        let mapping = tables.translate(Gpa(MIB2 + 0x12345)).unwrap();
        assert_eq!(
            (mapping.spa, mapping.size),
            (Spa(GIB + 0x12345), PageSize::Large2M)
        );
        assert_eq!(tables.translate(Gpa(MIB2 - 1)), None);
        assert_eq!(tables.translate(Gpa(2 * MIB2)), None);
        assert_eq!(tables.translate(Gpa(1 << 48)), None);
        assert_eq!(tables.translate(Gpa(u64::MAX)), None);
    });
}

#[test]
fn a_range_is_mapped_in_the_largest_pages_that_fit() {
    with_tables::<Ept>(|tables, frames| {
        tables
            .map_range(
                Gpa(GIB - 0x1000),
                Spa(2 * GIB - 0x1000),
                GIB + 0x1000 + MIB2,
                Access::ALL,
                frames,
            )
            .unwrap();
        let size = |gpa| tables.translate(Gpa(gpa)).unwrap().size;
        assert_eq!(size(GIB - 1), PageSize::Small4K);
        assert_eq!(size(GIB), PageSize::Huge1G);
        assert_eq!(size(2 * GIB), PageSize::Large2M);
    });
}

#[test]
fn frames_are_counted_up_to_the_first_that_is_not_as_wanted() {
    with_tables::<Npt>(|tables, frames| {
        // A large page, then small ones over a table's border, one of them read-only, then nothing.
        tables
            .map_range(Gpa(0), Spa(0), MIB2 + 0x6000, Access::ALL, frames)
            .unwrap();
        tables
            .protect(Gpa(MIB2 + 0x4000), 0x1000, Access::READ_EXECUTE, frames)
            .unwrap();
        let writable = |gpa, count| tables.count_while(Gpa(gpa), count, |mapping| mapping.access.write);
        let mapped = |gpa, count| tables.count_while(Gpa(gpa), count, |_| true);
        assert_eq!(writable(MIB2 - 0x2000, 100), 2 + 4);
        assert_eq!(writable(MIB2 - 0x2000, 3), 3);
        assert_eq!(mapped(MIB2 - 0x2000, 100), 2 + 6);
        assert_eq!(mapped(MIB2 + 0x6000, 1), 0);
        assert_eq!(mapped((1 << 48) - 0x1000, 5), 0);
    });
}

#[test]
fn a_page_that_gives_no_access_keeps_its_target() {
    with_tables::<Npt>(|tables, frames| {
        tables
            .map(Gpa(0), Spa(0), PageSize::Small4K, Access::NONE, frames)
            .unwrap();
        let mapping = tables.translate(Gpa(0x10)).unwrap();
        assert_eq!((mapping.spa, mapping.access), (Spa(0x10), Access::NONE));
    });
}

#[test]
fn changing_one_frame_of_a_1_gib_page_leaves_the_others() {
    with_tables::<Ept>(|tables, frames| {
        tables
            .map(Gpa(0), Spa(GIB), PageSize::Huge1G, Access::ALL, frames)
            .unwrap();
        tables
            .protect(Gpa(0x5000), 0x1000, Access::READ_EXECUTE, frames)
            .unwrap();
        for (gpa, access, size) in [
            (0x4fff, Access::ALL, PageSize::Small4K),
            (0x5000, Access::READ_EXECUTE, PageSize::Small4K),
            (0x6000, Access::ALL, PageSize::Small4K),
            (MIB2, Access::ALL, PageSize::Large2M),
        ] {
            assert_eq!(
                tables.translate(Gpa(gpa)),
                Some(Mapping {
                    spa: Spa(GIB + gpa),
                    size,
                    access
                })
            );
        }
    });
}

#[test]
fn protecting_a_hole_is_refused_whole() {
    with_tables::<Npt>(|tables, frames| {
        tables
            .map_range(Gpa(0), Spa(0), 0x3000, Access::ALL, frames)
            .unwrap();
        let error = tables.protect(Gpa(0), 0x4000, Access::NONE, frames).unwrap_err();
        assert_eq!(error, TableError::NotMapped(0x3000));
        assert_eq!(tables.translate(Gpa(0)).unwrap().access, Access::ALL);
    });
}

#[test]
fn addresses_that_cannot_be_mapped_are_refused() {
    with_tables::<Npt>(|tables, frames| {
        let all = Access::ALL;
        let misaligned = tables.map(Gpa(0x1000), Spa(0), PageSize::Large2M, all, frames);
        assert_eq!(misaligned, Err(TableError::Misaligned(0x1000)));
        assert_eq!(
            tables.map_range(Gpa(0), Spa(0x10), 0x1000, all, frames),
            Err(TableError::Misaligned(0x10))
        );
        let beyond = tables.map(Gpa(1 << 48), Spa(0), PageSize::Small4K, all, frames);
        assert!(matches!(beyond, Err(TableError::OutOfRange { .. })));
        let wide = tables.map(Gpa(0), Spa(1 << 52), PageSize::Small4K, all, frames);
        assert!(matches!(wide, Err(TableError::OutOfRange { .. })));
        let wraps = tables.unmap(Gpa(u64::MAX - 0xfff), 0x1000, frames);
        assert!(matches!(wraps, Err(TableError::OutOfRange { .. })));
    });
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Map(u64, u64, PageSize, Access),
    MapRange(u64, u64, u64, Access),
    Unmap(u64, u64),
    Protect(u64, u64, Access),
}

/// A window of frames around the border of two 1 GiB pages, from which the steps take their addresses.
const BASE: u64 = GIB - 2 * MIB2;
const FRAMES: u64 = 4 * MIB2 / FRAME_SIZE;

fn any_step() -> impl Strategy<Value = Step> {
    let place = || prop_oneof![0..FRAMES, (0..4u64).prop_map(|i| i * 512)];
    let length = || prop_oneof![1..8u64, 500..600u64, Just(512u64), Just(1024u64)];
    let target = || prop_oneof![0..0x1000u64, (0..8u64).prop_map(|i| i * 512)];
    let size = prop_oneof![Just(PageSize::Small4K), Just(PageSize::Large2M)];
    prop_oneof![
        (place(), target(), size, any_access()).prop_map(|(p, t, s, a)| {
            let frames = s.bytes() / FRAME_SIZE;
            Step::Map(p / frames * frames, t / frames * frames, s, a)
        }),
        (place(), target(), length(), any_access()).prop_map(|(p, t, l, a)| Step::MapRange(p, t, l, a)),
        (place(), length()).prop_map(|(p, l)| Step::Unmap(p, l)),
        (place(), length(), any_access()).prop_map(|(p, l, a)| Step::Protect(p, l, a)),
    ]
}

/// Frame number in the window → frame number of the target, and access.
type Model = BTreeMap<u64, (u64, Access)>;

fn run<F: Format<Access = Access>>(
    step: Step,
    tables: &mut NestedTables<F>,
    frames: &mut dyn FrameSource,
) -> Result<(), TableError> {
    let gpa = |frame: u64| Gpa(BASE + frame * FRAME_SIZE);
    match step {
        Step::Map(p, t, size, a) => tables.map(gpa(p), Spa(t * FRAME_SIZE), size, a, frames),
        Step::MapRange(p, t, l, a) => {
            tables.map_range(gpa(p), Spa(t * FRAME_SIZE), l * FRAME_SIZE, a, frames)
        }
        Step::Unmap(p, l) => tables.unmap(gpa(p), l * FRAME_SIZE, frames),
        Step::Protect(p, l, a) => tables.protect(gpa(p), l * FRAME_SIZE, a, frames),
    }
}

fn run_model(step: Step, model: &mut Model) -> Result<(), TableError> {
    match step {
        Step::Map(p, t, size, a) => model.extend((0..size.bytes() / FRAME_SIZE).map(|i| (p + i, (t + i, a)))),
        Step::MapRange(p, t, l, a) => model.extend((0..l).map(|i| (p + i, (t + i, a)))),
        Step::Unmap(p, l) => model.retain(|frame, _| !(p..p + l).contains(frame)),
        Step::Protect(p, l, a) => {
            if let Some(hole) = (p..p + l).find(|frame| !model.contains_key(frame)) {
                return Err(TableError::NotMapped(BASE + hole * FRAME_SIZE));
            }
            model.range_mut(p..p + l).for_each(|(_, page)| page.1 = a);
        }
    }
    Ok(())
}

fn assert_agrees<F: Format<Access = Access>>(tables: &NestedTables<F>, model: &Model) {
    for frame in 0..FRAMES + 0x500 {
        let mapping = tables.translate(Gpa(BASE + frame * FRAME_SIZE + 7));
        let expected = model
            .get(&frame)
            .map(|(target, access)| (Spa(target * FRAME_SIZE + 7), *access));
        assert_eq!(mapping.map(|m| (m.spa, m.access)), expected, "frame {frame:#x}");
    }
}

/// Gives out only so many frames.
struct Rationed<'a> {
    frames: &'a mut FrameAllocator,
    left: u64,
}

// SAFETY: it passes on what a `FrameAllocator` gives.
#[allow(unsafe_code)]
unsafe impl FrameSource for Rationed<'_> {
    fn allocate(&mut self) -> Option<Frame> {
        self.left = self.left.checked_sub(1)?;
        self.frames.allocate()
    }

    fn free(&mut self, frame: Frame) {
        self.frames.free(frame);
    }
}

fn agrees_with_model<F: Format<Access = Access>>(steps: &[Step]) {
    with_tables::<F>(|tables, frames| {
        let mut model = Model::new();
        for step in steps {
            assert_eq!(run(*step, tables, frames), run_model(*step, &mut model));
            assert_agrees(tables, &model);
        }
    });
}

/// Runs the steps, but each first with too few frames: 0, 1, 2 … until it succeeds.
fn survives_running_out<F: Format<Access = Access>>(steps: &[Step]) {
    with_tables::<F>(|tables, frames| {
        let mut model = Model::new();
        for step in steps {
            for left in 0.. {
                let before = frames.free_frames();
                let result = run(*step, tables, &mut Rationed { frames, left });
                if !matches!(result, Err(TableError::OutOfMemory(_))) {
                    assert_eq!(result, run_model(*step, &mut model));
                    break;
                }
                assert_eq!(frames.free_frames(), before);
                assert_agrees(tables, &model);
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn npt_translates_as_a_list_of_frames_would(steps in prop::collection::vec(any_step(), 1..20)) {
        agrees_with_model::<Npt>(&steps);
    }

    #[test]
    fn ept_translates_as_a_list_of_frames_would(steps in prop::collection::vec(any_step(), 1..20)) {
        agrees_with_model::<Ept>(&steps);
    }

    #[test]
    fn a_change_that_runs_out_of_frames_changes_nothing(steps in prop::collection::vec(any_step(), 1..10)) {
        survives_running_out::<Npt>(&steps);
        survives_running_out::<Ept>(&steps);
    }

    #[test]
    fn an_access_is_read_back_as_it_was_set(access in any_access()) {
        prop_assert_eq!(Npt::access(Npt::bits(access)), access);
        prop_assert_eq!(Ept::access(Ept::bits(access)), access);
    }
}
