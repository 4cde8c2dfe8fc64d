//! A table of things by 24-bit ids of the caller's own choice, in frames of a partition's pool: a directory of buckets, each
//! a frame of entries.
#![allow(unsafe_code)]

use crate::memory::address::{Frame, Spa};
use crate::memory::frames::FrameSource;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use hypercall_api::address::PAGE_SIZE;
use hypercall_api::status::HvStatus;

const BUCKETS: usize = PAGE_SIZE as usize / size_of::<u64>();
/// Ids next to each other share a bucket.
const NEIGHBOURS: u32 = 32;

/// An entry of a bucket.
#[repr(C)]
struct Entry<T> {
    /// The id + 1; 0 for a free entry.
    tag: u32,
    value: MaybeUninit<T>,
}

/// The table. Values are plain data: dropping the table forgets them, [`clear`](Self::clear) gives the frames back.
pub struct IdTable<T: Copy + 'static> {
    directory: Option<Frame>,
    values: PhantomData<T>,
}

impl<T: Copy + 'static> Default for IdTable<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy + 'static> IdTable<T> {
    const ENTRIES: usize = PAGE_SIZE as usize / size_of::<Entry<T>>();

    /// An empty table, without frames.
    pub const fn new() -> Self {
        Self {
            directory: None,
            values: PhantomData,
        }
    }

    fn buckets(&mut self) -> Option<&mut [u64; BUCKETS]> {
        // SAFETY: the directory is the table's own frame, and the table is borrowed while this is.
        self.directory
            .map(|frame| unsafe { &mut *(frame.start().0 as *mut [u64; BUCKETS]) })
    }

    fn bucket_of(id: u32) -> usize {
        (id / NEIGHBOURS) as usize % BUCKETS
    }

    fn entries(bucket: u64) -> &'static mut [Entry<T>] {
        // SAFETY: a bucket is a frame of the table's, zeroed at first: entries with tag 0. It is freed only by `clear`, and the
        // slice does not leave the table's methods but for the one value that `get_mut` lends.
        unsafe { core::slice::from_raw_parts_mut(bucket as *mut Entry<T>, Self::ENTRIES) }
    }

    fn find(&mut self, id: u32) -> Option<&'static mut Entry<T>> {
        // One more than the last id would be the tag of a free entry.
        let tag = id.checked_add(1)?;
        let bucket = self.buckets()?[Self::bucket_of(id)];
        if bucket == 0 {
            return None;
        }
        Self::entries(bucket).iter_mut().find(|entry| entry.tag == tag)
    }

    /// The value of an id.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        // SAFETY: an entry with a tag has a value.
        self.find(id)
            .map(|entry| unsafe { entry.value.assume_init_mut() })
    }

    /// Gives an id a value. Ids are used once, and the last 32-bit number is none.
    pub fn insert(&mut self, id: u32, value: T, source: &mut dyn FrameSource) -> Result<(), HvStatus> {
        let tag = id.checked_add(1).filter(|_| self.find(id).is_none());
        let tag = tag.ok_or(HvStatus::INVALID_PARAMETER)?;
        if self.directory.is_none() {
            self.directory = Some(source.allocate().ok_or(HvStatus::INSUFFICIENT_MEMORY)?);
        }
        let buckets = self.buckets().ok_or(HvStatus::INSUFFICIENT_MEMORY)?;
        let bucket = &mut buckets[Self::bucket_of(id)];
        if *bucket == 0 {
            *bucket = source.allocate().ok_or(HvStatus::INSUFFICIENT_MEMORY)?.start().0;
        }
        let free = Self::entries(*bucket)
            .iter_mut()
            .find(|entry| entry.tag == 0)
            .ok_or(HvStatus::NO_RESOURCES)?;
        free.value = MaybeUninit::new(value);
        free.tag = tag;
        Ok(())
    }

    /// Takes an id's value out. Frames stay for the next.
    pub fn remove(&mut self, id: u32) -> Option<T> {
        let entry = self.find(id)?;
        entry.tag = 0;
        // SAFETY: the entry had a tag until now.
        Some(unsafe { entry.value.assume_init() })
    }

    /// Takes some value out, whichever; `None` where there is none.
    pub fn pop(&mut self) -> Option<T> {
        let buckets = self.buckets()?;
        let used = buckets.iter().filter(|bucket| **bucket != 0);
        let entry = used
            .flat_map(|bucket| Self::entries(*bucket))
            .find(|entry| entry.tag != 0)?;
        entry.tag = 0;
        // SAFETY: as in `remove`.
        Some(unsafe { entry.value.assume_init() })
    }

    /// Gives every frame back.
    pub fn clear(&mut self, source: &mut dyn FrameSource) {
        if let Some(buckets) = self.buckets() {
            for bucket in buckets.iter_mut().filter(|bucket| **bucket != 0) {
                source.free(Frame::containing(Spa(*bucket)));
            }
        }
        if let Some(directory) = self.directory.take() {
            source.free(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::frames::tests::TestFrames;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32, u64),
        Remove(u32),
        Change(u32, u64),
        Pop,
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few ids, so that they meet: neighbours, ids that share a bucket, and the ends.
        let id = || {
            prop_oneof![
                0u32..40,
                (0u32..4).prop_map(|n| n * 32 * BUCKETS as u32),
                Just(0xff_ffff),
                Just(u32::MAX)
            ]
        };
        prop_oneof![
            4 => (id(), any::<u64>()).prop_map(|(id, value)| Step::Insert(id, value)),
            2 => id().prop_map(Step::Remove),
            1 => (id(), any::<u64>()).prop_map(|(id, value)| Step::Change(id, value)),
            1 => Just(Step::Pop),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_would(steps in prop::collection::vec(step(), 0..200)) {
            let mut test = TestFrames::new(16);
            let before = test.allocator.free_frames();
            let mut table = IdTable::<u64>::new();
            let mut model = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(id, value) => {
                        let taken = id == u32::MAX || model.contains_key(&id);
                        let done = table.insert(id, value, &mut test.allocator);
                        prop_assert_eq!(done, if taken { Err(HvStatus::INVALID_PARAMETER) } else { Ok(()) });
                        if !taken {
                            model.insert(id, value);
                        }
                    }
                    Step::Remove(id) => prop_assert_eq!(table.remove(id), model.remove(&id)),
                    Step::Change(id, value) => {
                        let (there, expected) = (table.get_mut(id), model.get_mut(&id));
                        prop_assert_eq!(&there, &expected);
                        there.into_iter().chain(expected).for_each(|place| *place = value);
                    }
                    Step::Pop => {
                        let popped = table.pop();
                        let known = model.iter().find(|(_, value)| Some(**value) == popped).map(|(id, _)| *id);
                        prop_assert_eq!(known.is_some(), !model.is_empty());
                        known.and_then(|id| model.remove(&id));
                    }
                }
            }
            table.clear(&mut test.allocator);
            prop_assert_eq!(test.allocator.free_frames(), before);
        }
    }

    #[test]
    fn what_was_inserted_is_found_until_it_is_removed() {
        let mut test = TestFrames::new(64);
        let mut table = IdTable::<u64>::new();
        for id in [0, 1, 31, 32, 0xff_ffff] {
            table.insert(id, id as u64 * 3, &mut test.allocator).unwrap();
        }
        assert_eq!(
            table.insert(31, 0, &mut test.allocator),
            Err(HvStatus::INVALID_PARAMETER)
        );
        assert_eq!(table.get_mut(0xff_ffff), Some(&mut (0xff_ffff * 3)));
        assert_eq!(table.get_mut(2), None);
        assert_eq!((table.remove(31), table.remove(31)), (Some(93), None));
    }

    #[test]
    fn clearing_gives_every_frame_back() {
        let mut test = TestFrames::new(64);
        let before = test.allocator.free_frames();
        let mut table = IdTable::<u32>::new();
        for id in (0..20).map(|number| number * 100) {
            table.insert(id, id, &mut test.allocator).unwrap();
        }
        let mut seen: Vec<_> = core::iter::from_fn(|| table.pop()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..20).map(|number| number * 100).collect::<Vec<_>>());
        table.clear(&mut test.allocator);
        assert_eq!(test.allocator.free_frames(), before);
    }

    #[test]
    fn without_frames_an_insertion_is_refused_and_nothing_is_found() {
        let mut table = IdTable::<u32>::new();
        let mut empty = crate::memory::pool::Pool::new();
        assert_eq!(table.insert(1, 1, &mut empty), Err(HvStatus::INSUFFICIENT_MEMORY));
        assert_eq!(table.get_mut(1), None);
        assert_eq!(table.pop(), None);
    }
}
