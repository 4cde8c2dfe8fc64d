//! The machine's network card on a wire with a host at the other end that looks at each frame: jumbo frames, checksums that the card
//! works out and checks, the root's way of getting an address, and the way of guests through the gateway or past it.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use anyhow::{Result, ensure};
use tests::wire::{Damage, GIVEN, NAMED, Seen, Wire};
use tests::{machine, number, row};

use crate::network::chat;
use crate::world::World;

/// Bytes that are fetched.
const BYTES: usize = 1 << 20;
/// The address that is fixed for `web`, behind the gateway.
const FIXED: &str = "192.168.86.80";
/// A guest of the physical network itself.
const OUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 20);
/// Port of `chat` for datagrams, and the root's port that leads to that of a guest.
const ECHO: u16 = 7;
const FORWARDED_ECHO: u16 = 7007;

/// A machine on the wire, whose uplink carries packets of `mtu` bytes, with `web` behind the gateway, whose own frames are jumbo frames.
fn world(wire: &Wire, mtu: usize) -> Result<World> {
    let settings = format!(
        "[uplink]\nmtu = {mtu}\n[[lease]]\nmachine = \"web\"\naddress = \"{FIXED}\"\n\
         [[forward]]\nfrom = \"tcp:8080\"\nto = \"web:80\"\n\
         [[forward]]\nfrom = \"udp:{FORWARDED_ECHO}\"\nto = \"inner:{ECHO}\"\n"
    );
    let web = "processors = 1\nmemory = \"64MiB\"\nkernel = \"kernels/web\"\n\
               command_line = \"web mtu=9000 ask=wire.example\"\n[[network]]\n";
    let descriptions = [
        ("web", web.to_owned()),
        ("inner", chat("listen stay mtu=9000", "")),
        (
            "outer",
            chat(
                &format!("listen stay mtu=9000 ip={OUTER}/24"),
                "switch = \"external\"",
            ),
        ),
    ];
    let machine = wire.with(machine().file("network.toml", settings));
    let mut world = World::boot(machine, &descriptions)?;
    let root = world.json("root network --wait")?;
    ensure!(
        root["address"] == format!("{GIVEN}/24") && number(&root, "/mtu") == mtu as u64,
        "{root}"
    );
    for (guest, sign) in [
        ("web", "web: listening"),
        ("inner", "chat: listening"),
        ("outer", "chat: listening"),
    ] {
        world.start(guest)?;
        world.wait_said(guest, sign)?;
    }
    Ok(world)
}

/// Fetches from `web`, which is behind the gateway, and checks the bytes; what has been seen of frames.
fn fetch(wire: &Wire) -> Result<Seen> {
    let fetched = wire.fetch((GIVEN, 8080), &format!("/bytes/{BYTES}"))?;
    let wrong = (0..BYTES).find(|at| fetched.get(*at) != Some(&((at * 31) as u8)));
    ensure!(
        fetched.len() == BYTES && wrong.is_none(),
        "{} of {BYTES} bytes came, byte {wrong:?} is wrong",
        fetched.len()
    );
    let seen = wire.seen();
    ensure!(seen.wrong == 0, "wrong checksums: {seen:?}");
    Ok(seen)
}

/// That neither the card nor the gateway has met anything odd, but for some packets that the gateway may have taken for malformed.
fn ensure_no_trouble(world: &mut World, malformed: RangeInclusive<u64>) -> Result<()> {
    let root = world.json("root network")?;
    for trouble in ["damaged", "malformed", "missed", "unsendable", "resets"] {
        ensure!(root["counters"][trouble] == 0, "{trouble}: {root}");
    }
    let gateway = world.json("net gateway")?;
    for (reason, packets) in [
        ("malformed", malformed),
        ("fragment", 0..=0),
        ("too large", 0..=0),
        ("table full", 0..=0),
    ] {
        let dropped = row(&gateway, "dropped", "reason", reason)["packets"].as_u64();
        ensure!(
            dropped.is_some_and(|dropped| packets.contains(&dropped)),
            "{reason}: {gateway}"
        );
    }
    let faults = world.json("hv iommu faults")?;
    ensure!(number(&faults, "/total") == 0, "{faults}");
    Ok(())
}

#[test]
fn jumbo_frames_cross_the_uplink_both_ways_with_their_checksums_right_and_damaged_ones_get_nowhere()
-> Result<()> {
    let wire = Wire::new()?;
    let mut world = world(&wire, 9000)?;
    // The address that is fixed for it, and a name whose address the gateway's relay has asked for.
    let leases = world.json("net leases")?;
    ensure!(
        row(&leases, "leases", "machine", "web")["address"] == FIXED,
        "{leases}"
    );
    world.wait_said("web", &format!("web: wire.example has the address {NAMED}"))?;
    // Most of the bytes come in the largest frames that there can be.
    let seen = fetch(&wire)?;
    ensure!(seen.longest == 9014, "{seen:?}");
    let most = 2 * (BYTES / 8960) as u64 + 500;
    ensure!(seen.frames < most, "more than {most} frames: {seen:?}");
    // Datagrams of that size, by a forward through the gateway, and to a guest of the physical network.
    let (whole, damaged) = (vec![0x5a; 8972], vec![0xa5; 8972]);
    for (to, damage) in [
        ((GIVEN, FORWARDED_ECHO), Damage::Data),
        ((OUTER, ECHO), Damage::Data),
        ((OUTER, ECHO), Damage::Header),
        ((GIVEN, FORWARDED_ECHO), Damage::Header),
    ] {
        let echo = wire.first_echo(to, &[(&damaged, Some(damage)), (&whole, None)])?;
        ensure!(echo == whole, "{damage:?} has not kept it from {to:?}");
    }
    ensure!(wire.seen().wrong == 0, "wrong checksums: {:?}", wire.seen());
    // The damaged header for the gateway, each time that it was sent.
    ensure_no_trouble(&mut world, 1..=u64::MAX)
}

#[test]
fn guests_with_jumbo_frames_reach_hosts_with_jumbo_frames_by_an_uplink_without_them() -> Result<()> {
    let wire = Wire::new()?;
    let mut world = world(&wire, 1500)?;
    let seen = fetch(&wire)?;
    ensure!(seen.longest == 1514, "{seen:?}");
    let whole = vec![0x5a; 1472];
    ensure!(wire.first_echo((GIVEN, FORWARDED_ECHO), &[(&whole, None)])? == whole);
    ensure_no_trouble(&mut world, 0..=0)
}
