//! The image's entry; everything else is in the library, where it can be tested.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

extern crate freestanding;

use core::panic::PanicInfo;
use root_partition::memory::address_space::Image;
use root_partition::memory::heap::{self, Heap};
use root_partition::{start, stop};

#[global_allocator]
static HEAP: Heap = heap::new();

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
}

#[unsafe(no_mangle)]
extern "C" fn image_main(boot_info: u32, _magic: u32) -> ! {
    let text = &raw const __image_start as u64..&raw const __text_end as u64;
    let constants = text.end..&raw const __rodata_end as u64;
    let image = Image {
        data: constants.end..&raw const __image_end as u64,
        text,
        constants,
    };
    // SAFETY: this is the entry, and these are the linker script's sections.
    unsafe { start::begin(boot_info, &image, &HEAP) }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    stop::panic(info)
}
