//! Hypercalls: one [table](table::CALLS) of calls, and the dispatcher that [checks](call) a call before its handler sees it.
//!
//! | module | holds |
//! |---|---|
//! | [`call`] | the checks, and the copying of parameters |
//! | [`rep`] | the same for lists of elements |
//! | [`table`] | which calls there are |
//! | the others | handlers, by what they are about |

pub(crate) mod call;
mod device;
mod flush;
mod interrupt;
mod memory;
mod operator;
mod partition;
mod port;
mod processor;
mod registers;
pub(crate) mod rep;
mod state;
mod system;
pub(crate) mod table;

use crate::partition::Partition;
use crate::partition::guest_memory::Unreachable;
use crate::partition::instruction::Kind;
use crate::partition::vp::{Resume, Vp};
use crate::processor::local::Processor;
use crate::virtualization::general::{R8, RAX, RBX, RCX, RDI, RDX, RSI};
use crate::virtualization::{Exception, VirtualProcessor};
use call::{Caller, Outcome, Request};
use hypercall_api::address::Gpa;
use hypercall_api::control::{HypercallInput, HypercallResult};
use hypercall_api::counter;
use hypercall_api::id::PartitionId;
use hypercall_api::privilege::Privileges;
use hypercall_api::status::HvStatus;

impl Caller for Vp {
    fn privileges(&self) -> Privileges {
        self.partition.privileges
    }

    fn read(&self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Unreachable> {
        self.partition.read(gpa, bytes)
    }

    fn is_writable(&self, gpa: Gpa, length: usize) -> bool {
        self.partition.is_writable(gpa, length)
    }

    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), Unreachable> {
        self.partition.write(gpa, bytes)
    }
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

/// VMMCALL or VMCALL.
#[inline]
pub fn dispatch(vp: &mut Vp) -> Resume {
    if vp.hardware.privilege_level() != 0 || !vp.partition.hypercalls_enabled() {
        return vp.fault(Exception::INVALID_OPCODE);
    }
    vp.shared.statistics.add(counter::HYPERCALLS, 1);
    let request = Request::of(vp);
    let outcome = match call::find(table::CALLS, request.control) {
        Ok(call) => Processor::current()
            .with_parameter_pages(|input, output| call::perform(vp, call, &request, input, output)),
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
