//! Hypercalls: one table of calls, and the dispatcher that checks a call before its handler sees it.
//!
//! The checks run in the order privilege, form, alignment, memory, and then the handler's own; a refused call has changed
//! nothing. Handlers work on copies: parameters are copied in once, results are copied out at the end.

mod device;
mod flush;
mod interrupt;
mod memory;
mod operator;
mod partition;
mod port;
mod processor;
mod registers;
mod state;
mod system;

use crate::partition::Partition;
use crate::partition::instruction::Kind;
use crate::partition::lifecycle::Progress;
use crate::partition::vp::{Resume, Vp};
use crate::processor::local::{Page, Processor};
use crate::virtualization::general::{R8, RAX, RBX, RCX, RDI, RDX, RSI};
use crate::virtualization::{Exception, VirtualProcessor};
use hypercall_api::address::{Gpa, PAGE_SIZE};
use hypercall_api::code::HypercallCode;
use hypercall_api::control::{HypercallInput, HypercallResult};
use hypercall_api::counter;
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

/// A call that the hypervisor handles.
struct Call {
    code: HypercallCode,
    /// Bytes of input before a variable header or the list of a rep call.
    input: usize,
    /// Bytes of output; of a rep call, of each element.
    output: usize,
    /// Longest variable header, in 8-byte units.
    variable_header: u16,
    privileges: Privileges,
    form: Form,
}

/// How a call is made and carried out.
#[derive(Clone, Copy)]
enum Form {
    /// At once.
    Simple(SimpleHandler),
    /// At once, with an output whose size depends on the input.
    Sized(SimpleHandler, fn(&[u8]) -> usize),
    /// In pieces: until it is done, the caller makes the same call again and again without noticing.
    Continued(ContinuedHandler),
    /// For each element of a list, of so many bytes each.
    Rep(usize, RepHandler),
    /// For many elements of a list at once.
    Batch(usize, BatchHandler),
}

/// Takes the input, with its variable header, and the output, zeroed.
type SimpleHandler = fn(&mut Vp, &[u8], &mut [u8]) -> Result<(), HvStatus>;
/// Takes the input.
type ContinuedHandler = fn(&mut Vp, &[u8]) -> Result<Progress, HvStatus>;
/// Takes the header, an element, its index, and the element's output, zeroed.
type RepHandler = fn(&mut Vp, &[u8], &[u8], u16, &mut [u8]) -> Result<(), HvStatus>;

/// Takes the header and elements, and says how many of them were done, and what the next one failed with.
type BatchHandler = fn(&mut Vp, &[u8], &[u8]) -> (u16, Result<(), HvStatus>);

/// Elements of a rep call that are done before interrupts get their turn: one by one, and where many are cheaper at once.
const BATCH: u16 = 16;
const LONG_BATCH: u16 = 128;

macro_rules! call {
    (simple $code:ident $input:ty => $output:ty, $header:literal, $privileges:expr, $handler:path) => {
        Call {
            code: HypercallCode::$code,
            input: size_of::<$input>(),
            output: size_of::<$output>(),
            variable_header: $header,
            privileges: $privileges,
            form: Form::Simple(|vp, input, output| simple::<$input, $output>(vp, input, output, $handler)),
        }
    };
    (sized $code:ident $input:ty => $output:ty, $header:literal, $privileges:expr, $handler:path) => {
        Call {
            code: HypercallCode::$code,
            input: size_of::<$input>(),
            output: size_of::<$output>(),
            variable_header: $header,
            privileges: $privileges,
            form: Form::Sized($handler, state::output_size),
        }
    };
    (banked $code:ident $input:ty => $output:ty, $header:literal, $privileges:expr, $handler:path) => {
        Call {
            code: HypercallCode::$code,
            input: size_of::<$input>(),
            output: size_of::<$output>(),
            variable_header: $header,
            privileges: $privileges,
            form: Form::Simple(|vp, input, _| banked::<$input>(vp, input, $handler)),
        }
    };
    (continued $code:ident $input:ty => $output:ty, $header:literal, $privileges:expr, $handler:path) => {
        Call {
            code: HypercallCode::$code,
            input: size_of::<$input>(),
            output: size_of::<$output>(),
            variable_header: $header,
            privileges: $privileges,
            form: Form::Continued(|vp, input| $handler(vp, &parse::<$input>(input)?)),
        }
    };
    (rep $code:ident $input:ty, [$element:ty] => $output:ty, $header:literal, $privileges:expr, $handler:path) => {
        Call {
            code: HypercallCode::$code,
            input: size_of::<$input>(),
            output: size_of::<$output>(),
            variable_header: $header,
            privileges: $privileges,
            form: Form::Rep(size_of::<$element>(), |vp, input, element, index, output| {
                let result = $handler(vp, &parse::<$input>(input)?, &parse::<$element>(element)?, index)?;
                output.copy_from_slice(result.as_bytes());
                Ok(())
            }),
        }
    };
    (batch $code:ident $input:ty, [$element:ty] => $output:ty, $header:literal, $privileges:expr, $handler:path) => {
        Call {
            code: HypercallCode::$code,
            input: size_of::<$input>(),
            output: size_of::<$output>(),
            variable_header: $header,
            privileges: $privileges,
            form: Form::Batch(size_of::<$element>(), |vp, input, elements| {
                let parsed = parse::<$input>(input).and_then(|input| {
                    let elements = <[$element]>::ref_from_bytes(elements);
                    Ok((input, elements.map_err(|_| HvStatus::INVALID_ALIGNMENT)?))
                });
                match parsed {
                    Ok((input, elements)) => $handler(vp, &input, elements),
                    Err(status) => (0, Err(status)),
                }
            }),
        }
    };
}

macro_rules! hypercalls {
    ($($form:ident $code:ident $input:ty $(, [$element:ty])? => $output:ty, $header:literal, $privileges:expr, $handler:path;)*) => {
        const CALLS: &[Call] =
            &[$(call!($form $code $input $(, [$element])? => $output, $header, $privileges, $handler),)*];
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
    rep       SET_VP_REGISTERS               VpRegisters, [RegisterAssociation] => (),                0, CREATE, registers::set;
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

/// What the caller's registers say.
struct Request {
    control: HypercallInput,
    /// Input GPA, or the first parameter of a fast call.
    first: u64,
    /// Output GPA, or the second parameter of a fast call.
    second: u64,
}

impl Request {
    #[inline]
    fn of(vp: &Vp) -> Self {
        let general = &vp.registers.general;
        if vp.hardware.is_64_bit() {
            return Self {
                control: HypercallInput(general[RCX]),
                first: general[RDX],
                second: general[R8],
            };
        }
        let pair = |high: usize, low: usize| general[high] << 32 | general[low] & 0xffff_ffff;
        Self {
            control: HypercallInput(pair(RDX, RAX)),
            first: pair(RBX, RCX),
            second: pair(RDI, RSI),
        }
    }

    fn answer(vp: &mut Vp, result: HypercallResult) {
        if vp.hardware.is_64_bit() {
            vp.registers.general[RAX] = result.0;
        } else {
            vp.registers.set_edx_eax(result.0);
        }
    }

    /// Makes the caller go on with the same call at element `start`.
    fn go_on(vp: &mut Vp, control: HypercallInput, start: u16) {
        let control = control.with_rep_start(start).0;
        if vp.hardware.is_64_bit() {
            vp.registers.general[RCX] = control;
        } else {
            vp.registers.set_edx_eax(control);
        }
    }
}

/// How far a call has come.
enum Outcome {
    /// It has ended, after so many elements.
    Ended(HvStatus, u16),
    /// The caller makes it again, from this element on.
    GoesOn(u16),
}

impl From<Result<(), HvStatus>> for Outcome {
    fn from(result: Result<(), HvStatus>) -> Self {
        Self::Ended(result.err().unwrap_or(HvStatus::SUCCESS), 0)
    }
}

/// VMMCALL or VMCALL.
#[inline]
pub fn dispatch(vp: &mut Vp) -> Resume {
    if vp.hardware.privilege_level() != 0 || !vp.partition.hypercalls_enabled() {
        return vp.fault(Exception::INVALID_OPCODE);
    }
    vp.shared.statistics.add(counter::HYPERCALLS, 1);
    let request = Request::of(vp);
    let outcome = match find(request.control) {
        Ok(call) => perform(vp, call, &request),
        Err(status) => Outcome::Ended(status, 0),
    };
    match outcome {
        Outcome::Ended(status, reps) => {
            vp.advance(Kind::ThreeBytes);
            Request::answer(vp, HypercallResult::new(status, reps));
        }
        Outcome::GoesOn(start) => Request::go_on(vp, request.control, start),
    }
    if vp.shared.is_called_off() {
        Resume::Leave
    } else {
        Resume::Guest
    }
}

#[inline]
fn find(control: HypercallInput) -> Result<&'static Call, HvStatus> {
    if !control.reserved_is_zero() || control.is_nested() {
        return Err(HvStatus::INVALID_HYPERCALL_INPUT);
    }
    let found = CALLS.binary_search_by_key(&control.code(), |call| call.code);
    found
        .map(|index| &CALLS[index])
        .map_err(|_| HvStatus::INVALID_HYPERCALL_CODE)
}

fn perform(vp: &mut Vp, call: &Call, request: &Request) -> Outcome {
    if !vp.partition.privileges.contains(call.privileges) {
        return Outcome::Ended(HvStatus::ACCESS_DENIED, 0);
    }
    let control = request.control;
    let reps_fit = match call.form {
        Form::Rep(..) | Form::Batch(..) => control.rep_start() < control.rep_count(),
        _ => control.rep_count() == 0 && control.rep_start() == 0,
    };
    if !reps_fit || control.variable_header_qwords() > call.variable_header {
        return Outcome::Ended(HvStatus::INVALID_HYPERCALL_INPUT, 0);
    }
    Processor::current().with_parameter_pages(|input, output| match call.form {
        Form::Rep(element, handler) => match RepCall::new(vp, call, request, element) {
            Ok(rep) => rep.perform(vp, handler, input, output),
            Err(status) => Outcome::Ended(status, control.rep_start()),
        },
        Form::Batch(element, handler) => match RepCall::new(vp, call, request, element) {
            Ok(rep) => rep.perform_batch(vp, handler, input, output),
            Err(status) => Outcome::Ended(status, control.rep_start()),
        },
        Form::Simple(handler) => with_input(vp, call, request, input)
            .and_then(|input| {
                with_output(vp, call.output, request, output, |vp, output| {
                    handler(vp, input, output)
                })
            })
            .into(),
        Form::Sized(handler, size) => with_input(vp, call, request, input)
            .and_then(|input| {
                with_output(vp, size(input), request, output, |vp, output| {
                    handler(vp, input, output)
                })
            })
            .into(),
        Form::Continued(handler) => {
            match with_input(vp, call, request, input).and_then(|input| handler(vp, input)) {
                Ok(Progress::Done) => Outcome::Ended(HvStatus::SUCCESS, 0),
                Ok(Progress::Again) => Outcome::GoesOn(0),
                Err(status) => Outcome::Ended(status, 0),
            }
        }
    })
}

/// Whether a parameter block may lie there: 8-byte aligned, inside one page. An empty one may lie anywhere.
fn check_block(gpa: Gpa, size: usize) -> Result<(), HvStatus> {
    let fits = size == 0 || (gpa.is_aligned(8) && size as u64 <= PAGE_SIZE && gpa.fits_page(size as u64));
    if fits {
        Ok(())
    } else {
        Err(HvStatus::INVALID_ALIGNMENT)
    }
}

/// Copies the input of a call that is no rep call, from registers or from memory.
fn with_input<'a>(vp: &Vp, call: &Call, request: &Request, page: &'a mut Page) -> Result<&'a [u8], HvStatus> {
    let size = call.input + request.control.variable_header_qwords() as usize * 8;
    let input = page.get_mut(..size).ok_or(HvStatus::INVALID_HYPERCALL_INPUT)?;
    if request.control.is_fast() {
        if size > 16 || call.output != 0 {
            return Err(HvStatus::INVALID_HYPERCALL_INPUT);
        }
        input.copy_from_slice(&[request.first, request.second].as_bytes()[..size]);
    } else {
        check_block(Gpa(request.first), size)?;
        check_block(Gpa(request.second), call.output)?;
        vp.partition
            .read(Gpa(request.first), input)
            .map_err(|_| HvStatus::INVALID_PARAMETER)?;
    }
    Ok(input)
}

/// Calls `handler` with the output block, and copies that out where it succeeds. That it can be copied is made sure of
/// before.
fn with_output(
    vp: &mut Vp,
    size: usize,
    request: &Request,
    page: &mut Page,
    handler: impl FnOnce(&mut Vp, &mut [u8]) -> Result<(), HvStatus>,
) -> Result<(), HvStatus> {
    let (partition, gpa) = (vp.partition, Gpa(request.second));
    check_block(gpa, size)?;
    let output = &mut page[..size];
    if output.is_empty() {
        return handler(vp, output);
    }
    if !partition.is_writable(gpa, output.len()) {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    handler(vp, output)?;
    partition
        .write(gpa, output)
        .map_err(|_| HvStatus::INVALID_PARAMETER)
}

/// A rep call: a header, a list of elements in, a list of elements out.
struct RepCall {
    header: usize,
    element: usize,
    output: usize,
    input_gpa: Gpa,
    output_gpa: Gpa,
    control: HypercallInput,
}

impl RepCall {
    fn new(vp: &Vp, call: &Call, request: &Request, element: usize) -> Result<Self, HvStatus> {
        let control = request.control;
        if control.is_fast() {
            return Err(HvStatus::INVALID_HYPERCALL_INPUT);
        }
        let count = control.rep_count() as usize;
        let header = call.input + control.variable_header_qwords() as usize * 8;
        let (input_gpa, output_gpa) = (Gpa(request.first), Gpa(request.second));
        check_block(input_gpa, header + count * element)?;
        check_block(output_gpa, count * call.output)?;
        if call.output != 0 && !vp.partition.is_writable(output_gpa, count * call.output) {
            return Err(HvStatus::INVALID_PARAMETER);
        }
        Ok(Self {
            header,
            element,
            output: call.output,
            input_gpa,
            output_gpa,
            control,
        })
    }

    /// Does as many elements as one turn allows.
    fn perform(&self, vp: &mut Vp, handler: RepHandler, input: &mut Page, output: &mut Page) -> Outcome {
        let (start, count) = (self.control.rep_start(), self.control.rep_count());
        let end = count.min(start.saturating_add(BATCH));
        let partition = vp.partition;
        let elements = (end - start) as usize * self.element;
        let (header, rest) = input.split_at_mut(self.header);
        let list = Gpa(self.input_gpa.0 + (self.header + start as usize * self.element) as u64);
        let copied = partition
            .read(self.input_gpa, header)
            .and_then(|()| partition.read(list, &mut rest[..elements]));
        if copied.is_err() {
            return Outcome::Ended(HvStatus::INVALID_PARAMETER, start);
        }
        for index in start..end {
            let offset = (index - start) as usize * self.element;
            let element = &rest[offset..offset + self.element];
            let result = &mut output[..self.output];
            let done = handler(vp, header, element, index, result).and_then(|()| {
                let place = Gpa(self.output_gpa.0 + index as u64 * self.output as u64);
                if result.is_empty() {
                    return Ok(());
                }
                partition
                    .write(place, result)
                    .map_err(|_| HvStatus::INVALID_PARAMETER)
            });
            if let Err(status) = done {
                return Outcome::Ended(status, index);
            }
        }
        Self::progress(end, count)
    }

    /// Does as many elements as one turn allows, all at once. They are copied to the start of `elements`, which is a page.
    fn perform_batch(
        &self,
        vp: &mut Vp,
        handler: BatchHandler,
        header: &mut Page,
        elements: &mut Page,
    ) -> Outcome {
        let (start, count) = (self.control.rep_start(), self.control.rep_count());
        let end = count.min(start.saturating_add(LONG_BATCH));
        let partition = vp.partition;
        let header = &mut header[..self.header];
        let elements = &mut elements[..(end - start) as usize * self.element];
        let list = Gpa(self.input_gpa.0 + (self.header + start as usize * self.element) as u64);
        let copied = partition
            .read(self.input_gpa, header)
            .and_then(|()| partition.read(list, elements));
        if copied.is_err() {
            return Outcome::Ended(HvStatus::INVALID_PARAMETER, start);
        }
        match handler(vp, header, elements) {
            (_, Ok(())) => Self::progress(end, count),
            (done, Err(status)) => Outcome::Ended(status, start + done),
        }
    }

    fn progress(end: u16, count: u16) -> Outcome {
        if end == count {
            Outcome::Ended(HvStatus::SUCCESS, count)
        } else {
            Outcome::GoesOn(end)
        }
    }
}

/// The partition that a call names: the caller's own, or one of its children.
fn named_partition(vp: &Vp, id: PartitionId) -> Result<&'static Partition, HvStatus> {
    match id {
        PartitionId::SELF => Ok(vp.partition),
        id => Partition::get(id).ok_or(HvStatus::INVALID_PARTITION_ID),
    }
}

/// A child that a call names.
fn named_child(vp: &Vp, id: PartitionId) -> Result<&'static Partition, HvStatus> {
    let partition = named_partition(vp, id)?;
    if partition.is_root() {
        Err(HvStatus::INVALID_PARTITION_ID)
    } else {
        Ok(partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_stand_in_order_and_every_block_fits_a_page() {
        assert!(CALLS.is_sorted_by(|first, second| first.code < second.code));
        for call in CALLS {
            assert!(call.input + call.variable_header as usize * 8 <= PAGE_SIZE as usize);
            assert!(call.output <= PAGE_SIZE as usize);
            assert!(call.code.name().is_some());
        }
    }

    #[test]
    fn reserved_bits_are_refused_before_the_code_is_looked_at() {
        let reserved = HypercallInput(1 << 27 | 0x46);
        assert_eq!(find(reserved).err(), Some(HvStatus::INVALID_HYPERCALL_INPUT));
        assert_eq!(
            find(HypercallInput(0x7fff)).err(),
            Some(HvStatus::INVALID_HYPERCALL_CODE)
        );
        assert!(find(HypercallInput::simple(HypercallCode::GET_PARTITION_ID)).is_ok());
    }
}
