//! The consumer against the provider, over a switch.

use crate::world::{Guest, World, mac, up};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vmbus::protocol::network::Mac;
use vmbus::protocol::network::oid::Oid;
use vsc::bus::Interrupt;
use vsc::network::{Beside, Card, NetworkError, PacketFilter, Received, Settings, Version};
use vsp::switch::vlan::{VlanId, VlanMode, VlanSet};

fn frame(to: Mac, from: Mac, length: usize) -> Vec<u8> {
    let mut bytes = [to.0, from.0].concat();
    bytes.extend([0x88, 0xb5]);
    bytes.extend((bytes.len()..length).map(|byte| (byte * 7 + byte / 256) as u8));
    bytes
}

/// All frames that have come.
fn frames(world: &World, card: &Card) -> Vec<(Vec<u8>, Received)> {
    let mut bytes = vec![0; card.largest_frame()];
    let mut frames = Vec::new();
    world.step();
    world.step();
    while let Some(received) = card.receive(0, &mut bytes).unwrap() {
        frames.push((bytes[..received.length].to_vec(), received));
        world.step();
    }
    frames
}

fn only(frames: Vec<(Vec<u8>, Received)>) -> Vec<Vec<u8>> {
    frames.into_iter().map(|(bytes, _)| bytes).collect()
}

#[test]
fn every_version_comes_up_and_carries_frames() {
    for newest in Version::ALL {
        let settings = Settings {
            newest,
            ..Settings::default()
        };
        let (world, [one, two]) = up([settings; 2]);
        assert_eq!((one.version(), one.address(), one.mtu()), (newest, mac(1), 1500));
        assert!(one.has_link());
        let sent = frame(mac(2), mac(1), 100);
        one.send(0, &mut sent.clone(), &Beside::default()).unwrap();
        assert_eq!(only(frames(&world, &two)), [sent], "{newest:?}");
    }
}

#[test]
fn frames_of_all_sizes_cross_both_ways() {
    for mtu in [1500, 9000] {
        let settings = Settings {
            mtu,
            ..Settings::default()
        };
        let (world, [one, two]) = up([settings; 2]);
        for length in [14, 60, 127, 128, 129, 1514, 6000, 6144, 9014] {
            if length > mtu as usize + 14 {
                let sent = one.send(0, &mut frame(mac(2), mac(1), length), &Beside::default());
                assert_eq!(sent, Err(NetworkError::FrameSize(length)));
                continue;
            }
            for (from, to, addresses) in [(&one, &two, (mac(1), mac(2))), (&two, &one, (mac(2), mac(1)))] {
                let sent = frame(addresses.1, addresses.0, length);
                from.send(0, &mut sent.clone(), &Beside::default()).unwrap();
                assert_eq!(only(frames(&world, to)), [sent], "{length}");
            }
        }
        assert_eq!(
            one.send(0, &mut [0; 13], &Beside::default()),
            Err(NetworkError::FrameSize(13))
        );
    }
}

#[test]
fn many_frames_use_every_slot_and_part_again_and_none_is_lost() {
    let small = Settings {
        receive_bytes: 16 << 10,
        send_bytes: 16 << 10,
        large_sends: 1,
        ..Settings::default()
    };
    let (world, [one, two]) = up([small; 2]);
    for round in 0..500_usize {
        let sent = frame(mac(2), mac(1), 60 + round % 1400);
        world.run(one.writable(0)).unwrap();
        one.send(0, &mut sent.clone(), &Beside::default()).unwrap();
        assert_eq!(only(frames(&world, &two)), [sent], "{round}");
    }
    let counters = two.counters().unwrap();
    assert_eq!(counters.received.load(Ordering::Relaxed), 500);
    assert_eq!(counters.bad_messages.load(Ordering::Relaxed), 0);
}

#[test]
fn a_card_without_room_says_so_and_says_when_there_is() {
    let small = Settings {
        send_bytes: 8 << 10,
        large_sends: 1,
        ..Settings::default()
    };
    let (world, [one, _two]) = up([small; 2]);
    let mut sent = 0;
    while one
        .send(0, &mut frame(mac(2), mac(1), 60), &Beside::default())
        .is_ok()
    {
        sent += 1;
    }
    assert_eq!((sent, one.under_way(), one.is_writable(0)), (2, 2, false));
    world.run(one.writable(0)).unwrap();
    assert!(one.is_writable(0));
}

#[test]
fn an_exchange_costs_one_signal_a_frame() {
    let (world, [one, two]) = up([Settings::default(); 2]);
    let signals = |guest: &Guest| guest.wires.to_host.load(Ordering::Relaxed);
    let before = [0, 1].map(|index| signals(&world.guests[index]));
    for _ in 0..20 {
        one.send(0, &mut frame(mac(2), mac(1), 64), &Beside::default())
            .unwrap();
        assert_eq!(frames(&world, &two).len(), 1);
        two.send(0, &mut frame(mac(1), mac(2), 64), &Beside::default())
            .unwrap();
        assert_eq!(frames(&world, &one).len(), 1);
    }
    for (index, before) in before.into_iter().enumerate() {
        assert_eq!(signals(&world.guests[index]) - before, 20);
    }
}

#[test]
fn what_is_sent_in_a_batch_is_told_once() {
    let (world, [one, two]) = up([Settings::default(); 2]);
    let signals = || world.guests[0].wires.to_host.load(Ordering::Relaxed);
    let before = signals();
    {
        let _batch = one.batch();
        for _ in 0..10 {
            one.send(0, &mut frame(mac(2), mac(1), 64), &Beside::default())
                .unwrap();
        }
        assert_eq!(signals(), before);
    }
    assert_eq!(signals(), before + 1);
    assert_eq!(frames(&world, &two).len(), 10);
}

#[test]
fn frames_that_nobody_fetches_are_dropped_and_the_next_ones_come() {
    let small = Settings {
        receive_bytes: 16 << 10,
        ..Settings::default()
    };
    let (world, [one, two]) = up([small; 2]);
    for _ in 0..40 {
        world.run(one.writable(0)).unwrap();
        one.send(0, &mut frame(mac(2), mac(1), 64), &Beside::default())
            .unwrap();
        world.step();
    }
    let first = frames(&world, &two).len();
    assert!((1..40).contains(&first), "{first}");
    let sent = frame(mac(2), mac(1), 65);
    one.send(0, &mut sent.clone(), &Beside::default()).unwrap();
    assert_eq!(only(frames(&world, &two)), [sent]);
}

#[test]
fn a_tag_travels_beside_its_frame() {
    let (world, [one, two]) = up([Settings::default(); 2]);
    for port in &world.ports {
        let trunk = VlanMode::Trunk {
            native: VlanId(0),
            allowed: VlanSet::all(),
        };
        world
            .wire
            .with(|switch| switch.configure(*port, |settings| settings.vlan = trunk.clone()))
            .unwrap();
    }
    let beside = Beside {
        tag: Some(0xa064),
        ..Beside::default()
    };
    let sent = frame(mac(2), mac(1), 100);
    one.send(0, &mut sent.clone(), &beside).unwrap();
    let came = frames(&world, &two);
    assert_eq!((&came[0].0, came[0].1.tag), (&sent, Some(0xa064)));
}

#[test]
fn the_link_goes_and_comes_and_who_waits_is_told() {
    let (world, [one, _two]) = up([Settings::default(); 2]);
    let nic = world.guests[0].nic.clone().unwrap();
    let mut seen = 0;
    for up in [false, true] {
        nic.set_link(up);
        seen = world.run(one.link_changed(seen)).unwrap();
        while one.has_link() != up {
            seen = world.run(one.link_changed(seen)).unwrap();
        }
    }
}

#[test]
fn a_filter_keeps_frames_away() {
    let (world, [one, two]) = up([Settings::default(); 2]);
    world.run(two.set_filter(PacketFilter::BROADCAST)).unwrap();
    one.send(0, &mut frame(mac(2), mac(1), 64), &Beside::default())
        .unwrap();
    let sent = frame(Mac::BROADCAST, mac(1), 64);
    one.send(0, &mut sent.clone(), &Beside::default()).unwrap();
    assert_eq!(only(frames(&world, &two)), [sent]);
}

#[test]
fn the_address_changes_if_the_host_lets_it() {
    let (world, [one, _two]) = up([Settings::default(); 2]);
    world.run(one.set_address(mac(9))).unwrap();
    assert_eq!(one.address(), mac(9));
    let refused = world.run(one.set_address(mac(0xee)));
    assert!(
        matches!(refused, Err(NetworkError::RefusedRequest(..))),
        "{refused:?}"
    );
    assert_eq!(one.address(), mac(9));
    let speed = world.run(one.query(Oid::LINK_SPEED)).unwrap();
    assert_ne!(speed, [0; 4]);
}

#[test]
fn a_card_that_goes_ends_all_that_waits() {
    let (world, [one, _two]) = up([Settings::default(); 2]);
    let waits = async {
        world.guests[0].queue.gone();
        one.readable().await
    };
    assert_eq!(world.run(waits), Err(NetworkError::Gone));
    assert_eq!(
        world.run(one.set_filter(PacketFilter::empty())),
        Err(NetworkError::Gone)
    );
    assert_eq!(
        one.send(0, &mut frame(mac(2), mac(1), 64), &Beside::default()),
        Err(NetworkError::Gone)
    );
    assert_eq!(one.receive(0, &mut [0; 2000]), Err(NetworkError::Gone));
}

#[test]
fn memory_of_large_frames_outlives_a_queue_that_goes_before_they_are_completed() {
    let settings = Settings {
        mtu: 9000,
        ..Settings::default()
    };
    let (mut world, [one, _two]) = up([settings; 2]);
    one.send(0, &mut frame(mac(2), mac(1), 9000), &Beside::default())
        .unwrap();
    let guest = world.guests.remove(0);
    let wires = guest.wires.clone();
    drop((one, guest));
    assert_eq!(wires.kept.load(Ordering::Relaxed), 1);
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let world = World::new(&[Settings::default()]);
    for settings in [
        Settings {
            mtu: 67,
            ..Settings::default()
        },
        Settings {
            mtu: 9001,
            ..Settings::default()
        },
        Settings {
            receive_bytes: 5000,
            ..Settings::default()
        },
    ] {
        let refused = world.connect(0, settings);
        assert!(matches!(refused, Err(NetworkError::Settings(_))), "{refused:?}");
    }
    let _: Arc<Card> = world.connect(0, Settings::default()).unwrap();
}
