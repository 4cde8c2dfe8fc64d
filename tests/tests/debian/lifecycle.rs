//! How a Debian guest ends, by its own will and by others'.

use anyhow::{Result, ensure};

use crate::world::{Guest, World, complaints};

#[test]
fn a_reboot_comes_to_user_space_again() -> Result<()> {
    World::with(&Guest::new("again", 2, "reboot -f"), |world| {
        world.until("it has been in user space twice", |world| {
            let console = world.console_of("again")?;
            ensure!(complaints(&console).is_empty(), "{:#?}", complaints(&console));
            Ok(console.matches("partita: user space").count() >= 2)
        })?;
        let log = world.log_of("again")?;
        ensure!(
            log.contains("the guest reset itself\nstarting\nrunning as"),
            "{log}"
        );
        world.text("vm kill again").map(drop)
    })
}

#[test]
fn a_panic_is_told_on_the_console_and_ends_in_a_reset() -> Result<()> {
    World::with(&Guest::new("panic", 1, "echo c > /proc/sysrq-trigger"), |world| {
        world.until("it has been reset", |world| {
            Ok(world.log_of("panic")?.contains("the guest reset itself"))
        })?;
        let console = world.console_of("panic")?;
        ensure!(console.contains("Kernel panic - not syncing: sysrq triggered crash"));
        world.text("vm kill panic").map(drop)
    })
}

#[test]
fn killed_or_reset_at_any_moment_of_its_boot_it_leaves_nothing() -> Result<()> {
    /// Exits after which it is killed: while it unpacks itself, early, while it starts its processors, late.
    const MOMENTS: [u64; 5] = [0, 100, 3000, 12_000, 30_000];
    let guest = Guest::new("short", 2, "while true; do sleep 1; done");
    World::with(&guest, |world| {
        world.text("vm kill short")?;
        let before = world.free_memory()?;
        for moment in MOMENTS {
            world.text("vm start short")?;
            world.until("it has come so far", |world| Ok(world.exits("short")? >= moment))?;
            world.text("vm reset short")?;
            world.until("it has come so far again", |world| {
                Ok(world.exits("short")? >= moment)
            })?;
            world.text("vm kill short")?;
            let log = world.log_of("short")?;
            ensure!(!log.contains("crashed"), "{log}");
        }
        let after = world.free_memory()?;
        // The heap keeps a little for what it will want again.
        ensure!(
            after + (1 << 20) >= before,
            "{before} bytes were free, and {after} are"
        );
        Ok(())
    })
}
