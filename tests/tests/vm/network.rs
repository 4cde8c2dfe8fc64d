//! Network cards of machines: the demos `chat`, two machines on a switch, and `web`, one that is reached from outside.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::outside::{fetch, free_port};
use tests::{machine, row};
use xtask::Forward;

use crate::world::{World, counted, ensure_said};

/// A description of `chat` with words on its command line, and keys of its card.
pub(crate) fn chat(words: &str, card: &str) -> String {
    format!(
        "processors = 1\nmemory = \"64MiB\"\nkernel = \"kernels/chat\"\ncommand_line = \"chat {words}\"\n[[network]]\n{card}\n"
    )
}

/// Has two machines talk until the second is off; returns what both have said.
fn talk(world: &mut World, listens: &str, talks: &str) -> Result<[String; 2]> {
    world.text(&format!("vm create {listens}"))?;
    world.text(&format!("vm create {talks}"))?;
    world.text(&format!("vm start {listens}"))?;
    world.text(&format!("vm start {talks} --wait"))?;
    let talked = world.console_of(talks)?;
    if talked.contains("chat: done") {
        world.wait(listens, "off")?;
    }
    Ok([world.console_of(listens)?, talked])
}

/// Checks that the guest said all this, and that nothing came wrong.
fn said_all(said: &[String; 2], lines: &[&str]) -> Result<()> {
    for line in lines {
        ensure!(
            said[1].contains(line),
            "{line:?} is not in\n{}\n{}",
            said[1],
            said[0]
        );
    }
    for said in said {
        ensure!(
            said.contains(" 0 bad messages, 0 bad checksums, ") && said.contains("chat: done"),
            "{said}"
        );
    }
    Ok(())
}

#[test]
fn two_guests_ping_each_other_and_exchange_datagrams_and_streams_unharmed() -> Result<()> {
    let jumbo = |words: &str| chat(&format!("{words} mtu=9000"), "switch = \"jumbo\"");
    // One leaves all work to the host, the other none.
    let mixed = [
        chat("listen ip=10.78.0.1/24 plain", "switch = \"mixed\""),
        chat("ip=10.78.0.2/24 peer=10.78.0.1", "switch = \"mixed\""),
    ];
    let [plain, full] = mixed;
    let descriptions = [
        ("jumbo-one", jumbo("listen ip=10.78.0.1/24")),
        ("jumbo-two", jumbo("ip=10.78.0.2/24 peer=10.78.0.1 bulk=8388608")),
        ("plain", plain),
        ("full", full),
    ];
    let mut world = World::boot(machine(), &descriptions)?;
    for (listens, talks, largest, bulk) in [
        ("chat-one", "chat-two", 1472, 4 << 20),
        ("jumbo-one", "jumbo-two", 8972, 8 << 20),
        ("plain", "full", 1472, 4 << 20),
    ] {
        let said = talk(&mut world, listens, talks)?;
        let udp = format!("chat: udp: 8 datagrams came back, the largest of {largest} bytes");
        let (there, back) = (
            format!("chat: there: {bulk} bytes unharmed,"),
            format!("chat: back: {bulk} bytes unharmed"),
        );
        let lines = [
            "chat: ping: 10.7",
            &udp,
            "chat: tcp: 300000 bytes came back",
            &there,
            &back,
        ];
        said_all(&said, &lines)?;
    }
    Ok(())
}

#[test]
fn a_guest_with_an_address_by_dhcp_answers_requests_from_the_outside() -> Result<()> {
    const BYTES: usize = 3 << 20;
    let port = free_port()?;
    let mut world = World::boot(machine().forward(Forward::tcp(port, 8080)), &[])?;
    world.text("root network --wait")?;
    world.text("net forward add tcp:8080 web:80")?;
    world.start("web")?;
    world.wait_said("web", "web: listening")?;
    let refused = world.refused("vm wait web --text 'nobody says this' --timeout 1")?;
    ensure!(
        refused.contains("not come to pass within 1 s: 'web' is running"),
        "{refused}"
    );
    let leases = world.json("net leases")?;
    let lease = row(&leases, "leases", "machine", "web");
    let address = lease["address"].as_str().context("a lease has an address")?;
    let page = String::from_utf8(fetch(port, "/")?)?;
    ensure!(
        page.contains(&format!("<li>address {address}<")) && page.contains("requests before this one: 0<"),
        "{page}"
    );
    ensure!(fetch(port, "/nothing")? == b"There is no such page.\n");
    // Two at once, each of which has to get its own.
    let fetched: Vec<_> = std::thread::scope(|scope| {
        let fetches: Vec<_> = [BYTES, BYTES - 1]
            .map(|bytes| scope.spawn(move || fetch(port, &format!("/bytes/{bytes}"))))
            .into();
        fetches.into_iter().map(|fetch| fetch.join()).collect()
    });
    for (fetched, bytes) in fetched.into_iter().zip([BYTES, BYTES - 1]) {
        let fetched = fetched.map_err(|_| anyhow::anyhow!("a fetch panicked"))??;
        let wrong = (0..bytes).find(|at| fetched.get(*at) != Some(&((at * 31) as u8)));
        ensure!(
            fetched.len() == bytes && wrong.is_none(),
            "{} of {bytes} bytes came, byte {wrong:?} is wrong",
            fetched.len()
        );
    }
    let said = world.console_of("web")?;
    ensure!(
        said.contains(&format!("web: address {address}/24 by DHCP")),
        "{said}"
    );
    let gateway = world.json("net gateway")?;
    for reason in ["malformed", "fragment", "spoofed", "table full", "too large"] {
        let dropped = row(&gateway, "dropped", "reason", reason);
        ensure!(dropped["packets"] == 0, "{gateway}");
    }
    Ok(())
}

#[test]
fn guests_of_other_vlans_and_guests_with_a_false_address_are_not_heard() -> Result<()> {
    let silent = "ip=10.78.0.3/24 peer=10.78.0.1 patience=3";
    let descriptions = [
        ("listens", chat("listen stay ip=10.78.0.1/24", "vlan = 10")),
        (
            "same",
            chat("ip=10.78.0.2/24 peer=10.78.0.1 bulk=65536", "vlan = 10"),
        ),
        ("other", chat(silent, "vlan = 20")),
        (
            "false",
            chat(
                "ip=10.78.0.3/24 peer=10.78.0.1 patience=300 as=02:66:66:66:66:66",
                "vlan = 10\nmac = \"02:00:00:00:00:05\"",
            ),
        ),
    ]
    .map(|(name, text)| {
        (
            name,
            text.replace("[[network]]", "[[network]]\nswitch = \"guarded\""),
        )
    });
    let mut world = World::boot(machine(), &descriptions)?;
    world.start("listens")?;
    // Who may be heard is: what the others miss is not the switch.
    let same = world.run_to_its_end("same")?;
    ensure_said(&same, &["chat: there: 65536 bytes unharmed"])?;
    world.start("other")?;
    world.wait_said("other", "chat: failed: the other is silent: no answer to a ping")?;
    world.start("false")?;
    world.until("frames with a false address are counted", |world| {
        Ok(counted(&world.json("net list")?, "spoofed", |_| true)? > 3)
    })?;
    let said = world.console_of("false")?;
    ensure!(!said.contains("answers"), "{said}");
    world.text("vm kill false").map(drop)
}

#[test]
fn a_thousand_million_bytes_cross_unharmed() -> Result<()> {
    let card = "switch = \"soak\"";
    let descriptions = [
        ("soak-one", chat("listen ip=10.78.0.1/24", card)),
        (
            "soak-two",
            chat(
                "ip=10.78.0.2/24 peer=10.78.0.1 bulk=1000000000 patience=600",
                card,
            ),
        ),
    ];
    let mut world = World::boot(machine().silence_limit(Duration::from_secs(3600)), &descriptions)?;
    let said = talk(&mut world, "soak-one", "soak-two")?;
    said_all(
        &said,
        &[
            "chat: there: 1000000000 bytes unharmed",
            "chat: back: 1000000000 bytes unharmed",
        ],
    )
}
