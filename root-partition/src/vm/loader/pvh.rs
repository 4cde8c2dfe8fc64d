//! The PVH protocol (Xen's x86/HVM direct boot ABI): EBX holds the address of a [`StartInfo`].

use super::super::memory::GuestMemory;
use super::program::Program;
use super::space::{Space, zero_terminated};
use super::{Boot, Entry, LoadError, Mode, check_entry, memory_map, place_segments};
use alloc::format;
use alloc::vec::Vec;
use hypercall_api::address::Gpa;
use hypercall_api::pvh::{MAGIC, Module, StartInfo};
use zerocopy::IntoBytes;

/// Loads `program`, whose PVH entry is `entry`.
pub fn load(
    boot: &Boot<'_>,
    program: &Program<'_>,
    entry: u64,
    memory: &GuestMemory,
) -> Result<Entry, LoadError> {
    place_segments(program, memory)?;
    let rip = check_entry(program, entry)?;
    let mut space = Space::new(memory, program.taken(), u64::MAX);
    let mut modules = Vec::new();
    for (index, module) in boot.modules.iter().enumerate() {
        let name = format!("module {} ('{}')", index + 1, module.command_line);
        modules.push(Module {
            address: space.place(&name, module.bytes)?,
            size: module.bytes.len() as u64,
            command_line: space.place(&name, &zero_terminated(module.command_line))?,
            reserved: 0,
        });
    }
    let map = memory_map(memory);
    let start_info = space.reserve("the start information", size_of::<StartInfo>() as u64)?;
    let info = StartInfo {
        magic: MAGIC,
        version: 1,
        flags: 0,
        module_count: modules.len() as u32,
        modules: space.place("the module list", modules.as_bytes())?,
        command_line: space.place("the command line", &zero_terminated(boot.command_line))?,
        rsdp: boot.rsdp,
        memory_map: space.place("the memory map", map.as_bytes())?,
        memory_map_entries: map.len() as u32,
        reserved: 0,
    };
    memory.write_value(Gpa(start_info), &info)?;
    Ok(Entry {
        rip,
        rax: 0,
        rbx: start_info,
        rsi: 0,
        mode: Mode::Protected,
    })
}
