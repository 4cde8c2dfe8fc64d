//! INS and OUTS: ports at one end, the guest's memory at the other.

use super::super::child::Child;
use super::super::chipset::Effects;
use super::super::emulate::{self, registers::Registers};
use super::super::host::Host;
use super::{Answer, code_bits, crash, fault, next_rip, resume};
use alloc::format;
use hypercall_api::access::{TranslateFlags, TranslateResult};
use hypercall_api::address::{Gpa, Gva, PAGE_SIZE};
use hypercall_api::id::VpIndex;
use hypercall_api::intercept::{AccessType, ExecutionState, IoPortIntercept};
use hypercall_api::register::RegisterName;
use hypercall_api::status::HvStatus;
use iced_x86::Register;

/// Elements that are moved before the VP gets a chance to take an interrupt.
const MOST_ELEMENTS: u64 = 1024;
const PAGE_FAULT: u8 = 14;
/// Page fault error code: the page was there.
const PRESENT: u32 = 1 << 0;
/// Page fault error code: a write.
const WRITE: u32 = 1 << 1;
/// Page fault error code: from user mode.
const USER: u32 = 1 << 2;

/// Does as much of the access as is done at once.
pub fn access<H: Host>(
    child: &Child<H>,
    vp: VpIndex,
    it: &IoPortIntercept,
    set: &mut super::Registers,
) -> Result<Answer, HvStatus> {
    let bits = code_bits(&it.header);
    let bytes = it
        .instruction
        .get(..it.instruction_byte_count.into())
        .unwrap_or_default();
    let Ok(instruction) = emulate::decode(bytes, bits, it.header.rip) else {
        return Ok(crash(format!(
            "VP {vp} used INS or OUTS, but its bytes cannot be read"
        )));
    };
    let address_size = emulate::address_size(&instruction);
    let mut registers = Registers {
        rip: it.header.rip,
        rflags: it.header.rflags,
        bits,
        ..Registers::default()
    };
    registers.general[1] = it.rcx;
    registers.general[6] = it.rsi;
    registers.general[7] = it.rdi;
    let writes_port = it.header.access == AccessType::WRITE;
    let mut transfer = Transfer {
        child,
        vp,
        it,
        address_size,
        index: if writes_port { Register::RSI } else { Register::RDI },
        page: None,
    };
    let mut left = if it.access.is_repeated() {
        registers.count(address_size)
    } else {
        1
    };
    let mut stays = false;
    for _ in 0..left.min(MOST_ELEMENTS) {
        match transfer.element(&mut registers)? {
            Element::Done => left -= 1,
            Element::Stop => {
                left -= 1;
                stays = true;
                break;
            }
            // What was done before counts; the rest is done when the guest has made the page present.
            Element::Fault(it_raises) if registers.general[1] == it.rcx || !it.access.is_repeated() => {
                return Ok(fault(set, PAGE_FAULT, Some(it_raises.code), it_raises.address));
            }
            Element::Fault(_) => break,
        }
        if it.access.is_repeated() {
            registers.count_down(address_size, 1);
        }
    }
    if stays {
        return Ok(Answer::Stay);
    }
    let rip = match left {
        0 => next_rip(&it.header, instruction.len() as u64),
        _ => it.header.rip,
    };
    Ok(resume(
        set,
        [
            (RegisterName::RCX, registers.general[1].into()),
            (RegisterName::RSI, registers.general[6].into()),
            (RegisterName::RDI, registers.general[7].into()),
            (RegisterName::RIP, rip.into()),
        ],
    ))
}

enum Element {
    Done,
    /// Done, and the VP is not to go on.
    Stop,
    /// Not done, and what the VP gets for it.
    Fault(PageFault),
}

/// What an access to a page that is not there raises.
struct PageFault {
    code: u32,
    address: u64,
}

struct Transfer<'a, H: Host> {
    child: &'a Child<H>,
    vp: VpIndex,
    it: &'a IoPortIntercept,
    address_size: u8,
    index: Register,
    /// The last translation: virtual page and physical address.
    page: Option<(u64, u64)>,
}

impl<H: Host> Transfer<'_, H> {
    /// Moves one element.
    fn element(&mut self, registers: &mut Registers) -> Result<Element, HvStatus> {
        let size = self.it.access.size();
        let at = if self.index == Register::RSI { 6 } else { 7 };
        let offset = registers.general[at] & emulate::mask(self.address_size);
        let mut places = [Gpa(0); 4];
        let places = &mut places[..usize::from(size.min(4))];
        for (index, place) in places.iter_mut().enumerate() {
            match self.locate(offset.wrapping_add(index as u64))? {
                Ok(gpa) => *place = gpa,
                Err(fault) => return Ok(Element::Fault(fault)),
            }
        }
        let goes_on = self.transfer(places);
        registers.advance(self.index, self.address_size, size.into());
        Ok(if goes_on { Element::Done } else { Element::Stop })
    }

    /// Moves the bytes at `places`. Memory that is not RAM reads all ones.
    fn transfer(&self, places: &[Gpa]) -> bool {
        let mut effects = Effects::new();
        let size = places.len() as u8;
        if self.index == Register::RSI {
            let mut bytes = [0xff; 4];
            let memory = self.child.memory.lock();
            for (place, byte) in places.iter().zip(&mut bytes) {
                let _ = memory.read(*place, core::slice::from_mut(byte));
            }
            drop(memory);
            let mut chipset = self.child.chipset.lock();
            chipset.write_port(self.it.port, size, u32::from_le_bytes(bytes), &mut effects);
        } else {
            let value = self
                .child
                .chipset
                .lock()
                .read_port(self.it.port, size, &mut effects);
            let memory = self.child.memory.lock();
            for (place, byte) in places.iter().zip(value.to_le_bytes()) {
                let _ = memory.write(*place, &[byte]);
            }
        }
        self.child.apply(&effects)
    }

    /// Where the byte at `offset` of the segment lies, or the page fault that it raises.
    fn locate(&mut self, offset: u64) -> Result<Result<Gpa, PageFault>, HvStatus> {
        let segment = if self.index == Register::RSI {
            &self.it.ds
        } else {
            &self.it.es
        };
        let linear =
            match self.it.header.state.has(ExecutionState::EFER_LMA) && code_bits(&self.it.header) == 64 {
                true => segment.base.wrapping_add(offset),
                false => segment.base.wrapping_add(offset) & 0xffff_ffff,
            };
        let (page, in_page) = (linear / PAGE_SIZE, linear % PAGE_SIZE);
        if let Some((known, base)) = self.page
            && known == page
        {
            return Ok(Ok(Gpa(base + in_page)));
        }
        let writes = self.index == Register::RDI;
        let flags = match writes {
            true => TranslateFlags::VALIDATE_WRITE,
            false => TranslateFlags::VALIDATE_READ,
        };
        let flags = flags | TranslateFlags::SET_PAGE_TABLE_BITS;
        let found = self
            .child
            .host
            .translate(self.child.id, self.vp, flags, Gva(linear))?;
        match found.result {
            TranslateResult::PAGE_NOT_PRESENT | TranslateResult::PRIVILEGE_VIOLATION => {
                let user = self.it.header.state.privilege_level() == 3;
                let present = found.result == TranslateResult::PRIVILEGE_VIOLATION;
                let flag = |set, bit| if set { bit } else { 0 };
                let code = flag(present, PRESENT) | flag(writes, WRITE) | flag(user, USER);
                Ok(Err(PageFault {
                    code,
                    address: linear,
                }))
            }
            // Where nothing is mapped, the page number counts all the same.
            _ => {
                let base = found.page.base().map_or(!0xfff, |base| base.0);
                self.page = Some((page, base));
                Ok(Ok(Gpa(base.wrapping_add(in_page))))
            }
        }
    }
}
