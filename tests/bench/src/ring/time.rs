//! Times, each the median of many rounds in which all contenders take turns, so that what disturbs one disturbs all.

use crate::contender::Contender;
use crate::copies::Copies;
use crate::ours::{Ours, UNCUT, Uncut};
use crate::rtrb_ring::Rtrb;
use crate::virtio::Virtio;
use serde_json::{Value, json};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

/// Rounds in which the contenders take turns.
const ROUNDS: usize = 61;

/// Nanoseconds for one message, of each contender.
pub(crate) fn all() -> Value {
    let (ours, virtio, rtrb) = (alone::<Ours, 64>, alone::<Virtio, 64>, alone::<Rtrb, 64>);
    let [ours_64, virtio_64, rtrb_64] = medians([&|| ours(20_000), &|| virtio(20_000), &|| rtrb(20_000)]);
    let (ours, copies) = (alone::<Ours, 16384>, alone::<Copies, 16384>);
    let (uncut, uncut_copies) = (alone::<Uncut, UNCUT>, alone::<Copies, UNCUT>);
    let [ours_16k, copies_16k, uncut, uncut_copies] =
        medians([&|| ours(1_000), &|| copies(1_000), &|| uncut(1_000), &|| {
            uncut_copies(1_000)
        }]);
    let [each, batches, virtio] = medians([
        &|| together::<Ours, 1>(40_000),
        &|| together::<Ours, 8>(40_000),
        &|| together::<Virtio, 1>(40_000),
    ]);
    json!({
        "alone 64": {"ours": ours_64, "virtio-queue": virtio_64, "rtrb": rtrb_64},
        "alone 16384": {"ours": ours_16k, "copies": copies_16k},
        "uncut": {"ours": uncut, "copies": uncut_copies},
        "together 64": {"ours": each, "ours by 8": batches, "virtio-queue": virtio},
    })
}

/// Medians of what the contenders take.
fn medians<const N: usize>(contenders: [&dyn Fn() -> f64; N]) -> [f64; N] {
    let mut taken = [const { Vec::new() }; N];
    for _ in 0..ROUNDS {
        for (contender, taken) in contenders.iter().zip(&mut taken) {
            taken.push(contender());
        }
    }
    taken.map(|mut taken| {
        taken.sort_by(f64::total_cmp);
        taken[taken.len() / 2]
    })
}

/// Round trips within one thread: nanoseconds for one.
fn alone<C: Contender, const SIZE: usize>(count: usize) -> f64 {
    let (mut writer, mut reader) = C::new();
    let (from, mut into) = ([0x5a; SIZE], [0; SIZE]);
    let mut trip = || {
        C::write::<_, 1>(&mut writer, black_box(&from));
        C::read::<_, 1>(&mut reader, black_box(&mut into));
    };
    // Once around, so that all of the memory has been touched.
    (0..2_000).for_each(|_| trip());
    let start = Instant::now();
    (0..count).for_each(|_| trip());
    start.elapsed().as_nanos() as f64 / count as f64
}

/// Messages of 64 bytes from one thread to another, made visible `BATCH` at a time: nanoseconds for one.
fn together<C: Contender, const BATCH: usize>(count: usize) -> f64 {
    let (mut writer, mut reader) = C::new();
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let from = [0x5a; 64];
            start.wait();
            for _ in 0..count / BATCH {
                let mut turn = 0;
                while !C::write::<_, BATCH>(&mut writer, black_box(&from)) {
                    wait(&mut turn);
                }
            }
        });
        let (mut into, mut seen, mut turn) = ([0; 64], 0, 0);
        start.wait();
        let start = Instant::now();
        while seen < count {
            match C::read::<_, BATCH>(&mut reader, black_box(&mut into)) {
                0 => wait(&mut turn),
                read => (seen, turn) = (seen + read, 0),
            }
        }
        start.elapsed().as_nanos() as f64 / count as f64
    })
}

/// Spins for a while, and then lets others run.
fn wait(turn: &mut u32) {
    *turn += 1;
    if turn.is_multiple_of(1000) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}
