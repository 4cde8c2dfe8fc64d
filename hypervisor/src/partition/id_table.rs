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
        let bucket = self.buckets()?[Self::bucket_of(id)];
        if bucket == 0 {
            return None;
        }
        Self::entries(bucket).iter_mut().find(|entry| entry.tag == id + 1)
    }

    /// The value of an id.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        // SAFETY: an entry with a tag has a value.
        self.find(id)
            .map(|entry| unsafe { entry.value.assume_init_mut() })
    }

    /// Gives an id a value. Ids are used once.
    pub fn insert(&mut self, id: u32, value: T, source: &mut dyn FrameSource) -> Result<(), HvStatus> {
        if self.find(id).is_some() {
            return Err(HvStatus::INVALID_PARAMETER);
        }
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
        free.tag = id + 1;
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
