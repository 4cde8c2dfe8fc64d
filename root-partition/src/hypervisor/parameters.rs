//! A page for the input of a hypercall and one for its output, per processor.
#![allow(unsafe_code)]

use crate::memory::address_space;
use crate::memory::paging::PagingError;
use core::ptr;

const PAGE: usize = 4096;

/// The two pages. Only their processor touches them, with interrupts off, between filling and reading them.
#[derive(Debug)]
pub struct ParameterPages {
    input: u64,
    output: u64,
}

impl ParameterPages {
    /// Two pages for a processor, for good.
    pub fn allocate() -> Result<Self, PagingError> {
        let input = address_space::allocate_run(2).ok_or(PagingError::OutOfMemory)?;
        Ok(Self {
            input,
            output: input + PAGE as u64,
        })
    }

    /// Address of the input page.
    pub const fn input(&self) -> u64 {
        self.input
    }

    /// Address of the output page.
    pub const fn output(&self) -> u64 {
        self.output
    }

    /// Copies `bytes` to the start of the input page.
    ///
    /// # Panics
    /// Where they are longer than a page.
    pub(super) fn set_input(&self, bytes: &[u8]) {
        assert!(bytes.len() <= PAGE);
        // SAFETY: the page was allocated for this alone, and the length was checked.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.input as *mut u8, bytes.len()) };
    }

    /// Copies `parts`, one after the other, to the start of the input page.
    ///
    /// # Panics
    /// Where they are longer than a page.
    pub(super) fn set_input_parts(&self, parts: [&[u8]; 3]) {
        let mut at = self.input;
        for part in parts {
            assert!(part.len() as u64 <= self.input + PAGE as u64 - at);
            // SAFETY: as above.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), at as *mut u8, part.len()) };
            at += part.len() as u64;
        }
    }

    /// Copies the start of the output page to `bytes`.
    ///
    /// # Panics
    /// Where they are longer than a page.
    pub(super) fn copy_output(&self, bytes: &mut [u8]) {
        assert!(bytes.len() <= PAGE);
        // SAFETY: as above; the hypervisor writes the page only during a call.
        unsafe { ptr::copy_nonoverlapping(self.output as *const u8, bytes.as_mut_ptr(), bytes.len()) };
    }
}
