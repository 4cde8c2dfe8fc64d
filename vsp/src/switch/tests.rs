//! What a switch does with frames.

use super::fuzz::forward;
use super::guard::Guards;
use super::limit::Limit;
use super::port::{Direction, Drop, PortId, PortSettings};
use super::table::AGEING;
use super::vlan::{VlanId, VlanMode, VlanSet};
use super::{AttachError, Egress, Ingress, Kind, Switch, TICKS_A_SECOND, Verdict};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;
use vmbus::protocol::network::Mac;

fn mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

fn frame(to: Mac, from: Mac) -> Vec<u8> {
    let mut bytes = [to.0, from.0].concat();
    bytes.extend([0x08, 0x06]);
    bytes.resize(60, 0);
    bytes
}

/// A switch with `count` children, whose addresses are `mac(0)`, `mac(1)`, …
fn with_children(count: u8) -> Switch {
    let mut switch = Switch::new(Kind::External);
    for number in 0..count {
        let id = switch.attach(PortSettings::guest(mac(number))).unwrap();
        assert_eq!(id, PortId(number.into()));
    }
    switch
}

fn ports(out: &[Egress]) -> Vec<u16> {
    out.iter().map(|egress| egress.port.0).collect()
}

fn configure(switch: &mut Switch, port: u16, change: impl FnOnce(&mut PortSettings)) {
    switch.configure(PortId(port), change).unwrap();
}

#[test]
fn a_broadcast_goes_to_all_but_its_sender() {
    let mut switch = with_children(4);
    let out = forward(&mut switch, PortId(1), &frame(Mac::BROADCAST, mac(1)), None, 0);
    assert_eq!(ports(&out), [0, 2, 3]);
}

#[test]
fn a_frame_to_one_goes_to_it_alone_even_before_it_has_spoken() {
    let mut switch = with_children(4);
    let out = forward(&mut switch, PortId(1), &frame(mac(3), mac(1)), None, 0);
    assert_eq!(ports(&out), [3]);
}

#[test]
fn an_address_behind_the_uplink_is_learned_and_forgotten_with_age() {
    let mut switch = with_children(2);
    let uplink = switch.attach(PortSettings::uplink()).unwrap();
    configure(&mut switch, 0, |settings| settings.guard = Guards::empty());
    let far = mac(99);
    // Unknown: to the uplink, and to a child that may have others behind it.
    let to_far = frame(far, mac(1));
    assert_eq!(
        ports(&forward(&mut switch, PortId(1), &to_far, None, 0)),
        [0, uplink.0]
    );
    forward(&mut switch, uplink, &frame(mac(1), far), None, 0);
    assert_eq!(
        ports(&forward(&mut switch, PortId(1), &to_far, None, 1)),
        [uplink.0]
    );
    assert_eq!(
        ports(&forward(&mut switch, PortId(1), &to_far, None, AGEING)),
        [0, uplink.0]
    );
}

#[test]
fn a_spoofed_sender_is_dropped_and_counted() {
    let mut switch = with_children(2);
    let mut out: Vec<Egress> = Vec::new();
    let spoofed = frame(mac(1), mac(77));
    let ingress = Ingress {
        port: PortId(0),
        bytes: &spoofed,
        length: spoofed.len(),
        tag: None,
        now: 0,
    };
    let verdict = switch.forward(&ingress, &mut out);
    assert_eq!((verdict, out.len()), (Verdict::Dropped(Drop::Spoofed), 0));
    assert_eq!(switch.port(PortId(0)).unwrap().counters.dropped(Drop::Spoofed), 1);
    configure(&mut switch, 0, |settings| {
        settings.guard -= Guards::SPOOFED_ADDRESS
    });
    assert_eq!(ports(&forward(&mut switch, PortId(0), &spoofed, None, 0)), [1]);
}

#[test]
fn a_conversation_goes_another_way_as_soon_as_a_port_changes() {
    let mut switch = with_children(3);
    let to_two = frame(mac(2), mac(0));
    let way = |switch: &mut Switch| ports(&forward(switch, PortId(0), &to_two, None, 0));
    assert_eq!((way(&mut switch), way(&mut switch)), (vec![2], vec![2]));
    configure(&mut switch, 2, |settings| {
        settings.vlan = VlanMode::Access(VlanId(5))
    });
    assert!(way(&mut switch).is_empty());
    configure(&mut switch, 2, |settings| settings.vlan = VlanMode::default());
    assert_eq!((way(&mut switch), way(&mut switch)), (vec![2], vec![2]));
    configure(&mut switch, 2, |settings| settings.mirror = Direction::TO_PORT);
    switch.mirror_to(Some(PortId(1)));
    assert_eq!((way(&mut switch), way(&mut switch)), (vec![2, 1], vec![2, 1]));
    switch.mirror_to(None);
    assert_eq!((way(&mut switch), way(&mut switch)), (vec![2], vec![2]));
    switch.detach(PortId(2));
    assert!(way(&mut switch).is_empty());
}

#[test]
fn a_conversation_follows_an_address_that_moves() {
    let mut switch = with_children(3);
    for port in [1, 2] {
        configure(&mut switch, port, |settings| settings.guard = Guards::empty());
    }
    let (far, to_far) = (mac(99), frame(mac(99), mac(0)));
    for port in [1, 2, 1] {
        forward(&mut switch, PortId(port), &frame(mac(0), far), None, 0);
        for _ in 0..2 {
            assert_eq!(ports(&forward(&mut switch, PortId(0), &to_far, None, 0)), [port]);
        }
    }
}

#[test]
fn each_frame_of_a_conversation_is_guarded_and_counted() {
    let mut switch = with_children(2);
    let answer = |port: u8| {
        let mut bytes = frame(mac(1), mac(0));
        (bytes[12], bytes[13]) = (0x08, 0x00);
        (bytes[14], bytes[23], bytes[35]) = (0x45, 17, port);
        bytes
    };
    for (port, reached) in [(68, 1), (68, 1), (67, 0), (68, 1)] {
        let out = forward(&mut switch, PortId(0), &answer(port), None, 0);
        assert_eq!(out.len(), reached, "{port}");
    }
    let counters = switch.port(PortId(0)).unwrap().counters;
    assert_eq!(
        (counters.from_port.frames, counters.dropped(Drop::Guarded)),
        (3, 1)
    );
    assert_eq!(switch.port(PortId(1)).unwrap().counters.to_port.frames, 3);
}

#[test]
fn children_of_different_vlans_do_not_hear_each_other() {
    let mut switch = with_children(4);
    for (port, vlan) in [(0, 10), (1, 10), (2, 20)] {
        configure(&mut switch, port, |settings| {
            settings.vlan = VlanMode::Access(VlanId(vlan))
        });
    }
    configure(&mut switch, 3, |settings| {
        settings.vlan = VlanMode::Trunk {
            native: VlanId(1),
            allowed: VlanSet::all(),
        }
    });
    let broadcast = |from| frame(Mac::BROADCAST, mac(from));
    let out = forward(&mut switch, PortId(0), &broadcast(0), None, 0);
    assert_eq!(
        out.iter()
            .map(|egress| (egress.port.0, egress.tag))
            .collect::<Vec<_>>(),
        [(1, None), (3, Some(10))]
    );
    assert!(forward(&mut switch, PortId(0), &frame(mac(2), mac(0)), None, 0).is_empty());
    // With a tag that it has no right to.
    assert!(forward(&mut switch, PortId(0), &broadcast(0), Some(20), 0).is_empty());
    assert_eq!(
        switch.port(PortId(0)).unwrap().counters.dropped(Drop::OtherVlan),
        1
    );
    let out = forward(&mut switch, PortId(3), &broadcast(3), Some(0x6014), 0);
    assert_eq!(
        out,
        [Egress {
            port: PortId(2),
            tag: None,
            cut_tag: false
        }]
    );
}

#[test]
fn a_tag_inside_a_frame_is_cut_out() {
    let mut switch = with_children(3);
    for port in [0, 1] {
        configure(&mut switch, port, |settings| {
            settings.vlan = VlanMode::Trunk {
                native: VlanId(0),
                allowed: VlanSet::all(),
            }
        });
    }
    configure(&mut switch, 2, |settings| {
        settings.vlan = VlanMode::Access(VlanId(7))
    });
    let mut tagged = frame(Mac::BROADCAST, mac(0));
    tagged.splice(12..12, [0x81, 0x00, 0xe0, 0x07]);
    let out = forward(&mut switch, PortId(0), &tagged, None, 0);
    let expected = [(1, Some(0xe007)), (2, None)].map(|(port, tag)| Egress {
        port: PortId(port),
        tag,
        cut_tag: true,
    });
    assert_eq!(out, expected);
    let (addresses, rest) = super::frame::cut_tag(&tagged);
    assert_eq!([addresses, rest].concat(), frame(Mac::BROADCAST, mac(0)));
}

#[test]
fn a_mirror_sees_what_a_port_sends_and_takes() {
    let mut switch = with_children(4);
    switch.mirror_to(Some(PortId(3)));
    configure(&mut switch, 1, |settings| settings.mirror = Direction::all());
    for (to, from, expected) in [(0, 1, [0, 3]), (1, 0, [1, 3])] {
        let out = forward(
            &mut switch,
            PortId(from),
            &frame(mac(to), mac(from as u8)),
            None,
            0,
        );
        assert_eq!(ports(&out), expected);
    }
    assert_eq!(
        ports(&forward(&mut switch, PortId(0), &frame(mac(2), mac(0)), None, 0)),
        [2]
    );
    switch.detach(PortId(3));
    assert_eq!(
        ports(&forward(&mut switch, PortId(1), &frame(mac(0), mac(1)), None, 0)),
        [0]
    );
}

#[test]
fn a_capped_port_waits() {
    let mut switch = with_children(2);
    let bits_per_second = 8_000_000;
    configure(&mut switch, 0, |settings| {
        settings.limit = Some(Limit { bits_per_second })
    });
    let (mut now, mut sent) = (0, 0);
    while now < TICKS_A_SECOND {
        match switch.admit(PortId(0), 1500, now) {
            Ok(()) => sent += 1500,
            Err(until) => now = until,
        }
    }
    assert!((990_000..1_020_000).contains(&sent), "{sent}");
    assert_eq!(switch.admit(PortId(1), usize::MAX, 0), Ok(()));
}

#[test]
fn a_switch_has_the_ports_of_its_kind_and_each_address_once() {
    let mut private = Switch::new(Kind::Private);
    assert!(matches!(
        private.attach(PortSettings::host(mac(1))),
        Err(AttachError::Kind(..))
    ));
    let mut internal = Switch::new(Kind::Internal);
    assert!(matches!(
        internal.attach(PortSettings::uplink()),
        Err(AttachError::Kind(..))
    ));
    let id = internal.attach(PortSettings::host(mac(1))).unwrap();
    assert_eq!(
        internal.attach(PortSettings::guest(mac(1))),
        Err(AttachError::AddressTaken(mac(1)))
    );
    internal.detach(id);
    assert_eq!(internal.attach(PortSettings::guest(mac(1))), Ok(id));
    let mut external = Switch::new(Kind::External);
    external.attach(PortSettings::uplink()).unwrap();
    assert_eq!(
        external.attach(PortSettings::uplink()),
        Err(AttachError::SecondUplink)
    );
}

#[test]
fn what_went_through_a_port_is_counted() {
    let mut switch = with_children(2);
    forward(&mut switch, PortId(0), &frame(mac(1), mac(0)), None, 0);
    forward(&mut switch, PortId(0), &[0; 10], None, 0);
    let [first, second] = [0, 1].map(|id| switch.port(PortId(id)).unwrap().counters);
    assert_eq!(
        (
            first.from_port.frames,
            first.from_port.bytes,
            first.dropped(Drop::Malformed)
        ),
        (1, 60, 1)
    );
    assert_eq!((second.to_port.frames, second.to_port.bytes), (1, 60));
    switch.no_room(PortId(1), 60);
    let counters = switch.port(PortId(1)).unwrap().counters;
    assert_eq!((counters.to_port.frames, counters.dropped(Drop::NoRoom)), (0, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_frames_and_settings_keep_the_rules(data in prop::collection::vec(any::<u8>(), 0..2000)) {
        super::fuzz::switch(&data);
    }
}
