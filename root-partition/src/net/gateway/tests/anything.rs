//! Whatever comes.

use super::*;

proptest! {
    #[test]
    fn whatever_comes_is_harmless(input in prop::collection::vec(any::<u8>(), 0..4000)) {
        gateway_frames(&input);
    }

    #[test]
    fn packets_with_damaged_bytes_are_harmless(
        which in 0..6_usize, how: u8, damage in prop::collection::vec((0..200_usize, any::<u8>()), 0..8), cut: Option<u8>
    ) {
        let mut bytes = match which {
            0 => udp(GUEST, 5000, (FAR, 123), &[1; 100]),
            1 => tcp(GUEST, (GUEST.address, 4000), (GATEWAY, 53), 2, b""),
            2 => echo(GUEST, GATEWAY, false, 1),
            3 => dhcp(GUEST.mac, DhcpMessageType::Discover, |_| {}),
            4 => tcp(ROUTER, (FAR, 80), (ROOT, 8080), 2, b""),
            _ => build::icmp_error(ROUTER, host(0x56, ROOT), (3, 1), 0, &udp(GUEST, 5000, (FAR, 123), b"")[14..]),
        };
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut.map_or(usize::MAX, usize::from));
        let mut input = vec![how, bytes.len() as u8, (bytes.len() >> 8) as u8];
        input.extend(&bytes);
        let again = input.clone();
        input.extend(again);
        gateway_frames(&input);
    }

    #[test]
    fn checksums_hold_after_every_translation(data in prop::collection::vec(any::<u8>(), 0..1400), port in 1..u16::MAX, guest in 2..250_u8) {
        let mut world = World::new();
        let guest = host(guest, Ipv4Addr::new(192, 168, 86, guest));
        for bytes in [udp(guest, port, (FAR, 99), &data), tcp(guest, (guest.address, port), (FAR, 99), 2, &data)] {
            let out = ends(&world.inside(&bytes).unwrap());
            prop_assert_eq!((out.0, out.2, out.3), (ROOT, FAR, 99));
        }
    }
}
