//! The image's entry.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

extern crate freestanding;

#[unsafe(no_mangle)]
extern "C" fn image_main(_boot_info: u32, _magic: u32) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
