//! The IOMMU, with a device that really does DMA: QEMU's `edu`, told by the root's self-tests what to try. Whatever is missing
//! of the hardware, the machine runs, and says what that forbids.

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::{Shell, machine, number, row};
use xtask::Machine;

fn with_edu(machine: Machine) -> Machine {
    machine.qemu_arg("-device").qemu_arg("edu")
}

/// What is missing, by its own words, and what that forbids.
fn missing(shell: &mut Shell) -> Result<Vec<(String, String)>> {
    let state = shell.json("hv iommu")?;
    let rows = state["missing"].as_array().cloned().unwrap_or_default();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    Ok(rows
        .iter()
        .map(|row| (text(row, "what"), text(row, "forbids")))
        .collect())
}

/// Whether a fault like this is recorded.
fn is_recorded(faults: &Value, access: &str, reason: &str) -> bool {
    faults["faults"].as_array().is_some_and(|rows| {
        rows.iter()
            .any(|row| row["access"] == access && row["reason"] == reason)
    })
}

/// Whether the root has heard of something like this, and written it down.
fn root_knows(shell: &mut Shell, words: &str) -> Result<bool> {
    let log = shell.json("root log")?;
    let lines = log["lines"].as_array().cloned().unwrap_or_default();
    Ok(lines
        .iter()
        .any(|line| line.as_str().is_some_and(|line| line.contains(words))))
}

#[test]
fn a_device_reaches_what_it_may_and_nothing_else() -> Result<()> {
    let mut shell = Shell::boot(&with_edu(machine()))?;
    shell.text("hv selftest dma")?;
    shell.text("hv selftest dma-child")?;
    let faults = shell.json("hv iommu faults")?;
    let to_hypervisor = row(&faults, "faults", "address", "0x200000");
    assert_eq!(to_hypervisor["access"], "write", "{faults}");
    assert_eq!(to_hypervisor["reason"], "not writable in its domain");
    assert!(
        is_recorded(&faults, "read", "not readable in its domain"),
        "{faults}"
    );
    assert!(
        is_recorded(&faults, "write", "the device is in no domain"),
        "{faults}"
    );
    assert_eq!(number(&faults, "/overflows"), 0, "{faults}");
    let state = shell.json("hv iommu")?;
    let device = row(&state, "devices", "address", "0000:00:03.0");
    assert_eq!(device["state"], "attached", "{state}");
    assert_eq!(number(&state, "/domains"), 1, "{state}");
    assert!(shell.log()?.iter().any(|line| {
        line.contains("WARN") && line.contains("0000:00:03.0 tried to write 0x200000: refused")
    }));
    assert!(root_knows(
        &mut shell,
        "0000:00:03.0 tried to write 0x200000, refused: not writable"
    )?);
    Ok(())
}

#[test]
fn a_device_raises_its_own_interrupts_and_no_others() -> Result<()> {
    let mut shell = Shell::boot(&with_edu(machine().cpus(4)))?;
    // Which waits until the disks' drivers have their interrupts.
    shell.text("disk list")?;
    let before = number(&shell.json("hv iommu")?, "/interrupts");
    let told = shell.text("hv selftest dma-interrupts")?;
    assert!(
        told.contains("a vector in the message counts for nothing"),
        "{told}"
    );
    let faults = shell.json("hv iommu faults")?;
    assert!(
        is_recorded(&faults, "interrupt", "an interrupt entry of another device"),
        "{faults}"
    );
    assert!(
        is_recorded(&faults, "interrupt", "an interrupt entry that is not in use"),
        "{faults}"
    );
    assert_eq!(number(&shell.json("hv iommu")?, "/interrupts"), before);
    Ok(())
}

#[test]
fn a_device_that_goes_on_trying_is_silenced_until_it_is_attached_again() -> Result<()> {
    let mut shell = Shell::boot(&with_edu(machine()))?;
    shell.text("hv selftest dma-silence")?;
    assert!(
        shell
            .log()?
            .iter()
            .any(|line| line.contains("ERROR") && line.contains("0000:00:03.0 is silenced"))
    );
    assert!(root_knows(
        &mut shell,
        "device 0000:00:03.0 was refused too often: it is silenced"
    )?);
    let state = shell.json("hv iommu")?;
    assert_eq!(
        row(&state, "devices", "address", "0000:00:03.0")["state"],
        "attached"
    );
    Ok(())
}

#[test]
fn a_device_that_nobody_has_asked_for_is_not_in_any_domain() -> Result<()> {
    let mut shell = Shell::boot(&with_edu(machine()))?;
    let state = shell.json("hv iommu")?;
    let attached = state["devices"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(
        attached.iter().all(|device| device["address"] != "0000:00:03.0"),
        "{state}"
    );
    Ok(())
}

/// A machine is given the device and works with it, where that is allowed; otherwise the missing bit is named.
fn has_its_device(shell: &mut Shell, device: &str) -> Result<()> {
    const ASSIGN: &str = "dev assign 0000:00:03.0 dma --no-reset";
    if device.contains("intremap=off") {
        return is_refused(shell, ASSIGN, "ECAP.IR");
    }
    shell.text(ASSIGN)?;
    shell.text("vm start dma --wait")?;
    let said = shell.text("vm console dma --dump")?;
    ensure!(said.contains("dma: done"), "{device}: {said}");
    Ok(())
}

fn is_refused(shell: &mut Shell, line: &str, words: &str) -> Result<()> {
    let reply = shell.run(line)?;
    ensure!(
        reply.status != 0 && reply.text.contains(words),
        "{line}: {}",
        reply.text
    );
    Ok(())
}

/// The self-tests pass, and `hv iommu` misses exactly what has these words.
fn works(device: &str, levels: u64, expected: &[(&str, &str)]) -> Result<()> {
    let mut shell = Shell::boot(&with_edu(machine().iommu(device)))?;
    shell.text("hv selftest dma")?;
    shell.text("hv selftest dma-child")?;
    shell.text("hv selftest dma-interrupts")?;
    shell.text("hv selftest device-interrupt")?;
    has_its_device(&mut shell, device)?;
    assert_eq!(number(&shell.json("hv iommu")?, "/levels"), levels, "{device}");
    let found = missing(&mut shell)?;
    for (what, forbids) in expected {
        assert!(
            found
                .iter()
                .any(|(missing, cost)| missing.contains(what) && cost.contains(forbids)),
            "{device}: {what} in {found:?}"
        );
    }
    Ok(())
}

const NO_SNOOP: (&str, &str) = ("ECAP.SC", "past a guest's caches");

#[test]
fn a_narrow_unit_translates_in_three_levels() -> Result<()> {
    works(
        "intel-iommu,intremap=on,eim=on,aw-bits=39",
        3,
        &[("CAP.SAGAW", "512 GiB"), NO_SNOOP],
    )
}

#[test]
fn a_unit_that_caches_absent_entries_is_told_of_new_ones() -> Result<()> {
    works("intel-iommu,intremap=on,eim=on,caching-mode=on", 4, &[NO_SNOOP])
}

#[test]
fn devices_that_could_translate_by_themselves_may_not() -> Result<()> {
    works("intel-iommu,intremap=on,eim=on,device-iotlb=on", 4, &[NO_SNOOP])
}

#[test]
fn without_extended_interrupt_mode_processors_stay_in_xapic_mode() -> Result<()> {
    works(
        "intel-iommu,intremap=on,eim=off",
        4,
        &[("ECAP.EIM", "below 255"), NO_SNOOP],
    )
}

#[test]
fn without_interrupt_remapping_nothing_can_be_assigned() -> Result<()> {
    works(
        "intel-iommu,intremap=off",
        4,
        &[("ECAP.IR", "no device can be assigned"), NO_SNOOP],
    )
}

#[test]
fn without_an_iommu_devices_are_not_restricted_and_the_operator_is_told() -> Result<()> {
    let mut shell = Shell::boot(&with_edu(machine().iommu(false)))?;
    let told = shell.text("hv selftest dma")?;
    assert!(told.contains("DMA is not translated"), "{told}");
    shell.text("hv selftest dma-interrupts")?;
    let found = missing(&mut shell)?;
    let [(what, forbids)] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert!(what.contains("there is no DMAR table") && forbids.contains("none can be assigned"));
    is_refused(&mut shell, "dev assign 0000:00:03.0 dma --no-reset", "DMAR")?;
    Ok(())
}

#[test]
fn a_unit_that_does_not_translate_is_told_of() -> Result<()> {
    let unit = "intel-iommu,aw-bits=39,dma-translation=off,intremap=off";
    let mut shell = Shell::boot(&with_edu(machine().iommu(unit)))?;
    shell.text("hv selftest dma")?;
    let found = missing(&mut shell)?;
    assert!(found[0].0.contains("CAP.SAGAW"), "{found:?}");
    Ok(())
}

#[test]
fn a_damaged_table_is_refused_with_its_reason() -> Result<()> {
    // A unit whose length is 2: the header's width and flags, ten reserved bytes, and the structure.
    let mut body = vec![47, 1];
    body.resize(12, 0);
    body.extend([0, 0, 2, 0]);
    let file = std::env::temp_dir().join(format!("partita-dmar-{}", std::process::id()));
    std::fs::write(&file, body)?;
    let machine = machine()
        .iommu(false)
        .qemu_arg("-acpitable")
        .qemu_arg(format!("sig=DMAR,data={}", file.display()));
    let mut shell = Shell::boot(&machine)?;
    std::fs::remove_file(&file)?;
    let found = missing(&mut shell)?;
    let [(what, _)] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert!(
        what.contains("DMAR table, offset 0x30: a structure has an impossible length"),
        "{what}"
    );
    Ok(())
}
