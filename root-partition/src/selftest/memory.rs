//! The root's own memory: its page tables' protection, and a heap that grows.
#![allow(unsafe_code)]

use super::{Outcome, Targets, ending};
use crate::memory::heap;
use crate::processor::local;
use crate::processor::probe::{self, Fault};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Words that the heap's test allocates at once: 1 MiB.
const HEAP_PIECE: usize = 1 << 17;

pub(super) fn own_memory(_: &Targets) -> Outcome {
    // SAFETY: where the write is not refused, it spoils a function that only another test uses.
    let code = unsafe { probe::write(ending::deeper as *const () as u64, 0) };
    let guard = probe::read(local().stack().guard);
    let null = probe::read(0);
    let seen = [
        ("writing its code", code.err()),
        ("reading the page under the stack", guard.err()),
        ("reading page 0", null.err()),
    ];
    for (what, fault) in seen {
        match fault {
            Some(fault) if fault.vector == Fault::PAGE_FAULT => {}
            Some(fault) => return Err(format!("{what} raised {fault} instead of #PF")),
            None => return Err(format!("{what} was let through")),
        }
    }
    Ok(String::from(
        "writing code, the page under the stack and page 0 raise #PF",
    ))
}

/// Allocates until the heap has taken more memory; all of it is freed again, but the heap keeps what it took.
pub(super) fn heap_growth(targets: &Targets) -> Outcome {
    let (before, _) = heap::usage(targets.heap);
    let mut pieces = Vec::new();
    loop {
        let mut piece: Vec<u64> = Vec::new();
        if piece.try_reserve_exact(HEAP_PIECE).is_err() {
            return Err(format!(
                "an allocation failed with a heap of {} MiB",
                before >> 20
            ));
        }
        piece.push(pieces.len() as u64);
        pieces.push(piece);
        let (after, _) = heap::usage(targets.heap);
        if after > before {
            let intact = pieces
                .iter()
                .enumerate()
                .all(|(index, piece)| piece[..] == [index as u64]);
            return match intact {
                true => Ok(format!(
                    "the heap grew from {} to {} MiB",
                    before >> 20,
                    after >> 20
                )),
                false => Err(String::from("allocations overlap")),
            };
        }
    }
}
