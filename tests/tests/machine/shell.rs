//! Every command, for people and for programs, and the status that it leaves.

use anyhow::Result;
use serde_json::Value;
use tests::{Ended, Shell, machine, number, row, texts};
use xtask::ExitKind;

#[test]
fn every_command_that_prints_data_prints_a_table_and_json() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    #[rustfmt::skip]
    let commands: &[(&str, &str, &str)] = &[
        // command       a word for people    a key for programs
        ("hv info",      "processor vendor",  "/cpu/vendor"),
        ("hv log",       "hv INFO",           "/lines/0"),
        ("hv stats",     "IN HYPERVISOR",     "/vps/0/exits"),
        ("hv check",     "WHAT FOR",          "/checks/0/purpose"),
        ("hv iommu",     "WHAT THAT FORBIDS", "/address_bits"),
        ("hv iommu faults", "REASON",        "/total"),
        ("hv bench",     "MEDIAN",            "/benchmarks/0/median_ticks"),
        ("hv selftest",  "WHAT IS TRIED",     "/selftests/0/description"),
        ("dev list",     "Host bridge",       "/devices/0/vendor_id"),
        ("disk list",    "QEMU NVMe Ctrl",    "/disks/0/sector_bytes"),
        ("root info",    "heap used",         "/heap_used_bytes"),
        ("root log",     "PCI functions",     "/lines/0"),
        ("version",      "Partita",           "/product"),
        ("help",         "WHAT IT DOES",      "/commands/0"),
        ("history",      "hv info",           "/lines/0/line"),
    ];
    for (command, word, key) in commands {
        let text = shell.text(command)?;
        assert!(text.contains(word), "{command}: {word:?} is not in\n{text}");
        let document = shell.json(command)?;
        assert!(
            document.pointer(key).is_some(),
            "{command}: no {key} in {document}"
        );
    }
    Ok(())
}

#[test]
fn hv_info_tells_what_the_machine_is() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    let info = shell.json("hv info")?;
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["virtualization"], "AMD-V");
    assert_eq!(info["cpu"]["vendor"], "AuthenticAMD");
    assert_eq!(number(&info, "/cpu/physical_address_bits"), 40);
    // The host's TSC, and an APIC timer of 1 GHz; both are measured against the ACPI timer, on a busy host.
    assert!(
        (100_000_000..10_000_000_000).contains(&number(&info, "/cpu/tsc_hz")),
        "{info}"
    );
    assert!(
        (500_000_000..2_000_000_000).contains(&number(&info, "/cpu/apic_timer_hz")),
        "{info}"
    );
    assert_eq!(number(&info, "/iommu/units"), 1);
    assert_eq!(info["iommu"]["interrupt_remapping"], true);
    let text = shell.text("hv info")?;
    for line in [
        "LPs running            2",
        "memory total           2.0 GiB",
        "virtualization         AMD-V",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    Ok(())
}

#[test]
fn hv_log_is_what_the_serial_line_shows() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    let text = shell.text("hv log")?;
    let separate = shell.console().hypervisor_log();
    for line in separate.lines().filter(|line| line.contains("hv INFO")) {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert!(text.lines().count() >= 4, "{text}");
    assert_eq!(shell.log()?, text.lines().collect::<Vec<_>>());
    Ok(())
}

#[test]
fn hv_stats_counts_exits_by_reason_and_vp() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    let first = shell.json("hv stats")?;
    let count =
        |document: &Value, reason: &str, vp: &str| row(document, "exits", "reason", reason)[vp].as_u64();
    for vp in ["vp0", "vp1", "total"] {
        let rows = first["exits"].as_array().map(Vec::as_slice).unwrap_or_default();
        let sum: u64 = rows
            .iter()
            .filter(|row| row["reason"] != "total")
            .filter_map(|row| row[vp].as_u64())
            .sum();
        assert_eq!(Some(sum), count(&first, "total", vp), "{first}");
    }
    shell.text("hv bench hypercall")?;
    let second = shell.json("hv stats")?;
    let made = count(&second, "hypercall", "total").zip(count(&first, "hypercall", "total"));
    assert!(
        made.is_some_and(|(after, before)| after >= before + 1001),
        "{first}\n{second}"
    );
    let one = shell.json("hv stats --vp 1")?;
    assert_eq!(one["vps"].as_array().map(Vec::len), Some(1));
    assert_eq!(number(&one, "/vps/0/vp"), 1);
    assert_eq!(shell.run("hv stats --vp 2")?.status, 2);
    Ok(())
}

#[test]
fn hv_bench_measures_each_exit() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    let bench = shell.json("hv bench")?;
    for name in ["cpuid", "hypercall", "msr"] {
        let row = row(&bench, "benchmarks", "name", name);
        let (minimum, median) = (row["minimum_ticks"].as_u64(), row["median_ticks"].as_u64());
        assert!(minimum > Some(0) && minimum <= median, "{bench}");
    }
    Ok(())
}

#[test]
fn dev_list_shows_the_machines_devices() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    let devices = shell.json("dev list")?;
    assert_eq!(
        row(&devices, "devices", "class", "NVMe controller")["class_code"],
        "010802"
    );
    let network = row(&devices, "devices", "class", "Ethernet controller");
    assert_eq!(
        (&network["vendor_id"], &network["device_id"]),
        (&"8086".into(), &"10d3".into())
    );
    assert_eq!(
        row(&devices, "devices", "address", "0000:00:1f.2")["class"],
        "AHCI controller"
    );
    Ok(())
}

#[test]
fn a_device_behind_a_bridge_is_listed() -> Result<()> {
    let machine = machine()
        .qemu_arg("-device")
        .qemu_arg("pcie-root-port,id=port1,chassis=1")
        .qemu_arg("-device")
        .qemu_arg("e1000e,bus=port1,romfile=");
    let mut shell = Shell::boot(&machine)?;
    let devices = shell.json("dev list")?;
    let behind = row(&devices, "devices", "address", "0000:01:00.0");
    assert_eq!(behind["device_id"], "10d3", "{devices}");
    Ok(())
}

#[test]
fn a_command_leaves_its_status_in_the_prompt() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    for (line, status, says) in [
        ("hv inof", 2, "did you mean 'hv info'?"),
        ("halp", 2, "did you mean 'help'?"),
        ("hv selftest trple-fault", 2, "did you mean 'triple-fault'?"),
        ("hv info --jsno", 2, "--json"),
        ("hv stats --vp many", 2, "many"),
        ("echo 'open", 2, ""),
        ("version", 0, "Partita"),
        ("", 0, ""),
    ] {
        let reply = shell.run(line)?;
        assert_eq!(reply.status, status, "{line}: {}", reply.text);
        assert!(
            reply.text.contains(says),
            "{line}: {says:?} is not in {:?}",
            reply.text
        );
    }
    Ok(())
}

#[test]
fn a_failure_asked_for_as_json_is_json() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    let reply = shell.run("hv inof --json")?;
    let document: Value = serde_json::from_str(&reply.text)?;
    assert_eq!((reply.status, &document["status"]), (2, &2.into()));
    assert!(
        document["error"]
            .as_str()
            .is_some_and(|text| text.contains("hv info"))
    );
    Ok(())
}

#[test]
fn commands_of_the_archive_all_run_and_one_failure_is_the_machines() -> Result<()> {
    let machine = machine().exec(&["echo first", "hv inof", "echo last"]);
    let ended = Ended::run(&machine, ExitKind::CommandFailed)?;
    assert_eq!(ended.lines_with("exec: 'hv inof' failed with status 2").len(), 1);
    assert!(ended.serial.lines().any(|line| line == "first"));
    assert!(ended.serial.lines().any(|line| line == "last"));
    Ok(())
}

#[test]
fn commands_of_the_archive_that_succeed_make_the_machine_succeed() -> Result<()> {
    let ended = Ended::run(
        &machine().exec(&["echo one", "version --json"]),
        ExitKind::Success,
    )?;
    assert_eq!(ended.lines_with("\"product\":\"Partita\"").len(), 1);
    Ok(())
}

#[test]
fn help_tells_of_every_command_and_how_one_is_used() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    let help = shell.text("help")?;
    for command in ["hv info", "hv selftest [NAME]", "dev list", "poweroff", "reboot"] {
        assert!(help.contains(command), "{command} is not in\n{help}");
    }
    assert!(shell.text("help hv")?.contains("hv bench"));
    assert!(shell.text("hv stats --help")?.contains("--vp"));
    assert!(texts(&shell.json("hv check")?, "/needed_missing").is_empty());
    Ok(())
}

#[test]
fn the_heap_grows_when_it_is_used_up() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    let before = number(&shell.json("root info")?, "/heap_total_bytes");
    shell.text("hv selftest heap")?;
    assert!(number(&shell.json("root info")?, "/heap_total_bytes") > before);
    Ok(())
}
