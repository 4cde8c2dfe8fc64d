//! What the root does not survive, but must not hang on either.
#![allow(unsafe_code)]

use super::{Outcome, Targets};
use crate::processor::descriptors;
use alloc::format;
use alloc::string::String;
use core::arch::asm;
use core::hint::black_box;

pub(super) fn triple_fault(_: &Targets) -> Outcome {
    // SAFETY: the user asked for it.
    unsafe {
        descriptors::load_null_idt();
        asm!("int3");
    }
    Err(String::from("the root survived"))
}

pub(super) fn panic(_: &Targets) -> Outcome {
    panic!("asked for by hv selftest")
}

pub(super) fn stack_overflow(_: &Targets) -> Outcome {
    Err(format!("the root survived {} calls", deeper(0)))
}

/// Calls itself until the stack ends.
pub(super) fn deeper(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX {
        return 0;
    }
    deeper(depth + 1) + black_box(frame)[63]
}
