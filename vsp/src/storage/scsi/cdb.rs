//! Command descriptor blocks: the commands that we know, and the fields that they share (SPC-4, SBC-3, MMC-6). Reads and writes are
//! in [`super::transfer`].

use super::sense::Sense;
use vmbus::protocol::scsi::operation;
use vmbus::protocol::storage::MAX_CDB;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $code:ident, $length:literal;)*) => {
        /// The commands.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Operation { $($(#[$doc])* $name,)* }

        impl Operation {
            /// The command of an operation code, and how many bytes such a command has.
            pub const fn decode(code: u8) -> Option<(Self, usize)> {
                match code {
                    $(operation::$code => Some((Self::$name, $length)),)*
                    _ => None,
                }
            }
        }
    };
}

operations! {
    /// Is it ready?
    TestUnitReady = TEST_UNIT_READY, 6;
    /// Sense data.
    RequestSense = REQUEST_SENSE, 6;
    /// What is it?
    Inquiry = INQUIRY, 6;
    /// Parameters.
    ModeSense6 = MODE_SENSE_6, 6;
    /// Start, stop, load, eject.
    StartStopUnit = START_STOP_UNIT, 6;
    /// May the medium be taken out?
    PreventAllow = PREVENT_ALLOW, 6;
    /// How large?
    ReadCapacity10 = READ_CAPACITY_10, 10;
    /// Check that it can be read.
    Verify10 = VERIFY_10, 10;
    /// Flush.
    SynchronizeCache10 = SYNCHRONIZE_CACHE_10, 10;
    /// Write one block many times.
    WriteSame10 = WRITE_SAME_10, 10;
    /// Give up blocks.
    Unmap = UNMAP, 10;
    /// Table of contents.
    ReadToc = READ_TOC, 10;
    /// What can the drive do?
    GetConfiguration = GET_CONFIGURATION, 10;
    /// What has happened to the drive?
    GetEventStatus = GET_EVENT_STATUS, 10;
    /// What medium is it?
    ReadDiscInformation = READ_DISC_INFORMATION, 10;
    /// What lies on a part of it?
    ReadTrackInformation = READ_TRACK_INFORMATION, 10;
    /// Parameters.
    ModeSense10 = MODE_SENSE_10, 10;
    /// Check that it can be read.
    Verify16 = VERIFY_16, 16;
    /// Flush.
    SynchronizeCache16 = SYNCHRONIZE_CACHE_16, 16;
    /// Write one block many times.
    WriteSame16 = WRITE_SAME_16, 16;
    /// How large, among others.
    ServiceActionIn16 = SERVICE_ACTION_IN_16, 16;
    /// Which units are there?
    ReportLuns = REPORT_LUNS, 12;
}

/// A command.
#[derive(Clone, Copy, Debug)]
pub struct Cdb {
    /// What it is.
    pub operation: Operation,
    bytes: [u8; MAX_CDB],
}

/// Blocks of the medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocks {
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u32,
}

impl Cdb {
    /// The command in `bytes`, of which `length` count.
    pub fn parse(bytes: &[u8; MAX_CDB], length: u8) -> Result<Self, Sense> {
        let (operation, needed) = Operation::decode(bytes[0]).ok_or(Sense::INVALID_COMMAND)?;
        if usize::from(length) < needed {
            return Err(Sense::INVALID_FIELD);
        }
        Ok(Self {
            operation,
            bytes: *bytes,
        })
    }

    /// Byte `at`.
    pub const fn byte(&self, at: usize) -> u8 {
        self.bytes[at]
    }

    /// The 16 bits at `at`.
    pub const fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// The 32 bits at `at`.
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes(core::array::from_fn(|byte| self.bytes[at + byte]))
    }

    /// The 64 bits at `at`.
    pub fn u64(&self, at: usize) -> u64 {
        u64::from_be_bytes(core::array::from_fn(|byte| self.bytes[at + byte]))
    }

    /// The blocks that a command on blocks names.
    pub fn blocks(&self) -> Blocks {
        use Operation::*;
        match self.operation {
            Verify16 | SynchronizeCache16 | WriteSame16 => Blocks {
                first: self.u64(2),
                count: self.u32(10),
            },
            _ => Blocks {
                first: self.u32(2).into(),
                count: self.u16(7).into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_are_cut_or_unknown_are_refused() {
        let mut cdb = [0; MAX_CDB];
        cdb[0] = 0x35;
        assert_eq!(Cdb::parse(&cdb, 9).unwrap_err(), Sense::INVALID_FIELD);
        cdb[0] = 0xff;
        assert_eq!(Cdb::parse(&cdb, 16).unwrap_err(), Sense::INVALID_COMMAND);
    }
}
