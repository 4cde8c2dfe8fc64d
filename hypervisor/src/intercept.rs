//! Exits that the hypervisor does not handle in the guest's favour: refused accesses, faults, the end of a partition.

use crate::memory::address::Spa;
use crate::partition::instruction::Kind;
use crate::partition::vp::{Resume, Vp};
use crate::partition::xapic;
use crate::platform::registers;
use crate::processor::extended_state;
use crate::virtualization::general::{RAX, RCX};
use crate::virtualization::{Access, Exception, IoAccess, NestedFault, Register, VirtualProcessor};
use crate::{stop, system};

/// An I/O port that does not pass through: nothing is there. Reads give all ones, writes go nowhere.
pub fn io_port(vp: &mut Vp, access: IoAccess) -> Resume {
    if vp.partition.has_parent() {
        return vp.intercept_io_port(access);
    }
    crate::rate_limited!(
        log::Level::Warn,
        "VP {}: {} of port {:#x} refused",
        vp.shared.index,
        if access.write { "write" } else { "read" },
        access.port
    );
    if access.string {
        return vp.fault(Exception::GENERAL_PROTECTION);
    }
    if !access.write {
        let mask = u32::MAX >> (32 - 8 * access.size.clamp(1, 4) as u32);
        let rax = vp.registers.general[RAX];
        // A 32-bit destination clears the upper half.
        vp.registers.general[RAX] = if access.size == 4 {
            mask as u64
        } else {
            rax | mask as u64
        };
    }
    vp.set_rip(access.next_rip);
    Resume::Guest
}

/// An access that the nested page tables do not allow. The root gets #GP; if it cannot even take that, it is over.
pub fn nested_fault(vp: &mut Vp, fault: NestedFault) -> Resume {
    if vp.partition.has_parent() {
        let on_apic_page = xapic::is_page(vp, fault.gpa) && !fault.page_walk && !fault.present;
        return match on_apic_page.then(|| xapic::access(vp, fault)).flatten() {
            Some(resume) => resume,
            // TLFS: a write to the hypercall page raises #GP.
            None if fault.access == Access::Write && vp.partition.is_covered(fault.gpa) => {
                vp.fault(Exception::GENERAL_PROTECTION)
            }
            None => vp.intercept_memory(fault),
        };
    }
    let what = match fault.access {
        Access::Read => "read",
        Access::Write => "write",
        Access::Execute => "fetch",
    };
    let owner = system::owner_of(Spa(fault.gpa.0));
    crate::rate_limited!(
        log::Level::Warn,
        "VP {} of partition {}: {what} of {owner} at GPA {} refused, RIP {:#x}{}",
        vp.shared.index,
        vp.partition.id,
        fault.gpa,
        vp.hardware.rip(),
        if fault.page_walk { ", by its page walk" } else { "" }
    );
    if vp.hardware.interrupted_event().is_some() || fault.page_walk {
        return end(
            vp,
            format_args!(
                "a {what} of {owner} at GPA {} while it took an event or walked its page tables",
                fault.gpa
            ),
        );
    }
    vp.fault(Exception::GENERAL_PROTECTION)
}

/// XSETBV (APM 3; SDM 2): XCR0 is the only register, and it may hold what the processor has.
pub fn set_xcr(vp: &mut Vp) -> Resume {
    const CR4_OSXSAVE: u64 = 1 << 18;
    if vp.hardware.paging().cr4 & CR4_OSXSAVE == 0 {
        return vp.fault(Exception::INVALID_OPCODE);
    }
    let value = vp.registers.edx_eax();
    let supported = extended_state::supported_xcr0();
    let valid = vp.hardware.privilege_level() == 0
        && vp.registers.general[RCX] as u32 == 0
        && is_valid_xcr0(value, supported);
    if !valid {
        return vp.fault(Exception::GENERAL_PROTECTION);
    }
    vp.extended.set_xcr0_now(value);
    vp.advance(Kind::ThreeBytes);
    Resume::Guest
}

/// Whether XCR0 can be `value` on a machine that has `supported` (SDM 1, 13.3).
pub fn is_valid_xcr0(value: u64, supported: u64) -> bool {
    const X87: u64 = 1;
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const MPX: u64 = 0b11 << 3;
    const AVX512: u64 = 0b111 << 5;
    const TILE: u64 = 0b11 << 17;
    let all_or_none = |bits: u64| value & bits == 0 || value & bits == bits;
    value & X87 != 0
        && value & !supported == 0
        && (value & AVX == 0 || value & SSE != 0)
        && all_or_none(MPX)
        && all_or_none(AVX512)
        && (value & AVX512 == 0 || value & AVX != 0)
        && all_or_none(TILE)
}

/// INVD would throw away what other partitions have in the caches; WBINVD does all that a guest can want.
pub fn invalidate_caches(vp: &mut Vp) -> Resume {
    registers::write_back_caches();
    vp.advance(Kind::TwoBytes);
    Resume::Guest
}

/// An exception that is intercepted: the parent gets it where it has asked for that, otherwise the guest. A machine check is
/// everybody's.
pub fn exception(vp: &mut Vp, exception: Exception, parameter: u64) -> Resume {
    const PAGE_FAULT: u8 = 14;
    if exception.vector == Exception::MACHINE_CHECK {
        stop::with_report(format_args!("machine check while VP {} ran", vp.shared.index));
    }
    if vp.partition.intercepts.exceptions() & 1 << exception.vector != 0 {
        return vp.intercept_exception(exception, parameter);
    }
    if exception.vector == PAGE_FAULT {
        vp.hardware.set_register(Register::Cr2, parameter);
    }
    vp.fault(exception)
}

/// Triple fault.
pub fn shutdown(vp: &mut Vp) -> Resume {
    if vp.partition.has_parent() {
        return vp.intercept_shutdown();
    }
    end(vp, format_args!("a triple fault"))
}

/// The processor refused the guest's state.
pub fn invalid_state(vp: &mut Vp) -> Resume {
    if vp.partition.has_parent() {
        // QEMU writes the hypervisor's own registers into the VMCB then: nobody may see them, and they must not be run.
        vp.forget_registers();
        return vp.intercept_invalid_state();
    }
    end(vp, format_args!("a processor state that cannot be"))
}

/// An exit that nobody expects.
pub fn unexpected(vp: &mut Vp, code: u64) -> Resume {
    if vp.partition.has_parent() {
        log::error!(
            "VP {} of {}: unexpected exit, code {code:#x}",
            vp.shared.index,
            vp.partition.id
        );
        return vp.intercept_shutdown();
    }
    end(vp, format_args!("an unexpected exit, code {code:#x}"))
}

/// The root is beyond help.
fn end(vp: &mut Vp, cause: core::fmt::Arguments<'_>) -> Resume {
    let context = vp.hardware.context(&vp.registers);
    let general = &vp.registers.general;
    stop::with_report(format_args!(
        "the root partition is stopped: {cause} on VP {}\n\
         rip {:016x} rsp {:016x} rflags {:08x} cs {:04x}\n\
         rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}\n\
         rbp {:016x} rsi {:016x} rdi {:016x}\n\
         cr0 {:08x} cr3 {:016x} cr4 {:08x} efer {:04x}\n\
         idt {:016x} limit {:04x}, gdt {:016x} limit {:04x}",
        vp.shared.index,
        context.rip,
        context.rsp,
        context.rflags,
        context.cs.selector,
        general[0],
        general[3],
        general[1],
        general[2],
        general[5],
        general[6],
        general[7],
        context.cr0,
        context.cr3,
        context.cr4,
        context.efer,
        context.idtr.base,
        context.idtr.limit,
        context.gdtr.base,
        context.gdtr.limit,
    ))
}

#[cfg(test)]
mod tests {
    use super::is_valid_xcr0;

    #[test]
    fn xcr0_follows_the_rules_between_its_bits() {
        let supported = 0xe7;
        assert!(is_valid_xcr0(0x7, supported));
        assert!(is_valid_xcr0(0xe7, supported));
        for wrong in [0x0, 0x2, 0x5, 0x27, 0xe3, 0x207] {
            assert!(!is_valid_xcr0(wrong, supported), "{wrong:#x}");
        }
    }
}
