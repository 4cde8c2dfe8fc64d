use super::super::memory::tests::memory;
use super::*;
use hypercall_api::address::Gpa;
use hypercall_api::pvh::{self as abi, StartInfo};
use proptest::prelude::*;

const MIB: usize = 1 << 20;

/// A 64-bit ELF file with one segment of `text` at 2 MiB (virtual addresses from 0xffff800000000000 on) and, if wanted,
/// a PVH note with `entry`.
pub(crate) fn elf64(text: &[u8], entry: Option<u64>) -> Vec<u8> {
    let mut file = vec![0; 0x1000];
    file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &2u16.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(20, &1u32.to_le_bytes());
    put(24, &0xffff_8000_0020_0010u64.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &64u16.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &(1 + u16::from(entry.is_some())).to_le_bytes());
    let header = |kind: u32, offset: u64, address: u64, size: u64, memory: u64| {
        let mut header = Vec::new();
        header.extend(kind.to_le_bytes());
        header.extend(5u32.to_le_bytes());
        header.extend(offset.to_le_bytes());
        header.extend((0xffff_8000_0000_0000 + address).to_le_bytes());
        header.extend(address.to_le_bytes());
        header.extend(size.to_le_bytes());
        header.extend(memory.to_le_bytes());
        header.extend(4u64.to_le_bytes());
        header
    };
    put(
        64,
        &header(1, 0x1000, 0x20_0000, text.len() as u64, text.len() as u64 + 0x100),
    );
    if let Some(entry) = entry {
        put(120, &header(4, 0x200, 0, 24, 24));
        put(0x200, &[4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0]);
        put(0x20c, b"Xen\0");
        put(0x210, &entry.to_le_bytes());
    }
    file.extend(text);
    file
}

fn multiboot_header(flags: u32) -> Vec<u8> {
    let checksum = 0u32.wrapping_sub(multiboot::HEADER_MAGIC).wrapping_sub(flags);
    [multiboot::HEADER_MAGIC, flags, checksum]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

fn boot(kernel: &[u8]) -> Boot<'_> {
    Boot {
        kernel,
        modules: &[Module {
            bytes: b"initial disk",
            command_line: "disk",
        }],
        command_line: "quiet log=debug",
        rsdp: 0xe_0000,
    }
}

fn text_at(memory: &GuestMemory, address: u64, length: usize) -> String {
    let mut bytes = vec![0; length];
    memory.read(Gpa(address), &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_pvh_kernel_gets_its_start_information() {
    let memory = memory(&[8 * MIB]);
    let kernel = elf64(b"kernel text and data", Some(0x20_0004));
    let entry = load(&boot(&kernel), &memory).unwrap();
    assert_eq!((entry.rip, entry.rax), (0x20_0004, 0));
    let info: StartInfo = memory.read_value(Gpa(entry.rbx)).unwrap();
    assert_eq!((info.magic, info.version, info.module_count), (abi::MAGIC, 1, 1));
    assert_eq!(text_at(&memory, info.command_line, 16), "quiet log=debug\0");
    let module: abi::Module = memory.read_value(Gpa(info.modules)).unwrap();
    assert_eq!(
        text_at(&memory, module.address, module.size as usize),
        "initial disk"
    );
    assert_eq!(text_at(&memory, module.command_line, 5), "disk\0");
    assert_eq!(text_at(&memory, 0x20_0000, 20), "kernel text and data");
    let map: [MemoryMapEntry; 3] = core::array::from_fn(|index| {
        memory
            .read_value(Gpa(info.memory_map + 24 * index as u64))
            .unwrap()
    });
    assert_eq!(info.memory_map_entries, 3);
    assert_eq!(
        map.map(|entry| (entry.address, entry.size, entry.kind)),
        [
            (0, 0xa_0000, MemoryKind::RAM),
            (0xa_0000, 0x6_0000, MemoryKind::RESERVED),
            (0x10_0000, 7 << 20, MemoryKind::RAM)
        ]
    );
}

#[test]
fn a_multiboot_kernel_gets_its_information() {
    let memory = memory(&[8 * MIB]);
    let mut text = vec![0x90; 64];
    text[32..44].copy_from_slice(&multiboot_header(3));
    let kernel = elf64(&text, None);
    let entry = load(&boot(&kernel), &memory).unwrap();
    // The entry of the file is a virtual address.
    assert_eq!((entry.rip, entry.rax), (0x20_0010, 0x2bad_b002));
    let word = |index: u64| memory.read_value::<u32>(Gpa(entry.rbx + 4 * index)).unwrap();
    assert_eq!(word(0), 0x24d);
    assert_eq!((word(1), word(2)), (640, 7 * 1024));
    assert_eq!(text_at(&memory, word(4).into(), 16), "quiet log=debug\0");
    let module: [u32; 4] = memory.read_value(Gpa(word(6).into())).unwrap();
    assert_eq!(module[1] - module[0], 12);
    assert_eq!(text_at(&memory, module[0].into(), 12), "initial disk");
    assert_eq!(word(11), 3 * 24);
    assert_eq!(memory.read_value::<u32>(Gpa(word(12).into())), Ok(20));
}

#[test]
fn each_unusable_kernel_is_told_why() {
    let memory = memory(&[4 * MIB]);
    let says = |kernel: &[u8]| load(&boot(kernel), &memory).unwrap_err().to_string();
    const NEITHER: &str = "it is neither a Linux bzImage nor an ELF file";
    assert_eq!(says(b"#!/bin/sh\necho"), NEITHER);
    for (kernel, what) in [
        (&b""[..], ": it is empty"),
        (b"\x1f\x8b\x08", ": it is compressed by gzip; decompress it"),
        (
            b"070701000",
            ": it is an archive, as initial RAM disks are, which belong into 'modules'",
        ),
    ] {
        assert_eq!(says(kernel), alloc::format!("{NEITHER}{what}"));
    }
    assert!(says(&elf64(b"text", None)).contains("neither a PVH entry"));
    assert!(says(&elf64(b"text", Some(0x30_0000))).contains("entry 0x300000 is not in a loaded segment"));
    let mut arm = elf64(b"text", Some(0x20_0000));
    arm[18] = 183;
    assert!(says(&arm).contains("another machine"));
    let mut high = elf64(b"text", Some(0x20_0000));
    high[64 + 24 + 4] = 1;
    assert!(says(&high).contains("does not fit the virtual machine's 0x400000 bytes"));
    let cut = &elf64(b"text", Some(0x20_0000))[..0x1002];
    assert!(says(cut).contains("larger than the file"));
    let video = elf64(&[vec![0; 32], multiboot_header(4)].concat(), None);
    assert!(says(&video).contains("a video mode"));
}

#[test]
fn a_module_that_does_not_fit_is_named() {
    let memory = memory(&[4 * MIB]);
    let kernel = elf64(b"text", Some(0x20_0000));
    let large = vec![0; 4 * MIB];
    let modules = [Module {
        bytes: &large,
        command_line: "initrd",
    }];
    let boot = Boot {
        modules: &modules,
        ..boot(&kernel)
    };
    let error = load(&boot, &memory).unwrap_err().to_string();
    assert!(error.contains("no room for module 1 ('initrd')"), "{error}");
}

#[test]
fn modules_lie_beside_the_kernel_and_each_other() {
    // The kernel ends 0x1000 below the end of the RAM, so that modules must go below it.
    let memory = memory(&[4 * MIB]);
    let mut kernel = elf64(b"text", Some(0x20_0000));
    kernel[64 + 40..64 + 48].copy_from_slice(&0x1f_f000u64.to_le_bytes());
    let bytes = vec![7; 0x1800];
    let module = Module {
        bytes: &bytes,
        command_line: "m",
    };
    let boot = Boot {
        modules: &[module, module],
        ..boot(&kernel)
    };
    let entry = load(&boot, &memory).unwrap();
    let info: StartInfo = memory.read_value(Gpa(entry.rbx)).unwrap();
    let modules: [abi::Module; 2] =
        core::array::from_fn(|index| memory.read_value(Gpa(info.modules + 32 * index as u64)).unwrap());
    for module in modules {
        assert!(module.address >= 0x10_0000 && module.address + module.size <= 0x20_0000);
        assert_eq!(module.address % 4096, 0);
    }
    assert!(modules[0].address.abs_diff(modules[1].address) >= 0x2000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_damaged_kernel_makes_it_panic_or_write_outside(
        damage in prop::collection::vec((0usize..0x230, any::<u8>()), 1..6),
        multiboot: bool,
        length in 0usize..0x1040,
    ) {
        let memory = memory(&[4 * MIB]);
        let mut kernel = match multiboot {
            true => elf64(&[vec![0; 32], multiboot_header(3)].concat(), None),
            false => elf64(b"text", Some(0x20_0000)),
        };
        for (at, value) in damage {
            kernel[at] = value;
        }
        kernel.truncate(length.max(1));
        if let Ok(entry) = load(&boot(&kernel), &memory) {
            prop_assert!(entry.rip < 4 * MIB as u64 && entry.rbx < 4 * MIB as u64);
        }
    }
}
