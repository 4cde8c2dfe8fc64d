//! Every way to start, numbers of processors, sizes of memory.

use anyhow::Result;
use tests::{Shell, machine, number};
use xtask::{Firmware, Machine};

const MIB: u64 = 1 << 20;

/// Boots, and looks whether what must work does: all self-tests pass, memory adds up.
fn works(machine: &Machine) -> Result<Shell> {
    let mut shell = Shell::boot(machine)?;
    shell.text("hv selftest --all")?;
    let info = shell.json("hv info")?;
    let memory = |key| number(&info, &format!("/memory/{key}_bytes"));
    assert_eq!(memory("total"), memory("hypervisor") + memory("root"));
    assert!(memory("hypervisor_free") < memory("hypervisor"));
    assert!(number(&info, "/boot/hypervisor_ns") > 0);
    assert!(number(&info, "/boot/shell_ns") > number(&info, "/boot/hypervisor_ns"));
    Ok(shell)
}

/// The protocol by which the hypervisor says it was started.
fn protocol(shell: &mut Shell) -> Result<String> {
    let log = shell.log()?;
    let line = log
        .iter()
        .find_map(|line| Some(line.split_once("booted by ")?.1.to_owned()));
    Ok(line.unwrap_or_default())
}

#[test]
fn it_boots_by_pvh() -> Result<()> {
    let mut shell = works(&machine())?;
    assert_eq!(protocol(&mut shell)?, "Pvh");
    Ok(())
}

#[test]
fn it_boots_by_grub_from_a_bios() -> Result<()> {
    let mut shell = works(&machine().firmware(Firmware::GrubBios))?;
    assert_eq!(protocol(&mut shell)?, "Multiboot2");
    Ok(())
}

#[test]
fn it_boots_by_grub_from_uefi() -> Result<()> {
    let mut shell = works(&machine().firmware(Firmware::GrubUefi))?;
    assert_eq!(protocol(&mut shell)?, "Multiboot2");
    Ok(())
}

#[test]
fn the_bootable_image_boots_from_a_usb_stick_too() -> Result<()> {
    for firmware in [Firmware::GrubBios, Firmware::GrubUefi] {
        works(&machine().firmware(firmware).usb_stick(true))?;
    }
    Ok(())
}

/// Boots with so many processors: each runs one VP of the root, and each VP has run.
fn processors_all_run(cpus: u32) -> Result<()> {
    let mut shell = works(&machine().cpus(cpus))?;
    let info = shell.json("hv info")?;
    assert_eq!(number(&info, "/cpu/lps_running"), u64::from(cpus));
    assert_eq!(number(&info, "/cpu/lps_present"), u64::from(cpus));
    assert_eq!(number(&shell.json("root info")?, "/vps"), u64::from(cpus));
    let stats = shell.json("hv stats")?;
    assert_eq!(stats["vps"].as_array().map(Vec::len), Some(cpus as usize));
    for vp in 0..cpus {
        assert!(number(&stats, &format!("/vps/{vp}/run_time_ns")) > 0, "{stats}");
        assert!(number(&stats, &format!("/vps/{vp}/exits")) > 0, "{stats}");
    }
    Ok(())
}

#[test]
fn one_processor_runs_one_vp() -> Result<()> {
    processors_all_run(1)
}

#[test]
fn two_processors_run_two_vps() -> Result<()> {
    processors_all_run(2)
}

#[test]
fn four_processors_run_four_vps() -> Result<()> {
    processors_all_run(4)
}

/// Boots with so much memory. The firmware keeps less than 2 MiB of it for itself.
fn memory_is_all_there(mib: u64, hypervisor_at_most_mib: u64) -> Result<()> {
    let mut shell = works(&machine().memory_mib(mib))?;
    let info = shell.json("hv info")?;
    let total = number(&info, "/memory/total_bytes");
    assert!(
        total <= mib * MIB && total > (mib - 2) * MIB,
        "{total} bytes of {mib} MiB"
    );
    let hypervisor = number(&info, "/memory/hypervisor_bytes");
    assert!(
        hypervisor <= hypervisor_at_most_mib * MIB,
        "{hypervisor} bytes are the hypervisor's"
    );
    let root = shell.text("root log")?;
    let free = root
        .split_once(" free MiB")
        .and_then(|(before, _)| before.rsplit(' ').next()?.parse::<u64>().ok());
    // The root's own use: its image, the archive, its first heap.
    let (free, given) = (free.unwrap_or(0), number(&info, "/memory/root_bytes") / MIB);
    assert!(free > given * 3 / 4, "the root has {free} MiB free of {given}");
    Ok(())
}

#[test]
fn with_128_mib_there_is_a_shell() -> Result<()> {
    memory_is_all_there(128, 8)
}

#[test]
fn with_512_mib_the_hypervisor_keeps_less_than_8() -> Result<()> {
    memory_is_all_there(512, 8)
}

#[test]
fn with_2_gib_the_hypervisor_keeps_less_than_16_mib() -> Result<()> {
    memory_is_all_there(2048, 16)
}

#[test]
fn with_4_gib_memory_above_4_gib_is_the_roots() -> Result<()> {
    memory_is_all_there(4096, 24)
}
