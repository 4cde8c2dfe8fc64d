//! Stacks with a page under each that is not mapped, so that an overflow faults instead of spoiling what lies below.

use super::address_space;
use super::frames::FRAME_SIZE;
use super::paging::{Access, PagingError};

/// A stack that lives as long as the image.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    /// Address of the guard page.
    pub guard: u64,
    /// Address just past the stack, where it starts.
    pub top: u64,
}

impl Stack {
    /// A stack of `pages` pages, at most 511.
    pub fn allocate(pages: usize) -> Result<Self, PagingError> {
        let guard = address_space::allocate_run(pages + 1).ok_or(PagingError::OutOfMemory)?;
        // No processor has used the page, so none has it in its TLB but through a large page, which only delays the guard.
        address_space::protect(guard..guard + FRAME_SIZE, Access::NONE)?;
        Ok(Self {
            guard,
            top: guard + (pages as u64 + 1) * FRAME_SIZE,
        })
    }

    /// Whether `address` is in the guard page.
    pub const fn is_guard(&self, address: u64) -> bool {
        address >= self.guard && address < self.guard + FRAME_SIZE
    }
}
