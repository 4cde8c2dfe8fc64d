//! A guest's way to the outside and back: the root's uplink, its gateway, its port forwards.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::thread;

use anyhow::{Context, Result, ensure};
use tests::outside::{connect, fetch, free_port};
use tests::{number, row};
use xtask::Forward;
use xtask::guest::debian::Debian;

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
         ping -c 2 -s 4000 10.0.2.2 && echo network: in parts; \
         mkdir /srv; nc 10.0.2.2 {outside} < /dev/null > /srv/data; httpd -h /srv; \
         nc -ll -p 22 -e sh & dmesg | grep -E 'WARNIN[G]:|BU[G]:|Call Trac[e]'; echo network: ready; sleep 99999"
    );
    let guest = Guest {
        more: "[[network]]",
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
        for sign in ["\nnetwork: near\n", "\nnetwork: far\n", "\nnetwork: in parts\n"] {
            ensure!(console.contains(sign), "no {sign:?} in {console}");
        }
        ensure!(complaints(&console).is_empty(), "{:#?}", complaints(&console));
        // What the guest fetched outside, fetched from it from outside.
        ensure!(fetch(web, "/data")? == data, "the bytes are others");
        ensure!(talk(shell, "echo $((6 * 7)) from $(uname -s)")? == "42 from Linux");
        // The same with jumbo frames in the guest, of which nobody outside knows.
        let jumbo = format!(
            "ip link set eth0 mtu 9000 && cat /sys/class/net/eth0/mtu && nc 10.0.2.2 {outside} < /dev/null | cmp - /srv/data && echo the same"
        );
        let said = talk(shell, &jumbo)?;
        ensure!(said == "9000\nthe same", "{said}");
        ensure!(fetch(web, "/data")? == data, "the bytes are others");
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

/// One command in the guest, by `ssh` from this host, with `input`; returns what it printed. Host keys are kept in `home`.
fn ssh(client: std::process::Command, home: &Path, port: u16, line: &str, input: &[u8]) -> Result<Vec<u8>> {
    let mut client = client;
    client
        .env("HOME", home)
        .args(["-y", "-p", &port.to_string(), "root@127.0.0.1", line]);
    client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = client.spawn()?;
    let mut to_it = child.stdin.take().context("it has no input")?;
    let bytes = input.to_vec();
    let writer = thread::spawn(move || to_it.write_all(&bytes));
    let output = child.wait_with_output()?;
    let written = writer
        .join()
        .map_err(|_| anyhow::anyhow!("the writer panicked"))?;
    ensure!(
        output.status.success() && written.is_ok(),
        "'{line}' failed: {} {written:?}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// The system on its disk asks for its address by itself; `-B` lets in whoever knows a name without a password.
const SSH_SERVER: &str = "sed -i 's/^root:[^:]*:/root::/' /etc/passwd; echo /bin/bash > /etc/shells; \
    dropbear -R -B -p 22; echo ssh_$((1))=ready; sleep 99999";

#[test]
fn a_guest_is_reached_by_ssh_talks_to_a_neighbour_of_ours_and_tells_its_address() -> Result<()> {
    let port = free_port()?;
    let guest = Guest {
        more: "[[network]]",
        forwards: &[Forward::tcp(port, 2222)],
        ..Guest::on_disk("ssh", 2, SSH_SERVER)
    };
    let debian = Debian::ensure()?;
    let home = tempfile::tempdir()?;
    let sent = noise(2);
    World::with(&guest, |world| {
        world.text("root network --wait")?;
        world.text("net forward add tcp:2222 ssh:22")?;
        world.until_said("ssh", "ssh_1=ready")?;
        let run = |line: &str, input: &[u8]| ssh(debian.program("dbclient")?, home.path(), port, line, input);
        let got = run("cat > /root/file; uname -r", &sent)?;
        ensure!(
            String::from_utf8_lossy(&got).trim() == debian.release(),
            "{got:?}"
        );
        ensure!(run("cat /root/file", b"")? == sent, "the bytes are others");
        let shown = run(
            "ethtool -i eth0; dmesg | grep -cE '[W]ARNING|[B]UG|[C]all Trace' || true",
            b"",
        )?;
        let shown = String::from_utf8_lossy(&shown);
        ensure!(
            shown.contains("driver: hv_netvsc") && shown.trim().ends_with("\n0"),
            "{shown}"
        );
        // A machine of ours on the same switch, which has its address from the same server.
        world.text("vm start web")?;
        world.until_said("web", "web: listening")?;
        let leases = world.json("net leases")?;
        let address = |machine: &str| row(&leases, "leases", "machine", machine)["address"].as_str();
        let (own, web) = (
            address("ssh").context("no lease")?,
            address("web").context("no lease")?,
        );
        let page = run(&format!("wget -q -O - http://{web}/"), b"")?;
        let page = String::from_utf8_lossy(&page);
        ensure!(page.contains("A guest of Partita"), "{page}");
        world.until("it tells its address", |world| {
            Ok(world.json("vm show ssh")?["guest"].to_string().contains(own))
        })?;
        world.text("vm stop ssh --timeout 600").map(drop)
    })
}
