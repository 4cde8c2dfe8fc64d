//! Numbers of SCSI that both ends of the storage device use (SPC-4, SBC-3, MMC-6).

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        /// Operation codes, the first byte of a command.
        pub mod operation {
            $($(#[$doc])* pub const $name: u8 = $code;)*

            /// All of them.
            pub const ALL: &[u8] = &[$($name),*];
        }
    };
}

operations! {
    /// Is it ready?
    TEST_UNIT_READY = 0x00;
    /// Sense data.
    REQUEST_SENSE = 0x03;
    /// Read.
    READ_6 = 0x08;
    /// Write.
    WRITE_6 = 0x0a;
    /// What is it?
    INQUIRY = 0x12;
    /// Parameters.
    MODE_SENSE_6 = 0x1a;
    /// Start, stop, load, eject.
    START_STOP_UNIT = 0x1b;
    /// May the medium be taken out?
    PREVENT_ALLOW = 0x1e;
    /// How large?
    READ_CAPACITY_10 = 0x25;
    /// Read.
    READ_10 = 0x28;
    /// Write.
    WRITE_10 = 0x2a;
    /// Check that it can be read.
    VERIFY_10 = 0x2f;
    /// Flush.
    SYNCHRONIZE_CACHE_10 = 0x35;
    /// Write one block many times.
    WRITE_SAME_10 = 0x41;
    /// Give up blocks.
    UNMAP = 0x42;
    /// Table of contents.
    READ_TOC = 0x43;
    /// What can the drive do?
    GET_CONFIGURATION = 0x46;
    /// What has happened to the drive?
    GET_EVENT_STATUS = 0x4a;
    /// What medium is it?
    READ_DISC_INFORMATION = 0x51;
    /// What lies on a part of the medium?
    READ_TRACK_INFORMATION = 0x52;
    /// Parameters.
    MODE_SENSE_10 = 0x5a;
    /// Read.
    READ_16 = 0x88;
    /// Write.
    WRITE_16 = 0x8a;
    /// Check that it can be read.
    VERIFY_16 = 0x8f;
    /// Flush.
    SYNCHRONIZE_CACHE_16 = 0x91;
    /// Write one block many times.
    WRITE_SAME_16 = 0x93;
    /// How large, among others.
    SERVICE_ACTION_IN_16 = 0x9e;
    /// Which units are there?
    REPORT_LUNS = 0xa0;
    /// Read.
    READ_12 = 0xa8;
    /// Write.
    WRITE_12 = 0xaa;
}

/// Service action of [`operation::SERVICE_ACTION_IN_16`]: how large?
pub const READ_CAPACITY_16: u8 = 0x10;
/// Bit of byte 1 of reads and writes: the medium itself.
pub const FORCE_UNIT_ACCESS: u8 = 1 << 3;

/// Types of unit.
pub mod device_type {
    /// A disk.
    pub const DISK: u8 = 0;
    /// A CD or DVD drive.
    pub const OPTICAL: u8 = 5;
}

/// Pages of vital product data.
pub mod vital {
    /// Which pages there are.
    pub const LIST: u8 = 0x00;
    /// The serial number.
    pub const SERIAL: u8 = 0x80;
    /// Names for ever.
    pub const IDENTIFICATION: u8 = 0x83;
    /// Limits of commands on blocks.
    pub const BLOCK_LIMITS: u8 = 0xb0;
    /// What the medium is like.
    pub const CHARACTERISTICS: u8 = 0xb1;
    /// Whether blocks can be given up.
    pub const PROVISIONING: u8 = 0xb2;
}

/// Mode pages.
pub mod mode {
    /// The write cache.
    pub const CACHING: u8 = 0x08;
    /// How commands are carried out.
    pub const CONTROL: u8 = 0x0a;
    /// What an optical drive can do.
    pub const CAPABILITIES: u8 = 0x2a;
    /// All pages.
    pub const ALL: u8 = 0x3f;
}

/// Bit of the caching page: what is written may be lost before a flush.
pub const WRITE_CACHE: u8 = 1 << 2;
/// Bit of a mode header's parameter: the medium must not be written.
pub const WRITE_PROTECTED: u8 = 0x80;

/// Sense keys: kinds of failure.
pub mod sense_key {
    /// None.
    pub const NONE: u8 = 0x0;
    /// Not ready.
    pub const NOT_READY: u8 = 0x2;
    /// The medium is bad.
    pub const MEDIUM_ERROR: u8 = 0x3;
    /// The device has failed.
    pub const HARDWARE_ERROR: u8 = 0x4;
    /// The request makes no sense.
    pub const ILLEGAL_REQUEST: u8 = 0x5;
    /// Something has changed.
    pub const UNIT_ATTENTION: u8 = 0x6;
    /// It must not be written.
    pub const DATA_PROTECT: u8 = 0x7;
    /// Given up, may be tried again.
    pub const ABORTED: u8 = 0xb;
}

/// Response code of sense data in fixed form, of a current error.
pub const SENSE_FIXED: u8 = 0x70;
/// Response code of sense data in descriptor form, of a current error.
pub const SENSE_DESCRIPTOR: u8 = 0x72;
/// Flag of the response code in fixed form: the information field holds a block.
pub const SENSE_VALID: u8 = 0x80;
