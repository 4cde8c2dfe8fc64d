//! The virtual local APIC as its page shows it, for guests that are not in x2APIC mode (SDM 3, 11.4).

use super::instruction::LONGEST;
use super::mmio::{self, Move};
use super::virtual_apic;
use super::vp::{Resume, Vp};
use crate::virtualization::{NestedFault, VirtualProcessor};
use hypercall_api::address::{Gpa, Gva};

const PAGE: u64 = 0xfee0_0000;
const ICR_LOW: u32 = 0x30;
const ICR_HIGH: u32 = 0x31;
const ID: u32 = 0x02;
const LDR: u32 = 0x0d;
const DFR: u32 = 0x0e;

/// Whether `gpa` is on the page of a VP's APIC.
pub fn is_page(vp: &Vp, gpa: Gpa) -> bool {
    gpa.0 & !0xfff == PAGE && !vp.apic.is_x2apic()
}

/// Carries out an access to the page. `None` where the instruction is not one that is decoded here.
pub fn access(vp: &mut Vp, fault: NestedFault) -> Option<Resume> {
    let mut bytes = [0; LONGEST];
    let is_64_bit = vp.hardware.is_64_bit();
    let rip = vp.hardware.rip();
    let linear = if is_64_bit {
        rip
    } else {
        vp.hardware.code_base().wrapping_add(rip) & 0xffff_ffff
    };
    let length = vp.partition.fetch(&vp.hardware.paging(), Gva(linear), &mut bytes);
    let found = mmio::decode(&bytes[..length], is_64_bit)?;
    let register = (fault.gpa.page_offset() / 16) as u32;
    match found.operation {
        // A load clears the upper half of its register.
        Move::Load(target) => {
            vp.settle_end();
            vp.registers.general[target] = read(vp, register) as u64;
        }
        Move::Store(source) => write(vp, register, vp.registers.general[source] as u32),
        Move::StoreConstant(value) => write(vp, register, value),
    }
    vp.set_rip(rip.wrapping_add(found.length as u64));
    Some(Resume::Guest)
}

/// Writes the command that HV_X64_MSR_ICR holds as the page does: the target in its highest byte.
pub fn set_command(vp: &mut Vp, value: u64) {
    write(vp, ICR_HIGH, (value >> 32) as u32);
    write(vp, ICR_LOW, value as u32);
}

/// That command.
pub fn command(vp: &Vp) -> u64 {
    (read(vp, ICR_HIGH) as u64) << 32 | read(vp, ICR_LOW) as u64
}

/// Registers that do not exist read as zero.
fn read(vp: &Vp, register: u32) -> u32 {
    match register {
        ID => vp.shared.apic_id << 24,
        LDR => vp.apic.page_ldr,
        DFR => u32::MAX,
        ICR_HIGH => vp.apic.page_icr_high,
        register => vp.apic.read(register, vp.hardware.task_priority()).unwrap_or(0) as u32,
    }
}

/// Writes that a processor does not take are dropped: the page raises no #GP.
fn write(vp: &mut Vp, register: u32, value: u32) {
    match register {
        LDR => vp.apic.page_ldr = value & 0xff00_0000,
        DFR | ID => {}
        ICR_HIGH => vp.apic.page_icr_high = value & 0xff00_0000,
        ICR_LOW => {
            let target = vp.apic.page_icr_high >> 24;
            // 0xff is everybody in this form, all ones in the other.
            let target = if target == 0xff { u32::MAX } else { target };
            let _ = virtual_apic::write(vp, ICR_LOW, (target as u64) << 32 | value as u64);
        }
        // The page takes any value for an EOI.
        0x0b => vp.end_of_interrupt(),
        register => {
            let _ = virtual_apic::write(vp, register, value as u64);
        }
    }
}
