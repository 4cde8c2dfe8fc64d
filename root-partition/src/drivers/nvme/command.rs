//! Commands and their completions as they lie in the queues (NVM Express Base 2.0, 3.3.3; NVM Command Set 1.0, 3).

use vsp::storage::disk::{DiskError, Durability};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a submission queue's entry.
pub const COMMAND: usize = 64;
/// Bytes of a completion queue's entry.
pub const COMPLETION: usize = 16;

/// An entry of a submission queue.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Command {
    /// Opcode.
    pub opcode: u8,
    /// Zero: no fused command, data by PRP.
    pub flags: u8,
    /// Comes back in the completion.
    pub id: u16,
    /// Namespace; all ones: all of them.
    pub namespace: u32,
    /// Zero here.
    pub words_2_and_3: [u32; 2],
    /// Zero: no metadata.
    pub metadata: u64,
    /// First page, from its first byte that counts.
    pub prp1: u64,
    /// Second page, or the list of all but the first.
    pub prp2: u64,
    /// What the opcode makes of them: command dwords 10 to 15.
    pub words: [u32; 6],
}
const _: () = assert!(size_of::<Command>() == COMMAND);

/// All namespaces.
pub const ALL_NAMESPACES: u32 = u32::MAX;

// Opcodes of the admin queue.
const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
const CREATE_COMPLETION_QUEUE: u8 = 0x05;
const IDENTIFY: u8 = 0x06;
const ABORT: u8 = 0x08;
const SET_FEATURES: u8 = 0x09;

// Opcodes of the NVM command set.
const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const DATASET_MANAGEMENT: u8 = 0x09;

const FEATURE_NUMBER_OF_QUEUES: u32 = 0x07;
/// A queue's pages lie in a row.
const CONTIGUOUS: u32 = 1 << 0;
/// A completion queue raises interrupts.
const INTERRUPTS: u32 = 1 << 1;
const FORCE_UNIT_ACCESS: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 2;

/// What `Identify` tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// One namespace.
    Namespace(u32),
    /// The controller.
    Controller,
    /// The ids of active namespaces above this one.
    NamespacesAbove(u32),
}

impl Command {
    fn admin(opcode: u8, words: [u32; 6]) -> Self {
        Self {
            opcode,
            words,
            ..Self::default()
        }
    }

    fn nvm(opcode: u8, namespace: u32, words: [u32; 6]) -> Self {
        Self {
            opcode,
            namespace,
            words,
            ..Self::default()
        }
    }

    /// Asks for 4096 bytes about `subject`.
    pub fn identify(subject: Subject) -> Self {
        let (kind, namespace) = match subject {
            Subject::Namespace(id) => (0, id),
            Subject::Controller => (1, 0),
            Subject::NamespacesAbove(id) => (2, id),
        };
        Self::nvm(IDENTIFY, namespace, [kind, 0, 0, 0, 0, 0])
    }

    /// Asks for `pairs` I/O queue pairs, at least 1. The completion tells what is granted: [`granted_pairs`].
    pub fn set_queue_pairs(pairs: u16) -> Self {
        let wanted = u32::from(pairs.max(1) - 1);
        Self::admin(
            SET_FEATURES,
            [FEATURE_NUMBER_OF_QUEUES, wanted << 16 | wanted, 0, 0, 0, 0],
        )
    }

    /// Makes completion queue `queue` of `entries` entries at `address`, which raises interrupt `line`.
    pub fn create_completion_queue(queue: u16, entries: u16, address: u64, line: u16) -> Self {
        let size = u32::from(entries - 1) << 16 | u32::from(queue);
        let how = u32::from(line) << 16 | INTERRUPTS | CONTIGUOUS;
        Self {
            prp1: address,
            ..Self::admin(CREATE_COMPLETION_QUEUE, [size, how, 0, 0, 0, 0])
        }
    }

    /// Makes submission queue `queue`, whose completions go to the completion queue of the same number.
    pub fn create_submission_queue(queue: u16, entries: u16, address: u64) -> Self {
        let size = u32::from(entries - 1) << 16 | u32::from(queue);
        let how = u32::from(queue) << 16 | CONTIGUOUS;
        Self {
            prp1: address,
            ..Self::admin(CREATE_SUBMISSION_QUEUE, [size, how, 0, 0, 0, 0])
        }
    }

    /// Gives up the command `id` of submission queue `queue`, if the controller still can.
    pub fn abort(queue: u16, id: u16) -> Self {
        Self::admin(ABORT, [u32::from(id) << 16 | u32::from(queue), 0, 0, 0, 0, 0])
    }

    /// Reads `sectors` sectors (1 to 65536) from `sector` on.
    pub fn read(namespace: u32, sector: u64, sectors: u32) -> Self {
        Self::nvm(READ, namespace, range(sector, sectors, 0))
    }

    /// Writes `sectors` sectors (1 to 65536) from `sector` on.
    pub fn write(namespace: u32, sector: u64, sectors: u32, durability: Durability) -> Self {
        let control = match durability {
            Durability::Cached => 0,
            Durability::OnMedium => FORCE_UNIT_ACCESS,
        };
        Self::nvm(WRITE, namespace, range(sector, sectors, control))
    }

    /// Brings the volatile write cache to the medium.
    pub fn flush(namespace: u32) -> Self {
        Self::nvm(FLUSH, namespace, [0; 6])
    }

    /// Gives up the sectors of the one [`Range`] that is its data.
    pub fn deallocate(namespace: u32) -> Self {
        Self::nvm(DATASET_MANAGEMENT, namespace, [0, DEALLOCATE, 0, 0, 0, 0])
    }
}

fn range(sector: u64, sectors: u32, control: u32) -> [u32; 6] {
    let count = sectors.saturating_sub(1) & 0xffff;
    [sector as u32, (sector >> 32) as u32, count | control, 0, 0, 0]
}

/// I/O queue pairs that the completion of [`Command::set_queue_pairs`] grants.
pub fn granted_pairs(result: u32) -> u16 {
    let granted = (result & 0xffff).min(result >> 16) + 1;
    granted.min(u32::from(u16::MAX)) as u16
}

/// A range of sectors for dataset management.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Range {
    /// Hints, none here.
    pub attributes: u32,
    /// Sectors.
    pub sectors: u32,
    /// The first.
    pub first: u64,
}
const _: () = assert!(size_of::<Range>() == 16);

/// An entry of a completion queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// What the command returns.
    pub result: u32,
    /// The command's id.
    pub id: u16,
    /// How it ended.
    pub status: Status,
}

/// How a command ended: code in bits 7:0, type in bits 10:8, "do not retry" in bit 14.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// It was done.
    pub const SUCCESS: Self = Self(0);
    /// An opcode that the controller does not have.
    pub const INVALID_OPCODE: Self = Self(0x001);
    /// A field that it does not like.
    pub const INVALID_FIELD: Self = Self(0x002);
    /// It was given up by `Abort`.
    pub const ABORT_REQUESTED: Self = Self(0x007);
    /// It was given up as its queue was deleted.
    pub const QUEUE_DELETED: Self = Self(0x008);
    /// There is no such namespace.
    pub const INVALID_NAMESPACE: Self = Self(0x00b);
    /// The namespace is write protected.
    pub const WRITE_PROTECTED: Self = Self(0x020);
    /// Sectors behind the namespace's end.
    pub const OUT_OF_RANGE: Self = Self(0x080);
    /// The medium is full.
    pub const CAPACITY_EXCEEDED: Self = Self(0x081);
    /// The namespace cannot be used now.
    pub const NOT_READY: Self = Self(0x082);
    /// Sectors that are read-only.
    pub const READ_ONLY_RANGE: Self = Self(0x182);
    /// The medium could not be written.
    pub const WRITE_FAULT: Self = Self(0x280);
    /// The medium could not be read.
    pub const UNRECOVERED_READ: Self = Self(0x281);

    /// Type and code, without the bits that say what to do about it.
    pub const fn code(self) -> Self {
        Self(self.0 & 0x7ff)
    }

    /// Whether the command was done.
    pub const fn is_success(self) -> bool {
        self.code().0 == 0
    }
}

impl core::fmt::Debug for Status {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "status {:x}h/{:02x}h", self.0 >> 8 & 7, self.0 & 0xff)
    }
}

/// What a command was to do, for [`Status::error`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Read from this sector on.
    Read(u64),
    /// Write from this sector on.
    Write(u64),
    /// Something without data.
    Other,
}

impl Status {
    /// The error that a disk's user sees; `None` for success.
    pub fn error(self, purpose: Purpose) -> Option<DiskError> {
        Some(match self.code() {
            Self::SUCCESS => return None,
            Self::INVALID_OPCODE | Self::INVALID_FIELD => DiskError::Unsupported,
            Self::ABORT_REQUESTED | Self::QUEUE_DELETED | Self::NOT_READY => DiskError::Reset,
            Self::INVALID_NAMESPACE => DiskError::Gone,
            Self::WRITE_PROTECTED | Self::READ_ONLY_RANGE => DiskError::ReadOnly,
            Self::OUT_OF_RANGE => DiskError::OutOfRange,
            Self::CAPACITY_EXCEEDED => DiskError::Full,
            _ => match purpose {
                Purpose::Read(sector) => DiskError::Unreadable(sector),
                Purpose::Write(sector) => DiskError::Unwritable(sector),
                Purpose::Other => DiskError::Failed,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_lies_in_the_queue_as_the_specification_says() {
        let mut command = Command::read(7, 0x1_0000_0002, 65536);
        command.id = 0x1234;
        let bytes = command.as_bytes();
        assert_eq!(bytes[..8], [2, 0, 0x34, 0x12, 7, 0, 0, 0]);
        assert_eq!(bytes[40..52], [2, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0, 0]);
    }

    #[test]
    fn a_write_to_the_medium_asks_for_force_unit_access() {
        assert_eq!(Command::write(1, 0, 1, Durability::OnMedium).words[2], 1 << 30);
        assert_eq!(Command::write(1, 0, 8, Durability::Cached).words[2], 7);
    }

    #[test]
    fn queues_are_made_with_their_numbers_sizes_and_lines() {
        let completion = Command::create_completion_queue(3, 64, 0x5000, 4);
        assert_eq!(
            (completion.prp1, completion.words[0], completion.words[1]),
            (0x5000, 63 << 16 | 3, 4 << 16 | 3)
        );
        let submission = Command::create_submission_queue(3, 64, 0x6000);
        assert_eq!(
            (submission.words[0], submission.words[1]),
            (63 << 16 | 3, 3 << 16 | 1)
        );
        assert_eq!(granted_pairs(0x0003_0001), 2);
        assert_eq!(granted_pairs(u32::MAX), u16::MAX);
    }

    #[test]
    fn every_status_but_success_is_an_error_and_the_retry_bit_does_not_matter() {
        for code in 0..=0x7ff {
            assert_eq!(Status(code).error(Purpose::Other).is_none(), code == 0);
            assert_eq!(
                Status(code | 0x4000).error(Purpose::Read(5)),
                Status(code).error(Purpose::Read(5))
            );
        }
        assert_eq!(
            Status::UNRECOVERED_READ.error(Purpose::Read(5)),
            Some(DiskError::Unreadable(5))
        );
        assert_eq!(
            Status::WRITE_FAULT.error(Purpose::Write(6)),
            Some(DiskError::Unwritable(6))
        );
    }
}
