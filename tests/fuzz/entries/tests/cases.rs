//! Each entry for a fixed number of cases, always the same ones. A case that fails is printed, and written to a file that
//! cargo-fuzz takes.

use std::env;
use std::fs;
use std::panic::{self, AssertUnwindSafe};

use fuzz_entries::{ENTRIES, Entry};

/// xorshift64*: the same numbers everywhere and for ever.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// An input: random bytes, or few different ones, as the latter reach further in what reads small numbers.
    fn input(&mut self, longest: usize) -> Vec<u8> {
        let length = self.next() as usize % (longest + 1);
        let mask = [0xff, 0xff, 0x1f, 0x0f, 0x83][self.next() as usize % 5];
        (0..length).map(|_| (self.next() >> 32) as u8 & mask).collect()
    }
}

/// Runs all cases of an entry; the first that fails.
fn failing(entry: &Entry) -> Option<Vec<u8>> {
    // The name is in the seed, so that a new entry does not change the cases of the others.
    let seed = entry.name.bytes().fold(0x9e37_79b9_7f4a_7c15, |seed: u64, byte| {
        (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut numbers = Numbers(seed | 1);
    (0..entry.cases)
        .map(|_| numbers.input(entry.longest))
        .find(|input| panic::catch_unwind(AssertUnwindSafe(|| (entry.run)(input))).is_err())
}

#[test]
fn no_case_of_any_entry_breaks_a_rule() {
    let mut broken = Vec::new();
    for entry in ENTRIES {
        if let Some(input) = failing(entry) {
            let file = env::temp_dir().join(format!("partita-{}.case", entry.name));
            let kept = fs::write(&file, &input).map(|()| file.display().to_string());
            eprintln!("{} ({}) breaks on {input:02x?}", entry.name, entry.what);
            broken.push(format!(
                "{}: {}",
                entry.name,
                kept.unwrap_or_else(|error| error.to_string())
            ));
        }
    }
    assert!(
        broken.is_empty(),
        "inputs that break rules, for cargo fuzz run TARGET FILE: {broken:#?}"
    );
}

#[test]
fn each_entry_has_its_target() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let manifest = fs::read_to_string(format!("{folder}/Cargo.toml")).unwrap();
    for entry in ENTRIES {
        let target =
            fs::read_to_string(format!("{folder}/fuzz_targets/{}.rs", entry.name)).unwrap_or_default();
        assert!(
            target.contains(&format!("run(\"{}\", data)", entry.name)),
            "{} has no target",
            entry.name
        );
        assert!(
            manifest.contains(&format!("name = \"{}\"", entry.name)),
            "{} is not in Cargo.toml",
            entry.name
        );
    }
    assert_eq!(
        manifest.matches("[[bin]]").count(),
        ENTRIES.len(),
        "a target without an entry"
    );
}
