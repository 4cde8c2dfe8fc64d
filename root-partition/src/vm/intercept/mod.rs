//! What the worker does about an intercept: one line a message.
//!
//! | module | holds |
//! |---|---|
//! | [`crash`] | a guest's report of its own crash |
//! | [`memory`] | accesses to memory that is not there |
//! | [`port`] | accesses to I/O ports |
//! | [`string`] | INS and OUTS |

pub mod crash;
pub mod memory;
pub mod port;
pub mod string;

use super::child::{Child, Event};
use super::description::MsrAnswer;
use super::host::Host;
use alloc::format;
use arrayvec::ArrayVec;
use hypercall_api::id::VpIndex;
use hypercall_api::intercept::{
    AccessType, CpuidIntercept, ExceptionInfo, ExceptionIntercept, ExecutionState, HaltIntercept,
    InterceptHeader, MsrIntercept, UnrecoverableException, UnsupportedFeature,
};
use hypercall_api::message::{Message, MessageType};
use hypercall_api::msr::CRASH_CTL;
use hypercall_api::msr::crash::NOTIFY;
use hypercall_api::register::{PendingException, RegisterAssociation, RegisterName, RegisterValue};
use hypercall_api::status::HvStatus;
use zerocopy::FromBytes;

/// Registers that an answer sets at most: the general ones, RIP, RFLAGS, an exception, the suspension.
const MOST: usize = 20;
/// General protection.
const GENERAL_PROTECTION: u8 = 13;
/// Length of RDMSR, WRMSR and CPUID without prefixes.
const TWO_BYTES: u64 = 2;
/// Code segment: 64-bit code.
const CS_LONG: u16 = 1 << 13;
/// Code segment: 32-bit code.
const CS_32: u16 = 1 << 14;

/// How a VP goes on.
#[derive(Debug)]
pub enum Answer {
    /// It runs, with the registers set that were given beside.
    Resume,
    /// It stays suspended.
    Stay,
    /// It stays suspended, and the machine hears why.
    Event(Event),
}

/// Registers to be set.
pub type Registers = ArrayVec<RegisterAssociation, MOST>;

/// Handles the message of the intercept that suspended `vp`; `set`, empty, gets what is to be set to resume it.
pub fn handle<H: Host>(child: &Child<H>, vp: VpIndex, message: &Message, set: &mut Registers) -> Answer {
    let answer = match message.message_type {
        MessageType::IO_PORT_INTERCEPT => with(message, |it| port::access(child, vp, it, set)),
        MessageType::UNMAPPED_GPA => with(message, |it| memory::access(child, vp, it, set)),
        MessageType::GPA_INTERCEPT => with(message, |it| memory::access(child, vp, it, set)),
        MessageType::MSR_INTERCEPT => with(message, |it| msr(child, vp, it, set)),
        MessageType::CPUID_INTERCEPT => with(message, |it| Ok(cpuid(it, set))),
        MessageType::EXCEPTION_INTERCEPT => with(message, |it| Ok(exception(it, set))),
        MessageType::HALT => with(message, |it| Ok(halted(child, vp, it, set))),
        MessageType::UNRECOVERABLE_EXCEPTION => with(message, |it| Ok(triple_fault(vp, it))),
        MessageType::INVALID_VP_REGISTER_VALUE => Some(Ok(crash(format!(
            "VP {vp} has registers that the processor refuses"
        )))),
        MessageType::UNSUPPORTED_FEATURE => with(message, |it| Ok(unsupported(vp, it))),
        other => Some(Ok(crash(format!(
            "VP {vp} stopped for an unknown reason ({:#x})",
            other.0
        )))),
    };
    match answer {
        Some(Ok(answer)) => answer,
        Some(Err(status)) => crash(format!("an intercept of VP {vp} could not be handled: {status}")),
        None => crash(format!("VP {vp} stopped with a message that is cut off")),
    }
}

/// What comes of a message's payload; `None` where it is too short.
fn with<T: FromBytes>(
    message: &Message,
    handle: impl FnOnce(&T) -> Result<Answer, HvStatus>,
) -> Option<Result<Answer, HvStatus>> {
    message.payload_as().map(|payload| handle(&payload))
}

/// An answer that sets `registers` and lets the VP run.
fn resume(set: &mut Registers, registers: impl IntoIterator<Item = (RegisterName, RegisterValue)>) -> Answer {
    for (name, value) in registers {
        set.push(RegisterAssociation::new(name, value));
    }
    set.push(RegisterAssociation::new(RegisterName::INTERCEPT_SUSPEND, 0u64));
    Answer::Resume
}

/// An answer that raises an exception at the instruction.
fn fault(set: &mut Registers, vector: u8, error_code: Option<u32>, parameter: u64) -> Answer {
    let event = PendingException::new(vector, error_code, parameter);
    resume(set, [(RegisterName::PENDING_EVENT0, event.into())])
}

fn crash(why: alloc::string::String) -> Answer {
    Answer::Event(Event::Crash(why))
}

/// Where the next instruction is, `length` bytes on.
fn next_rip(header: &InterceptHeader, length: u64) -> u64 {
    let next = header.rip.wrapping_add(length);
    match code_bits(header) {
        64 => next,
        bits => next & ((1 << bits) - 1),
    }
}

/// Size of the code that the VP runs: 16, 32 or 64.
fn code_bits(header: &InterceptHeader) -> u32 {
    if header.state.has(ExecutionState::EFER_LMA) && header.cs.attributes & CS_LONG != 0 {
        64
    } else if header.state.has(ExecutionState::CR0_PE) && header.cs.attributes & CS_32 != 0 {
        32
    } else {
        16
    }
}

/// MSRs that come here do not exist, but for the one by which a guest tells of its crash: the description says what they are.
fn msr<H: Host>(
    child: &Child<H>,
    vp: VpIndex,
    it: &MsrIntercept,
    set: &mut Registers,
) -> Result<Answer, HvStatus> {
    let writes = it.header.access == AccessType::WRITE;
    let answer = match it.msr {
        CRASH_CTL if writes && it.value() & NOTIFY != 0 => return crash::report(child, vp, it.value()),
        msr if writes => child.msrs.write(msr),
        msr => child.msrs.read(msr),
    };
    let next = |length| (RegisterName::RIP, next_rip(&it.header, length).into());
    let length = match it.header.instruction_length() {
        0 => TWO_BYTES,
        length => length.into(),
    };
    Ok(match answer {
        MsrAnswer::Fault => fault(set, GENERAL_PROTECTION, Some(0), 0),
        MsrAnswer::Value(_) if writes => resume(set, [next(length)]),
        MsrAnswer::Value(value) => {
            let half = |value: u64| (value & 0xffff_ffff).into();
            let registers = [
                (RegisterName::RAX, half(value)),
                (RegisterName::RDX, half(value >> 32)),
                next(length),
            ];
            resume(set, registers)
        }
    })
}

/// CPUID reads what the hypervisor would have answered.
fn cpuid(it: &CpuidIntercept, set: &mut Registers) -> Answer {
    let length = match it.header.instruction_length() {
        0 => TWO_BYTES,
        length => length.into(),
    };
    resume(
        set,
        [
            (RegisterName::RAX, it.default_rax.into()),
            (RegisterName::RBX, it.default_rbx.into()),
            (RegisterName::RCX, it.default_rcx.into()),
            (RegisterName::RDX, it.default_rdx.into()),
            (RegisterName::RIP, next_rip(&it.header, length).into()),
        ],
    )
}

/// An exception goes on to the guest.
fn exception(it: &ExceptionIntercept, set: &mut Registers) -> Answer {
    let error_code = (it.info.0 & ExceptionInfo::ERROR_CODE_VALID != 0).then_some(it.error_code);
    fault(set, it.vector as u8, error_code, it.parameter)
}

/// The hypervisor handles HLT itself, but tells of a VP that no interrupt can wake. It goes on being halted: an NMI or an INIT
/// may still come, as for a processor that Linux takes offline and online again.
fn halted<H: Host>(child: &Child<H>, vp: VpIndex, it: &HaltIntercept, set: &mut Registers) -> Answer {
    let note = format!(
        "VP {vp} halted with its interrupts off, before {:#x}",
        it.header.rip
    );
    child.owner.event(child.id, Event::Note(note));
    resume(set, [])
}

fn triple_fault(vp: VpIndex, it: &UnrecoverableException) -> Answer {
    Answer::Event(Event::TripleFault {
        vp,
        rip: it.header.rip,
    })
}

fn unsupported(vp: VpIndex, it: &UnsupportedFeature) -> Answer {
    crash(format!(
        "VP {vp} did what is not supported (feature {})",
        it.feature
    ))
}
