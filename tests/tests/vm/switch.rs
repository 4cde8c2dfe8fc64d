//! What a virtual switch does to the machines on it, shown by the demo `chat`: caps, captures, mirrors, links, floods, and cards and
//! machines that go while they work.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tests::{machine, number, row};

use crate::network::chat;
use crate::world::{World, counted};

/// Bytes that are never all sent.
const ENDLESS: &str = "bulk=1000000000000";
/// A sign that a talker has come to its long stream.
const STREAMS: &str = "chat: tcp: 300000 bytes came back";

/// A world with a listener that stays, and talkers by name and words, all on one switch.
fn world(switch: &str, talkers: &[(&str, &str)]) -> Result<World> {
    let card = format!("switch = \"{switch}\"");
    let mut descriptions = vec![("listens", chat("listen stay ip=10.78.0.1/24", &card))];
    for (number, (name, words)) in talkers.iter().enumerate() {
        let words = format!("ip=10.78.0.{}/24 peer=10.78.0.1 {words}", number + 2);
        descriptions.push((name, chat(&words, &card)));
    }
    let mut world = World::boot(machine().silence_limit(Duration::from_secs(300)), &descriptions)?;
    world.start("listens")?;
    world.wait_said("listens", "chat: listening")?;
    Ok(world)
}

/// What a card's port has counted.
fn counted_of(world: &mut World, card: &str, counter: &str) -> Result<u64> {
    let list = world.json("net list")?;
    let port = row(&list, "ports", "card", card);
    counted(&list, counter, |row| {
        row["switch"] == port["switch"] && row["port"] == port["port"]
    })
}

/// Has a talker talk to its end.
fn talks_to_its_end(world: &mut World, name: &str) -> Result<String> {
    world.start(name)?;
    world.wait_said(name, "chat: done")?;
    world.console_of(name)
}

#[test]
fn a_cap_holds_within_a_tenth() -> Result<()> {
    /// Bits a second, little enough for the slowest of hosts.
    const CAP: f64 = 4e6;
    const BYTES: f64 = 2e6;
    let words = format!("bulk={BYTES}");
    let mut world = world("capped", &[("one", &words), ("two", &words), ("three", &words)])?;
    // The host may be too busy for the rate once, but nothing makes the rate too high.
    let mut rates = Vec::new();
    for name in ["one", "two", "three"] {
        world.start(name)?;
        world.text(&format!("net limit {name}/0 4Mbit"))?;
        world.wait_said(name, "chat: done")?;
        let said = world.console_of(name)?;
        let time = said
            .split_once("bytes unharmed, in ")
            .and_then(|(_, rest)| rest.split_once(" us"));
        let micros: f64 = time.with_context(|| said.clone())?.0.parse()?;
        // A frame of 1514 bytes has 1460 of the stream.
        let rate = BYTES * 8.0 * 1514.0 / 1460.0 / (micros / 1e6);
        ensure!(
            rate < CAP * 1.1,
            "{rate} bits a second: more than the cap\n{said}"
        );
        rates.push(rate);
        if rate > CAP * 0.9 {
            return Ok(());
        }
    }
    anyhow::bail!("too slow each time: {rates:?} bits a second")
}

#[test]
fn what_a_port_sends_is_captured_and_mirrored() -> Result<()> {
    let mut world = world(
        "watched",
        &[("watches", "listen stay"), ("talks", "bulk=3000000")],
    )?;
    world.start("watches")?;
    world.wait_said("watches", "chat: listening")?;
    let unmirrored = counted_of(&mut world, "watches/0", "frames_to")?;
    world.text("net mirror watches/0 takes")?;
    world.text("net mirror listens/0 both")?;
    world.start("talks")?;
    let captured = world.json("net capture talks/0 --frames 40 --seconds 120")?;
    ensure!(number(&captured, "/frames") == 40, "{captured}");
    let file = captured["pcap_base64"].as_str().context("no file")?;
    let file = STANDARD
        .decode(file)
        .map_err(|error| anyhow::anyhow!("the file is no base64: {error}"))?;
    let kinds = frame_kinds(&file)?;
    ensure!(kinds.len() == 40, "{} frames", kinds.len());
    // ARP, and IPv4 that it leads to.
    for kind in [0x0806, 0x0800] {
        ensure!(kinds.contains(&kind), "no {kind:#06x} in {kinds:04x?}");
    }
    world.wait_said("talks", "chat: done")?;
    let mirrored = counted_of(&mut world, "watches/0", "frames_to")? - unmirrored;
    let sent = counted_of(&mut world, "listens/0", "frames_from")?;
    ensure!(
        mirrored > sent,
        "{mirrored} frames were mirrored, but {sent} sent and others received"
    );
    Ok(())
}

/// The kinds of payload of the frames of a pcap file.
fn frame_kinds(file: &[u8]) -> Result<Vec<u16>> {
    let word = |at: usize| {
        let bytes = file.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
        bytes
            .map(|bytes| u32::from_le_bytes(*bytes))
            .context("the file is cut short")
    };
    // Either resolution of time; Ethernet.
    ensure!(
        [0xa1b2_3c4d, 0xa1b2_c3d4].contains(&word(0)?) && word(20)? == 1,
        "this is no pcap file"
    );
    let (mut at, mut kinds) = (24, Vec::new());
    while at < file.len() {
        let length = word(at + 8)? as usize;
        let frame = file
            .get(at + 16..at + 16 + length)
            .context("a frame is cut short")?;
        let kind = frame.get(12..14).context("a frame without a header")?;
        kinds.push(u16::from_be_bytes([kind[0], kind[1]]));
        at += 16 + length;
    }
    Ok(kinds)
}

#[test]
fn a_link_that_is_down_carries_nothing_and_goes_on_when_it_is_up() -> Result<()> {
    let mut world = world("linked", &[("talks", "bulk=30000000")])?;
    world.start("talks")?;
    world.wait_said("talks", STREAMS)?;
    world.text("net link listens/0 down")?;
    let list = world.json("net list")?;
    ensure!(
        row(&list, "ports", "card", "listens/0")["link"] == "down",
        "{list}"
    );
    let still = counted_of(&mut world, "listens/0", "frames_from")?;
    // The talker tries again now and then, and nothing of it arrives.
    let tried = counted_of(&mut world, "talks/0", "frames_from")?;
    world.until("the talker tries again", |world| {
        Ok(counted_of(world, "talks/0", "frames_from")? > tried)
    })?;
    ensure!(
        counted_of(&mut world, "listens/0", "frames_from")? == still,
        "it is heard"
    );
    world.text("net link listens/0 up")?;
    world.wait_said("talks", "chat: there: 30000000 bytes unharmed")?;
    world.wait_said("talks", "chat: done")
}

#[test]
fn what_only_servers_and_routers_send_is_held_back_and_counted_unless_a_guest_may() -> Result<()> {
    let mut world = world("servers", &[("pretends", "pretend")])?;
    world.start("pretends")?;
    world.wait_said("pretends", "chat: pretending")?;
    let guarded = |world: &mut World| -> Result<u64> {
        let stats = world.json("net stats pretends")?;
        let row = row(&stats, "dropped", "reason", "guarded");
        row["frames"]
            .as_u64()
            .with_context(|| format!("no frames in {row}"))
    };
    let heard = |world: &mut World| counted_of(world, "listens/0", "frames_to");
    // Of each kind some, and of each kind none where only that one is held back.
    let before = heard(&mut world)?;
    world.until("both are counted", |world| Ok(guarded(world)? > 5))?;
    ensure!(heard(&mut world)? == before, "it is heard");
    for guard in ["dhcp", "router"] {
        world.text(&format!("net guard pretends {guard}"))?;
        let (held, came) = (guarded(&mut world)?, heard(&mut world)?);
        world.until(
            &format!("{guard} holds back one kind and not the other"),
            |world| Ok(guarded(world)? > held + 1 && heard(world)? > came + 1),
        )?;
    }
    world.text("net guard pretends none")?;
    let held = guarded(&mut world)?;
    let came = heard(&mut world)?;
    world.until("nothing is held back", |world| Ok(heard(world)? > came + 3))?;
    ensure!(guarded(&mut world)? == held, "something is held back");
    world.text("vm kill pretends").map(drop)
}

#[test]
fn a_guest_that_floods_its_switch_does_not_starve_the_others_or_the_root() -> Result<()> {
    let mut world = world("flooded", &[("floods", "flood"), ("talks", "bulk=1000000")])?;
    world.start("floods")?;
    world.wait_said("floods", "chat: flooding")?;
    let before = counted_of(&mut world, "floods/0", "frames_from")?;
    let said = talks_to_its_end(&mut world, "talks")?;
    ensure!(said.contains("chat: there: 1000000 bytes unharmed"), "{said}");
    // The root's shell has answered all along, and the flood has gone on.
    ensure!(
        counted_of(&mut world, "floods/0", "frames_from")? > before + 1000,
        "there was no flood"
    );
    world.text("vm kill floods").map(drop)
}

#[test]
fn cards_and_machines_that_go_under_load_leave_nothing_behind_and_harm_no_other() -> Result<()> {
    let mut world = world("worked", &[("busy", ENDLESS), ("talks", "bulk=1000000")])?;
    let mut before = None;
    for round in 0..4 {
        world.start("busy")?;
        world.wait_said("busy", STREAMS)?;
        if round % 2 == 0 {
            // Another card comes, of which the guest is told, and the one that works goes.
            let attached = world.json("net attach busy worked")?;
            ensure!(number(&attached, "/card") == 1, "{attached}");
            let channels = world.json("bus list busy")?;
            let offered = channels["channels"].as_array().context("no channels")?;
            ensure!(
                offered
                    .iter()
                    .any(|channel| channel["device"] == "network" && channel["state"] == "offered"),
                "no card is offered: {channels}"
            );
            world.text("net detach busy/0")?;
            let list = world.text("net list")?;
            ensure!(
                !list.contains("busy/0") && list.contains("busy/1"),
                "the wrong cards are there:\n{list}"
            );
        }
        world.text("vm kill busy")?;
        world.text("vm delete busy")?;
        match before {
            Some(before) if round > 1 => {
                world.until(&format!("all is back after round {round}: {before:?}"), |world| {
                    Ok(world.balance()? == before)
                })?;
            }
            _ => before = Some(world.balance()?),
        }
    }
    let said = talks_to_its_end(&mut world, "talks")?;
    ensure!(said.contains("chat: back: 1000000 bytes unharmed"), "{said}");
    Ok(())
}
