use crate::shell::fake::{FakeSystem, FakeTerminal, block_on};
use crate::shell::session::Session;
use crate::shell::switches::{PortChange, PortName};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use vsp::switch::guard::Guards;
use vsp::switch::limit::Limit;
use vsp::switch::port::{Direction, PortId};
use vsp::switch::vlan::{VlanId, VlanMode, VlanSet};
use vsp::switch::words::Mirror;

fn run(line: &str) -> (u8, String, FakeSystem) {
    let system = FakeSystem::new();
    let terminal = FakeTerminal::typing(b"");
    let mut session = Session::new(&system, Box::new(terminal.clone()));
    let status = block_on(session.run_line(line));
    drop(session);
    (status.0, terminal.output().replace("\r\n", "\n"), system)
}

#[test]
fn each_setting_of_a_port_is_given_by_one_command() {
    let web = || PortName::Card("web".into(), 0);
    let limit = Limit {
        bits_per_second: 10_000_000,
    };
    let trunk = VlanMode::Trunk {
        native: VlanId(1),
        allowed: VlanSet::parse("5,7-9").unwrap(),
    };
    for (line, port, change) in [
        (
            "net vlan web 5",
            web(),
            PortChange::Vlan(VlanMode::Access(VlanId(5))),
        ),
        ("net vlan web none", web(), PortChange::Vlan(VlanMode::default())),
        ("net vlan web/0 1 --trunk 5,7-9", web(), PortChange::Vlan(trunk)),
        ("net limit web 10Mbit", web(), PortChange::Limit(Some(limit))),
        ("net limit web none", web(), PortChange::Limit(None)),
        (
            "net guard web mac",
            web(),
            PortChange::Guard(Guards::SPOOFED_ADDRESS),
        ),
        (
            "net mirror web both",
            web(),
            PortChange::Mirror(Mirror::Of(Direction::all())),
        ),
        (
            "net mirror default:2 takes",
            PortName::Port("default".into(), PortId(2)),
            PortChange::Mirror(Mirror::Takes),
        ),
        ("net link web down", web(), PortChange::Link(false)),
    ] {
        let (status, output, system) = run(line);
        assert_eq!((status, output.as_str()), (0, ""), "{line}");
        assert_eq!(*system.machines.changes.lock(), [(port, change)], "{line}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_how_it_is_to_be() {
    for (line, status, message) in [
        (
            "net vlan web 4095",
            2,
            "net vlan: 4095: give a VLAN from 1 to 4094, or 'none'",
        ),
        (
            "net vlan web 1 --trunk x",
            2,
            "--trunk x: give VLANs, as in '5,7-9', or 'all'",
        ),
        ("net limit web 10", 2, "net limit: 10: give a rate in kbit"),
        ("net guard web arp", 2, "net guard: arp: give 'all', 'none'"),
        (
            "net mirror web all",
            2,
            "net mirror: all: give sent, received or both",
        ),
        ("net link web on", 2, "net link: on: give up or down"),
        (
            "net link web/x up",
            2,
            "'web/x' is no port: give a machine's card",
        ),
        ("net link web/7 up", 1, "there is no port web/7"),
        ("net detach default:0", 2, "net detach: give a machine's card"),
        (
            "net attach web default --mac 1",
            2,
            "--mac 1: give a card's address",
        ),
        (
            "net capture web --frames 0",
            2,
            "net capture: --frames 0: give a number from 1",
        ),
        ("net stats default:9", 1, "there is no port default:9"),
        (
            "switch create lab --kind public",
            2,
            "switch create: --kind public: the kinds are private",
        ),
        ("switch create default", 1, "there is a switch 'default' already"),
        ("switch delete default", 1, "switch 'default' has 3 ports in use"),
    ] {
        let (seen, output, _) = run(line);
        assert_eq!(seen, status, "{line}: {output}");
        assert!(output.contains(message), "{line}: {output}");
    }
}

#[test]
fn a_card_is_attached_with_all_that_a_description_can_say() {
    let (status, output, system) =
        run("net attach web lab --mac 02:00:00:00:00:2a --vlan 5 --trunk 7 --limit 1Gbit --guard dhcp");
    assert_eq!((status, output.as_str()), (0, "card  1\n"));
    let cards = system.machines.cards.lock();
    let [card] = cards.as_slice() else { panic!() };
    assert_eq!(card.switch, "lab");
    assert_eq!(card.address.unwrap().0, [2, 0, 0, 0, 0, 0x2a]);
    assert_eq!(card.vlan.describe(), "7 native 5");
    assert_eq!(card.limit.unwrap().describe(), "1Gbit");
    assert_eq!(card.guard, Guards::DHCP_SERVER);
}

#[test]
fn lists_tell_whose_a_port_is_and_what_went_through_it() {
    let (_, output, _) = run("net list");
    for part in ["web/0", "db/0", "the root", "mac,dhcp,router"] {
        assert!(output.contains(part), "{part}: {output}");
    }
    let (_, output, _) = run("switch list");
    assert!(output.contains("internal"), "{output}");
    let (_, output, _) = run("net stats db --json");
    let document: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(document["frames_to"], 1);
    assert_eq!(document["channels"], 2);
    assert_eq!(document["dropped"][2]["reason"], "spoofed");
}

#[test]
fn a_capture_is_a_pcap_file() {
    let (_, output, _) = run("net capture web --frames 2 --json");
    let document: serde_json::Value = serde_json::from_str(&output).unwrap();
    let file = STANDARD
        .decode(document["pcap_base64"].as_str().unwrap())
        .unwrap();
    assert_eq!((document["frames"].as_u64(), file.len()), (Some(2), 24 + 2 * 76));
    let (status, output, _) = run("net capture web --frames 2");
    assert_eq!(status, 0);
    let inside = output.split("-----\n").nth(1).unwrap();
    let lines: Vec<&str> = inside.lines().take_while(|line| !line.starts_with('-')).collect();
    assert_eq!(STANDARD.decode(lines.concat()).unwrap(), file);
}
