//! ACPI tables as bytes: every field, length and checksum is checked before it is used.

use core::fmt;

use zerocopy::FromBytes;

use crate::memory::address::Spa;
use crate::memory::physical::{PhysicalMemory, field};

/// Bytes of the header that every table begins with (ACPI 6.5, 5.2.6).
pub(super) const HEADER: usize = 36;

/// The longest table that is read; a DSDT may have some hundred kilobytes.
const MAX_LENGTH: u32 = 4 << 20;

/// The four letters that say what a table is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 4]);

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

/// Why the ACPI tables were refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AcpiError {
    /// There is none where the boot loader says, or anywhere.
    #[error("ACPI: no valid root system description pointer is found")]
    NoRsdp,
    /// A pointer leads to memory that cannot be read.
    #[error("ACPI: the table at {0} cannot be read")]
    Unreadable(Spa),
    /// A table that is needed is not listed.
    #[error("ACPI: there is no {0} table")]
    Missing(Signature),
    /// A table is damaged.
    #[error("ACPI: {signature} table, offset {offset:#x}: {reason}")]
    Damaged {
        /// Which table.
        signature: Signature,
        /// Where in it.
        offset: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

/// A table, or a structure in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    signature: Signature,
    /// Place in the table.
    offset: usize,
    pub(super) bytes: &'a [u8],
}

/// How a structure in a table begins.
#[derive(Clone, Copy)]
pub(super) enum Prefix {
    /// A byte each for type and length.
    Bytes,
    /// 16 bits each.
    Words,
}

impl<'a> Part<'a> {
    /// The table at `address`, its length and checksum checked.
    pub(super) fn table(memory: &'a impl PhysicalMemory, address: Spa) -> Result<Self, AcpiError> {
        let unreadable = AcpiError::Unreadable(address);
        let header = memory.bytes(address, HEADER as u64).ok_or(unreadable)?;
        let signature = field(header, 0).map(Signature).ok_or(unreadable)?;
        let length: u32 = field(header, 4).ok_or(unreadable)?;
        let damaged = |offset, reason| AcpiError::Damaged {
            signature,
            offset,
            reason,
        };
        if !(HEADER as u32..=MAX_LENGTH).contains(&length) {
            return Err(damaged(4, "its length is impossible"));
        }
        let bytes = memory.bytes(address, length.into()).ok_or(unreadable)?;
        if sum(bytes) != 0 {
            return Err(damaged(9, "its checksum is wrong"));
        }
        Ok(Self {
            signature,
            offset: 0,
            bytes,
        })
    }

    /// A table of these bytes, whose length and checksum are taken for right.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) const fn unchecked(signature: [u8; 4], bytes: &'a [u8]) -> Self {
        Self {
            signature: Signature(signature),
            offset: 0,
            bytes,
        }
    }

    /// The error that this part is damaged at `offset`.
    pub(super) fn damaged(&self, offset: usize, reason: &'static str) -> AcpiError {
        AcpiError::Damaged {
            signature: self.signature,
            offset: self.offset + offset,
            reason,
        }
    }

    /// The field at `offset`, which must be there.
    pub(super) fn field<T: FromBytes>(&self, offset: usize) -> Result<T, AcpiError> {
        self.optional(offset)
            .ok_or_else(|| self.damaged(offset, "it ends too early"))
    }

    /// The field at `offset`, if the part is long enough.
    pub(super) fn optional<T: FromBytes>(&self, offset: usize) -> Option<T> {
        field(self.bytes, offset)
    }

    /// The structures from `offset` to the end, each with its type. The first damaged one ends the list with an error.
    pub(super) fn structures(
        self,
        mut offset: usize,
        prefix: Prefix,
    ) -> impl Iterator<Item = Result<(u16, Self), AcpiError>> {
        core::iter::from_fn(move || {
            if offset >= self.bytes.len() {
                return None;
            }
            let structure = self.structure(offset, prefix);
            offset = structure
                .as_ref()
                .map_or(usize::MAX, |(_, part)| offset + part.bytes.len());
            Some(structure)
        })
    }

    fn structure(&self, offset: usize, prefix: Prefix) -> Result<(u16, Self), AcpiError> {
        let ([kind, length], least) = match prefix {
            Prefix::Bytes => (self.field::<[u8; 2]>(offset)?.map(u16::from), 2),
            Prefix::Words => (self.field::<[u16; 2]>(offset)?, 4),
        };
        let length = usize::from(length);
        match self.bytes.get(offset..offset + length) {
            Some(bytes) if length >= least => Ok((
                kind,
                Self {
                    signature: self.signature,
                    offset: self.offset + offset,
                    bytes,
                },
            )),
            _ => Err(self.damaged(offset, "a structure has an impossible length")),
        }
    }
}

/// The sum of bytes that a checksum makes zero.
pub(super) fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}
