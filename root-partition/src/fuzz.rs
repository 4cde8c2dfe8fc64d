//! Entries for fuzzers: what operators and files say to the root. Each takes the fuzzer's bytes.

use crate::vm::description::Description;
use crate::vm::loader::{self, Boot};
use crate::vm::memory::GuestMemory;
use alloc::vec;
use alloc::vec::Vec;

/// Bytes of RAM of a machine that a kernel is loaded into.
const RAM: usize = 6 << 20;

/// Lines of a description that are near the truth.
const LINES: [&str; 12] = [
    "memory = \"64MiB\"\n",
    "kernel = \"kernels/hello\"\n",
    "processors = 2\n",
    "[[disk]]\n",
    "source = \"nvme0\"\n",
    "dvd = true\n",
    "[[network]]\n",
    "switch = \"lan\"\n",
    "[enlightenments]\n",
    "tlb_flush = false\n",
    "weight = 0x10\n",
    "modules = [\"a\", 'b']\n",
];

/// A machine's description: any bytes, and lines that make sense with a few of their bytes changed. It is read, or refused with
/// its file's name.
pub fn description(data: &[u8]) {
    let read = |text: &[u8]| match Description::read("vms/it.toml", text) {
        Ok(description) => assert!(description.processors > 0 && description.memory > 0),
        Err(error) => assert!(alloc::format!("{error}").starts_with("vms/it.toml")),
    };
    read(data);
    let mut text = Vec::new();
    for pair in data.chunks(2) {
        let line = LINES[usize::from(pair[0]) % LINES.len()].as_bytes();
        let start = text.len();
        text.extend(line);
        // Most lines stay as they are.
        if let [_, change] = *pair
            && change < 16
            && let Some(byte) = text.get_mut(start + usize::from(change) % line.len())
        {
            *byte ^= change;
        }
    }
    read(&text);
}

/// A kernel file: any bytes, and bytes behind the beginnings that loaders look for. It is loaded, or refused.
pub fn kernel(data: &[u8]) {
    let mut ram = vec![0_u64; RAM / 8];
    let mut memory = GuestMemory::new();
    // SAFETY: the memory lives until the end of this function, and nothing else uses it meanwhile.
    #[allow(unsafe_code)]
    unsafe {
        memory.add(ram.as_mut_ptr() as u64, RAM as u64)
    };
    let load = |kernel: &[u8]| {
        let boot = Boot {
            kernel,
            modules: &[],
            command_line: "quiet",
            rsdp: 0,
        };
        if let Ok(entry) = loader::load(&boot, &memory) {
            assert!(entry.rip < RAM as u64, "a VP that begins outside of its memory");
        }
    };
    load(data);
    let class = data.first().map_or(1, |byte| 1 + byte % 2);
    let mut elf = data.to_vec();
    elf.resize(elf.len().max(256), 0);
    elf[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1, 1]);
    elf[16..20].copy_from_slice(&[2, 0, if class == 1 { 3 } else { 62 }, 0]);
    elf[20..24].copy_from_slice(&[1, 0, 0, 0]);
    load(&elf);
    // Multiboot's magic, flags and checksum behind the ELF header.
    elf[64..76].copy_from_slice(&[0x02, 0xb0, 0xad, 0x1b, 0, 0, 0, 0, 0xfe, 0x4f, 0x52, 0xe4]);
    load(&elf);
    // Linux's: boot signature, its own magic, a version.
    let mut linux = data.to_vec();
    linux.resize(linux.len().max(0x400), 0);
    linux[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    linux[0x202..0x206].copy_from_slice(b"HdrS");
    linux[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
    load(&linux);
    drop(memory.take());
    drop(ram);
}
