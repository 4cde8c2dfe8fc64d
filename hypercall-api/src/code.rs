//! Hypercall codes (TLFS, "Hypercall Code Reference"). Which of them the hypervisor handles, and with which privilege,
//! stands in its own table.

use core::fmt;

/// Code of a hypercall. An open set: a code that we do not know is answered, not trusted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct HypercallCode(pub u16);

macro_rules! codes {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl HypercallCode {
            $(#[doc = concat!("`HvCall", $text, "`.")] pub const $name: Self = Self($value);)*

            /// The specification's name, without `HvCall`.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    GET_LOGICAL_PROCESSOR_RUN_TIME = 0x0004, "GetLogicalProcessorRunTime";
    GET_PARTITION_ID = 0x0046, "GetPartitionId";
    POST_MESSAGE = 0x005c, "PostMessage";
    SIGNAL_EVENT = 0x005d, "SignalEvent";
    MAP_STATS_PAGE = 0x006c, "MapStatsPage";
    UNMAP_STATS_PAGE = 0x006d, "UnmapStatsPage";
    SET_SYSTEM_PROPERTY = 0x006f, "SetSystemProperty";
    GET_SYSTEM_PROPERTY = 0x007b, "GetSystemProperty";
    MAP_DEVICE_INTERRUPT = 0x007c, "MapDeviceInterrupt";
    UNMAP_DEVICE_INTERRUPT = 0x007d, "UnmapDeviceInterrupt";
    ENTER_SLEEP_STATE = 0x0084, "EnterSleepState";
    START_VIRTUAL_PROCESSOR = 0x0099, "StartVirtualProcessor";
    PARTITA_QUERY_SYSTEM = 0x7f00, "PartitaQuerySystem";
    PARTITA_READ_LOG = 0x7f01, "PartitaReadLog";
}

impl fmt::Debug for HypercallCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({:#06x})", self.0),
            None => write!(f, "{:#06x}", self.0),
        }
    }
}
