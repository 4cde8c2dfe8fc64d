//! Messages of the storage device: vstor packets, which carry SCSI requests. All are in band or GPA-direct, and all answers
//! are completions that hold a whole [`Packet`].

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// What a packet asks for, or says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Operation(pub u32);

impl Operation {
    /// The answer to any other.
    pub const COMPLETE_IO: Self = Self(1);
    /// A device has gone (host to guest).
    pub const REMOVE_DEVICE: Self = Self(2);
    /// A SCSI request.
    pub const EXECUTE_SRB: Self = Self(3);
    /// Give up the requests of a logical unit.
    pub const RESET_LUN: Self = Self(4);
    /// Give up all requests.
    pub const RESET_ADAPTER: Self = Self(5);
    /// Give up all requests.
    pub const RESET_BUS: Self = Self(6);
    /// The guest begins to set the controller up.
    pub const BEGIN_INITIALIZATION: Self = Self(7);
    /// It has.
    pub const END_INITIALIZATION: Self = Self(8);
    /// Do you speak this version?
    pub const QUERY_PROTOCOL_VERSION: Self = Self(9);
    /// What can you do?
    pub const QUERY_PROPERTIES: Self = Self(10);
    /// Look for devices anew (host to guest).
    pub const ENUMERATE_BUS: Self = Self(11);
    /// Data of a Fibre Channel adapter.
    pub const FCHBA_DATA: Self = Self(12);
    /// Offer more channels.
    pub const CREATE_SUB_CHANNELS: Self = Self(13);
}

/// How an operation ended: an NTSTATUS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Status(pub u32);

impl Status {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// Not done.
    pub const UNSUCCESSFUL: Self = Self(0xc000_0001);
    /// A field has a value that it must not have.
    pub const INVALID_PARAMETER: Self = Self(0xc000_000d);
    /// The version is not spoken.
    pub const REVISION_MISMATCH: Self = Self(0xc000_0059);
    /// The operation is not known.
    pub const NOT_SUPPORTED: Self = Self(0xc000_00bb);
}

/// Flag of a packet: the sender waits for a completion.
pub const REQUEST_COMPLETION: u32 = 1;
/// Bytes of a packet's variable part.
pub const BODY: usize = 52;

/// A packet.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Packet {
    /// What it asks for.
    pub operation: Operation,
    /// [`REQUEST_COMPLETION`].
    pub flags: u32,
    /// How it ended, in an answer.
    pub status: Status,
    /// What the operation says; see [`Packet::body`].
    pub body: [u8; BODY],
}
const _: () = assert!(size_of::<Packet>() == 64);

impl Packet {
    /// A packet with `body` at its beginning, the rest zero.
    pub fn new<T: IntoBytes + Immutable>(operation: Operation, flags: u32, body: &T) -> Self {
        let mut packet = Self::new_zeroed();
        packet.operation = operation;
        packet.flags = flags;
        packet.set_body(body);
        packet
    }

    /// The body as that of its operation, which is not longer than [`BODY`].
    pub fn body<T: FromBytes>(&self) -> T {
        const { assert!(size_of::<T>() <= BODY) };
        T::read_from_prefix(&self.body).map_or_else(|_| T::new_zeroed(), |(body, _)| body)
    }

    /// The body as that of its operation, in place.
    #[inline]
    pub fn body_ref<T: FromBytes + Immutable + KnownLayout>(&self) -> Option<&T> {
        const { assert!(size_of::<T>() <= BODY && align_of::<T>() <= align_of::<Self>()) };
        T::ref_from_prefix(&self.body).ok().map(|(body, _)| body)
    }

    /// The body as that of its operation, in place.
    #[inline]
    pub fn body_mut<T: FromBytes + IntoBytes + KnownLayout>(&mut self) -> Option<&mut T> {
        const { assert!(size_of::<T>() <= BODY && align_of::<T>() <= align_of::<Self>()) };
        T::mut_from_prefix(&mut self.body).ok().map(|(body, _)| body)
    }

    /// Sets the beginning of the body.
    pub fn set_body<T: IntoBytes + Immutable>(&mut self, body: &T) {
        const { assert!(size_of::<T>() <= BODY) };
        self.body[..size_of::<T>()].copy_from_slice(body.as_bytes());
    }
}

/// A version of the protocol.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Version(pub u16);

impl Version {
    /// 5.1, of Windows Server 2012.
    pub const V5_1: Self = Self(0x0501);
    /// 6.0, of Windows Server 2012 R2.
    pub const V6_0: Self = Self(0x0600);
    /// 6.2, of Windows Server 2016.
    pub const V6_2: Self = Self(0x0602);
    /// All that have requests of the size that [`ScsiRequest`] has, the newest first.
    pub const ALL: [Self; 3] = [Self::V6_2, Self::V6_0, Self::V5_1];
}

/// Body of [`Operation::QUERY_PROTOCOL_VERSION`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ProtocolVersion {
    /// The version.
    pub version: Version,
    /// Zero.
    pub revision: u16,
}
const _: () = assert!(size_of::<ProtocolVersion>() == 4);

/// Flag of [`Properties`]: sub-channels can be had.
pub const MULTI_CHANNEL: u32 = 1;

/// Answer to [`Operation::QUERY_PROPERTIES`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed(4))]
pub struct Properties {
    /// Zero.
    pub reserved: u32,
    /// Sub-channels that can be had.
    pub max_channels: u16,
    /// Zero.
    pub reserved1: u16,
    /// [`MULTI_CHANNEL`].
    pub flags: u32,
    /// Largest request, in bytes; a multiple of a page.
    pub max_transfer_bytes: u32,
    /// Zero.
    pub reserved2: u64,
}
const _: () = assert!(size_of::<Properties>() == 24);

/// Body of [`Operation::CREATE_SUB_CHANNELS`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CreateSubChannels {
    /// How many.
    pub count: u16,
    /// Zero.
    pub reserved: u16,
}

/// How a SCSI request ended for the controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct SrbStatus(pub u8);

impl SrbStatus {
    /// Not yet.
    pub const PENDING: Self = Self(0);
    /// Done.
    pub const SUCCESS: Self = Self(1);
    /// The unit says why not.
    pub const ERROR: Self = Self(4);
    /// The request makes no sense.
    pub const INVALID_REQUEST: Self = Self(6);
    /// There is no such unit any more.
    pub const NO_DEVICE: Self = Self(8);
    /// There is no such target.
    pub const SELECTION_TIMEOUT: Self = Self(0x0a);
    /// There were more data than room for them.
    pub const DATA_OVERRUN: Self = Self(0x12);
    /// There is no such unit.
    pub const INVALID_LUN: Self = Self(0x20);
    /// With another: the request holds sense data.
    pub const AUTOSENSE_VALID: u8 = 0x80;

    /// This, with sense data.
    pub const fn with_sense(self) -> Self {
        Self(self.0 | Self::AUTOSENSE_VALID)
    }

    /// Without the flags.
    pub const fn code(self) -> Self {
        Self(self.0 & 0x3f)
    }

    /// Whether the request holds sense data.
    pub const fn has_sense(self) -> bool {
        self.0 & Self::AUTOSENSE_VALID != 0
    }
}

/// How a SCSI request ended for the unit (SAM, "Status").
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct ScsiStatus(pub u8);

impl ScsiStatus {
    /// Done.
    pub const GOOD: Self = Self(0);
    /// See the sense data.
    pub const CHECK_CONDITION: Self = Self(2);
}

/// Which way data go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct DataDirection(pub u8);

impl DataDirection {
    /// From the guest.
    pub const WRITE: Self = Self(0);
    /// To the guest.
    pub const READ: Self = Self(1);
    /// There are none.
    pub const NONE: Self = Self(2);
}

/// Bytes that are a command in a request, and sense data in its answer.
pub const CDB_AND_SENSE: usize = 20;
/// Longest command.
pub const MAX_CDB: usize = 16;

/// Body of [`Operation::EXECUTE_SRB`], and of its answer.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ScsiRequest {
    /// Its own size.
    pub length: u16,
    /// How it ended.
    pub srb_status: SrbStatus,
    /// How it ended for the unit.
    pub scsi_status: ScsiStatus,
    /// Number of the controller, as the guest counts.
    pub port: u8,
    /// Path of the target.
    pub path: u8,
    /// The target.
    pub target: u8,
    /// The logical unit.
    pub lun: u8,
    /// Bytes of the command.
    pub cdb_length: u8,
    /// Bytes of sense data: room for them in a request, those that there are in an answer.
    pub sense_length: u8,
    /// Which way data go.
    pub direction: DataDirection,
    /// Zero.
    pub reserved: u8,
    /// Bytes of data: room for them in a request, those that went in an answer.
    pub transfer_length: u32,
    /// The command; in an answer, the sense data.
    pub cdb: [u8; CDB_AND_SENSE],
    /// Zero.
    pub reserved1: u16,
    /// Queue tag.
    pub queue_tag: u8,
    /// Queue action.
    pub queue_action: u8,
    /// SRB flags.
    pub srb_flags: u32,
    /// Seconds that the guest will wait.
    pub time_out: u32,
    /// Sort key.
    pub queue_sort_key: u32,
}
const _: () = assert!(size_of::<ScsiRequest>() == BODY);
