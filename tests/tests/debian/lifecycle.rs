//! How a Debian guest ends, by its own will and by others'.

use anyhow::{Result, ensure};
use tests::number;

use crate::world::{Guest, World, grep_complaints};

#[test]
fn a_panic_leaves_it_crashed_with_its_last_words_in_the_log() -> Result<()> {
    World::with(&Guest::new("panic", 2, "echo c > /proc/sysrq-trigger"), |world| {
        world.wait("panic", "crashed")?;
        let log = world.log_of("panic")?;
        for words in [
            "Kernel panic - not syncing: sysrq triggered crash",
            "sysrq_handle_crash+0x",
            "crashed: the guest says",
        ] {
            ensure!(log.contains(words), "{words} is not in\n{log}");
        }
        ensure!(world.text("vm regs panic")?.contains("RIP"));
        world.text("vm reset panic")?;
        world.wait("panic", "crashed")?;
        world.text("vm kill panic").map(drop)
    })
}

#[test]
fn a_panic_that_it_keeps_to_itself_ends_in_a_reset() -> Result<()> {
    let guest = Guest {
        more: "[enlightenments]\ncrash_report = false\n",
        ..Guest::new("secret", 1, "echo c > /proc/sysrq-trigger")
    };
    World::with(&guest, |world| {
        world.until("it has been reset", |world| {
            Ok(world.log_of("secret")?.contains("the guest reset itself"))
        })?;
        let console = world.console_of("secret")?;
        ensure!(console.contains("Kernel panic - not syncing: sysrq triggered crash"));
        world.text("vm kill secret").map(drop)
    })
}

/// Killed, or reset and then killed, at moments from the first instruction to its user space; then left to come up.
#[test]
fn killed_or_reset_at_any_moment_of_its_boot_it_leaves_nothing() -> Result<()> {
    /// Exits after which it is hit: before it has done anything, while it unpacks itself, and on through its boot.
    const MOMENTS: [u64; 6] = [0, 30, 300, 900, 1800, 2700];
    let guest = Guest {
        ..Guest::new(
            "short",
            2,
            "modprobe hv_storvsc; modprobe hv_utils; echo up_$((1)); sleep 3000",
        )
    };
    let mut world = World::boot(core::slice::from_ref(&guest))?;
    let before = world.free_memory()?;
    world.try_with("short", |world| {
        for (hit, moment) in MOMENTS.into_iter().enumerate() {
            world.until(&format!("{moment} exits"), |world| {
                Ok(world.exits("short")? >= moment)
            })?;
            if hit % 2 == 0 {
                world.text("vm reset short")?;
            } else {
                world.text("vm kill short")?;
                world.text("vm start short")?;
            }
            let log = world.log_of("short")?;
            ensure!(!log.contains("crashed"), "{log}");
        }
        world.until_said("short", "up_1")?;
        world.text("vm kill short")?;
        ensure_all_is_back(world, before)
    })
}

/// Each time it comes to user space again, with the bus, its devices and a disk in use.
#[test]
fn ten_reboots_succeed_and_leak_nothing() -> Result<()> {
    let commands = format!(
        "modprobe hv_storvsc; modprobe sd_mod; until [ -b /dev/sda ]; do sleep 0.1; done; {}; reboot -f",
        grep_complaints()
    );
    let guest = Guest {
        more: "[[disk]]\nsource = \"ram:1MiB\"\n",
        ..Guest::new("again", 1, &commands)
    };
    let mut world = World::boot(core::slice::from_ref(&guest))?;
    let before = world.free_memory()?;
    world.try_with("again", |world| {
        let mut in_use = None;
        for starts in [3, 11] {
            world.until(&format!("it has started {starts} times"), |world| {
                Ok(number(&world.json("vm show again")?, "/starts") >= starts)
            })?;
            // A reset lies between two looks: what one start leaves would be there eight times.
            let free = world.free_memory()?;
            let first = *in_use.get_or_insert(free);
            ensure!(
                free + TOLERANCE >= first,
                "{first} bytes were free, and {free} are"
            );
        }
        let log = world.log_of("again")?;
        ensure!(
            log.contains("the guest reset itself\nstarting\nrunning as"),
            "{log}"
        );
        let console = world.console_of("again")?;
        let complained = console.lines().filter(|line| line.starts_with("complaints_1="));
        let counts: Vec<&str> = complained.collect();
        ensure!(
            !counts.is_empty() && counts.iter().all(|line| line.ends_with("=0")),
            "{console}"
        );
        world.text("vm kill again")?;
        ensure_all_is_back(world, before)
    })
}

/// What the heap keeps for what it will want again, in bytes.
const TOLERANCE: u64 = 1 << 20;

/// That a machine without guests has what it had.
fn ensure_all_is_back(world: &mut World, before: u64) -> Result<()> {
    let after = world.free_memory()?;
    ensure!(
        after + TOLERANCE >= before,
        "{before} bytes were free, and {after} are"
    );
    Ok(())
}
