//! What the root must not do: each is done for real, refused, and reported with RIP and GPA. And what ends the root: it is
//! reported, never a silent hang.

use anyhow::Result;
use tests::{Ended, Shell, machine, row};
use xtask::ExitKind;

/// Runs a self-test that touches memory which is not the root's, and looks for it in the hypervisor's log.
fn is_refused_and_logged(shell: &mut Shell, test: &str, owner: &str, gpa: &str) -> Result<()> {
    let before = shell.log()?.len();
    let results = shell.json(&format!("hv selftest {test}"))?;
    assert_eq!(
        row(&results, "results", "name", test)["passed"],
        true,
        "{results}"
    );
    let log = shell.log()?;
    for access in ["read", "write"] {
        let report = format!("VP 0 of partition 0x1: {access} of {owner} at GPA {gpa} refused, RIP 0x");
        let found = log[before..].iter().find(|line| line.contains(&report));
        assert!(found.is_some(), "{report:?} is not in {:#?}", &log[before..]);
    }
    Ok(())
}

#[test]
fn memory_that_is_not_the_roots_is_refused_and_logged_with_rip_and_gpa() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    is_refused_and_logged(
        &mut shell,
        "hypervisor-memory",
        "the hypervisor's memory",
        "0x200000",
    )?;
    is_refused_and_logged(&mut shell, "apic-page", "the local APIC", "0xfee00000")?;
    is_refused_and_logged(&mut shell, "ioapic-page", "an I/O APIC", "0xfec00000")?;
    is_refused_and_logged(&mut shell, "iommu", "an IOMMU", "0xfed90000")
}

#[test]
fn refusals_are_counted_as_nested_faults_and_cost_the_root_nothing() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    let faults = |shell: &mut Shell| -> Result<u64> {
        let stats = shell.json("hv stats")?;
        let faults = row(&stats, "exits", "reason", "nested-fault");
        Ok(faults["total"].as_u64().unwrap_or(0))
    };
    let before = faults(&mut shell)?;
    shell.text("hv selftest apic-page")?;
    assert_eq!(faults(&mut shell)? - before, 2);
    shell.text("hv selftest processors")?;
    Ok(())
}

#[test]
fn a_flood_of_refusals_does_not_flood_the_log() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    for _ in 0..20 {
        shell.text("hv selftest apic-page")?;
    }
    let refused = |shell: &mut Shell| -> Result<usize> {
        Ok(shell
            .log()?
            .iter()
            .filter(|line| line.contains("refused"))
            .count())
    };
    // At most ten a second; twenty runs with two refusals each may take a few seconds where the host is slow.
    assert!(refused(&mut shell)? >= 10);
    Ok(())
}

#[test]
fn wrong_msrs_instructions_and_hypercalls_fail_as_the_specifications_say() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    for (test, seen) in [
        ("msr", "raise #GP"),
        ("virtualization", "VMRUN raises #UD"),
        ("invalid-hypercall", "invalid hypercall code (status 0x2)"),
        ("hypercall-input", "invalid hypercall input (status 0x3)"),
        ("hypercall-alignment", "invalid alignment (status 0x4)"),
        ("own-memory", "raise #PF"),
    ] {
        let results = shell.json(&format!("hv selftest {test}"))?;
        let result = row(&results, "results", "name", test);
        assert_eq!(result["passed"], true, "{results}");
        assert!(
            result["detail"].as_str().is_some_and(|text| text.contains(seen)),
            "{results}"
        );
    }
    Ok(())
}

#[test]
fn a_triple_fault_of_the_root_is_reported_with_its_registers() -> Result<()> {
    let ended = Ended::run(&machine().exec(&["hv selftest triple-fault"]), ExitKind::Stopped)?;
    assert_eq!(
        ended
            .lines_with("the root partition is stopped: a triple fault on VP 0")
            .len(),
        1
    );
    assert!(ended.lines_with("rip 0000").len() == 1 && ended.lines_with("cr3 0000").len() == 1);
    assert_eq!(ended.lines_with("the machine is halted").len(), 1);
    Ok(())
}

#[test]
fn a_panic_of_the_root_is_reported_with_its_place() -> Result<()> {
    let ended = Ended::run(&machine().exec(&["hv selftest panic"]), ExitKind::Stopped)?;
    assert_eq!(ended.lines_with("root partition stopped: panic on VP 0").len(), 1);
    assert_eq!(ended.lines_with("root-partition/src/selftest/").len(), 1);
    assert_eq!(ended.lines_with("asked for by hv selftest").len(), 1);
    Ok(())
}

#[test]
fn a_stack_overflow_of_the_root_is_reported_as_one() -> Result<()> {
    let ended = Ended::run(
        &machine().exec(&["hv selftest stack-overflow"]),
        ExitKind::Stopped,
    )?;
    assert_eq!(
        ended
            .lines_with("root partition stopped: exception on VP 0")
            .len(),
        1
    );
    assert_eq!(ended.lines_with("a stack overflow").len(), 1);
    assert!(ended.lines_with("RIP 0000").len() == 1);
    Ok(())
}

#[test]
fn a_fault_of_the_root_stops_its_other_processors_too() -> Result<()> {
    for test in ["triple-fault", "panic"] {
        let machine = machine().cpus(4).exec(&[&format!("hv selftest {test}")]);
        Ended::run(&machine, ExitKind::Stopped)?;
    }
    Ok(())
}
