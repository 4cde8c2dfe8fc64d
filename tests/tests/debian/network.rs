//! Debian's own network driver, and the root's switch between two guests.

use anyhow::{Context, Result, ensure};

use crate::world::{Guest, World, complaints, grep_complaints};

const SCRIPT: &str = include_str!("network.sh");

/// A card on the switch that there is anyhow.
const CARD: &str = "[[network]]";

/// Two guests, `server` and `client`, which run these commands behind [`SCRIPT`].
struct Pair<'a> {
    processors: u32,
    server: &'a str,
    client: &'a str,
    server_card: &'a str,
    client_card: &'a str,
}

impl Pair<'_> {
    fn run(&self, test: impl FnOnce(&mut World) -> Result<()>) -> Result<()> {
        let commands = |commands: &str| format!(". /script; {commands}");
        let (server, client) = (commands(self.server), commands(self.client));
        let script = format!("{SCRIPT}\ncomplaints() {{ {}; }}\n", grep_complaints());
        let guest = |name, commands, more| Guest {
            more,
            script: Some(&script),
            ..Guest::new(name, self.processors, commands)
        };
        let guests = [
            guest("server", &server, self.server_card),
            guest("client", &client, self.client_card),
        ];
        World::boot(&guests)?.try_with_all(&["server", "client"], test)
    }
}

/// Runs commands in a guest's shell that are to succeed.
fn succeeds(world: &mut World, guest: &str, commands: &str) -> Result<()> {
    world.type_into(guest, commands).map(drop)
}

/// Runs commands in a guest's shell that are to fail.
fn fails(world: &mut World, guest: &str, commands: &str) -> Result<()> {
    let (status, text) = world.try_type_into(guest, commands)?;
    ensure!(status != 0, "'{commands}' has not failed in '{guest}':\n{text}");
    Ok(())
}

/// A counter of a port: of those that `net stats` shows, or the frames that were dropped for a reason.
fn counter(world: &mut World, port: &str, name: &str) -> Result<u64> {
    let stats = world.json(&format!("net stats {port}"))?;
    if let Some(count) = stats[name].as_u64() {
        return Ok(count);
    }
    let mut dropped = stats["dropped"].as_array().into_iter().flatten();
    let row = dropped.find(|row| row["reason"] == name);
    row.and_then(|row| row["frames"].as_u64())
        .with_context(|| format!("{port} has no counter {name}: {stats}"))
}

/// The value of a mark on a guest's console.
fn mark(world: &mut World, guest: &str, name: &str) -> Result<String> {
    let console = world.console_of(guest)?;
    let start = format!("mark {name}=");
    let value = console.lines().find_map(|line| line.strip_prefix(&start));
    Ok(value
        .with_context(|| format!("{guest} does not tell {name}"))?
        .trim()
        .to_owned())
}

fn ensure_mark(world: &mut World, guest: &str, name: &str, wanted: &str) -> Result<()> {
    let value = mark(world, guest, name)?;
    ensure!(value == wanted, "{guest}: {name} is '{value}', not '{wanted}'");
    Ok(())
}

/// The numbers of a mark.
fn numbers(world: &mut World, guest: &str, name: &str) -> Result<Vec<u64>> {
    let value = mark(world, guest, name)?;
    let numbers = value.split_whitespace().map(str::parse);
    numbers
        .collect::<Result<_, _>>()
        .with_context(|| format!("{name}={value}"))
}

#[test]
fn two_guests_see_their_offloads_and_queues_and_copy_files_to_each_other_at_any_mtu() -> Result<()> {
    let pair = Pair {
        processors: 2,
        server: "up 1; serve 4; wait ping -c 1 10.0.0.2; wait test -e /srv/got.3; ip link set eth0 mtu 9000; sleep 9999",
        client: "up 2; wait ping -c 1 10.0.0.1; mark ping $(ping -c 3 10.0.0.1 | grep -c seq=); \
            ethtool -k eth0; mark queues $(queues); mark channels $(channels); mark fetch $(fetch file); \
            ethtool -L eth0 combined 1; mark one_queue $(fetch file) $(queues) $(channels); ethtool -L eth0 combined 2; \
            ethtool -X eth0 weight 1 0; mark by_first $(by_queues); ethtool -X eth0 weight 0 1; mark by_second $(by_queues); ethtool -X eth0 default; \
            mark give $(give file 1); mark give_again $(give file 2); mark give_last $(give file 3); \
            mark coalesced $(packet_size); ethtool -K eth0 lro off; mark uncoalesced $(packet_size); ethtool -K eth0 lro on; \
            ethtool -K eth0 tx off; mark plain $?; mark software $(fetch file); ethtool -K eth0 tx on tso on; \
            ip link set eth0 mtu 9000; mark mtu $?; wait ping -c 1 -s 8900 10.0.0.1; mark jumbo $(fetch file); mark channels_after $(channels); \
            ethtool -S eth0; cat /proc/net/dev; mark warnings $(warnings); complaints; poweroff -f",
        server_card: CARD,
        client_card: CARD,
    };
    pair.run(|world| {
        world.wait("client", "off")?;
        for (name, wanted) in [
            ("ping", "3"),
            ("queues", "2 2"),
            ("channels", "2"),
            ("fetch", "same"),
            ("one_queue", "same 2 1 1"),
            ("give", "same"),
            ("give_again", "same"),
            ("give_last", "same"),
            ("plain", "0"),
            ("software", "same"),
            ("mtu", "0"),
            ("jumbo", "same"),
            ("channels_after", "2"),
            ("warnings", ""),
        ] {
            ensure_mark(world, "client", name, wanted)?;
        }
        // The guest says which queue packets come by. What is no TCP, such as ARP, comes by the first one.
        for (name, queue) in [("by_first", 0), ("by_second", 1)] {
            let by = numbers(world, "client", name)?;
            ensure!(
                by.len() == 2 && by[queue] > 100 && by[1 - queue] < 10,
                "{name}: {by:?}"
            );
        }
        // The largest packets of a file: segments as they were sent, where the guest takes them as one.
        let (coalesced, uncoalesced) = (
            numbers(world, "client", "coalesced")?,
            numbers(world, "client", "uncoalesced")?,
        );
        ensure!(
            coalesced[0] > 2000,
            "packets of {coalesced:?} bytes: nothing is coalesced"
        );
        ensure!(
            (1000..=1514).contains(&uncoalesced[0]),
            "packets of {uncoalesced:?} bytes"
        );
        let console = world.console_of("client")?;
        ensure!(console.contains("\ncomplaints_1=0\n"), "{console}");
        for feature in [
            "rx-checksumming: on",
            "tx-checksumming: on",
            "tcp-segmentation-offload: on",
            "large-receive-offload: on",
        ] {
            ensure!(
                console.contains(&format!("\n{feature}\n")),
                "{feature} is not told"
            );
        }
        for guest in ["server", "client"] {
            let console = world.console_of(guest)?;
            ensure!(complaints(&console).is_empty(), "{:#?}", complaints(&console));
        }
        Ok(())
    })
}

/// Asks the server, as long as it takes the emulated machine.
const REACHES: &str = "ping -c 2 -W 20 10.0.0.1";
/// The same where no answer is to come.
const REACHES_NOT: &str = "ping -c 2 -W 3 10.0.0.1";

#[test]
fn the_switch_keeps_its_rules_and_cards_come_and_go_while_guests_run() -> Result<()> {
    let pair = Pair {
        processors: 2,
        server: "up 1; serve 1; setsid cttyhack sh",
        client: "up 2; setsid cttyhack sh",
        server_card: CARD,
        client_card: CARD,
    };
    pair.run(|world| {
        for guest in ["server", "client"] {
            world.until_said(guest, "/ #")?;
        }
        succeeds(world, "client", REACHES)?;

        // The link.
        world.text("net link client down")?;
        succeeds(world, "client", "until grep -q 0 /sys/class/net/eth0/carrier; do sleep 1; done")?;
        fails(world, "client", REACHES_NOT)?;
        world.text("net link client up")?;
        succeeds(world, "client", "until grep -q 1 /sys/class/net/eth0/carrier; do sleep 1; done")?;
        succeeds(world, "client", REACHES)?;

        // VLANs: by the port, and by tags in the guest.
        world.text("net vlan client 5")?;
        fails(world, "client", REACHES_NOT)?;
        world.text("net vlan server none --trunk 5-6")?;
        succeeds(
            world,
            "server",
            "ip link add link eth0 name eth0.5 type vlan id 5 && ip link set eth0.5 up && ip addr add 10.0.5.1/24 dev eth0.5",
        )?;
        succeeds(world, "client", "ip addr add 10.0.5.2/24 dev eth0 && ping -c 2 -W 20 10.0.5.1")?;
        fails(world, "client", REACHES_NOT)?;
        world.text("net vlan client none")?;
        world.text("net vlan server none")?;
        succeeds(world, "client", REACHES)?;

        // Another's address: the guest is refused one by its card, and frames with one are dropped and counted.
        fails(world, "client", "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:77")?;
        succeeds(world, "client", "ip link set eth0 up; until grep -q 1 /sys/class/net/eth0/carrier; do sleep 1; done")?;
        let spoofed = counter(world, "client", "spoofed")?;
        world.text("net guard client none")?;
        succeeds(
            world,
            "client",
            "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:77 && ip link set eth0 up",
        )?;
        succeeds(world, "client", "until grep -q 1 /sys/class/net/eth0/carrier; do sleep 1; done; ping -c 3 -W 20 10.0.0.1")?;
        world.text("net guard client all")?;
        fails(world, "client", REACHES_NOT)?;
        ensure!(counter(world, "client", "spoofed")? > spoofed, "no spoofed frame was counted");
        world.text("net guard client none")?;

        // A second card, on a switch of its own, comes and goes while the first has traffic.
        world.text("switch create lab")?;
        succeeds(world, "client", ". /script; (while true; do fetch file; sleep 1; done) > /tmp/loop & true")?;
        ensure!(world.json("net attach client lab --mac 02:00:00:00:00:99")?["card"] == 1);
        succeeds(
            world,
            "client",
            "until grep -q 02:00:00:00:00:99 /sys/class/net/*/address; do sleep 1; done; ip link set eth1 up",
        )?;
        let refused = world.run("switch delete lab")?;
        ensure!(refused.status == 1 && refused.text.contains("in use"), "{}", refused.text);
        world.text("net detach client/1")?;
        succeeds(world, "client", "until [ ! -e /sys/class/net/eth1 ]; do sleep 1; done")?;
        world.text("switch delete lab")?;

        // A processor goes, its channel moved first, and comes again, under traffic: with one processor, and again with two, it goes on.
        succeeds(
            world,
            "client",
            "goes_on() { now=$(grep -c same /tmp/loop); until [ $(grep -c same /tmp/loop) -gt $now ]; do sleep 1; done; }; goes_on; \
             for c in /sys/bus/vmbus/devices/*/channels/*/cpu; do grep -q 1 $c && echo 0 > $c; done; \
             echo 0 > /sys/devices/system/cpu/cpu1/online && goes_on && echo 1 > /sys/devices/system/cpu/cpu1/online && goes_on",
        )?;

        // The card that has the traffic goes, and another takes its place, with the address that it had.
        world.text("net detach client/0")?;
        succeeds(world, "client", "until [ ! -e /sys/class/net/eth0 ]; do sleep 1; done")?;
        world.text("net attach client")?;
        succeeds(world, "client", "up 2; goes_on; ! grep -v same /tmp/loop")?;

        // Frames on their way, as a file.
        let capture = world.json("net capture client --frames 5 --seconds 60")?;
        ensure!(capture["frames"] == 5, "{}", capture["frames"]);
        for guest in ["server", "client"] {
            world.ensure_no_complaints_in(guest)?;
        }

        // A machine that ends under load leaves no port behind.
        world.text("vm kill client")?;
        let list = world.json("net list")?;
        let ports = list["ports"].as_array().into_iter().flatten();
        let left = ports.filter(|row| row["port"].as_str().is_some_and(|port| port.starts_with("client")));
        ensure!(left.count() == 0, "its ports are left: {list}");
        Ok(())
    })
}
