//! Debian under disk load: processors that go and come, a neighbour that is killed, and its own violent end.
//!
//! All that the guest does is on its kernel's command line, and what it finds it says on the console.

use anyhow::{Context, Result, ensure};

use crate::world::{Guest, World, grep_complaints};

/// Writes, reads back past the cache and checks, again and again, until told to stop: a line of `/run/rounds` each time.
const LOAD: &str = "rm -f /run/stop /run/rounds; (while [ ! -e /run/stop ]; do \
    dd if=/dev/urandom of=/root/load bs=64k count=16 2>/dev/null; md5sum /root/load > /root/load.sum; sync; \
    echo 3 > /proc/sys/vm/drop_caches; md5sum -c /root/load.sum >> /run/rounds 2>&1; done) & \
    rounds() { cat /run/rounds 2>/dev/null | wc -l; }; \
    more() { now=$(rounds); until [ $(rounds) -gt $((now + 1)) ]; do sleep 0.2; done; }; more";

/// Ends the load, and tells how it went: how many rounds found another thing than they had written.
const RESULT: &str =
    "touch /run/stop; wait; echo rounds_$((1))=$(rounds); echo wrong_$((1))=$(grep -vc OK /run/rounds)";

/// The value that a console shows behind `key=`.
fn value<'c>(console: &'c str, key: &str) -> Result<&'c str> {
    let start = format!("{key}=");
    let line = console.lines().find_map(|line| line.strip_prefix(&start));
    line.with_context(|| format!("the console shows no {key}"))
}

fn ensure_value(console: &str, key: &str, wanted: &str) -> Result<()> {
    let found = value(console, key)?;
    ensure!(found == wanted, "{key} is '{found}', not '{wanted}'");
    Ok(())
}

/// Debian 6.1 lets no processor go that a channel interrupts, so those are moved first.
#[test]
fn its_second_processor_goes_and_comes_under_disk_load() -> Result<()> {
    let commands = format!(
        "{LOAD}; cpu=/sys/devices/system/cpu; second() {{ set -- $(grep HVS: /proc/interrupts); echo $3; }}; \
         for round in 1 2 3; do for channel in /sys/bus/vmbus/devices/*/channels/*/cpu; do echo 0 > $channel; done; \
         echo 0 > $cpu/cpu1/online; echo off_$round=$(cat $cpu/online); more; \
         echo 1 > $cpu/cpu1/online; echo on_$round=$(cat $cpu/online); more; done; \
         before=$(second); taskset 2 sleep 0.3; after=$(second); echo ticks_$((1))=$((after - before)); \
         {RESULT}; {}",
        grep_complaints()
    );
    let guest = Guest {
        ..Guest::on_disk("processors", 2, &commands)
    };
    World::with(&guest, |world| {
        world.wait("processors", "off")?;
        let console = world.console_of("processors")?;
        for round in 1..=3 {
            ensure_value(&console, &format!("off_{round}"), "0")?;
            ensure_value(&console, &format!("on_{round}"), "0-1")?;
        }
        let ticks: i64 = value(&console, "ticks_1")?.parse()?;
        ensure!(ticks > 0, "the timer of the processor that came back rests");
        ensure_value(&console, "wrong_1", "0")?;
        ensure_value(&console, "complaints_1", "0")
    })
}

/// One that keeps a disk of memory busy.
const NEIGHBOUR: &str = "for module in hv_vmbus sd_mod hv_storvsc; do modprobe $module; done; \
    until [ -b /dev/sda ]; do sleep 0.1; done; \
    while dd if=/dev/zero of=/dev/sda bs=64k count=64 2>/dev/null; do echo written_$((1)); done";

/// The first start is busy for ever. The second finds a journal to go through, and then a file system without a fault: nothing
/// may write then, or it would be no wonder if it seemed to be at fault.
#[test]
fn it_does_not_notice_its_neighbours_kill_and_its_disk_is_whole_after_its_own() -> Result<()> {
    let commands = format!(
        "if [ -e /root/load.sum ]; then echo recovered_$((1))=$(dmesg | grep -c 'recovery[ ]complete'); \
         pkill hv_; sync; sleep 1; mount -o remount,ro / && e2fsck -fn /dev/sda; echo check_$((1))=$?; {}; \
         else {LOAD}; while true; do more; echo wrong_$((1))=$(grep -vc OK /run/rounds) rounds=$(rounds)=; done; fi",
        grep_complaints()
    );
    let guests = [
        Guest {
            ..Guest::on_disk("victim", 2, &commands)
        },
        Guest {
            more: "[[disk]]\nsource = \"ram:16MiB\"\n",
            ..Guest::new("neighbour", 1, NEIGHBOUR)
        },
    ];
    World::boot(&guests)?.try_with_all(&["victim", "neighbour"], |world| {
        let reports = |world: &mut World| -> Result<usize> {
            let console = world.console_of("victim")?;
            let mut reports = console.lines().filter(|line| line.starts_with("wrong_1="));
            ensure!(
                reports.clone().all(|line| line.starts_with("wrong_1=0 ")),
                "{console}"
            );
            Ok(reports.by_ref().count())
        };
        let goes_on = |world: &mut World| -> Result<()> {
            let before = reports(world)?;
            world.until("its load goes on", |world| Ok(reports(world)? > before + 1))
        };
        world.until_said("neighbour", "written_1")?;
        goes_on(world)?;
        world.text("vm kill neighbour")?;
        goes_on(world)?;
        world.text("vm kill victim")?;
        world.text("vm start victim")?;
        world.wait("victim", "off")?;
        let console = world.console_of("victim")?;
        ensure_value(&console, "recovered_1", "1")?;
        ensure_value(&console, "check_1", "0")?;
        ensure_value(&console, "complaints_1", "0")
    })
}
