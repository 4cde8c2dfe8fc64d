//! The table of hypercalls: code, layouts, privilege and handler of each. It is the reference documentation too.

use super::call::{Call, Form};
use super::{
    device, flush, interrupt, memory, operator, partition, port, processor, registers, state, system,
};
use crate::partition::vp::Vp;
use hypercall_api::code::HypercallCode;
use hypercall_api::privilege::Privileges;
use hypercall_api::status::HvStatus;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use hypercall_api::access::{
    ReadGpa, ReadGpaResult, TranslateVirtualAddress, TranslatedVirtualAddress, WriteGpa, WriteGpaResult,
};
use hypercall_api::cpuid::{CpuidLeaf, CpuidValues, GetVpCpuidValues};
use hypercall_api::device::{
    AttachDeviceDomain, CreateDeviceDomain, DetachDeviceDomain, DeviceDomain, MapDeviceGpaPages,
    UnmapDeviceGpaPages,
};
use hypercall_api::flush::{FlushVirtualAddressSpace, FlushVirtualAddressSpaceEx, SendIpi, SendIpiEx};
use hypercall_api::id::PartitionId;
use hypercall_api::intercept::{InstallIntercept, RegisterCpuidResult};
use hypercall_api::interrupt::{
    AssertVirtualInterrupt, ClearVirtualInterrupt, MapDeviceInterrupt, MappedDeviceInterrupt,
    RetargetDeviceInterrupt, UnmapDeviceInterrupt,
};
use hypercall_api::memory::{
    DepositMemory, GetMemoryBalance, MapGpaPages, MemoryBalance, UnmapGpaPages, WithdrawMemory,
};
use hypercall_api::operator::{IommuState, LogChunk, ReadLog, SystemInfo};
use hypercall_api::partition::{CreatePartition, GetPartitionProperty, SetPartitionProperty};
use hypercall_api::port::{
    ConnectPort, CreatePort, DeletePort, DisconnectPort, PostMessage, PostMessageDirect, SignalEvent,
    SignalEventDirect, SignaledEventDirect,
};
use hypercall_api::processor::{
    CreateVp, DeleteVp, GetLogicalProcessorRunTime, GetVpIndexFromApicId, LogicalProcessorRunTime,
    StartVirtualProcessor,
};
use hypercall_api::register::{RegisterAssociation, RegisterName, RegisterValue, VpRegisters};
use hypercall_api::state::{MapVpStatePage, VpState};
use hypercall_api::system::{
    EnterSleepState, GetSystemProperty, MappedStatsPage, SetSleepState, VpStatsPage,
};

/// How a call of a form finds its handler.
macro_rules! form {
    (simple $input:ty => $output:ty, $handler:path) => {
        Form::Simple(|vp, input, output| simple::<$input, $output>(vp, input, output, $handler))
    };
    (sized $input:ty => $output:ty, $handler:path) => {
        Form::Sized($handler, state::output_size)
    };
    (banked $input:ty => $output:ty, $handler:path) => {
        Form::Simple(|vp, input, _| banked::<$input>(vp, input, $handler))
    };
    (continued $input:ty => $output:ty, $handler:path) => {
        Form::Continued(|vp, input| $handler(vp, &parse::<$input>(input)?))
    };
    (rep $input:ty, [$element:ty] => $output:ty, $handler:path) => {
        Form::Rep(size_of::<$element>(), |vp, input, element, index, output| {
            let result = $handler(vp, &parse::<$input>(input)?, &parse::<$element>(element)?, index)?;
            output.copy_from_slice(result.as_bytes());
            Ok(())
        })
    };
    (batch $input:ty, [$element:ty] => $output:ty, $handler:path) => {
        Form::Batch(size_of::<$element>(), |vp, input, elements| {
            let parsed = parse::<$input>(input).and_then(|input| {
                let elements = <[$element]>::ref_from_bytes(elements);
                Ok((input, elements.map_err(|_| HvStatus::INVALID_ALIGNMENT)?))
            });
            match parsed {
                Ok((input, elements)) => $handler(vp, &input, elements),
                Err(status) => (0, Err(status)),
            }
        })
    };
}

macro_rules! hypercalls {
    ($($form:ident $code:ident $input:ty $(, [$element:ty])? => $output:ty, $header:literal, $privileges:expr, $handler:path;)*) => {
        pub(crate) const CALLS: &[Call<Vp>] = &[$(Call {
            code: HypercallCode::$code,
            input: size_of::<$input>(),
            output: size_of::<$output>(),
            variable_header: $header,
            privileges: $privileges,
            form: form!($form $input $(, [$element])? => $output, $handler),
        },)*];
    };
}

const NONE: Privileges = Privileges::empty();
const MANAGE: Privileges = Privileges::CPU_MANAGEMENT;
const CREATE: Privileges = Privileges::CREATE_PARTITIONS;
const POOL: Privileges = Privileges::ACCESS_MEMORY_POOL;
const STATS: Privileges = Privileges::ACCESS_STATS;

hypercalls! {
    // form   code                           input[, [element]] => output      variable header, privileges, handler
    simple    FLUSH_VIRTUAL_ADDRESS_SPACE    FlushVirtualAddressSpace => (),                          0, NONE,   flush::space;
    rep       FLUSH_VIRTUAL_ADDRESS_LIST     FlushVirtualAddressSpace, [u64] => (),                   0, NONE,   flush::list;
    simple    GET_LOGICAL_PROCESSOR_RUN_TIME GetLogicalProcessorRunTime => LogicalProcessorRunTime,   0, MANAGE, processor::run_time;
    simple    NOTIFY_LONG_SPIN_WAIT          u64 => (),                                               0, NONE,   processor::long_spin_wait;
    simple    SEND_SYNTHETIC_CLUSTER_IPI     SendIpi => (),                                           0, NONE,   interrupt::send_ipi;
    banked    FLUSH_VIRTUAL_ADDRESS_SPACE_EX FlushVirtualAddressSpaceEx => (),                        64, NONE,  flush::space_ex;
    rep       FLUSH_VIRTUAL_ADDRESS_LIST_EX  FlushVirtualAddressSpaceEx, [u64] => (),                 64, NONE,  flush::list_ex;
    banked    SEND_SYNTHETIC_CLUSTER_IPI_EX  SendIpiEx => (),                                         64, NONE,  interrupt::send_ipi_ex;
    simple    CREATE_PARTITION               CreatePartition => PartitionId,                          0, CREATE, partition::create;
    simple    INITIALIZE_PARTITION           PartitionId => (),                                       0, CREATE, partition::initialize;
    continued FINALIZE_PARTITION             PartitionId => (),                                       0, CREATE, partition::finalize;
    continued DELETE_PARTITION               PartitionId => (),                                       0, CREATE, partition::delete;
    simple    GET_PARTITION_PROPERTY         GetPartitionProperty => u64,                             0, CREATE, partition::get_property;
    simple    SET_PARTITION_PROPERTY         SetPartitionProperty => (),                              0, CREATE, partition::set_property;
    simple    GET_PARTITION_ID               () => PartitionId,                  0, Privileges::ACCESS_PARTITION_ID, partition::get_id;
    batch     DEPOSIT_MEMORY                 DepositMemory, [u64] => (),                              0, POOL,   memory::deposit;
    rep       WITHDRAW_MEMORY                WithdrawMemory, [()] => u64,                             0, POOL,   memory::withdraw;
    simple    GET_MEMORY_BALANCE             GetMemoryBalance => MemoryBalance,                       0, POOL,   memory::balance;
    rep       MAP_GPA_PAGES                  MapGpaPages, [u64] => (),                                0, CREATE, memory::map;
    rep       UNMAP_GPA_PAGES                UnmapGpaPages, [()] => (),                               0, CREATE, memory::unmap;
    simple    INSTALL_INTERCEPT              InstallIntercept => (),                                  0, CREATE, partition::install_intercept;
    simple    CREATE_VP                      CreateVp => (),                                          0, CREATE, processor::create;
    continued DELETE_VP                      DeleteVp => (),                                          0, CREATE, processor::delete;
    rep       GET_VP_REGISTERS               VpRegisters, [RegisterName] => RegisterValue,            0, CREATE, registers::get;
    batch     SET_VP_REGISTERS               VpRegisters, [RegisterAssociation] => (),                0, CREATE, registers::set;
    simple    TRANSLATE_VIRTUAL_ADDRESS      TranslateVirtualAddress => TranslatedVirtualAddress,      0, CREATE, memory::translate;
    simple    READ_GPA                       ReadGpa => ReadGpaResult,                                0, CREATE, memory::read_gpa;
    simple    WRITE_GPA                      WriteGpa => WriteGpaResult,                              0, CREATE, memory::write_gpa;
    simple    CLEAR_VIRTUAL_INTERRUPT        ClearVirtualInterrupt => (),                             0, CREATE, interrupt::clear;
    simple    DELETE_PORT                    DeletePort => (),                   0, Privileges::CREATE_PORT, port::delete;
    simple    DISCONNECT_PORT                DisconnectPort => (),               0, Privileges::CONNECT_PORT, port::disconnect;
    simple    POST_MESSAGE                   PostMessage => (),                  0, Privileges::POST_MESSAGES, port::post_message;
    simple    SIGNAL_EVENT                   SignalEvent => (),                  0, Privileges::SIGNAL_EVENTS, port::signal_event;
    simple    MAP_STATS_PAGE                 VpStatsPage => MappedStatsPage,                          0, STATS,  system::map_stats_page;
    simple    UNMAP_STATS_PAGE               VpStatsPage => (),                                       0, STATS,  system::unmap_stats_page;
    simple    SET_SYSTEM_PROPERTY            SetSleepState => (),                                     0, MANAGE, system::set_property;
    simple    GET_SYSTEM_PROPERTY            GetSystemProperty => u64,                                0, MANAGE, system::get_property;
    simple    MAP_DEVICE_INTERRUPT           MapDeviceInterrupt => MappedDeviceInterrupt,             1, MANAGE, interrupt::map;
    simple    UNMAP_DEVICE_INTERRUPT         UnmapDeviceInterrupt => (),                              0, MANAGE, interrupt::unmap;
    simple    RETARGET_DEVICE_INTERRUPT      RetargetDeviceInterrupt => (),                           1, MANAGE, interrupt::retarget;
    simple    ENTER_SLEEP_STATE              EnterSleepState => (),                                   0, MANAGE, system::enter_sleep_state;
    simple    REGISTER_INTERCEPT_RESULT      RegisterCpuidResult => (),                               0, CREATE, registers::register_cpuid;
    simple    ASSERT_VIRTUAL_INTERRUPT       AssertVirtualInterrupt => (),                            0, CREATE, interrupt::assert;
    simple    CREATE_PORT                    CreatePort => (),                   0, Privileges::CREATE_PORT, port::create;
    simple    CONNECT_PORT                   ConnectPort => (),                  0, Privileges::CONNECT_PORT, port::connect;
    simple    START_VIRTUAL_PROCESSOR        StartVirtualProcessor => (),           0, Privileges::START_VIRTUAL_PROCESSOR, processor::start;
    rep       GET_VP_INDEX_FROM_APIC_ID      GetVpIndexFromApicId, [u32] => u32,                      0, CREATE, processor::index_from_apic_id;
    simple    CREATE_DEVICE_DOMAIN           CreateDeviceDomain => (),                               0, MANAGE, device::create;
    continued ATTACH_DEVICE_DOMAIN           AttachDeviceDomain => (),                               0, MANAGE, device::attach;
    rep       MAP_DEVICE_GPA_PAGES           MapDeviceGpaPages, [u64] => (),                          0, MANAGE, device::map;
    rep       UNMAP_DEVICE_GPA_PAGES         UnmapDeviceGpaPages, [()] => (),                         0, MANAGE, device::unmap;
    simple    SIGNAL_EVENT_DIRECT            SignalEventDirect => SignaledEventDirect,                0, CREATE, port::signal_event_direct;
    simple    POST_MESSAGE_DIRECT            PostMessageDirect => (),                                 0, CREATE, port::post_message_direct;
    simple    DETACH_DEVICE_DOMAIN           DetachDeviceDomain => (),                                0, MANAGE, device::detach;
    continued DELETE_DEVICE_DOMAIN           DeviceDomain => (),                                      0, MANAGE, device::delete;
    simple    MAP_VP_STATE_PAGE              MapVpStatePage => u64,                                   0, CREATE, processor::map_state_page;
    simple    UNMAP_VP_STATE_PAGE            MapVpStatePage => (),                                    0, CREATE, processor::unmap_state_page;
    sized     GET_VP_STATE                   VpState => (),                                           1, CREATE, state::get;
    sized     SET_VP_STATE                   VpState => (),                                           25, CREATE, state::set;
    rep       GET_VP_CPUID_VALUES            GetVpCpuidValues, [CpuidLeaf] => CpuidValues,            0, CREATE, registers::cpuid_values;
    simple    PARTITA_QUERY_SYSTEM           () => SystemInfo,                                        0, MANAGE, operator::query_system;
    simple    PARTITA_READ_LOG               ReadLog => LogChunk,                                     0, MANAGE, operator::read_log;
    simple    PARTITA_QUERY_IOMMU            () => IommuState,                                        0, MANAGE, device::query;
}

fn parse<I: FromBytes>(bytes: &[u8]) -> Result<I, HvStatus> {
    I::read_from_prefix(bytes)
        .map(|(value, _)| value)
        .map_err(|_| HvStatus::INVALID_HYPERCALL_INPUT)
}

/// Parses the input, calls the handler, places the output.
fn simple<I, O>(
    vp: &mut Vp,
    input: &[u8],
    output: &mut [u8],
    handler: fn(&mut Vp, &I) -> Result<O, HvStatus>,
) -> Result<(), HvStatus>
where
    I: FromBytes,
    O: IntoBytes + Immutable,
{
    let result = handler(vp, &parse(input)?)?;
    output.copy_from_slice(result.as_bytes());
    Ok(())
}

/// The same for a call whose variable header is a list of processor banks.
fn banked<I: FromBytes>(
    vp: &mut Vp,
    input: &[u8],
    handler: fn(&mut Vp, &I, &[u8]) -> Result<(), HvStatus>,
) -> Result<(), HvStatus> {
    let banks = input.get(size_of::<I>()..).unwrap_or_default();
    handler(vp, &parse(input)?, banks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercall_api::address::PAGE_SIZE;

    #[test]
    fn calls_stand_in_order_and_every_block_fits_a_page() {
        assert!(CALLS.is_sorted_by(|first, second| first.code < second.code));
        for call in CALLS {
            assert!(call.input + call.variable_header as usize * 8 <= PAGE_SIZE as usize);
            assert!(call.output <= PAGE_SIZE as usize);
            assert!(call.code.name().is_some());
        }
    }
}
