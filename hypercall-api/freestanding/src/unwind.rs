//! Symbols that the precompiled `core` and `alloc` name although nothing unwinds with `panic = "abort"`.
#![allow(unsafe_code)]

// SAFETY: no code of an image unwinds, so nobody ever calls it; only the name is needed.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    loop {
        core::hint::spin_loop();
    }
}
