//! MSRs that exit: one table of what a guest may read and write, and what that does.

use crate::partition::instruction::Kind;
use crate::partition::synic::Synic;
use crate::partition::virtual_apic;
use crate::partition::vp::{Resume, Vp};
use crate::partition::xapic;
use crate::partition::{guest_memory, hypercall_page};
use crate::platform::clock;
use crate::platform::registers;
use crate::power;
use crate::virtualization::general::RCX;
use crate::virtualization::{Exception, VirtualProcessor};
use core::sync::atomic::Ordering;
use hypercall_api::counter;
use hypercall_api::msr as hv;
use hypercall_api::msr::PageMsr;
use hypercall_api::privilege::Privileges;
use zerocopy::IntoBytes;

/// The access raises #GP.
struct Refused;

/// RDMSR.
#[inline]
pub fn read(vp: &mut Vp) -> Resume {
    let msr = vp.registers.general[RCX] as u32;
    if msr == hv::GUEST_IDLE
        && vp
            .partition
            .privileges
            .contains(Privileges::ACCESS_GUEST_IDLE_REG)
    {
        vp.registers.set_edx_eax(0);
        vp.advance(Kind::TwoBytes);
        return vp.idle();
    }
    match value(vp, msr) {
        Ok(value) => {
            vp.registers.set_edx_eax(value);
            vp.advance(Kind::TwoBytes);
            Resume::Guest
        }
        Err(Refused) => refuse(vp, msr, None),
    }
}

/// WRMSR.
#[inline]
pub fn write(vp: &mut Vp) -> Resume {
    let msr = vp.registers.general[RCX] as u32;
    let value = vp.registers.edx_eax();
    // Written after every message: it does not wait for the others.
    if msr == hv::EOM && vp.partition.privileges.contains(privilege_of(hv::EOM)) {
        Synic::end_of_message(vp);
        vp.advance(Kind::TwoBytes);
        return Resume::Guest;
    }
    match set(vp, msr, value) {
        Ok(()) => {
            vp.advance(Kind::TwoBytes);
            if msr == hv::CRASH_CTL && value & hv::crash::NOTIFY != 0 && vp.partition.has_parent() {
                return vp.intercept_msr(msr, Some(value), 0);
            }
            Resume::Guest
        }
        Err(Refused) => refuse(vp, msr, Some(value)),
    }
}

/// An MSR that the guest does not have, or a value that it does not take: the parent answers where it has asked for that,
/// otherwise the guest gets #GP.
fn refuse(vp: &mut Vp, msr: u32, write: Option<u64>) -> Resume {
    if vp.partition.intercepts.wants_msr(write.is_some()) {
        return vp.intercept_msr(msr, write, 2);
    }
    let what = if write.is_some() { "write" } else { "read" };
    crate::rate_limited!(
        log::Level::Debug,
        "VP {} of {}: {what} of MSR {msr:#x} refused",
        vp.shared.index,
        vp.partition.id
    );
    vp.fault(Exception::GENERAL_PROTECTION)
}

fn require(vp: &Vp, privilege: Privileges) -> Result<(), Refused> {
    if vp.partition.privileges.contains(privilege) {
        Ok(())
    } else {
        Err(Refused)
    }
}

#[inline]
fn value(vp: &mut Vp, msr: u32) -> Result<u64, Refused> {
    match msr {
        0x4000_0000..0x4000_1000 => synthetic_value(vp, msr),
        0x800..0x900 => {
            vp.settle_end();
            let priority = vp.hardware.task_priority();
            vp.apic.read(msr - 0x800, priority).map_err(|_| Refused)
        }
        registers::APIC_BASE => Ok(vp.apic.base()),
        registers::EFER => Ok(vp.hardware.efer()),
        registers::PAT => Ok(vp.hardware.pat()),
        registers::TSC => Ok(registers::tsc()),
        // There are no MTRRs but the one for all memory: the guest's memory types come from PAT and the nested tables.
        registers::MTRR_CAP => Ok(0),
        registers::MTRR_DEF_TYPE => Ok(vp.mtrr_default),
        // Machine checks are the hypervisor's: a guest has no bank of them, and none under way. Linux panics where it is
        // refused these.
        registers::MCG_CAP | registers::MCG_STATUS => Ok(0),
        // Microcode revision, platform id, VM_CR, SYSCFG, HWCR: harmless to read as nothing.
        0x8b | 0x17 | 0xc001_0010 | 0xc001_0015 | 0xc001_0114 => Ok(0),
        _ => Err(Refused),
    }
}

/// What a partition needs to touch a synthetic MSR (TLFS, "Partition Privilege Flags"). The VP assist page needs none: Linux
/// sets it without asking.
fn privilege_of(msr: u32) -> Privileges {
    match msr {
        hv::TIME_REF_COUNT => Privileges::ACCESS_PARTITION_REFERENCE_COUNTER,
        hv::REFERENCE_TSC => Privileges::ACCESS_PARTITION_REFERENCE_TSC,
        hv::TSC_FREQUENCY | hv::APIC_FREQUENCY => Privileges::ACCESS_FREQUENCY_REGS,
        hv::GUEST_OS_ID | hv::HYPERCALL => Privileges::ACCESS_HYPERCALL_MSRS,
        hv::VP_INDEX => Privileges::ACCESS_VP_INDEX,
        hv::VP_RUNTIME => Privileges::ACCESS_VP_RUN_TIME,
        hv::RESET => Privileges::ACCESS_RESET_REG,
        hv::EOI | hv::ICR | hv::TPR => Privileges::ACCESS_INTR_CTRL_REGS,
        hv::SCONTROL..=hv::EOM | hv::SINT0..=hv::SINT15 => Privileges::ACCESS_SYNIC_REGS,
        hv::STIMER0_CONFIG..=hv::STIMER3_COUNT => Privileges::ACCESS_SYNTHETIC_TIMER_REGS,
        _ => Privileges::empty(),
    }
}

fn synthetic_value(vp: &mut Vp, msr: u32) -> Result<u64, Refused> {
    let partition = vp.partition;
    require(vp, privilege_of(msr))?;
    match msr {
        hv::VP_INDEX => Ok(vp.shared.index.0 as u64),
        hv::TIME_REF_COUNT => Ok(partition.reference_time()),
        hv::GUEST_OS_ID => Ok(partition.guest_os_id.load(Ordering::Relaxed)),
        hv::HYPERCALL => Ok(partition.hypercall_msr.load(Ordering::Relaxed)),
        hv::RESET => Ok(0),
        hv::VP_RUNTIME => Ok(vp.shared.statistics.get(counter::TOTAL_RUN_TIME)),
        hv::REFERENCE_TSC => Ok(partition.reference_tsc_msr.load(Ordering::Relaxed)),
        hv::TSC_FREQUENCY => Ok(clock::tsc_frequency()),
        hv::APIC_FREQUENCY => Ok(virtual_apic::TIMER_HZ),
        hv::ICR if vp.apic.is_x2apic() => vp.apic.read(0x30, 0).map_err(|_| Refused),
        hv::ICR => Ok(xapic::command(vp)),
        hv::TPR => Ok((vp.hardware.task_priority() << 4) as u64),
        hv::VP_ASSIST_PAGE => Ok(vp.assist_page),
        hv::SCONTROL => Ok(vp.shared.synic.control()),
        hv::SVERSION => Ok(1),
        hv::SIEFP => Ok(vp.shared.synic.event_page()),
        hv::SIMP => Ok(vp.shared.synic.message_page()),
        hv::EOM => Ok(0),
        hv::CRASH_P0..=hv::CRASH_P4 => {
            Ok(partition.crash[(msr - hv::CRASH_P0) as usize].load(Ordering::Relaxed))
        }
        // What the hypervisor takes.
        hv::CRASH_CTL => Ok(hv::crash::NOTIFY | hv::crash::NOTIFY_MESSAGE),
        hv::SINT0..=hv::SINT15 => Ok(vp.shared.synic.sint((msr - hv::SINT0) as usize)),
        hv::STIMER0_CONFIG..=hv::STIMER3_COUNT => {
            let index = (msr - hv::STIMER0_CONFIG) as usize;
            Ok(match index % 2 {
                0 => vp.synic.timer_config(index / 2),
                _ => vp.synic.timer_count(index / 2),
            })
        }
        _ => Err(Refused),
    }
}

fn set(vp: &mut Vp, msr: u32, value: u64) -> Result<(), Refused> {
    match msr {
        0x4000_0000..0x4000_1000 => set_synthetic(vp, msr, value),
        0x800..0x900 if vp.apic.is_x2apic() => {
            virtual_apic::write(vp, msr - 0x800, value).map_err(|_| Refused)
        }
        registers::APIC_BASE => vp.apic.set_base(value).map_err(|_| Refused),
        registers::EFER => {
            const RESERVED: u64 = !0xcd01;
            if value & RESERVED != 0 {
                return Err(Refused);
            }
            vp.hardware.set_efer(value);
            Ok(())
        }
        registers::PAT if is_valid_pat(value) => {
            vp.hardware.set_pat(value);
            Ok(())
        }
        registers::MTRR_DEF_TYPE if is_valid_mtrr_default(value) => {
            vp.mtrr_default = value;
            Ok(())
        }
        registers::MCG_STATUS if value == 0 => Ok(()),
        // Microcode update, HWCR: ignored.
        0x8b | 0xc001_0015 => Ok(()),
        _ => Err(Refused),
    }
}

/// Whether a value for IA32_MTRR_DEF_TYPE names a memory type, and sets no bit but those that turn MTRRs on. Fixed ranges
/// are not there, but turning them on does no harm.
pub fn is_valid_mtrr_default(value: u64) -> bool {
    value & !0xcff == 0 && matches!(value as u8, 0 | 1 | 4..=6)
}

/// Whether each of the eight entries is a memory type.
pub fn is_valid_pat(value: u64) -> bool {
    value
        .to_le_bytes()
        .iter()
        .all(|entry| matches!(entry, 0 | 1 | 4..=7))
}

fn set_synthetic(vp: &mut Vp, msr: u32, value: u64) -> Result<(), Refused> {
    let partition = vp.partition;
    require(vp, privilege_of(msr))?;
    match msr {
        hv::GUEST_OS_ID => {
            partition.guest_os_id.store(value, Ordering::Relaxed);
            if value == 0 {
                hypercall_page::disable(partition);
            }
            Ok(())
        }
        hv::HYPERCALL => hypercall_page::set(partition, value).map_err(|_| Refused),
        hv::RESET => {
            if value & 1 != 0 {
                power::reset();
            }
            Ok(())
        }
        hv::REFERENCE_TSC => set_reference_tsc(vp, value),
        hv::EOI => {
            vp.end_of_interrupt();
            Ok(())
        }
        hv::ICR if vp.apic.is_x2apic() => virtual_apic::write(vp, 0x30, value).map_err(|_| Refused),
        hv::ICR => {
            xapic::set_command(vp, value);
            Ok(())
        }
        hv::TPR => virtual_apic::write(vp, 0x08, value & 0xff).map_err(|_| Refused),
        hv::VP_ASSIST_PAGE => {
            vp.settle_end();
            zero_page(vp, value)?;
            vp.assist_page = value;
            Ok(())
        }
        hv::SCONTROL => {
            vp.shared.synic.set_control(value).map_err(|_| Refused)?;
            Synic::deliver_waiting(vp);
            Ok(())
        }
        hv::SIEFP => {
            vp.shared.synic.set_event_page(value);
            Ok(())
        }
        hv::SIMP => {
            vp.shared.synic.set_message_page(value);
            Synic::deliver_waiting(vp);
            Ok(())
        }
        hv::CRASH_P0..=hv::CRASH_CTL => {
            partition.crash[(msr - hv::CRASH_P0) as usize].store(value, Ordering::Relaxed);
            Ok(())
        }
        hv::EOM => {
            Synic::end_of_message(vp);
            Ok(())
        }
        hv::SINT0..=hv::SINT15 => vp
            .shared
            .synic
            .set_sint((msr - hv::SINT0) as usize, value)
            .map_err(|_| Refused),
        hv::STIMER0_CONFIG..=hv::STIMER3_COUNT => {
            let index = (msr - hv::STIMER0_CONFIG) as usize;
            match index % 2 {
                0 => Synic::set_timer_config(vp, index / 2, value).map_err(|_| Refused),
                _ => {
                    Synic::set_timer_count(vp, index / 2, value);
                    Ok(())
                }
            }
        }
        _ => Err(Refused),
    }
}

/// A page that the guest gives starts out as zeroes, as an overlay page does.
fn zero_page(vp: &Vp, value: u64) -> Result<(), Refused> {
    let page = PageMsr(value);
    if page.is_enabled() {
        let written = vp
            .partition
            .with_frame(page.page(), |frame| guest_memory::write_frame(frame, 0, &[0; 16]));
        written.ok_or(Refused)?;
    }
    Ok(())
}

fn set_reference_tsc(vp: &Vp, value: u64) -> Result<(), Refused> {
    let page = PageMsr(value);
    if page.is_enabled() {
        let contents = vp.partition.reference_tsc();
        let written = vp.partition.with_frame(page.page(), |frame| {
            // The sequence number comes last: until then it reads as not valid.
            guest_memory::write_frame(frame, 4, &contents.as_bytes()[4..]);
            guest_memory::frame_word(frame, 0).store(contents.sequence, Ordering::Release);
        });
        written.ok_or(Refused)?;
    }
    vp.partition.reference_tsc_msr.store(value, Ordering::Relaxed);
    Ok(())
}
