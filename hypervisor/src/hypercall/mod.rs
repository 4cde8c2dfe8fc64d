//! Hypercalls: one table of calls, and the dispatcher that checks a call before its handler sees it.
//!
//! The checks run in the order privilege, form, alignment, memory, and then the handler's own; a refused call has changed
//! nothing. Handlers work on copies: parameters are copied in once, results are copied out at the end.

mod interrupt;
mod operator;
mod partition;
mod processor;
mod system;

use crate::partition::instruction::Kind;
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

/// A call that the hypervisor handles.
struct Call {
    code: HypercallCode,
    /// Bytes of input before a variable header.
    input: usize,
    /// Bytes of output.
    output: usize,
    /// Longest variable header, in 8-byte units.
    variable_header: u16,
    privileges: Privileges,
    /// Takes the input, with its variable header, and the output, zeroed.
    handler: Handler,
}

type Handler = fn(&mut Vp, &[u8], &mut [u8]) -> Result<(), HvStatus>;

macro_rules! hypercalls {
    ($($code:ident $input:ty => $output:ty, header $header:literal, $privileges:expr, $handler:path;)*) => {
        const CALLS: &[Call] = &[$(Call {
            code: HypercallCode::$code,
            input: size_of::<$input>(),
            output: size_of::<$output>(),
            variable_header: $header,
            privileges: $privileges,
            handler: |vp, input, output| invoke::<$input, $output>(vp, input, output, $handler),
        },)*];
    };
}

use hypercall_api::id::PartitionId;
use hypercall_api::interrupt::{MapDeviceInterrupt, MappedDeviceInterrupt, UnmapDeviceInterrupt};
use hypercall_api::operator::{LogChunk, ReadLog, SystemInfo};
use hypercall_api::processor::{GetLogicalProcessorRunTime, LogicalProcessorRunTime, StartVirtualProcessor};
use hypercall_api::system::{
    EnterSleepState, GetSystemProperty, MappedStatsPage, SetSleepState, VpStatsPage,
};

const MANAGE: Privileges = Privileges::CPU_MANAGEMENT;

hypercalls! {
    // code                        input => output                        variable header  privileges          handler
    GET_LOGICAL_PROCESSOR_RUN_TIME GetLogicalProcessorRunTime => LogicalProcessorRunTime, header 0, MANAGE, processor::run_time;
    GET_PARTITION_ID               () => PartitionId,                     header 0, Privileges::ACCESS_PARTITION_ID, partition::get_id;
    MAP_STATS_PAGE                 VpStatsPage => MappedStatsPage,        header 0, Privileges::ACCESS_STATS, system::map_stats_page;
    UNMAP_STATS_PAGE               VpStatsPage => (),                     header 0, Privileges::ACCESS_STATS, system::unmap_stats_page;
    SET_SYSTEM_PROPERTY            SetSleepState => (),                   header 0, MANAGE, system::set_property;
    GET_SYSTEM_PROPERTY            GetSystemProperty => u64,              header 0, MANAGE, system::get_property;
    MAP_DEVICE_INTERRUPT           MapDeviceInterrupt => MappedDeviceInterrupt, header 1, MANAGE, interrupt::map;
    UNMAP_DEVICE_INTERRUPT         UnmapDeviceInterrupt => (),            header 0, MANAGE, interrupt::unmap;
    ENTER_SLEEP_STATE              EnterSleepState => (),                 header 0, MANAGE, system::enter_sleep_state;
    START_VIRTUAL_PROCESSOR        StartVirtualProcessor => (),           header 0, Privileges::START_VIRTUAL_PROCESSOR, processor::start;
    PARTITA_QUERY_SYSTEM           () => SystemInfo,                      header 0, MANAGE, operator::query_system;
    PARTITA_READ_LOG               ReadLog => LogChunk,                   header 0, MANAGE, operator::read_log;
}

/// Parses the input, calls the handler, places the output.
fn invoke<I, O>(
    vp: &mut Vp,
    input: &[u8],
    output: &mut [u8],
    handler: fn(&mut Vp, &I) -> Result<O, HvStatus>,
) -> Result<(), HvStatus>
where
    I: FromBytes,
    O: IntoBytes + Immutable,
{
    let (input, _variable_header) =
        I::read_from_prefix(input).map_err(|_| HvStatus::INVALID_HYPERCALL_INPUT)?;
    let result = handler(vp, &input)?;
    output.copy_from_slice(result.as_bytes());
    Ok(())
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
}

/// VMMCALL or VMCALL.
#[inline]
pub fn dispatch(vp: &mut Vp) -> Resume {
    if vp.hardware.privilege_level() != 0 || !vp.partition.hypercalls_enabled() {
        return vp.fault(Exception::INVALID_OPCODE);
    }
    vp.shared.statistics.add(counter::HYPERCALLS, 1);
    let request = Request::of(vp);
    let status = match find(request.control) {
        Ok(call) => perform(vp, call, &request).err().unwrap_or(HvStatus::SUCCESS),
        Err(status) => status,
    };
    vp.advance(Kind::ThreeBytes);
    Request::answer(vp, HypercallResult::new(status, 0));
    Resume::Guest
}

#[inline]
fn find(control: HypercallInput) -> Result<&'static Call, HvStatus> {
    if !control.reserved_is_zero() || control.is_nested() {
        return Err(HvStatus::INVALID_HYPERCALL_INPUT);
    }
    CALLS
        .iter()
        .find(|call| call.code == control.code())
        .ok_or(HvStatus::INVALID_HYPERCALL_CODE)
}

fn perform(vp: &mut Vp, call: &Call, request: &Request) -> Result<(), HvStatus> {
    if !vp.partition.privileges.contains(call.privileges) {
        return Err(HvStatus::ACCESS_DENIED);
    }
    let control = request.control;
    if control.rep_count() != 0
        || control.rep_start() != 0
        || control.variable_header_qwords() > call.variable_header
    {
        return Err(HvStatus::INVALID_HYPERCALL_INPUT);
    }
    let input_size = call.input + control.variable_header_qwords() as usize * 8;
    let call_with = |vp: &mut Vp, input: &mut Page, output: &mut Page| {
        let (input, output) = (&mut input[..input_size], &mut output[..call.output]);
        match control.is_fast() {
            true => fast(vp, call, request, input),
            false => slow(vp, call, request, input, output),
        }
    };
    Processor::current().with_parameter_pages(|input, output| call_with(vp, input, output))
}

/// A call whose parameters are in two registers: at most 16 bytes of input, no output.
fn fast(vp: &mut Vp, call: &Call, request: &Request, input: &mut [u8]) -> Result<(), HvStatus> {
    if input.len() > 16 || call.output != 0 {
        return Err(HvStatus::INVALID_HYPERCALL_INPUT);
    }
    let parameters = [request.first, request.second];
    input.copy_from_slice(&parameters.as_bytes()[..input.len()]);
    (call.handler)(vp, input, &mut [])
}

/// A call whose parameters are in memory, each block 8-byte aligned and inside one page.
fn slow(
    vp: &mut Vp,
    call: &Call,
    request: &Request,
    input: &mut [u8],
    output: &mut [u8],
) -> Result<(), HvStatus> {
    let (input_gpa, output_gpa) = (Gpa(request.first), Gpa(request.second));
    for (gpa, size) in [(input_gpa, input.len()), (output_gpa, output.len())] {
        if size != 0 && !(gpa.is_aligned(8) && size as u64 <= PAGE_SIZE && gpa.fits_page(size as u64)) {
            return Err(HvStatus::INVALID_ALIGNMENT);
        }
    }
    let partition = vp.partition;
    partition
        .read(input_gpa, input)
        .map_err(|_| HvStatus::INVALID_PARAMETER)?;
    if !output.is_empty() {
        partition
            .writable(output_gpa, output.len())
            .map_err(|_| HvStatus::INVALID_PARAMETER)?;
    }
    (call.handler)(vp, input, output)?;
    if !output.is_empty() {
        partition
            .write(output_gpa, output)
            .map_err(|_| HvStatus::INVALID_PARAMETER)?;
    }
    Ok(())
}

/// The partition that a call names: its own, for now by either name.
fn own_partition(vp: &Vp, id: PartitionId) -> Result<(), HvStatus> {
    if id == PartitionId::SELF || id == vp.partition.id {
        Ok(())
    } else {
        Err(HvStatus::INVALID_PARTITION_ID)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_stands_twice_and_every_block_fits_a_page() {
        for (index, call) in CALLS.iter().enumerate() {
            assert!(
                CALLS[index + 1..].iter().all(|other| other.code != call.code),
                "{:?}",
                call.code
            );
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
