//! Weight, cap, and a root that stays responsive.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use tests::{machine, number};

use crate::world::{World, hello};

/// Run time that is watched.
const WATCHED: u64 = 2_000_000_000;

/// How long the shell is left alone between two looks.
const QUIET: Duration = Duration::from_secs(1);

/// Run times of `names` from now on until they make up [`WATCHED`] together, and the time that this took, in ns.
fn shares(world: &mut World, names: &[&str]) -> Result<(Vec<u64>, u64)> {
    let take = |world: &mut World| -> Result<(Vec<u64>, u64)> {
        let now = number(&world.json("root info")?, "/uptime_ns");
        let times = names.iter().map(|name| world.run_time(name));
        Ok((times.collect::<Result<_>>()?, now))
    };
    let (first, start) = take(world)?;
    let mut last = (Vec::new(), 0);
    world.until("they have run for a while", |world| {
        // A shell that asks all the time would interrupt them all the time: nobody must need that.
        thread::sleep(QUIET);
        let (times, now) = take(world)?;
        let run: Vec<u64> = times
            .iter()
            .zip(&first)
            .map(|(after, before)| after - before)
            .collect();
        let enough = run.iter().sum::<u64>() >= WATCHED;
        last = (run, now - start);
        Ok(enough)
    })?;
    Ok(last)
}

/// Starts machines that spin on all their VPs.
fn spinning(world: &mut World, names: &[&str]) -> Result<()> {
    for name in names {
        world.start(name)?;
    }
    for name in names {
        world.wait_said(name, "hello: stuck")?;
    }
    Ok(())
}

/// Checks that the shell answers at once; behind guests that never give way it would take seconds, or for ever.
fn answers(world: &mut World) -> Result<()> {
    for _ in 0..10 {
        let start = Instant::now();
        world.text("version")?;
        let took = start.elapsed();
        assert!(took < Duration::from_secs(2), "the shell took {took:?}");
    }
    Ok(())
}

#[test]
fn two_busy_machines_share_a_processor_by_their_weights_and_the_shell_answers() -> Result<()> {
    let descriptions = [
        ("light", hello(1, "stuck", "weight = 100")),
        ("heavy", hello(1, "stuck", "weight = 300")),
    ];
    let mut world = World::boot(machine().cpus(1), &descriptions)?;
    spinning(&mut world, &["light", "heavy"])?;
    let (run, _) = shares(&mut world, &["light", "heavy"])?;
    let ratio = run[1] as f64 / run[0] as f64;
    assert!((2.2..4.0).contains(&ratio), "{ratio}: {run:?}");
    answers(&mut world)
}

#[test]
fn a_busy_machine_keeps_to_its_cap() -> Result<()> {
    let descriptions = [("capped", hello(1, "stuck", "cap = 20"))];
    let mut world = World::boot(machine(), &descriptions)?;
    spinning(&mut world, &["capped"])?;
    let (run, elapsed) = shares(&mut world, &["capped"])?;
    let percent = 100.0 * run[0] as f64 / elapsed as f64;
    assert!(
        (15.0..24.0).contains(&percent),
        "{percent} %: {run:?} of {elapsed}"
    );
    Ok(())
}

#[test]
fn a_halted_machine_costs_nothing() -> Result<()> {
    let descriptions = [
        ("halted", hello(2, "halted", "")),
        ("busy", hello(1, "stuck", "")),
    ];
    let mut world = World::boot(machine(), &descriptions)?;
    world.start("halted")?;
    world.wait_said("halted", "hello: halted")?;
    spinning(&mut world, &["busy"])?;
    let (run, _) = shares(&mut world, &["halted", "busy"])?;
    assert!(run[0] < WATCHED / 1000, "{run:?}");
    Ok(())
}

#[test]
fn a_reserve_is_kept_against_machines_of_any_weight_and_the_root_is_not_starved() -> Result<()> {
    let descriptions = [
        ("sure", hello(1, "stuck", "weight = 1\nreserve = 40")),
        ("greedy", hello(2, "stuck", "weight = 10000")),
    ];
    let mut world = World::boot(machine().cpus(1), &descriptions)?;
    spinning(&mut world, &["sure", "greedy"])?;
    let (run, elapsed) = shares(&mut world, &["sure", "greedy"])?;
    // By weight it would have next to nothing, and the other all. What the host of this machine takes away counts for who runs then.
    let percent = [0, 1].map(|index| 100.0 * run[index] as f64 / elapsed as f64);
    assert!(
        percent[0] >= 35.0 && percent[1] >= 25.0,
        "{percent:?} %: {run:?} of {elapsed}"
    );
    answers(&mut world)?;
    world.text("vm kill greedy").map(drop)
}

#[test]
fn processors_that_are_all_busy_share_the_machines_evenly() -> Result<()> {
    let names = ["a", "b", "c", "d", "e", "f"];
    let descriptions = names.map(|name| (name, hello(1, "stuck", "")));
    let mut world = World::boot(machine(), &descriptions)?;
    spinning(&mut world, &names)?;
    // Of these three at least two share a processor: where that pair ends, one processor is left with three, the other with
    // one, and neither is idle.
    for ended in [["a", "b"], ["a", "c"], ["b", "c"]] {
        for name in ended {
            world.text(&format!("vm kill {name}"))?;
            // With its console, whose text would be taken for that of the next start.
            world.text(&format!("vm delete {name}"))?;
        }
        let left: Vec<&str> = names.into_iter().filter(|name| !ended.contains(name)).collect();
        // A look at the others comes every 100 ms at the latest.
        shares(&mut world, &left)?;
        let (run, _) = shares(&mut world, &left)?;
        let (least, most) = (run.iter().min().unwrap_or(&0), run.iter().max().unwrap_or(&0));
        println!("without {ended:?}: {run:?}");
        assert!(
            *most as f64 / *least as f64 <= 2.0,
            "without {ended:?}: {left:?} had {run:?}"
        );
        spinning(&mut world, &ended)?;
    }
    Ok(())
}

#[test]
fn machines_that_share_one_processor_spread_when_another_falls_idle() -> Result<()> {
    let names = ["a", "b", "c", "d"];
    // Whichever way the four were placed, one of these pairs shares a processor.
    for (ended, left) in [(["a", "c"], ["b", "d"]), (["a", "b"], ["c", "d"])] {
        let descriptions = names.map(|name| (name, hello(1, "stuck", "")));
        let mut world = World::boot(machine(), &descriptions)?;
        spinning(&mut world, &names)?;
        for name in ended {
            world.text(&format!("vm kill {name}"))?;
        }
        let (run, elapsed) = shares(&mut world, &left)?;
        let percent = 100.0 * run.iter().sum::<u64>() as f64 / elapsed as f64;
        println!("{left:?}: {percent:.0} % of one processor");
        assert!(percent > 150.0, "{left:?} had {percent} %: {run:?} of {elapsed}");
    }
    Ok(())
}
