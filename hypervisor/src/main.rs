//! The hypervisor's image: entry points, the multiboot2 header, the panic handler. Everything else is in the library.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

extern crate freestanding;

use core::arch::global_asm;
use hypervisor::boot::start::{Image, start};
use hypervisor::memory::address::{Spa, SpaRange};
use hypervisor::stop;

// Multiboot2 header (Multiboot2 Specification, 3.1): the entry address, so that the ELF's own entry can stay PVH's, and the
// module alignment. It must lie in the first 32 KiB of the file.
global_asm!(
    r#"
    .section .boot.header, "a", @progbits
    .balign 8
multiboot2_header:
    .long 0xe85250d6
    .long 0
    .long multiboot2_header_end - multiboot2_header
    .long -(0xe85250d6 + (multiboot2_header_end - multiboot2_header))
    .word 3, 0
    .long 12
    .long multiboot2_entry
    .balign 8
    .word 6, 0
    .long 8
    .word 0, 0
    .long 8
multiboot2_header_end:
    .text
"#
);

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
    static boot_root: u8;
}

#[unsafe(no_mangle)]
extern "C" fn image_main(boot_info: u32, magic: u32) -> ! {
    let address = |symbol: *const u8| Spa(symbol as u64);
    let image = Image {
        extent: SpaRange::new(address(&raw const __image_start), address(&raw const __image_end))
            .unwrap_or(SpaRange::EMPTY),
        text_end: address(&raw const __text_end),
        rodata_end: address(&raw const __rodata_end),
        boot_page_table: &raw const boot_root as u32,
    };
    start(boot_info, magic, &image)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    stop::with_report(format_args!("{info}"))
}
