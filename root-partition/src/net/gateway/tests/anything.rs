//! Whatever comes.

use super::*;
use vmbus::fuzz::noise;

#[test]
fn what_comes_is_not_only_thrown_away() {
    let reached: usize = (1..200_u64).map(|seed| gateway_frames(&noise(seed, 2000))).sum();
    assert!(
        reached > 2000,
        "only {reached} packets went on: the lies are too coarse"
    );
}

proptest! {
    #[test]
    fn whatever_comes_is_harmless(input in prop::collection::vec(any::<u8>(), 0..4000)) {
        let _ = gateway_frames(&input);
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
