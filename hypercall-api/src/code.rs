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

            /// Every code that has a name, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

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
    FLUSH_VIRTUAL_ADDRESS_SPACE = 0x0002, "FlushVirtualAddressSpace";
    FLUSH_VIRTUAL_ADDRESS_LIST = 0x0003, "FlushVirtualAddressList";
    GET_LOGICAL_PROCESSOR_RUN_TIME = 0x0004, "GetLogicalProcessorRunTime";
    NOTIFY_LONG_SPIN_WAIT = 0x0008, "NotifyLongSpinWait";
    SEND_SYNTHETIC_CLUSTER_IPI = 0x000b, "SendSyntheticClusterIpi";
    FLUSH_VIRTUAL_ADDRESS_SPACE_EX = 0x0013, "FlushVirtualAddressSpaceEx";
    FLUSH_VIRTUAL_ADDRESS_LIST_EX = 0x0014, "FlushVirtualAddressListEx";
    SEND_SYNTHETIC_CLUSTER_IPI_EX = 0x0015, "SendSyntheticClusterIpiEx";
    CREATE_PARTITION = 0x0040, "CreatePartition";
    INITIALIZE_PARTITION = 0x0041, "InitializePartition";
    FINALIZE_PARTITION = 0x0042, "FinalizePartition";
    DELETE_PARTITION = 0x0043, "DeletePartition";
    GET_PARTITION_PROPERTY = 0x0044, "GetPartitionProperty";
    SET_PARTITION_PROPERTY = 0x0045, "SetPartitionProperty";
    GET_PARTITION_ID = 0x0046, "GetPartitionId";
    GET_NEXT_CHILD_PARTITION = 0x0047, "GetNextChildPartition";
    DEPOSIT_MEMORY = 0x0048, "DepositMemory";
    WITHDRAW_MEMORY = 0x0049, "WithdrawMemory";
    GET_MEMORY_BALANCE = 0x004a, "GetMemoryBalance";
    MAP_GPA_PAGES = 0x004b, "MapGpaPages";
    UNMAP_GPA_PAGES = 0x004c, "UnmapGpaPages";
    INSTALL_INTERCEPT = 0x004d, "InstallIntercept";
    CREATE_VP = 0x004e, "CreateVp";
    DELETE_VP = 0x004f, "DeleteVp";
    GET_VP_REGISTERS = 0x0050, "GetVpRegisters";
    SET_VP_REGISTERS = 0x0051, "SetVpRegisters";
    TRANSLATE_VIRTUAL_ADDRESS = 0x0052, "TranslateVirtualAddress";
    READ_GPA = 0x0053, "ReadGpa";
    WRITE_GPA = 0x0054, "WriteGpa";
    CLEAR_VIRTUAL_INTERRUPT = 0x0056, "ClearVirtualInterrupt";
    DELETE_PORT = 0x0058, "DeletePort";
    DISCONNECT_PORT = 0x005b, "DisconnectPort";
    POST_MESSAGE = 0x005c, "PostMessage";
    SIGNAL_EVENT = 0x005d, "SignalEvent";
    MAP_STATS_PAGE = 0x006c, "MapStatsPage";
    UNMAP_STATS_PAGE = 0x006d, "UnmapStatsPage";
    SET_SYSTEM_PROPERTY = 0x006f, "SetSystemProperty";
    ADD_LOGICAL_PROCESSOR = 0x0076, "AddLogicalProcessor";
    GET_SYSTEM_PROPERTY = 0x007b, "GetSystemProperty";
    MAP_DEVICE_INTERRUPT = 0x007c, "MapDeviceInterrupt";
    UNMAP_DEVICE_INTERRUPT = 0x007d, "UnmapDeviceInterrupt";
    RETARGET_DEVICE_INTERRUPT = 0x007e, "RetargetDeviceInterrupt";
    ENTER_SLEEP_STATE = 0x0084, "EnterSleepState";
    NOTIFY_PARTITION_EVENT = 0x0087, "NotifyPartitionEvent";
    NOTIFY_PORT_RING_EMPTY = 0x008b, "NotifyPortRingEmpty";
    REGISTER_INTERCEPT_RESULT = 0x0091, "RegisterInterceptResult";
    ASSERT_VIRTUAL_INTERRUPT = 0x0094, "AssertVirtualInterrupt";
    CREATE_PORT = 0x0095, "CreatePort";
    CONNECT_PORT = 0x0096, "ConnectPort";
    START_VIRTUAL_PROCESSOR = 0x0099, "StartVirtualProcessor";
    GET_VP_INDEX_FROM_APIC_ID = 0x009a, "GetVpIndexFromApicId";
    TRANSLATE_VIRTUAL_ADDRESS_EX = 0x00ac, "TranslateVirtualAddressEx";
    CREATE_DEVICE_DOMAIN = 0x00b1, "CreateDeviceDomain";
    ATTACH_DEVICE_DOMAIN = 0x00b2, "AttachDeviceDomain";
    MAP_DEVICE_GPA_PAGES = 0x00b3, "MapDeviceGpaPages";
    UNMAP_DEVICE_GPA_PAGES = 0x00b4, "UnmapDeviceGpaPages";
    SIGNAL_EVENT_DIRECT = 0x00c0, "SignalEventDirect";
    POST_MESSAGE_DIRECT = 0x00c1, "PostMessageDirect";
    DISPATCH_VP = 0x00c2, "DispatchVp";
    DETACH_DEVICE_DOMAIN = 0x00c4, "DetachDeviceDomain";
    DELETE_DEVICE_DOMAIN = 0x00c5, "DeleteDeviceDomain";
    GET_GPA_PAGES_ACCESS_STATES = 0x00c9, "GetGpaPagesAccessStates";
    MAP_VP_STATE_PAGE = 0x00e1, "MapVpStatePage";
    UNMAP_VP_STATE_PAGE = 0x00e2, "UnmapVpStatePage";
    GET_VP_STATE = 0x00e3, "GetVpState";
    SET_VP_STATE = 0x00e4, "SetVpState";
    GET_VP_CPUID_VALUES = 0x00f4, "GetVpCpuidValues";
    GET_PARTITION_PROPERTY_EX = 0x0101, "GetPartitionPropertyEx";
    PARTITA_QUERY_SYSTEM = 0x7f00, "PartitaQuerySystem";
    PARTITA_READ_LOG = 0x7f01, "PartitaReadLog";
    PARTITA_QUERY_IOMMU = 0x7f02, "PartitaQueryIommu";
}

impl fmt::Debug for HypercallCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({:#06x})", self.0),
            None => write!(f, "{:#06x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_so_that_none_stands_twice() {
        assert!(HypercallCode::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
