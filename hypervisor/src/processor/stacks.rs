//! Stacks of a processor: one for the hypervisor's work, and one for each kind of interrupt entry (every vector is on
//! an IST stack, because the precompiled `core` uses the red zone). Below each lies an unmapped guard page.

#![allow(unsafe_code)]

use crate::memory::address::{Frame, Spa};
use core::arch::asm;
use hypercall_api::address::PAGE_SIZE;

/// Pages of each stack, without its guard.
const WORK_PAGES: u64 = 8;
const INTERRUPT_PAGES: u64 = 4;

/// Which stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stack {
    /// The hypervisor's work.
    Work,
    /// Exceptions.
    Exception,
    /// NMI.
    Nmi,
    /// Double fault.
    DoubleFault,
    /// Interrupts.
    Interrupt,
}

impl Stack {
    /// Every stack, in the order in which they lie in memory.
    pub const ALL: [Self; 5] = [
        Self::Work,
        Self::Exception,
        Self::Nmi,
        Self::DoubleFault,
        Self::Interrupt,
    ];

    const fn pages(self) -> u64 {
        match self {
            Self::Work => WORK_PAGES,
            _ => INTERRUPT_PAGES,
        }
    }

    const fn first_page(self) -> u64 {
        match self {
            Self::Work => 0,
            _ => WORK_PAGES + 1 + (self as u64 - 1) * (INTERRUPT_PAGES + 1),
        }
    }
}

/// The stacks of one processor: a run of pages.
#[derive(Clone, Copy, Debug)]
pub struct Stacks {
    base: Spa,
}

impl Stacks {
    /// Pages that the stacks of one processor take, guards included.
    pub const PAGES: u64 = WORK_PAGES + 1 + 4 * (INTERRUPT_PAGES + 1);

    /// Stacks in the [`PAGES`](Self::PAGES) pages from `base` on.
    pub const fn new(base: Frame) -> Self {
        Self { base: base.start() }
    }

    /// The page that must not be mapped.
    pub const fn guard(&self, stack: Stack) -> Spa {
        Spa(self.base.0 + stack.first_page() * PAGE_SIZE)
    }

    /// Where the stack begins: its highest address.
    pub const fn top(&self, stack: Stack) -> u64 {
        self.base.0 + (stack.first_page() + 1 + stack.pages()) * PAGE_SIZE
    }
}

/// Goes on in `entry` on the stack that begins at `top`, for good.
///
/// # Safety
/// The stack must be free, and what is on the current one not needed any more.
pub unsafe fn switch(top: u64, entry: extern "C" fn() -> !) -> ! {
    // SAFETY: the caller vouches for the stack; `entry` does not return.
    unsafe {
        asm!("mov rsp, {}", "xor ebp, ebp", "call {}", "ud2", in(reg) top, in(reg) entry, options(noreturn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_and_guards_fill_their_pages_without_overlap() {
        let stacks = Stacks::new(Frame::containing(Spa(0x10_0000)));
        let mut next = 0x10_0000;
        for stack in Stack::ALL {
            assert_eq!(stacks.guard(stack), Spa(next));
            next = stacks.top(stack);
        }
        assert_eq!(next, 0x10_0000 + Stacks::PAGES * PAGE_SIZE);
    }
}
