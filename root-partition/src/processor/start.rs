//! Bringing the processors up: the boot processor by itself, the others by `HvCallStartVirtualProcessor`.
#![allow(unsafe_code)]

use super::instruction::read_msr;
use super::local::{self, Local};
use super::{apic, instruction};
use crate::hypervisor::hypercalls;
use crate::memory::address_space;
use crate::memory::paging::PagingError;
use crate::{executor, hypervisor};
use alloc::vec::Vec;
use core::arch::naked_asm;
use core::convert::Infallible;
use core::sync::atomic::Ordering;
use hypercall_api::call::Hypercalls;
use hypercall_api::id::VpIndex;
use x86_64::registers::control::{Cr0, Cr4, Efer};

const PAT: u32 = 0x277;
const EFER_LMA: u64 = 1 << 10;

/// Prepares the boot processor and goes on in `next` on its own stack; returns only an error.
///
/// # Safety
/// To be called once, on the boot processor, with the final page tables.
pub unsafe fn boot_processor(next: extern "C" fn() -> !) -> Result<Infallible, PagingError> {
    let boot = Local::allocate(0)?;
    // SAFETY: no other processor runs.
    unsafe { boot.load() };
    local::set_boot(boot);
    boot.apic_id.store(apic::enable(), Ordering::Release);
    boot.running.store(true, Ordering::Release);
    // SAFETY: the stack is new and large enough, and nothing on the old one is needed again.
    unsafe { switch_stack(boot.stack().top, next) }
}

/// Goes on in `next` with the stack that ends at `top`.
#[unsafe(naked)]
unsafe extern "C" fn switch_stack(top: u64, next: extern "C" fn() -> !) -> ! {
    naked_asm!("mov rsp, rdi", "xor ebp, ebp", "call rsi", "ud2")
}

/// Starts the VPs 1 to `count` - 1 and returns how many run then, the boot processor included. One that does not start is
/// reported and left out.
pub fn other_processors(count: u32) -> u32 {
    let mut all: Vec<&'static Local> = local::all().to_vec();
    for vp in 1..count {
        match Local::allocate(vp) {
            Ok(local) => all.push(local),
            Err(error) => {
                log::error!("no memory for VP {vp}: {error}");
                break;
            }
        }
    }
    local::set_all(all.into_boxed_slice());
    let mut running = 1;
    for local in local::all().iter().skip(1) {
        match start(local) {
            Ok(()) => running += 1,
            Err(status) => log::error!("VP {} did not start: {status}", local.vp),
        }
    }
    running
}

fn start(local: &'static Local) -> Result<(), hypercall_api::status::HvStatus> {
    let mut context = local.descriptors().context();
    context.rip = application_processor as *const () as u64;
    // As after a call: the function expects a return address on its stack.
    context.rsp = local.stack().top - 8;
    context.gs.base = local as *const Local as u64;
    context.efer = Efer::read_raw() | EFER_LMA;
    context.cr0 = Cr0::read_raw();
    context.cr3 = address_space::root().unwrap_or(0);
    context.cr4 = Cr4::read_raw();
    context.pat = read_msr(PAT);
    // SAFETY: the context leads to `application_processor` on a stack, with tables and a GS base that are this VP's alone.
    unsafe { hypercalls().start_vp(VpIndex(local.vp), context) }
}

/// First function of a processor that was started.
extern "C" fn application_processor() -> ! {
    let local = local::local();
    if hypervisor::init_processor().is_err() {
        instruction::stop();
    }
    local.apic_id.store(apic::enable(), Ordering::Release);
    local.running.store(true, Ordering::Release);
    executor::run()
}
