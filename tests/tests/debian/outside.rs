//! A guest's way to the outside and back: the root's uplink, its gateway, its port forwards.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use anyhow::{Context, Result, ensure};
use tests::outside::{connect, fetch, free_port};
use tests::{number, row};
use xtask::Forward;

use crate::world::{Guest, World, complaints};

/// Bytes that cross.
const BYTES: usize = 4 << 20;

/// Bytes that look random, the same for the same seed.
fn noise(mut seed: u64) -> Vec<u8> {
    let words = core::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    });
    words.flat_map(u64::to_le_bytes).take(BYTES).collect()
}

/// A host outside: whoever connects is sent `bytes`.
fn serve(bytes: Vec<u8>) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A connection that ends early shows in what the guest has then.
            let _ = stream.write_all(&bytes);
        }
    });
    Ok(port)
}

/// One conversation with a shell of the guest.
fn talk(port: u16, line: &str) -> Result<String> {
    let mut stream = connect(port)?;
    stream.write_all(format!("{line}\nexit\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.trim().to_owned())
}

#[test]
fn a_guest_with_a_network_card_reaches_the_outside_and_is_reached_by_port_forwards() -> Result<()> {
    let data = noise(1);
    let outside = serve(data.clone())?;
    let (web, shell) = (free_port()?, free_port()?);
    let commands = format!(
        "dhcp; ip -4 addr show eth0; cat /etc/resolv.conf; ping -c 2 192.168.86.1 && echo network: near; ping -c 2 10.0.2.2 && echo network: far; \
         mkdir /srv; nc 10.0.2.2 {outside} < /dev/null > /srv/data; httpd -h /srv; \
         (while true; do nc -l -p 22 -e sh; done) & dmesg | grep -E 'WARNIN[G]:|BU[G]:|Call Trac[e]'; echo network: ready; sleep 99999"
    );
    let guest = Guest {
        more: "[[network]]",
        quiet: true,
        forwards: &[Forward::tcp(web, 8080), Forward::tcp(shell, 2222)],
        ..Guest::new("web", 1, &commands)
    };
    World::with(&guest, |world| {
        world.text("root network --wait")?;
        world.text("net forward add tcp:8080 web:80")?;
        world.text("net forward add tcp:2222 web:22")?;
        world.until("the guest is ready", |world| {
            Ok(world.console_of("web")?.contains("\nnetwork: ready\n"))
        })?;
        let console = world.console_of("web")?;
        ensure!(console.contains("nameserver 192.168.86.1"), "{console}");
        for sign in ["\nnetwork: near\n", "\nnetwork: far\n"] {
            ensure!(console.contains(sign), "no {sign:?} in {console}");
        }
        ensure!(complaints(&console).is_empty(), "{:#?}", complaints(&console));
        // What the guest fetched outside, fetched from it from outside.
        ensure!(fetch(web, "/data")? == data, "the bytes are others");
        ensure!(talk(shell, "echo $((6 * 7)) from $(uname -s)")? == "42 from Linux");
        let leases = world.json("net leases")?;
        let lease = row(&leases, "leases", "machine", "web");
        let address = lease["address"].as_str().context("a lease has an address")?;
        ensure!(
            console.contains(&format!("inet {address}/24")),
            "{leases} {console}"
        );
        let answers = world.json(&format!("root ping {address} --count 2 --timeout 60"))?;
        ensure!(number(&answers, "/answered") == 2, "{answers}");
        let gateway = world.json("net gateway")?;
        for reason in ["malformed", "fragment", "spoofed", "table full", "too large"] {
            let dropped = row(&gateway, "dropped", "reason", reason);
            ensure!(dropped["packets"] == 0, "{gateway}");
        }
        // Once a forward has ended nobody gets through.
        world.text("net forward delete tcp:8080")?;
        ensure!(fetch(web, "/data").is_err(), "the forward goes on");
        let faults = world.json("hv iommu faults")?;
        ensure!(number(&faults, "/total") == 0, "{faults}");
        Ok(())
    })
}
