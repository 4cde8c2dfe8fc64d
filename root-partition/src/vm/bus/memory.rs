//! The guest's memory as devices use it, and who does.
#![allow(unsafe_code)]

use crate::vm::host::FRAME;
use crate::vm::memory::GuestMemory;
use crate::vm::signal::Changes;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use hypercall_api::address::Gpa;
use smallvec::SmallVec;
use vsp::buffer::{Buffer, Segment, Segments};

/// How many use a guest's memory.
#[derive(Debug, Default)]
struct Users {
    count: AtomicUsize,
    changes: Changes,
}

/// One who does, until it is dropped.
#[derive(Debug)]
pub struct User(Arc<Users>);

impl Drop for User {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changes.tell();
        }
    }
}

/// A child's RAM for its devices. The RAM stays as long as there are [`User`]s; [`Self::unused`] waits for their end.
#[derive(Debug, Default)]
pub struct ChildMemory {
    /// GPA, the root's address, bytes; sorted.
    extents: Vec<(u64, u64, u64)>,
    users: Arc<Users>,
}

impl ChildMemory {
    /// The RAM of `memory`, which does not change any more until it is [taken](GuestMemory::take) after [`Self::unused`].
    pub fn of(memory: &GuestMemory) -> Self {
        let extents = memory.extents().map(|(gpa, host, size)| (gpa.0, host, size));
        Self {
            extents: extents.collect(),
            users: Arc::default(),
        }
    }

    /// Takes note of one more who uses it.
    pub fn user(&self) -> User {
        self.users.count.fetch_add(1, Ordering::AcqRel);
        User(self.users.clone())
    }

    /// Completes when nobody uses it.
    pub async fn unused(&self) {
        let look = || (self.users.count.load(Ordering::Acquire) == 0).then_some(());
        self.users.changes.until(look).await;
    }

    /// Where `gpa` is for the root, and how many bytes are in a row from there on.
    fn find(&self, gpa: u64) -> Option<(u64, u64)> {
        let after = self.extents.partition_point(|(start, ..)| *start <= gpa);
        let (start, host, size) = *self.extents.get(after.checked_sub(1)?)?;
        let offset = gpa - start;
        (offset < size).then(|| (host + offset, size - offset))
    }

    /// The root's frames of the guest's pages `pages`; `None` if the guest does not have one of them.
    pub fn frames(&self, pages: &[u64]) -> Option<Vec<u64>> {
        let frame = |page: &u64| Some(self.find(page.checked_mul(FRAME)?)?.0);
        pages.iter().map(frame).collect()
    }

    /// The memory of a request of `user`, one of this memory's: `pieces` of RAM, each with its length, one after the other. `None` if the
    /// guest does not have some of it.
    pub fn buffer_of(
        &self,
        user: &Arc<User>,
        pieces: impl IntoIterator<Item = (Gpa, usize)>,
    ) -> Option<Buffer> {
        debug_assert!(Arc::ptr_eq(&user.0, &self.users));
        // Whole: (start, length) of the root's addresses, neighbours joined.
        let mut runs: SmallVec<[(u64, u64); 2]> = SmallVec::new();
        for (gpa, length) in pieces {
            let (mut gpa, mut left) = (gpa.0, length as u64);
            while left > 0 {
                let (host, most) = self.find(gpa)?;
                let size = left.min(most);
                match runs.last_mut() {
                    Some((start, before)) if *start + *before == host => *before += size,
                    _ => runs.push((host, size)),
                }
                gpa = gpa.checked_add(size)?;
                left -= size;
            }
        }
        let segments = runs
            .into_iter()
            .map(|(start, length)| segment(start, length as usize));
        Some(Buffer::new(segments.collect::<Option<Segments>>()?, user.clone()))
    }

    /// As [`buffer_of`](Self::buffer_of), of one piece.
    pub fn piece_of(&self, user: &Arc<User>, gpa: Gpa, length: usize) -> Option<Buffer> {
        match self.find(gpa.0)? {
            (host, most) if length as u64 <= most => {
                Some(Buffer::of_one(segment(host, length)?, user.clone()))
            }
            _ => self.buffer_of(user, [(gpa, length)]),
        }
    }
}

/// `length` bytes of a child's RAM, for a buffer whose owner is a [`User`].
fn segment(start: u64, length: usize) -> Option<Segment> {
    let pointer = NonNull::new(start as *mut u8)?;
    // SAFETY: the bytes are the child's RAM, which the root maps at its own addresses, to which it makes no references, and which is
    // not given back before the buffer's owner, a user, is gone.
    Some(unsafe { Segment::new(pointer, start, length) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::memory::tests::memory;
    use core::pin::pin;
    use core::task::{Context, Waker};

    #[test]
    fn buffers_are_pieces_of_ram_in_their_order() {
        let ram = memory(&[8192, 4096]);
        ram.write(Gpa(8190), b"abcd").unwrap();
        let child = ChildMemory::of(&ram);
        let user = Arc::new(child.user());
        let pieces = [(Gpa(8192), 2), (Gpa(8190), 2)];
        let buffer = child.buffer_of(&user, pieces).unwrap();
        let mut bytes = [0; 4];
        buffer.copy_to(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"cdab");
        for (pieces, segments) in [
            (&[(Gpa(0), 8192)][..], 1),
            (&[(Gpa(4096), 4096), (Gpa(0), 4096)], 2),
        ] {
            let buffer = child.buffer_of(&user, pieces.iter().copied()).unwrap();
            assert_eq!(buffer.segments().len(), segments);
        }
    }

    #[test]
    fn what_the_guest_does_not_have_makes_no_buffer() {
        let child = ChildMemory::of(&memory(&[8192]));
        let user = Arc::new(child.user());
        for (gpa, length) in [(8192, 1), (8191, 2), (u64::MAX, 1), (0, usize::MAX)] {
            assert!(child.buffer_of(&user, [(Gpa(gpa), length)]).is_none());
        }
        assert!(child.frames(&[0, 1]).is_some());
        assert!(child.frames(&[0, 2]).is_none());
        assert!(child.frames(&[u64::MAX]).is_none());
    }

    #[test]
    fn memory_is_in_use_until_the_last_user_is_gone() {
        let child = ChildMemory::of(&memory(&[4096]));
        let mut context = Context::from_waker(Waker::noop());
        let first = Arc::new(child.user());
        let second = child.buffer_of(&Arc::new(child.user()), [(Gpa(0), 8)]);
        let mut unused = pin!(child.unused());
        assert!(unused.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert!(unused.as_mut().poll(&mut context).is_pending());
        drop(second);
        assert!(unused.as_mut().poll(&mut context).is_ready());
    }
}
