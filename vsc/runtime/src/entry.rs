//! The way in: from the image's first Rust function to the guest's own.
#![allow(unsafe_code)]

use crate::boot::BootInfo;
use crate::memory::{self, Image};
use crate::{processor, serial, stop};
use spin::Once;

/// What the guest's own function is.
pub type Program = fn(&BootInfo);

static START: Once<(BootInfo, Program)> = Once::new();

/// Makes `$main`, a `fn(&BootInfo)`, the guest's program: defines the entry and the panic handler of the image.
///
/// The image's package depends on `freestanding` (memory functions, the boot stub) and links with its arguments; see
/// `vsc/examples`.
#[macro_export]
macro_rules! guest_main {
    ($main:ident) => {
        #[allow(unsafe_code)]
        mod guest_entry {
            extern crate freestanding;

            unsafe extern "C" {
                static __image_start: u8;
                static __text_end: u8;
                static __rodata_end: u8;
                static __image_end: u8;
            }

            #[unsafe(no_mangle)]
            extern "C" fn image_main(boot_info: u32, magic: u32) -> ! {
                let image = $crate::memory::Image {
                    start: &raw const __image_start as u64,
                    text_end: &raw const __text_end as u64,
                    constants_end: &raw const __rodata_end as u64,
                    end: &raw const __image_end as u64,
                };
                // SAFETY: this is the entry, called once by the boot stub, and these are the linker script's symbols.
                unsafe { $crate::entry::begin(boot_info, magic, &image, super::$main) }
            }

            #[panic_handler]
            fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
                $crate::stop::panic(info)
            }
        }
    };
}

/// Prepares the boot processor and calls `main` on a stack of its own.
///
/// # Safety
/// To be called once, by the boot stub, with the real layout of the image.
pub unsafe fn begin(boot_info: u32, magic: u32, image: &Image, main: Program) -> ! {
    serial::init();
    if magic != 0 {
        stop::cannot_start("it was not started by the PVH protocol");
    }
    let boot = match BootInfo::read(&BootMap, u64::from(boot_info)) {
        Ok(boot) => boot,
        Err(error) => stop::cannot_start(error.text()),
    };
    let used = boot.modules.clone();
    // SAFETY: the stub's map is active, nothing has been allocated, and the loader told where RAM is.
    if !unsafe { memory::init(&boot.memory_map, &used, image) } {
        stop::cannot_start("there is too little memory: it needs 2 MiB behind its image");
    }
    START.call_once(|| (boot, main));
    // SAFETY: this is the boot processor, and its page tables are the final ones.
    unsafe { processor::start::boot_processor(run) }
}

/// The boot processor, prepared.
extern "C" fn run() -> ! {
    let Some((boot, main)) = START.get() else {
        stop::cannot_start("the start information is lost");
    };
    x86_64::instructions::interrupts::enable();
    main(boot);
    crate::power::off()
}

/// What the boot stub maps: the first 4 GiB.
struct BootMap;

impl crate::boot::Memory for BootMap {
    fn copy(&self, address: u64, into: &mut [u8]) -> bool {
        let end = address.checked_add(into.len() as u64);
        let readable = address != 0 && end.is_some_and(|end| end <= 4 << 30);
        if readable {
            // SAFETY: the boot stub maps these addresses, and any bytes will do.
            unsafe { core::ptr::copy(address as *const u8, into.as_mut_ptr(), into.len()) };
        }
        readable
    }
}
