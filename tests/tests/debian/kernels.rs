//! Forms of Debian's kernel, and others than the release's own.

use anyhow::{Context, Result, ensure};
use xtask::guest::debian::Debian;

use crate::world::{Guest, VMLINUX, World};

/// What the console shows behind `key`, at the beginning of a line.
fn value<'c>(console: &'c str, key: &str) -> Result<&'c str> {
    let line = console.lines().find_map(|line| line.strip_prefix(key));
    line.with_context(|| format!("the console shows no {key}"))
}

/// No driver has told it the time: it has it from the clock that it is shown at the start.
#[test]
fn decompressed_it_is_entered_by_pvh_and_knows_the_time_at_once() -> Result<()> {
    let guest = Guest {
        kernel: VMLINUX,
        ..Guest::new(
            "vmlinux",
            1,
            "echo time_$((1))=$(date -u +%Y-%m-%dT%H:%M:%SZ); echo drivers_$((1))=$(ls /sys/module | grep -c hv_); \
             echo random_$((1))=$(dmesg | grep -c 'crng[ ]init done'); \
             poweroff -f",
        )
    };
    let mut world = World::boot(core::slice::from_ref(&guest))?;
    let before = world.time()?;
    world.try_with("vmlinux", |world| {
        world.wait("vmlinux", "off")?;
        let after = world.time()?;
        let console = world.console_of("vmlinux")?;
        let told = value(&console, "time_1=")?;
        ensure!(
            before.as_str() <= told && told <= after.as_str(),
            "it is {before} to {after}, and it has {told}"
        );
        ensure!(value(&console, "drivers_1=")? == "0");
        ensure!(
            value(&console, "random_1=")? == "1",
            "it has no randomness from the start"
        );
        Ok(())
    })
}

#[test]
#[ignore = "fetches a second kernel and makes a second disk; run it when the interface to guests changes"]
fn the_newest_kernel_of_the_release_comes_to_a_shell_on_its_disk() -> Result<()> {
    let debian = Debian::ensure_newest()?;
    let guest = Guest {
        ..Guest::on_disk("newest", 2, "")
    };
    World::boot_kernel(&debian, core::slice::from_ref(&guest))?.try_with("newest", |world| {
        world.until_said("newest", "partita: root file system")?;
        ensure!(world.type_into("newest", "uname -r")? == debian.release());
        ensure!(world.type_into("newest", "findmnt -n -o SOURCE,FSTYPE /")? == "/dev/sda ext4");
        ensure!(world.type_into("newest", "grep -c Hyper-V.clockevent /sys/devices/system/clockevents/clockevent*/current_device | grep -c :1")? == "2");
        world.ensure_same_time("newest")?;
        world.ensure_no_complaints_in("newest")?;
        world.text("vm stop newest --timeout 600").map(drop)
    })
}
