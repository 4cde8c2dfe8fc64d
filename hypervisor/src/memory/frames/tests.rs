use super::*;
use proptest::prelude::*;
use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeSet;

/// Page-aligned host memory that plays the part of a physical range.
pub(crate) struct HostMemory {
    memory: *mut u8,
    layout: Layout,
}

impl HostMemory {
    pub(crate) fn new(frames: usize, align: u64) -> Self {
        let layout = Layout::from_size_align(frames * FRAME_SIZE as usize, align as usize).unwrap();
        // SAFETY: the layout has bytes.
        let memory = unsafe { alloc(layout) };
        assert!(!memory.is_null());
        // SAFETY: `memory` is `layout.size()` bytes; not zero, so that tests see what is not zeroed.
        unsafe { ptr::write_bytes(memory, 0xa5, layout.size()) };
        Self { memory, layout }
    }

    pub(crate) fn range(&self) -> SpaRange {
        SpaRange::sized(
            Spa(self.memory.expose_provenance() as u64),
            self.layout.size() as u64,
        )
        .unwrap()
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.memory, self.layout) };
    }
}

/// An allocator with the memory that it stands on; `frames` can be given out.
pub(crate) struct TestFrames {
    pub(crate) allocator: FrameAllocator,
    _memory: HostMemory,
}

impl TestFrames {
    pub(crate) fn new(frames: usize) -> Self {
        let table = (frames * size_of::<Link>()).div_ceil(FRAME_SIZE as usize - size_of::<Link>());
        let memory = HostMemory::new(frames + table, 1 << 16);
        // SAFETY: the memory lives as long as the allocator beside it.
        let allocator = unsafe { FrameAllocator::new(memory.range()) }.unwrap();
        Self {
            allocator,
            _memory: memory,
        }
    }
}

fn is_zeroed(frame: Frame, frames: usize) -> bool {
    // SAFETY: the frames were just allocated and nothing writes to them.
    let bytes = unsafe { slice::from_raw_parts(frame.start().0 as *const u8, frames * FRAME_SIZE as usize) };
    bytes.iter().all(|byte| *byte == 0)
}

fn scribble(frame: Frame) {
    // SAFETY: the frame is the test's.
    unsafe { ptr::write_bytes(frame.start().0 as *mut u8, 0xa5, FRAME_SIZE as usize) };
}

#[test]
fn a_frame_comes_zeroed_each_time() {
    let mut test = TestFrames::new(4);
    let frames = &mut test.allocator;
    let frame = frames.allocate().unwrap();
    assert!(is_zeroed(frame, 1));
    scribble(frame);
    frames.free(frame);
    assert_eq!(frames.allocate(), Some(frame));
    assert!(is_zeroed(frame, 1));
}

#[test]
fn an_empty_allocator_gives_nothing_until_a_frame_comes_back() {
    let mut test = TestFrames::new(3);
    let frames = &mut test.allocator;
    let total = frames.total_frames();
    let all: Vec<_> = core::iter::from_fn(|| frames.allocate()).collect();
    assert_eq!(all.len() as u64, total);
    assert_eq!(frames.free_frames(), 0);
    assert_eq!(frames.allocate_run(0), None);
    frames.free(all[1]);
    assert_eq!(frames.allocate(), Some(all[1]));
}

#[test]
fn a_frame_freed_twice_is_refused_and_counted() {
    let mut test = TestFrames::new(3);
    let frames = &mut test.allocator;
    let frame = frames.allocate().unwrap();
    assert_eq!(frames.free_frame(frame), Ok(()));
    assert_eq!(frames.free_frame(frame), Err(FrameError::FreedTwice(frame)));
    assert_eq!(
        (frames.refused_frees(), frames.free_frames()),
        (1, frames.total_frames())
    );
}

#[test]
fn frames_of_others_and_the_table_are_refused() {
    let mut test = TestFrames::new(3);
    let frames = &mut test.allocator;
    let table = Frame::containing(Spa(frames.first.start().0 - 1));
    assert_eq!(frames.free_frame(table), Err(FrameError::Foreign(table)));
    let behind = frames.frame(frames.total_frames() as u32);
    assert_eq!(frames.free_frame(behind), Err(FrameError::Foreign(behind)));
}

#[test]
fn a_run_that_is_partly_free_is_refused_whole() {
    let mut test = TestFrames::new(16);
    let frames = &mut test.allocator;
    let run = frames.allocate_run(2).unwrap();
    let second = Frame::containing(Spa(run.start().0 + FRAME_SIZE));
    frames.free_frame(second).unwrap();
    let before = frames.free_frames();
    assert_eq!(frames.free_run(run, 2), Err(FrameError::FreedTwice(second)));
    assert_eq!(frames.free_frames(), before);
}

#[test]
fn a_range_too_small_for_its_table_is_refused() {
    let memory = HostMemory::new(1, 4096);
    // SAFETY: the memory is the test's, and the allocator is not made.
    let error = unsafe { FrameAllocator::new(memory.range()) }.err();
    assert_eq!(error, Some(FrameError::UnusableRange(memory.range())));
}

#[derive(Clone, Debug)]
enum Step {
    Allocate,
    AllocateRun(u32),
    Free(prop::sample::Index),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Allocate),
        (0u32..8).prop_map(Step::AllocateRun),
        any::<prop::sample::Index>().prop_map(Step::Free),
    ]
}

proptest! {
    #[test]
    fn no_frame_is_given_out_twice_and_none_is_lost(steps in prop::collection::vec(any_step(), 1..120)) {
        let mut test = TestFrames::new(64);
        let frames = &mut test.allocator;
        let (base, total) = (frames.first.number(), frames.total_frames());
        let mut given = BTreeSet::new();
        let mut runs: Vec<(Frame, u32)> = Vec::new();
        for step in steps {
            let (got, order) = match step {
                Step::Allocate => (frames.allocate(), 0),
                Step::AllocateRun(order) => (frames.allocate_run(order), order),
                Step::Free(_) if runs.is_empty() => continue,
                Step::Free(index) => {
                    let (start, order) = runs.swap_remove(index.index(runs.len()));
                    prop_assert_eq!(frames.free_run(start, order), Ok(()));
                    (0..1 << order).for_each(|i| { given.remove(&(start.number() + i)); });
                    continue;
                }
            };
            let count = 1u64 << order;
            let Some(start) = got else {
                let fits = |n: u64| n.is_multiple_of(count) && (n..n + count).all(|f| f < base + total && !given.contains(&f));
                prop_assert!(!(base..base + total).any(fits), "a run of {count} was free");
                continue;
            };
            prop_assert!(start.number().is_multiple_of(count) && is_zeroed(start, count as usize));
            for frame in start.number()..start.number() + count {
                prop_assert!((base..base + total).contains(&frame) && given.insert(frame));
                scribble(Frame::containing(Spa(frame * FRAME_SIZE)));
            }
            runs.push((start, order));
            prop_assert_eq!(frames.free_frames(), total - given.len() as u64);
        }
        for (start, order) in runs {
            frames.free_run(start, order).unwrap();
        }
        prop_assert_eq!(frames.free_frames(), total);
        prop_assert_eq!(core::iter::from_fn(|| frames.allocate()).count() as u64, total);
    }
}
