//! Sense data: why a command was not carried out (SPC-4, 4.5).

use crate::storage::disk::DiskError;
use vmbus::protocol::scsi::{SENSE_FIXED, SENSE_VALID, sense_key};

/// Bytes of sense data in fixed form.
pub const SENSE: usize = 18;

/// A reason: sense key, additional code and its qualifier, and the sector where it happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sense {
    key: u8,
    code: u8,
    qualifier: u8,
    block: Option<u64>,
}

macro_rules! senses {
    ($($(#[$doc:meta])* $name:ident = $key:ident / $code:literal / $qualifier:literal;)*) => {
        impl Sense {
            $($(#[$doc])* pub const $name: Self = Self { key: sense_key::$key, code: $code, qualifier: $qualifier, block: None };)*
        }
    };
}

senses! {
    /// Nothing to say.
    NONE = NONE / 0x00 / 0x00;
    /// There is no medium.
    NO_MEDIUM = NOT_READY / 0x3a / 0x00;
    /// The medium cannot be written.
    WRITE_ERROR = MEDIUM_ERROR / 0x0c / 0x00;
    /// The medium cannot be read.
    READ_ERROR = MEDIUM_ERROR / 0x11 / 0x00;
    /// The device behind has failed.
    TARGET_FAILURE = HARDWARE_ERROR / 0x44 / 0x00;
    /// A length in a list of parameters is wrong.
    PARAMETER_LENGTH = ILLEGAL_REQUEST / 0x1a / 0x00;
    /// The command is not known.
    INVALID_COMMAND = ILLEGAL_REQUEST / 0x20 / 0x00;
    /// The sectors are beyond the end.
    OUT_OF_RANGE = ILLEGAL_REQUEST / 0x21 / 0x00;
    /// A field of the command has a wrong value.
    INVALID_FIELD = ILLEGAL_REQUEST / 0x24 / 0x00;
    /// There is no such unit.
    NO_UNIT = ILLEGAL_REQUEST / 0x25 / 0x00;
    /// The medium may not be taken out.
    REMOVAL_PREVENTED = ILLEGAL_REQUEST / 0x53 / 0x02;
    /// There may be another medium.
    MEDIUM_CHANGED = UNIT_ATTENTION / 0x28 / 0x00;
    /// There was a reset.
    RESET = UNIT_ATTENTION / 0x29 / 0x00;
    /// The capacity is another.
    CAPACITY_CHANGED = UNIT_ATTENTION / 0x2a / 0x09;
    /// It must not be written.
    WRITE_PROTECTED = DATA_PROTECT / 0x27 / 0x00;
    /// What is behind is full.
    SPACE_ALLOCATION = DATA_PROTECT / 0x27 / 0x07;
}

impl Sense {
    /// The same, at `block`.
    pub const fn at(self, block: u64) -> Self {
        Self {
            block: Some(block),
            ..self
        }
    }

    /// What a guest is told of a disk's error. `scale` turns the disk's sectors into the unit's blocks.
    pub fn of(error: DiskError, scale: impl Fn(u64) -> u64) -> Self {
        match error {
            DiskError::OutOfRange => Self::OUT_OF_RANGE,
            DiskError::Unreadable(sector) => Self::READ_ERROR.at(scale(sector)),
            DiskError::Unwritable(sector) => Self::WRITE_ERROR.at(scale(sector)),
            DiskError::ReadOnly => Self::WRITE_PROTECTED,
            DiskError::Full => Self::SPACE_ALLOCATION,
            DiskError::Gone => Self::NO_MEDIUM,
            DiskError::Reset => Self::RESET,
            DiskError::Unsupported => Self::INVALID_COMMAND,
            // A buffer of the wrong size is our mistake, not the guest's.
            DiskError::BufferSize | DiskError::Failed => Self::TARGET_FAILURE,
        }
    }

    /// The data in fixed form.
    pub fn encode(&self) -> [u8; SENSE] {
        let mut data = [0; SENSE];
        data[0] = SENSE_FIXED;
        data[2] = self.key;
        data[7] = (SENSE - 8) as u8;
        data[12] = self.code;
        data[13] = self.qualifier;
        // The field has 32 bits; a block that does not fit is not told.
        if let Some(block) = self.block.and_then(|block| u32::try_from(block).ok()) {
            data[0] |= SENSE_VALID;
            data[3..7].copy_from_slice(&block.to_be_bytes());
        }
        data
    }
}
