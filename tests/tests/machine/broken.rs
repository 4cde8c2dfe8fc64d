//! A hypervisor that finds itself wrong: it reports where, with its registers, and stops every processor.

use anyhow::{Context, Result, bail};
use elf::ElfBytes;
use elf::endian::LittleEndian;
use tests::debugger::Debugger;
use tests::{Shell, machine};
use xtask::images::built;

/// UD2.
const INVALID_INSTRUCTION: [u8; 2] = [0x0f, 0x0b];

/// The address of the function of the hypervisor whose mangled name holds `part`. The image runs where it is linked.
fn function(part: &str) -> Result<u64> {
    let bytes = std::fs::read(built()?.hypervisor)?;
    let image = ElfBytes::<LittleEndian>::minimal_parse(&bytes)?;
    let (symbols, names) = image.symbol_table()?.context("the hypervisor has no symbols")?;
    for symbol in symbols {
        if names.get(symbol.st_name as usize)?.contains(part) {
            return Ok(symbol.st_value);
        }
    }
    bail!("the hypervisor has no function {part}: was it inlined? choose another one")
}

#[test]
fn an_exception_in_the_hypervisor_is_reported_and_stops_every_processor() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let port = folder.path().join("gdb");
    let machine = machine()
        .debug_exit(false)
        .qemu_arg("-gdb")
        .qemu_arg(Debugger::argument(&port));
    let mut shell = Shell::boot(&machine)?;
    let mut debugger = Debugger::connect(&port)?;
    debugger.write(function("5power5reset")?, &INVALID_INSTRUCTION)?;
    debugger.detach()?;

    shell.console().send("reboot\r")?;
    shell
        .console()
        .wait_for("exception 6 (#UD invalid opcode) in the hypervisor on processor 0")?;
    let report = shell.console().wait_for("the machine is halted")?;
    let rip = format!("RIP {:016x}", function("5power5reset")?);
    for part in [&*rip, "RSP ", "RAX ", "R15 ", "CR3 "] {
        assert!(report.contains(part), "{part:?} is not in\n{report}");
    }
    let all_halted =
        |registers: &str| registers.matches("HLT=1").count() == registers.matches("CPU#").count();
    for _ in 0..600 {
        if all_halted(&shell.console().monitor("info registers -a")?) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    bail!(
        "a processor goes on:\n{}",
        shell.console().monitor("info registers -a")?
    )
}
