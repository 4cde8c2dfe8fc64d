//! Debian's kernel comes to its user space, and finds there what it should.

use anyhow::{Result, ensure};

use crate::world::{Guest, World, complaints, grep_complaints};

/// What is looked at, each value behind a name that does not stand on the kernel's command line so.
const LOOK: &str = "cd /sys/devices/system; \
    echo look_$((1))_processors=$(nproc); \
    echo look_$((1))_clocksource=$(cat clocksource/clocksource0/current_clocksource); \
    echo look_$((1))_clockevents=$(cat clockevents/clockevent*/current_device | grep -c Hyper-V.clockevent); \
    echo look_$((1))_timer=$(grep HVS: /proc/interrupts); \
    sleep 1; \
    echo look_$((1))_timer_later=$(grep HVS: /proc/interrupts); \
    echo look_$((1))_serial=$(grep ttyS0 /proc/interrupts); \
    poweroff -f";

/// The value that the console shows for `name`.
fn value<'c>(console: &'c str, name: &str) -> Result<&'c str> {
    let key = format!("look_1_{name}=");
    let line = console.lines().find_map(|line| line.strip_prefix(&key));
    line.ok_or_else(|| anyhow::anyhow!("the console shows no {name}"))
}

/// The counts of a line of `/proc/interrupts`, one a processor.
fn counts(line: &str) -> Vec<u64> {
    line.split_whitespace()
        .skip(1)
        .map_while(|word| word.parse().ok())
        .collect()
}

/// Prints what the kernel's log says that is looked for; the brackets keep the kernel's own command line from being that.
fn log() -> String {
    format!(
        "dmesg | grep -E '[H]yper-V|[I]PI hypercalls|[r]emote TLB|[P]V spinlocks'; {}",
        grep_complaints()
    )
}

/// The kernel prints its log by itself, or it is asked for what matters of it.
fn boots_with(processors: u32, prints: bool) -> Result<()> {
    let commands = match prints {
        true => LOOK.to_owned(),
        false => format!("{}; {LOOK}", log()),
    };
    let guest = Guest {
        prints,
        ..Guest::new("look", processors, &commands)
    };
    World::with(&guest, |world| {
        world.wait("look", "off")?;
        let console = world.console_of("look")?;
        let value = |name| value(&console, name);
        ensure!(console.contains("partita: user space"));
        ensure!(value("processors")? == processors.to_string());
        // No invariant TSC is offered where the processor tells of none.
        ensure!(["hyperv_clocksource_tsc_page", "tsc"].contains(&value("clocksource")?));
        ensure!(value("clockevents")? == processors.to_string());
        let (early, late) = (counts(value("timer")?), counts(value("timer_later")?));
        ensure!(early.len() == processors as usize);
        ensure!(
            early.iter().all(|&count| count > 0) && late.iter().sum::<u64>() > early.iter().sum(),
            "{early:?} {late:?}"
        );
        // User space's output goes by interrupts.
        ensure!(counts(value("serial")?).iter().sum::<u64>() > 0);
        for mark in [
            "Hypervisor detected: Microsoft Hyper-V",
            "Hyper-V: privilege flags low",
            "Hyper-V: Host Build",
        ] {
            ensure!(console.contains(mark), "{mark}");
        }
        // What pays where there are several.
        for mark in ["Using IPI hypercalls", "remote TLB flush", "PV spinlocks enabled"] {
            ensure!(processors == 1 || console.contains(mark), "{mark}");
        }
        let complaints = complaints(&console);
        ensure!(complaints.is_empty(), "{complaints:#?}");
        let log = world.log_of("look")?;
        ensure!(log.contains("the guest powered itself off"), "{log}");
        Ok(())
    })
}

#[test]
fn one_processor_comes_to_user_space_and_powers_off() -> Result<()> {
    boots_with(1, false)
}

#[test]
fn two_processors_come_to_user_space_and_power_off() -> Result<()> {
    boots_with(2, true)
}

#[test]
fn more_processors_than_the_machine_has_come_to_user_space_and_power_off() -> Result<()> {
    boots_with(4, false)
}

#[test]
fn without_its_enlightenments_it_boots_all_the_same() -> Result<()> {
    let commands = format!("{}; cat /proc/interrupts; poweroff -f", log());
    let guest = Guest {
        more: "[enlightenments]\ntlb_flush = false\nipi = false\nprocessor_sets = false\nreference_tsc = false\n\
               synthetic_timers = false\nvmbus = false\n",
        ..Guest::new("bare", 2, &commands)
    };
    World::with(&guest, |world| {
        world.wait("bare", "off")?;
        let console = world.console_of("bare")?;
        ensure!(console.contains("partita: user space"));
        ensure!(!console.contains("Using IPI hypercalls") && !console.contains("remote TLB flush"));
        // The APIC's timer in place of the synthetic one.
        let local = console.lines().find(|line| line.trim_start().starts_with("LOC:"));
        ensure!(
            counts(local.unwrap_or_default()).iter().all(|&count| count > 0),
            "{local:?}"
        );
        ensure!(complaints(&console).is_empty(), "{:#?}", complaints(&console));
        Ok(())
    })
}

#[test]
fn its_shell_is_on_the_console() -> Result<()> {
    World::with(&Guest::new("login", 1, ""), |world| {
        let session = world.console();
        session.send("vm console login\r")?;
        session.wait_for("'poweroff -f' and 'reboot -f' end it")?;
        session.wait_for("# ")?;
        session.send("echo answer $((6 * 7))\r")?;
        session.wait_for("answer 42")?;
        session.send("poweroff -f\r")?;
        session.wait_for("'login' is off")?;
        Ok(())
    })
}
