//! The memory of a request: bytes in a row of pages that lie anywhere. The host may write to it for as long as the request is not
//! completed, and a host that lies after that too, so that its bytes are copied in and out and never referred to.
#![allow(unsafe_code)]

use super::{PAGE, Pages};
use crate::hal::Hal;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;
use core::ptr::NonNull;
use vmbus::shared::take_value;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A page of a buffer: where it is for the processor, and its number for the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedPage {
    /// Its first byte.
    pub address: NonNull<u8>,
    /// Its guest-physical address, in pages.
    pub number: u64,
}

/// Bytes that the given pages do not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{length} bytes from {offset} on do not lie in {pages} pages, or leave pages unused")]
pub struct BadPages {
    /// First byte, in the first page.
    pub offset: usize,
    /// Bytes.
    pub length: usize,
    /// Pages.
    pub pages: usize,
}

/// A position or length beyond a buffer's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{length} bytes at {offset} are not inside a buffer of {size} bytes")]
pub struct OutsideBuffer {
    /// First byte.
    pub offset: usize,
    /// Bytes.
    pub length: usize,
    /// What the buffer holds.
    pub size: usize,
}

/// The memory of a request, and what keeps it from being freed.
pub struct Buffer {
    addresses: Box<[NonNull<u8>]>,
    numbers: Box<[u64]>,
    offset: usize,
    length: usize,
    /// Where the first page is, if the pages lie in a row for the processor.
    row: Option<NonNull<u8>>,
    owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the memory is reached by raw copies that tolerate other writers.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A zeroed buffer of `length` bytes in pages of its own; `None` where the system has not so many.
    pub fn allocate<H: Hal>(hal: &Arc<H>, length: usize) -> Option<Self> {
        let pages = Pages::allocate(hal, length.div_ceil(PAGE).max(1))?;
        let addresses = (0..pages.count())
            // SAFETY: the page is one of those that were allocated.
            .map(|index| unsafe { pages.start().add(index * PAGE) })
            .collect();
        Some(Self {
            addresses,
            numbers: pages.numbers().into(),
            offset: 0,
            length,
            row: Some(pages.start()),
            owner: Arc::new(pages),
        })
    }

    /// `length` bytes from byte `offset` of the first of `pages` on, which lie anywhere and are not freed before `owner` is dropped.
    ///
    /// # Safety
    /// The pages are where `pages` says, both for the processor and for the host, and are readable and writable for as long as
    /// `owner` lives; nobody has references to their bytes.
    pub unsafe fn from_pages(
        pages: &[SharedPage],
        offset: usize,
        length: usize,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self, BadPages> {
        let bad = BadPages {
            offset,
            length,
            pages: pages.len(),
        };
        let end = offset.checked_add(length).ok_or(bad)?;
        if length == 0 || offset >= PAGE || end.div_ceil(PAGE) != pages.len() {
            return Err(bad);
        }
        Ok(Self {
            addresses: pages.iter().map(|page| page.address).collect(),
            numbers: pages.iter().map(|page| page.number).collect(),
            offset,
            length,
            row: None,
            owner,
        })
    }

    /// Bytes.
    pub const fn size(&self) -> usize {
        self.length
    }

    /// As [`pages`](Self::pages), if it is one page.
    #[inline(always)]
    pub fn only_page(&self, offset: usize, length: usize) -> Option<(usize, u64)> {
        let first = self.offset + self.inside(offset, length).ok()?;
        let within = first % PAGE;
        match (length, self.numbers.get(first / PAGE)) {
            (1.., Some(&number)) if within + length <= PAGE => Some((within, number)),
            _ => None,
        }
    }

    /// The pages that hold the `length` bytes from `offset` on: where in the first they begin, and the pages' numbers.
    pub fn pages(&self, offset: usize, length: usize) -> Result<(usize, &[u64]), OutsideBuffer> {
        let first = self.offset + self.inside(offset, length)?;
        let end = (first + length).div_ceil(PAGE);
        let numbers = self.numbers.get(first / PAGE..end).unwrap_or_default();
        Ok((first % PAGE, numbers))
    }

    /// The `length` bytes from `offset` on, as a buffer of their own over the same memory.
    pub fn part(&self, offset: usize, length: usize) -> Result<Self, OutsideBuffer> {
        let first = self.offset + self.inside(offset, length)?;
        let pages = first / PAGE..(first + length).div_ceil(PAGE);
        Ok(Self {
            // SAFETY: the page is one of them.
            row: self.row.map(|row| unsafe { row.add(pages.start * PAGE) }),
            addresses: self.addresses.get(pages.clone()).unwrap_or_default().into(),
            numbers: self.numbers.get(pages).unwrap_or_default().into(),
            offset: first % PAGE,
            length,
            owner: self.owner.clone(),
        })
    }

    /// Copies the bytes from `offset` on to `into`, all of it or nothing.
    #[inline(always)]
    pub fn copy_to(&self, offset: usize, into: &mut [u8]) -> Result<(), OutsideBuffer> {
        if let Some(piece) = self.in_a_row(offset, into.len()) {
            // SAFETY: so many bytes are in a row, which is readable while the owner lives, and `into` is ours.
            unsafe { core::ptr::copy_nonoverlapping(piece, into.as_mut_ptr(), into.len()) };
            return Ok(());
        }
        self.gather(offset, into)
    }

    /// Copies a structure from the bytes from `offset` on.
    #[inline(always)]
    pub fn read<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, OutsideBuffer> {
        if let Some(piece) = self.in_a_row(offset, size_of::<T>()) {
            // SAFETY: so many bytes are in a row, in whole pages, which are readable while the owner lives.
            return Ok(unsafe {
                // Two calls, so that the way of words needs no memory for the value.
                match piece.cast::<u64>().is_aligned() {
                    true => take_value(piece, true),
                    false => take_value(piece, false),
                }
            });
        }
        let mut value = T::new_zeroed();
        self.gather(offset, value.as_mut_bytes())?;
        Ok(value)
    }

    #[inline(never)]
    fn gather(&self, offset: usize, into: &mut [u8]) -> Result<(), OutsideBuffer> {
        let mut at = self.offset + self.inside(offset, into.len())?;
        let mut rest = into;
        while let Some((piece, length)) = self.piece(at, rest.len()) {
            let (now, later) = rest.split_at_mut(length);
            // SAFETY: `piece` gives bytes of one page, which are readable while the owner lives.
            unsafe { core::ptr::copy_nonoverlapping(piece, now.as_mut_ptr(), length) };
            rest = later;
            at += length;
        }
        Ok(())
    }

    /// Copies `from` to the bytes from `offset` on, all of it or nothing.
    #[inline(always)]
    pub fn copy_from(&self, offset: usize, from: &[u8]) -> Result<(), OutsideBuffer> {
        if let Some(piece) = self.in_a_row(offset, from.len()) {
            // SAFETY: as in `copy_to`, the other way round.
            unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), piece, from.len()) };
            return Ok(());
        }
        self.scatter(offset, from)
    }

    /// Copies a structure to the bytes from `offset` on, all of it or nothing.
    #[inline(always)]
    pub fn write<T: IntoBytes + Immutable + Copy>(
        &self,
        offset: usize,
        value: &T,
    ) -> Result<(), OutsideBuffer> {
        if let Some(piece) = self.in_a_row(offset, size_of::<T>()) {
            // SAFETY: as in `copy_from`.
            unsafe { piece.cast::<T>().write_unaligned(*value) };
            return Ok(());
        }
        // A copy, so that the other way needs no memory for it.
        let value = *value;
        self.scatter(offset, value.as_bytes())
    }

    #[inline(never)]
    fn scatter(&self, offset: usize, from: &[u8]) -> Result<(), OutsideBuffer> {
        let mut at = self.offset + self.inside(offset, from.len())?;
        let mut rest = from;
        while let Some((piece, length)) = self.piece(at, rest.len()) {
            let (now, later) = rest.split_at(length);
            // SAFETY: as in `copy_to`, the other way round.
            unsafe { core::ptr::copy_nonoverlapping(now.as_ptr(), piece, length) };
            rest = later;
            at += length;
        }
        Ok(())
    }

    /// Where `length` bytes from `offset` on begin, if they are inside the buffer, and lie in a row: in one page, or all pages do.
    #[inline(always)]
    fn in_a_row(&self, offset: usize, length: usize) -> Option<*mut u8> {
        offset.checked_add(length).filter(|&end| end <= self.length)?;
        let at = self.offset + offset;
        if let Some(row) = self.row {
            // SAFETY: the byte is in the pages.
            return Some(unsafe { row.as_ptr().add(at) });
        }
        let page = self.addresses.get(at / PAGE)?;
        if at % PAGE + length > PAGE {
            return None;
        }
        // SAFETY: the byte is in the page.
        Some(unsafe { page.as_ptr().add(at % PAGE) })
    }

    #[inline(always)]
    fn inside(&self, offset: usize, length: usize) -> Result<usize, OutsideBuffer> {
        let size = self.length;
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(offset),
            _ => Err(OutsideBuffer { offset, length, size }),
        }
    }

    /// Where the byte `at`, counted from the first page's beginning, is, and how many of `length` follow in its page.
    fn piece(&self, at: usize, length: usize) -> Option<(*mut u8, usize)> {
        let page = self.addresses.get(at / PAGE).filter(|_| length > 0)?;
        let length = length.min(PAGE - at % PAGE);
        // SAFETY: the byte is in the page.
        Some((unsafe { page.as_ptr().add(at % PAGE) }, length))
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("length", &self.length)
            .field("offset", &self.offset)
            .field("pages", &self.numbers)
            .finish_non_exhaustive()
    }
}

/// `length` zeroed bytes of the ordinary heap, for tests and benchmarks on the host: the pages' numbers are those of their addresses.
pub fn of_heap(length: usize) -> Buffer {
    #[repr(C, align(4096))]
    struct Page(core::cell::UnsafeCell<[u8; PAGE]>);
    // SAFETY: the pages are reached by raw copies that tolerate other writers.
    unsafe impl Send for Page {}
    // SAFETY: as above.
    unsafe impl Sync for Page {}

    let pages: Vec<_> = (0..length.div_ceil(PAGE).max(1))
        .map(|_| Page(core::cell::UnsafeCell::new([0; PAGE])))
        .collect();
    let addresses: Box<[_]> = pages
        .iter()
        .map(|page| NonNull::from(page).cast::<u8>())
        .collect();
    Buffer {
        row: NonNull::new(pages.as_ptr().cast_mut().cast()),
        numbers: addresses
            .iter()
            .map(|page| page.as_ptr() as u64 / PAGE as u64)
            .collect(),
        addresses,
        offset: 0,
        length,
        owner: Arc::new(pages),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes 10 to 8200 of three pages in any order.
    fn scattered() -> (Arc<Buffer>, Buffer) {
        let whole = Arc::new(of_heap(3 * PAGE));
        let page = |index: usize| SharedPage {
            address: whole.addresses[index],
            number: whole.numbers[index],
        };
        let pages = [page(2), page(0), page(1)];
        // SAFETY: the pages are those of `whole`, which the buffer owns a share of.
        let buffer = unsafe { Buffer::from_pages(&pages, 10, 8190, whole.clone()) };
        (whole, buffer.unwrap())
    }

    #[test]
    fn bytes_cross_pages_in_the_order_of_the_list() {
        let (whole, buffer) = scattered();
        let bytes: Vec<u8> = (0..8190_u32).map(|byte| byte as u8).collect();
        buffer.copy_from(0, &bytes).unwrap();
        let mut seen = [0; 2];
        whole.copy_to(2 * PAGE + 10, &mut seen).unwrap();
        assert_eq!(seen, [0, 1]);
        whole.copy_to(0, &mut seen).unwrap();
        assert_eq!(seen, [(4086 % 256) as u8, (4087 % 256) as u8]);
        let mut back = alloc::vec![0; 8190];
        buffer.copy_to(0, &mut back).unwrap();
        assert_eq!(back, bytes);
    }

    #[test]
    fn a_part_names_only_the_pages_it_touches() {
        let (whole, buffer) = scattered();
        let numbers = &whole.numbers;
        assert_eq!(buffer.pages(0, 4086).unwrap(), (10, &[numbers[2]][..]));
        assert_eq!(
            buffer.pages(0, 4087).unwrap(),
            (10, &[numbers[2], numbers[0]][..])
        );
        assert_eq!(
            buffer.pages(4086, 4097).unwrap(),
            (0, &[numbers[0], numbers[1]][..])
        );
        assert!(buffer.pages(8190, 1).is_err());
    }

    #[test]
    fn what_is_not_inside_is_not_copied() {
        let (_, buffer) = scattered();
        assert!(buffer.copy_to(8189, &mut [0; 2]).is_err());
        assert!(buffer.copy_from(usize::MAX, &[0; 2]).is_err());
    }

    #[test]
    fn pages_too_many_or_too_few_are_refused() {
        let whole = of_heap(PAGE);
        let page = SharedPage {
            address: whole.addresses[0],
            number: whole.numbers[0],
        };
        for (offset, length) in [(0, 0), (PAGE, 1), (1, PAGE), (usize::MAX, 2)] {
            // SAFETY: all of these are refused.
            assert!(unsafe { Buffer::from_pages(&[page], offset, length, Arc::new(())) }.is_err());
        }
    }
}
