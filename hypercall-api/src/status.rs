//! Hypercall status codes (TLFS, appendix "Hypercall Status Codes").

use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Status of a hypercall. An open set: a code that we do not know is data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct HvStatus(pub u16);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl HvStatus {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// A sentence for a person.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    _ => "unknown status",
                }
            }
        }
    };
}

statuses! {
    /// The call did what was asked.
    SUCCESS = 0, "success";
    /// No such call code.
    INVALID_HYPERCALL_CODE = 0x2, "invalid hypercall code";
    /// Rep counts, variable header size or reserved control bits are wrong for the call.
    INVALID_HYPERCALL_INPUT = 0x3, "invalid hypercall input";
    /// A parameter block is not 8-byte aligned or crosses a page.
    INVALID_ALIGNMENT = 0x4, "invalid alignment";
    /// A parameter has a value that it must not have.
    INVALID_PARAMETER = 0x5, "invalid parameter";
    /// The caller lacks the privilege.
    ACCESS_DENIED = 0x6, "access denied";
    /// The partition is not in a state that allows the call.
    INVALID_PARTITION_STATE = 0x7, "invalid partition state";
    /// The operation is not allowed now.
    OPERATION_DENIED = 0x8, "operation denied";
    /// No such property.
    UNKNOWN_PROPERTY = 0x9, "unknown property";
    /// A property value is outside its range.
    PROPERTY_VALUE_OUT_OF_RANGE = 0xa, "property value out of range";
    /// More memory has to be deposited first.
    INSUFFICIENT_MEMORY = 0xb, "insufficient memory";
    /// No such partition.
    INVALID_PARTITION_ID = 0xd, "invalid partition id";
    /// No such virtual processor.
    INVALID_VP_INDEX = 0xe, "invalid VP index";
    /// A partition cannot have a parent this deep.
    PARTITION_TOO_DEEP = 0xc, "partition too deep";
    /// What was named does not exist.
    NOT_FOUND = 0x10, "not found";
    /// No such port.
    INVALID_PORT_ID = 0x11, "invalid port id";
    /// No such connection.
    INVALID_CONNECTION_ID = 0x12, "invalid connection id";
    /// No buffer is free for the message.
    INSUFFICIENT_BUFFERS = 0x13, "insufficient buffers";
    /// An interrupt has not been acknowledged.
    NOT_ACKNOWLEDGED = 0x14, "not acknowledged";
    /// The VP is not in a state that allows the call.
    INVALID_VP_STATE = 0x15, "invalid VP state";
    /// What was named is in use.
    OBJECT_IN_USE = 0x19, "object in use";
    /// Proximity domain information is wrong.
    INVALID_PROXIMITY_DOMAIN_INFO = 0x1a, "invalid proximity domain information";
    /// There is nothing to return.
    NO_DATA = 0x1b, "no data";
    /// A resource of the hypervisor is used up.
    NO_RESOURCES = 0x1d, "no resources";
    /// The feature is not available.
    FEATURE_UNAVAILABLE = 0x1e, "feature unavailable";
    /// The processor does not have the feature.
    PROCESSOR_FEATURE_NOT_SUPPORTED = 0x20, "processor feature not supported";
    /// No such logical processor.
    INVALID_LP_INDEX = 0x41, "invalid LP index";
    /// A register cannot take the value.
    INVALID_REGISTER_VALUE = 0x50, "invalid register value";
    /// No such device.
    INVALID_DEVICE_ID = 0x57, "invalid device id";
    /// The device is another's, or not attached.
    INVALID_DEVICE_STATE = 0x58, "invalid device state";
    /// The hypervisor's own reserve is used up; the root has to deposit for itself.
    INSUFFICIENT_ROOT_MEMORY = 0x73, "insufficient root memory";
    /// No such register.
    UNKNOWN_REGISTER_NAME = 0x87, "unknown register name";
    /// The operation failed.
    OPERATION_FAILED = 0x71, "operation failed";
    /// The call took too long.
    TIMEOUT = 0x78, "time-out";
    /// The call goes on; a message will tell its end.
    CALL_PENDING = 0x79, "call pending";
}

impl HvStatus {
    /// `Ok` for [`SUCCESS`](Self::SUCCESS), the status itself as the error otherwise.
    pub const fn ok(self) -> Result<(), Self> {
        match self {
            Self::SUCCESS => Ok(()),
            error => Err(error),
        }
    }
}

impl fmt::Debug for HvStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HvStatus({:#x}, {})", self.0, self.text())
    }
}

impl fmt::Display for HvStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (status {:#x})", self.text(), self.0)
    }
}

impl core::error::Error for HvStatus {}
