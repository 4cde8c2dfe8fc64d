//! Exits: what a guest did, and who sees to it. One line an exit; nothing else stands here.

use crate::partition::instruction::Kind;
use crate::partition::vp::{Resume, Vp};
use crate::virtualization::{Exception, Exit, Register, VirtualProcessor};
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
    /// HLT: the VP sleeps until an interrupt. Where interrupts are off and none is left that could wake it, the parent hears of it.
    fn halt(&mut self) -> Resume {
        const IF: u64 = 1 << 9;
        self.advance(Kind::OneByte);
        let for_good = self.hardware.register(Register::Rflags) & IF == 0;
        match self.sleep() {
            Resume::Leave if for_good && self.partition.has_parent() => self.intercept_halt(),
            resume => resume,
        }
    }
}
