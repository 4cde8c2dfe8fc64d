//! Packets as they are written whose parts are structures: all that is known of their size when they are compiled need not be looked at
//! when they are sent.

use zerocopy::{Immutable, IntoBytes};

/// A packet of structures, and what comes behind it.
pub(super) struct Whole<'a, H, P> {
    /// The descriptor.
    pub(super) words: [u64; 2],
    /// What is between descriptor and payload: a multiple of 8 bytes.
    pub(super) header: &'a H,
    pub(super) payload: &'a P,
    /// What comes behind the packet.
    pub(super) last: u64,
}

impl<H, P> Whole<'_, H, P> {
    /// Bytes before the payload.
    pub(super) const DATA_OFFSET: usize = {
        assert!(size_of::<H>().is_multiple_of(8));
        size_of::<[u64; 2]>() + size_of::<H>()
    };
    /// Bytes of all but the last word.
    pub(super) const LENGTH: usize = (Self::DATA_OFFSET + size_of::<P>()).next_multiple_of(8);
}

impl<H: IntoBytes + Immutable, P: IntoBytes + Immutable> Whole<'_, H, P> {
    /// Gives all its words with their offsets, which are less than `LENGTH + 8`. They are values and not references, so that what was in
    /// registers need not be written to memory first.
    #[inline(always)]
    pub(super) fn for_each_word(&self, mut each: impl FnMut(usize, u64)) {
        for_each_word(0, &self.words, &mut each);
        for_each_word(size_of::<[u64; 2]>(), self.header, &mut each);
        for_each_word(Self::DATA_OFFSET, self.payload, &mut each);
        each(Self::LENGTH, self.last);
    }
}

#[inline(always)]
fn for_each_word<T: IntoBytes + Immutable>(offset: usize, value: &T, each: &mut impl FnMut(usize, u64)) {
    let (words, rest) = value.as_bytes().as_chunks();
    for (index, word) in words.iter().enumerate() {
        each(offset + index * 8, u64::from_ne_bytes(*word));
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        each(offset + words.len() * 8, u64::from_ne_bytes(last));
    }
}
