//! Exits: what a guest did, and who sees to it. One line an exit; nothing else stands here.

use crate::partition::instruction::Kind;
use crate::partition::vp::{Resume, Vp};
use crate::virtualization::{Exception, Exit};
use crate::{cpuid, hypercall, intercept, msr};

/// Handles one exit of `vp` and says how its run loop goes on.
#[inline]
pub fn handle(vp: &mut Vp, exit: Exit) -> Resume {
    vp.shared.statistics.add_exit(exit);
    match exit {
        Exit::Cpuid => cpuid::execute(vp),
        Exit::Hypercall => hypercall::dispatch(vp),
        Exit::MsrRead => msr::read(vp),
        Exit::MsrWrite => msr::write(vp),
        Exit::IoPort(access) => intercept::io_port(vp, access),
        Exit::NestedFault(fault) => intercept::nested_fault(vp, fault),
        Exit::Interrupt => Resume::AfterInterrupt,
        Exit::InterruptWindow => Resume::Guest,
        Exit::Halt => vp.halt(),
        Exit::SetXcr => intercept::set_xcr(vp),
        Exit::InvalidateCaches => intercept::invalidate_caches(vp),
        Exit::Undefined => vp.fault(Exception::INVALID_OPCODE),
        Exit::Exception(exception, parameter) => intercept::exception(vp, exception, parameter),
        Exit::Nmi => Resume::AfterInterrupt,
        Exit::Shutdown => intercept::shutdown(vp),
        Exit::InvalidState => intercept::invalid_state(vp),
        Exit::Other(code) => intercept::unexpected(vp, code),
    }
}

impl Vp {
    /// HLT: the VP sleeps until an interrupt.
    fn halt(&mut self) -> Resume {
        self.advance(Kind::OneByte);
        self.sleep()
    }
}
