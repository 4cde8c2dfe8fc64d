//! A kernel that a multiboot 1 loader starts: 32-bit, in assembly, small enough to be read here.

use anyhow::Result;
use tests::machine;

use crate::world::World;

/// Where it is loaded.
const BASE: u32 = 0x10_0000;
/// Sizes of an ELF file's header and of its only program header.
const HEADERS: [u16; 2] = [52, 32];

/// Prints its command line, if it was started as the specification says.
#[rustfmt::skip]
const CODE: [u8; 26] = [
    0x3d, 0x02, 0xb0, 0xad, 0x2b, // cmp eax, 0x2badb002
    0x75, 0x0f,                   // jne end
    0x8b, 0x73, 0x10,             // mov esi, [ebx + 16]
    0x66, 0xba, 0xf8, 0x03,       // mov dx, 0x3f8
    0xac,                         // next: lodsb
    0x84, 0xc0,                   // test al, al
    0x74, 0x03,                   // jz end
    0xee,                         // out dx, al
    0xeb, 0xf8,                   // jmp next
    0xfa,                         // end: cli
    0xf4,                         // hlt
    0xeb, 0xfd,                   // jmp end + 1
];

/// The multiboot header: magic number, flags, checksum.
fn header() -> [u32; 3] {
    let magic: u32 = 0x1bad_b002;
    [magic, 0, magic.wrapping_neg()]
}

/// The file: an ELF header, a program header, the multiboot header, the code.
fn file() -> Vec<u8> {
    let before_code = u32::from(HEADERS[0] + HEADERS[1]) + 12;
    let size = before_code + CODE.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    // An executable for the 80386.
    file.extend([2_u16, 3].iter().flat_map(|half| half.to_le_bytes()));
    let [header_size, program_header_size] = HEADERS;
    let words = [1, BASE + before_code, header_size.into(), 0, 0];
    file.extend(words.iter().flat_map(|word: &u32| word.to_le_bytes()));
    let halves = [header_size, program_header_size, 1, 0, 0, 0];
    file.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
    // The whole file is loaded, may be read and executed.
    let segment = [1, 0, BASE, BASE, size, size, 5, 0x1000];
    file.extend(segment.iter().flat_map(|word: &u32| word.to_le_bytes()));
    file.extend(header().iter().flat_map(|word| word.to_le_bytes()));
    file.extend(CODE);
    file
}

#[test]
fn a_32_bit_kernel_starts_by_multiboot_and_finds_its_command_line() -> Result<()> {
    let description = "memory = \"2MiB\"\nkernel = \"kernels/small\"\ncommand_line = \"small: started\"\n";
    let machine = machine().file("kernels/small", file());
    let mut world = World::boot(machine, &[("small", description.to_owned())])?;
    world.start("small")?;
    world.wait_said("small", "small: started")?;
    assert!(world.text("vm regs small")?.contains("RIP"));
    world.text("vm kill small").map(drop)
}
