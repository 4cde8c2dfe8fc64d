//! Accesses that need `unsafe`, each harmless in a guest of this kind: it has no data but its own results.
#![allow(unsafe_code)]

use core::arch::asm;
use core::cell::UnsafeCell;
use hypercall_api::control::{HypercallInput, HypercallResult};
use hypercall_api::msr;
use vsc_runtime::hypervisor::HypercallPage;
use vsc_runtime::memory::paging::{self, Access};
use vsc_runtime::processor::instruction;
use vsc_runtime::processor::probe::{self, Fault};
use x86_64::instructions::port::Port;

/// Two pages in a row for parameters.
#[repr(C, align(4096))]
pub(crate) struct Pages(UnsafeCell<[u8; 8192]>);

// SAFETY: only the boot processor uses them, by the functions below.
unsafe impl Sync for Pages {}

/// The pages that calls are tried with.
pub(crate) static PAGES: Pages = Pages(UnsafeCell::new([0; 8192]));

impl Pages {
    /// Address of the first.
    pub(crate) fn address(&self) -> u64 {
        self.0.get() as u64
    }

    /// Fills both with zeroes and then with `bytes` from `offset` on.
    pub(crate) fn fill(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= 8192);
        // SAFETY: the range lies in the pages, and nobody else uses them.
        unsafe {
            let start = self.0.get().cast::<u8>();
            start.write_bytes(0, 8192);
            start
                .add(offset)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }
}

/// Writes to the start of [`PAGES`], which may be refused.
pub(crate) fn write_pages(value: u64) -> Result<(), Fault> {
    // SAFETY: the pages are there to be written to.
    unsafe { probe::write(PAGES.address(), value) }
}

/// Makes a hypercall with any three words.
pub(crate) fn call(page: HypercallPage, control: HypercallInput, input: u64, output: u64) -> HypercallResult {
    // SAFETY: this guest has no privilege that could give its memory away, and its own pages are all that outputs could hit.
    HypercallResult(unsafe { page.call(control.0, input, output) })
}

/// The same by the instruction itself, which may be refused.
pub(crate) fn call_directly(amd: bool, control: u64) -> Result<u64, Fault> {
    // SAFETY: as above.
    unsafe { probe::hypercall(amd, control, 0, 0) }
}

/// Writes an MSR, which may be refused.
pub(crate) fn write_msr(msr: u32, value: u64) -> Result<(), Fault> {
    // SAFETY: what this guest writes to MSRs are values that it has read there, or such as are to be refused.
    unsafe { probe::write_msr(msr, value) }
}

/// Writes an extended control register, which may be refused.
pub(crate) fn xsetbv(register: u32, value: u64) -> Result<(), Fault> {
    // SAFETY: no state component beyond the first two is in use while this runs.
    unsafe { probe::xsetbv(register, value) }
}

/// Writes CR4, which may be refused.
pub(crate) fn write_cr4(value: u64) -> Result<(), Fault> {
    // SAFETY: the value differs from what is set by bits that change nothing for code that does not use them.
    unsafe { probe::write_cr4(value) }
}

/// Writes DR7, which may be refused.
pub(crate) fn write_dr7(value: u64) -> Result<(), Fault> {
    // SAFETY: #DB has a handler where a breakpoint is set.
    unsafe { probe::write_dr7(value) }
}

/// Changes what may be done with a page of [`PAGES`].
pub(crate) fn protect(address: u64, access: Access) {
    // SAFETY: only the tests use the page.
    unsafe { paging::protect(address, access) };
}

/// What a pointer leads to, if it is one.
pub(crate) fn static_ref<T>(pointer: *const T) -> Option<&'static T> {
    // SAFETY: the pointers of `machine` are made from `&'static` references only.
    unsafe { pointer.as_ref() }
}

/// Reads a byte from a port.
pub(crate) fn in_byte(port: u16) -> u8 {
    // SAFETY: reading a port breaks no memory.
    unsafe { Port::new(port).read() }
}

/// Reads two bytes from a port.
pub(crate) fn in_word(port: u16) -> u16 {
    // SAFETY: as above.
    unsafe { Port::new(port).read() }
}

/// Reads four bytes from a port.
pub(crate) fn in_double(port: u16) -> u32 {
    // SAFETY: as above.
    unsafe { Port::new(port).read() }
}

/// Writes a byte to a port.
pub(crate) fn out_byte(port: u16, value: u8) {
    // SAFETY: a device of this machine reaches no memory.
    unsafe { Port::new(port).write(value) }
}

/// `REP INSB`.
pub(crate) fn in_string(port: u16, into: &mut [u8]) {
    // SAFETY: the instruction writes as many bytes as there are.
    unsafe {
        asm!("rep insb", in("dx") port, inout("rdi") into.as_mut_ptr() => _, inout("rcx") into.len() => _,
             options(nostack, preserves_flags));
    }
}

/// `REP OUTSB`.
pub(crate) fn out_string(port: u16, bytes: &[u8]) {
    // SAFETY: the instruction reads as many bytes as there are.
    unsafe {
        asm!("rep outsb", in("dx") port, inout("rsi") bytes.as_ptr() => _, inout("rcx") bytes.len() => _,
             options(nostack, preserves_flags));
    }
}

/// Reads one byte of memory, by MOV, as devices are.
pub(crate) fn read_byte(address: u64) -> u8 {
    let value: u8;
    // SAFETY: the address is mapped.
    unsafe {
        asm!("mov {}, byte ptr [{}]", out(reg_byte) value, in(reg) address, options(nostack, readonly))
    };
    value
}

/// Reads two bytes of memory, by MOVZX.
pub(crate) fn read_word(address: u64) -> u32 {
    let value: u32;
    // SAFETY: as above.
    unsafe { asm!("movzx {:e}, word ptr [{}]", out(reg) value, in(reg) address, options(nostack, readonly)) };
    value
}

/// Reads four bytes of memory, by MOV.
pub(crate) fn read_double(address: u64) -> u32 {
    let value: u32;
    // SAFETY: as above.
    unsafe { asm!("mov {:e}, dword ptr [{}]", out(reg) value, in(reg) address, options(nostack, readonly)) };
    value
}

/// Writes four bytes of memory, by MOV.
pub(crate) fn write_double(address: u64, value: u32) {
    // SAFETY: the address is a device's.
    unsafe { asm!("mov dword ptr [{}], {:e}", in(reg) address, in(reg) value, options(nostack)) };
}

/// Writes four bytes of memory, by MOV of a constant.
pub(crate) fn write_constant(address: u64) {
    // SAFETY: as above.
    unsafe { asm!("mov dword ptr [{}], 0x12345678", in(reg) address, options(nostack)) };
}

/// Tells the hypervisor of a crash, with numbers as parameters.
pub(crate) fn report_crash() {
    for index in 0..5 {
        // SAFETY: the parameters are numbers.
        unsafe { instruction::write_msr(msr::CRASH_P0 + index, 0xc0de_0000 + u64::from(index)) };
    }
    // SAFETY: the last parameters are no address and length, as the bit that says so is clear.
    unsafe { instruction::write_msr(msr::CRASH_CTL, msr::crash::NOTIFY) };
}

/// CR8.
pub(crate) fn cr8() -> u64 {
    let value: u64;
    // SAFETY: reading CR8 has no effect.
    unsafe { asm!("mov {}, cr8", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// DR6, which is cleared.
pub(crate) fn take_dr6() -> u64 {
    let value: u64;
    // SAFETY: the status is only read here.
    unsafe {
        asm!("mov {0}, dr6", "mov dr6, {1}", out(reg) value, in(reg) 0xffff_0ff0u64,
             options(nomem, nostack, preserves_flags));
    }
    value
}

/// Clears bit 0 of the 32-bit word at `address`, a page of the caller's, and says whether it was set.
pub(crate) fn take_bit(address: u64) -> bool {
    // SAFETY: the word is in a page that was allocated for the hypervisor's use, and is an atomic to both.
    let word = unsafe { core::sync::atomic::AtomicU32::from_ptr(address as *mut u32) };
    word.fetch_and(!1, core::sync::atomic::Ordering::AcqRel) & 1 != 0
}
