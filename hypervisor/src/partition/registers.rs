//! Registers of a VP by name, as its parent reads and sets them (TLFS, "Virtual Processor Registers"). The VP does not run
//! meanwhile.

use super::shared::{VpState, suspension};
use super::synic::Synic;
use super::vp::Vp;
use crate::partition::hypercall_page;
use crate::processor::extended_state::supported_xcr0;
use crate::virtualization::{Exception, Register, Segment, VirtualProcessor};
use core::sync::atomic::Ordering;
use hypercall_api::counter;
use hypercall_api::processor::{SegmentRegister, TableRegister};
use hypercall_api::register::{PendingException, RegisterName as Name, RegisterValue};
use hypercall_api::status::HvStatus;

const RFLAGS_VALID: u64 = 0x003f_7fd7;

/// Registers that the hardware keeps under one name.
fn hardware_register(name: Name) -> Option<Register> {
    Some(match name {
        Name::RFLAGS => Register::Rflags,
        Name::CR0 => Register::Cr0,
        Name::CR2 => Register::Cr2,
        Name::CR3 => Register::Cr3,
        Name::CR4 => Register::Cr4,
        Name::DR6 => Register::Dr6,
        Name::DR7 => Register::Dr7,
        Name::STAR => Register::Star,
        Name::LSTAR => Register::Lstar,
        Name::CSTAR => Register::Cstar,
        Name::SFMASK => Register::Sfmask,
        Name::KERNEL_GS_BASE => Register::KernelGsBase,
        Name::SYSENTER_CS => Register::SysenterCs,
        Name::SYSENTER_ESP => Register::SysenterEsp,
        Name::SYSENTER_EIP => Register::SysenterEip,
        _ => return None,
    })
}

fn segment(name: Name) -> Option<Segment> {
    Some(match name {
        Name::ES => Segment::Es,
        Name::CS => Segment::Cs,
        Name::SS => Segment::Ss,
        Name::DS => Segment::Ds,
        Name::FS => Segment::Fs,
        Name::GS => Segment::Gs,
        Name::LDTR => Segment::Ldtr,
        Name::TR => Segment::Tr,
        _ => return None,
    })
}

/// A register's value.
pub fn get(vp: &Vp, name: Name) -> Result<RegisterValue, HvStatus> {
    if let Some(register) = hardware_register(name) {
        return Ok(vp.hardware.register(register).into());
    }
    if let Some(segment) = segment(name) {
        return Ok(vp.hardware.segment(segment).into());
    }
    let context = || vp.hardware.context(&vp.registers);
    let suspended = |reason: u8| u64::from(vp.shared.suspended() & reason != 0);
    Ok(match name {
        Name(0x2_0000..=0x2_000f) => vp.registers.general[(name.0 & 0xf) as usize].into(),
        Name(0x3_0000..=0x3_000f) => vp.registers.xmm[(name.0 & 0xf) as usize].into(),
        Name::RIP => vp.hardware.rip().into(),
        Name::IDTR => context().idtr.into(),
        Name::GDTR => context().gdtr.into(),
        Name::CR8 => u64::from(vp.hardware.task_priority()).into(),
        Name::XFEM => vp.extended.xcr0.into(),
        Name::DR0 | Name::DR1 | Name::DR2 | Name::DR3 => {
            vp.extended.debug[(name.0 - Name::DR0.0) as usize].into()
        }
        Name::EFER => vp.hardware.efer().into(),
        Name::PAT => vp.hardware.pat().into(),
        Name::APIC_BASE => vp.apic.base().into(),
        Name::MTRR_CAP => 0u64.into(),
        Name::MTRR_DEF_TYPE => vp.mtrr_default.into(),
        Name::TSC => crate::platform::registers::tsc().into(),
        Name::TSC_AUX => vp.extended.tsc_aux.into(),
        Name::INITIAL_APIC_ID => u64::from(vp.shared.apic_id).into(),
        Name::EXPLICIT_SUSPEND => suspended(suspension::EXPLICIT).into(),
        Name::INTERCEPT_SUSPEND => suspended(suspension::INTERCEPT).into(),
        Name::INTERNAL_ACTIVITY_STATE => match vp.shared.state() {
            VpState::WaitForStart => 1u64,
            VpState::Halted => 2,
            VpState::Runnable => 0,
        }
        .into(),
        Name::INTERRUPT_STATE => u64::from(vp.hardware.interrupt_shadow()).into(),
        Name::VP_INDEX => u64::from(vp.shared.index.0).into(),
        Name::VP_RUNTIME => vp.shared.statistics.get(counter::TOTAL_RUN_TIME).into(),
        Name::GUEST_OS_ID => vp.partition.guest_os_id.load(Ordering::Relaxed).into(),
        Name(0x210..=0x215) => vp.partition.crash[(name.0 - Name::GUEST_CRASH_P0.0) as usize]
            .load(Ordering::Relaxed)
            .into(),
        Name::HYPERCALL => vp.partition.hypercall_msr.load(Ordering::Relaxed).into(),
        Name::REFERENCE_TSC => vp.partition.reference_tsc_msr.load(Ordering::Relaxed).into(),
        Name::TIME_REF_COUNT => vp.partition.reference_time().into(),
        Name::VP_ASSIST_PAGE => vp.assist_page.into(),
        Name::SCONTROL => vp.shared.synic.control().into(),
        Name::SVERSION => 1u64.into(),
        Name::SIEFP => vp.shared.synic.event_page().into(),
        Name::SIMP => vp.shared.synic.message_page().into(),
        Name(0xa_0000..=0xa_000f) => vp.shared.synic.sint((name.0 & 0xf) as usize).into(),
        Name(0xb_0000..=0xb_0007) => {
            let timer = ((name.0 & 7) / 2) as usize;
            match name.0 & 1 {
                0 => vp.synic.timer_config(timer).into(),
                _ => vp.synic.timer_count(timer).into(),
            }
        }
        _ => return Err(HvStatus::INVALID_PARAMETER),
    })
}

/// Sets a register. A refused value leaves the VP as it was.
pub fn set(vp: &mut Vp, name: Name, value: RegisterValue) -> Result<(), HvStatus> {
    const INVALID: HvStatus = HvStatus::INVALID_REGISTER_VALUE;
    let word = value.u64();
    if let Some(register) = hardware_register(name) {
        let word = if register == Register::Rflags {
            word & RFLAGS_VALID | 2
        } else {
            word
        };
        vp.hardware.set_register(register, word);
        if register == Register::Cr0 {
            // LMA follows CR0.PG.
            let efer = vp.hardware.efer();
            vp.hardware.set_efer(efer);
        }
        vp.forget_translations();
        return Ok(());
    }
    if let Some(segment) = segment(name) {
        vp.hardware.set_segment(segment, value.segment());
        return Ok(());
    }
    match name {
        Name(0x2_0000..=0x2_000f) => vp.registers.general[(name.0 & 0xf) as usize] = word,
        Name(0x3_0000..=0x3_000f) => vp.registers.xmm[(name.0 & 0xf) as usize] = value.u128(),
        Name::RIP => {
            vp.hardware.set_rip(word);
            vp.hardware.clear_shadow();
        }
        Name::IDTR => vp.hardware.set_segment(Segment::Idtr, table(value.table())),
        Name::GDTR => vp.hardware.set_segment(Segment::Gdtr, table(value.table())),
        Name::CR8 if word < 16 => vp.hardware.set_task_priority(word as u8),
        Name::XFEM if crate::intercept::is_valid_xcr0(word, supported_xcr0()) => vp.extended.xcr0 = word,
        Name::DR0 | Name::DR1 | Name::DR2 | Name::DR3 => {
            vp.extended.debug[(name.0 - Name::DR0.0) as usize] = word
        }
        Name::EFER if word & !0xcd01 == 0 => {
            vp.hardware.set_efer(word);
            vp.forget_translations();
        }
        Name::PAT if crate::msr::is_valid_pat(word) => vp.hardware.set_pat(word),
        Name::APIC_BASE => vp.apic.set_base(word).map_err(|_| INVALID)?,
        Name::MTRR_DEF_TYPE if crate::msr::is_valid_mtrr_default(word) => vp.mtrr_default = word,
        Name::TSC_AUX if word >> 32 == 0 => vp.extended.tsc_aux = word,
        Name::EXPLICIT_SUSPEND => suspend(vp, suspension::EXPLICIT, word),
        Name::INTERCEPT_SUSPEND => suspend(vp, suspension::INTERCEPT, word),
        Name::INTERNAL_ACTIVITY_STATE => match word {
            0 => vp.shared.set_state(VpState::Runnable),
            1 => vp.shared.set_state(VpState::WaitForStart),
            2 => vp.shared.set_state(VpState::Halted),
            _ => return Err(INVALID),
        },
        Name::PENDING_EVENT0 => return set_pending(vp, value.pending_exception()),
        Name::GUEST_OS_ID => vp.partition.guest_os_id.store(word, Ordering::Relaxed),
        Name::HYPERCALL => hypercall_page::set(vp.partition, word).map_err(|_| INVALID)?,
        Name::SCONTROL => vp.shared.synic.set_control(word).map_err(|_| INVALID)?,
        Name::SIEFP => vp.shared.synic.set_event_page(word),
        Name::SIMP => vp.shared.synic.set_message_page(word),
        Name(0xa_0000..=0xa_000f) => vp
            .shared
            .synic
            .set_sint((name.0 & 0xf) as usize, word)
            .map_err(|_| INVALID)?,
        Name(0xb_0000..=0xb_0007) => {
            let timer = ((name.0 & 7) / 2) as usize;
            match name.0 & 1 {
                0 => Synic::set_timer_config(vp, timer, word).map_err(|_| INVALID)?,
                _ => Synic::set_timer_count(vp, timer, word),
            }
        }
        _ => return Err(HvStatus::INVALID_PARAMETER),
    }
    Ok(())
}

fn suspend(vp: &mut Vp, reason: u8, value: u64) {
    if value & 1 != 0 {
        vp.shared.suspend(reason);
    } else {
        vp.shared.resume(reason);
    }
}

fn table(table: TableRegister) -> SegmentRegister {
    SegmentRegister {
        base: table.base,
        limit: table.limit as u32,
        ..SegmentRegister::default()
    }
}

/// An exception that the VP takes before its next instruction, in place of what an intercept had interrupted.
fn set_pending(vp: &mut Vp, event: PendingException) -> Result<(), HvStatus> {
    let vector = (event.event >> 16) as u8;
    if !event.is_pending() || event.event >> 1 & 7 != 0 || vector >= 32 {
        return Err(HvStatus::INVALID_REGISTER_VALUE);
    }
    let error_code = (event.event & 1 << 8 != 0).then_some(event.error_code);
    const PAGE_FAULT: u8 = 14;
    if vector == PAGE_FAULT {
        vp.hardware.set_register(Register::Cr2, event.parameter);
    }
    vp.pending_exception = Some(Exception { vector, error_code });
    vp.hardware.forget_interrupted_event();
    Ok(())
}
