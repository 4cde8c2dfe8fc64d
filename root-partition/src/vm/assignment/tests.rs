//! Devices of a configuration space in memory change hands.

use super::*;
use crate::drivers::pci::config::tests::{Fake, address};
use crate::drivers::pci::scan;
use crate::vm::fake::FakeHost;
use crate::vm::tests::finish;

/// A device with function level reset and MSI, one that knows no reset, and a bridge.
const RESETS: Address = address(0, 3, 0);
const STAYS: Address = address(0, 4, 0);
const BRIDGE_AT: Address = address(0, 5, 0);
const LIST: u32 = 1 << 20;

fn world() -> (FakeHost, Arc<Assignments>, &'static Fake) {
    let resets = [
        (0, 0x11e8_1234),
        (4, LIST),
        (0x10, 0xfeb0_0000),
        (0x34, 0x40),
        (0x40, 0x0010_5010),
        (0x44, 1 << 28),
        (0x50, 0x0005),
    ];
    let mut space = Fake::with(&[
        (RESETS, &resets),
        (STAYS, &[(0, 0x2222_8086)]),
        (BRIDGE_AT, &[(0, 0x3333_8086), (8, 0x0604_0000)]),
    ]);
    for offset in (0x10..0x28).step_by(4) {
        space.writable.insert((RESETS, offset), 0);
    }
    space.writable.insert((RESETS, 0x10), 0xffff_e000);
    let space: &'static Fake = Box::leak(Box::new(space));
    let assignments = Assignments::new(Some(space), scan::functions(space));
    (FakeHost::with_frames(64), assignments, space)
}

fn assign(
    host: &FakeHost,
    to: &Assignments,
    at: Address,
    without_reset: bool,
) -> Result<Assigned, AssignError> {
    finish(host, to.assign(host, at, "web", |_| None, without_reset))
}

#[test]
fn what_cannot_be_had_is_refused_with_its_reason() {
    let (host, assignments, _) = world();
    assert_eq!(
        assign(&host, &assignments, BRIDGE_AT, true),
        Err(AssignError::Bridge(BRIDGE_AT))
    );
    assert_eq!(
        assign(&host, &assignments, STAYS, false),
        Err(AssignError::NoReset(STAYS))
    );
    let nowhere = address(7, 0, 0);
    assert_eq!(
        assign(&host, &assignments, nowhere, true),
        Err(AssignError::Unknown(nowhere))
    );
    let driver = |at| (at == STAYS).then(|| String::from("nvme"));
    let driven = finish(&host, assignments.assign(&host, STAYS, "web", driver, true));
    assert_eq!(driven, Err(AssignError::Driven(STAYS, String::from("nvme"))));
    assert!(assign(&host, &assignments, STAYS, true).is_ok());
    let again = assign(&host, &assignments, STAYS, true);
    assert_eq!(again, Err(AssignError::Assigned(STAYS, String::from("web"))));
}

#[test]
fn a_device_that_is_released_is_nobodys_and_does_nothing() {
    let (host, assignments, space) = world();
    let assigned = assign(&host, &assignments, RESETS, false).unwrap();
    assert_eq!(assigned.reset, Some(Method::FunctionLevel(0x40)));
    assert_eq!(assignments.machine_of(RESETS).as_deref(), Some("web"));
    finish(&host, assignments.release(&host, RESETS)).unwrap();
    assert_eq!(assignments.machine_of(RESETS), None);
    assert_eq!(
        finish(&host, assignments.release(&host, RESETS)),
        Err(AssignError::NotAssigned(RESETS))
    );
    assert_eq!(Function::new(space, RESETS).read(4) & 7, 0);
}
