//! Entry for fuzzers: any frames and settings, against the rules that always hold.

use super::port::{Direction, Drop, PortId, PortSettings};
use super::vlan::{VlanId, VlanMode, VlanSet};
use super::{Egress, Ingress, Kind, Switch, Verdict};
use alloc::vec::Vec;
use vmbus::protocol::network::Mac;

/// Drives a switch by `data`.
pub fn switch(data: &[u8]) {
    let mut input = data.iter().copied();
    let mut switch = Switch::new(Kind::External);
    let mut now = 0_u64;
    while let Some(byte) = input.next() {
        let mut next = || input.next().unwrap_or(0);
        let id = PortId(u16::from(next() % 8));
        now = now.saturating_add(u64::from(next()) << 24);
        match byte % 16 {
            0 => {
                let address = Mac([2, 0, 0, 0, 0, next() % 8]);
                let _ = switch.attach(match next() % 3 {
                    0 => PortSettings::uplink(),
                    1 => PortSettings::host(address),
                    _ => PortSettings::guest(address),
                });
            }
            1 => drop(switch.detach(id)),
            2 => {
                let (vlan, trunk, mirror) = (VlanId(u16::from(next() % 4)), next() & 1 != 0, next());
                let _ = switch.configure(id, |settings| {
                    settings.vlan = match trunk {
                        true => VlanMode::Trunk {
                            native: vlan,
                            allowed: VlanSet::all(),
                        },
                        false => VlanMode::Access(vlan),
                    };
                    settings.mirror = Direction::from_bits_truncate(mirror);
                });
            }
            3 => switch.mirror_to(Some(id)),
            _ => {
                let tag = (byte & 0x80 != 0).then(|| u16::from(next() % 8));
                let length = usize::from(next());
                let mut frame: Vec<u8> = input.by_ref().take(length).collect();
                for (at, value) in [
                    (0, 2),
                    (1, 0),
                    (2, 0),
                    (3, 0),
                    (4, 0),
                    (6, 2),
                    (7, 0),
                    (8, 0),
                    (9, 0),
                    (10, 0),
                ] {
                    if let Some(byte) = frame.get_mut(at).filter(|_| byte & 0x40 != 0) {
                        *byte = value;
                    }
                }
                for at in [5, 11] {
                    if let Some(byte) = frame.get_mut(at).filter(|_| byte & 0x40 != 0) {
                        *byte %= 8;
                    }
                }
                forward(&mut switch, id, &frame, tag, now);
            }
        }
    }
}

/// Forwards, and checks what must hold.
pub fn forward(switch: &mut Switch, from: PortId, frame: &[u8], tag: Option<u16>, now: u64) -> Vec<Egress> {
    let mut out: Vec<Egress> = Vec::new();
    let mirror = switch.mirror();
    let mut looked_up: Vec<Egress> = Vec::new();
    let ingress = Ingress {
        port: from,
        bytes: frame,
        length: frame.len(),
        tag,
        now,
    };
    let expected = switch.clone().look_up(&ingress, &mut looked_up);
    let verdict = switch.forward(&ingress, &mut out);
    assert_eq!(
        (verdict, &out),
        (expected, &looked_up),
        "a way was remembered too long"
    );
    let spoofed = switch.port(from).is_some_and(|port| {
        let address = port.settings.address.map(|address| address.0);
        port.settings
            .guard
            .contains(super::guard::Guards::SPOOFED_ADDRESS)
            && frame.get(6..12) != address.as_ref().map(|a| &a[..])
    });
    assert!(!spoofed || out.is_empty());
    for egress in &out {
        assert_ne!(egress.port, from);
        assert!(switch.port(egress.port).is_some());
        if Some(egress.port) != mirror {
            let twice = out.iter().filter(|other| other.port == egress.port).count();
            assert_eq!(twice, 1);
        }
    }
    match verdict {
        Verdict::Forwarded(count) => assert!(count > 0 && (count == out.len() || count + 1 == out.len())),
        Verdict::Dropped(Drop::Nowhere) => assert!(out.len() <= 1),
        Verdict::Dropped(_) => assert!(out.is_empty()),
    }
    out
}
