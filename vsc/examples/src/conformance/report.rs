//! One line a rule.

use core::fmt::{Debug, Display};
use core::sync::atomic::{AtomicU32, Ordering};
use vsc_runtime::println;

static PASSED: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);
static SKIPPED: AtomicU32 = AtomicU32::new(0);

/// The rule holds where `got` is `wanted`.
pub(crate) fn equal<T: PartialEq + Debug>(name: &str, rule: impl Display, got: T, wanted: T) {
    match got == wanted {
        true => pass(name, rule),
        false => fail(name, rule, format_args!("got {got:x?}, wanted {wanted:x?}")),
    }
}

/// The rule holds where `condition` does.
pub(crate) fn holds(name: &str, rule: impl Display, condition: bool) {
    equal(name, rule, condition, true);
}

/// The rule holds where `got` lies from `least` to `most`.
pub(crate) fn within<T: PartialOrd + Debug>(name: &str, rule: impl Display, got: T, least: T, most: T) {
    match got >= least && got <= most {
        true => pass(name, rule),
        false => fail(
            name,
            rule,
            format_args!("got {got:?}, wanted {least:?} to {most:?}"),
        ),
    }
}

/// The rule cannot be checked here.
pub(crate) fn skip(name: &str, rule: impl Display, why: &str) {
    SKIPPED.fetch_add(1, Ordering::Relaxed);
    println!("SKIP {name}: {rule}: {why}");
}

fn pass(name: &str, rule: impl Display) {
    PASSED.fetch_add(1, Ordering::Relaxed);
    println!("PASS {name}: {rule}");
}

fn fail(name: &str, rule: impl Display, what: impl Display) {
    FAILED.fetch_add(1, Ordering::Relaxed);
    println!("FAIL {name}: {rule}: {what}");
}

/// How many there were of each.
pub(crate) fn summary() {
    println!(
        "conformance: {} passed, {} failed, {} skipped",
        PASSED.load(Ordering::Relaxed),
        FAILED.load(Ordering::Relaxed),
        SKIPPED.load(Ordering::Relaxed)
    );
}
