//! Random numbers of the processor.
#![allow(unsafe_code)]

use core::arch::asm;
use core::arch::x86_64::__cpuid;

/// CPUID leaf 1, ECX: RDRAND.
const RDRAND: u32 = 1 << 30;
/// How often RDRAND may have nothing before it counts as broken (SDM 1, 7.3.17.1).
const TRIES: usize = 10;

/// Fills `bytes`; false where the processor has no random numbers.
pub fn fill(bytes: &mut [u8]) -> bool {
    if __cpuid(1).ecx & RDRAND == 0 {
        return false;
    }
    for chunk in bytes.chunks_mut(8) {
        let Some(word) = (0..TRIES).find_map(|_| word()) else {
            return false;
        };
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    true
}

fn word() -> Option<u64> {
    let (word, valid): (u64, u8);
    // SAFETY: the caller has seen that the processor has the instruction, which changes only the registers named.
    unsafe { asm!("rdrand {}", "setc {}", out(reg) word, out(reg_byte) valid, options(nomem, nostack)) };
    (valid != 0).then_some(word)
}
