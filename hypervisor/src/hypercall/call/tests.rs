//! Each wrong use of a call, against the dispatcher alone; the model of a guest is the fuzzer's.

use super::*;
use crate::fuzz::{Guest, calls, make};
use hypercall_api::code::HypercallCode as Code;

/// RAM, read-only RAM and a hole of the model's memory.
const RAM: u64 = 0x2000;
const READ_ONLY: u64 = 0x1000;
const HOLE: u64 = 0x3000;

/// Makes a call with all privileges; its outcome, and whether a handler saw it.
fn call(control: HypercallInput, first: u64, second: u64) -> (Outcome, bool) {
    let mut guest = Guest::new(Privileges::all());
    let request = Request {
        control,
        first,
        second,
    };
    let (outcome, _) = make(&mut guest, &calls(), &request);
    (outcome, !guest.seen.is_empty())
}

#[track_caller]
fn refused(control: HypercallInput, first: u64, second: u64, status: HvStatus) {
    let (outcome, seen) = call(control, first, second);
    assert_eq!(
        (outcome, seen),
        (Outcome::Ended(status, control.rep_start()), false)
    );
}

#[track_caller]
fn accepted(control: HypercallInput, first: u64, second: u64) {
    let (outcome, seen) = call(control, first, second);
    assert_eq!(outcome, Outcome::Ended(HvStatus::SUCCESS, control.rep_count()));
    assert!(seen);
}

#[test]
fn each_reserved_bit_is_refused_before_the_code_is_looked_at() {
    for bit in (27..32).chain(44..48).chain(60..64) {
        let control = HypercallInput(0x7fff | 1 << bit);
        refused(control, RAM, RAM, HvStatus::INVALID_HYPERCALL_INPUT);
    }
}

#[test]
fn codes_that_are_not_in_the_table_are_refused() {
    let calls = calls();
    for code in 0..=u16::MAX {
        let known = calls.iter().any(|call| call.code.0 == code);
        assert_eq!(find(&calls, HypercallInput::simple(Code(code))).is_ok(), known);
    }
    refused(
        HypercallInput::simple(Code(0x7fff)),
        RAM,
        RAM,
        HvStatus::INVALID_HYPERCALL_CODE,
    );
}

#[test]
fn every_call_without_its_privilege_is_refused_whatever_else_is_wrong_with_it() {
    for known in calls() {
        let mut guest = Guest::new(Privileges::all() - known.privileges);
        for control in [
            HypercallInput::simple(known.code),
            HypercallInput::fast(known.code),
            HypercallInput::rep(known.code, 1),
            HypercallInput::rep(known.code, 0xfff).with_variable_header(0x3ff),
        ] {
            let request = Request {
                control,
                first: 3,
                second: HOLE,
            };
            let (outcome, _) = make(&mut guest, &calls(), &request);
            if known.privileges.is_empty() {
                assert_ne!(
                    outcome,
                    Outcome::Ended(HvStatus::ACCESS_DENIED, 0),
                    "{}",
                    known.code.0
                );
            } else {
                assert_eq!(
                    outcome,
                    Outcome::Ended(HvStatus::ACCESS_DENIED, 0),
                    "{}",
                    known.code.0
                );
                assert!(guest.seen.is_empty());
            }
        }
    }
}

#[test]
fn elements_are_for_rep_calls_and_rep_calls_need_them() {
    let refuses = |control| refused(control, RAM, RAM + 0x800, HvStatus::INVALID_HYPERCALL_INPUT);
    let outcome = call(HypercallInput::rep(Code::GET_PARTITION_ID, 1), RAM, RAM).0;
    assert_eq!(outcome, Outcome::Ended(HvStatus::INVALID_HYPERCALL_INPUT, 0));
    refuses(HypercallInput::simple(Code::MAP_GPA_PAGES));
    let beyond = HypercallInput::rep(Code::MAP_GPA_PAGES, 2).with_rep_start(2);
    assert_eq!(
        call(beyond, RAM, RAM).0,
        Outcome::Ended(HvStatus::INVALID_HYPERCALL_INPUT, 0)
    );
    accepted(HypercallInput::rep(Code::MAP_GPA_PAGES, 2), RAM, RAM);
}

#[test]
fn a_variable_header_is_only_for_calls_that_have_one_and_as_long_as_they_allow() {
    let status = HvStatus::INVALID_HYPERCALL_INPUT;
    let signal = HypercallInput::simple(Code::SIGNAL_EVENT);
    refused(signal.with_variable_header(1), RAM, 0, status);
    let flush = HypercallInput::simple(Code::FLUSH_VIRTUAL_ADDRESS_SPACE_EX);
    accepted(flush.with_variable_header(64), RAM, 0);
    refused(flush.with_variable_header(65), RAM, 0, status);
}

#[test]
fn a_fast_call_has_two_registers_of_input_and_no_output() {
    accepted(HypercallInput::fast(Code::SIGNAL_EVENT), 1, 2);
    let status = HvStatus::INVALID_HYPERCALL_INPUT;
    refused(HypercallInput::fast(Code::POST_MESSAGE), RAM, 0, status);
    refused(HypercallInput::fast(Code::GET_PARTITION_ID), RAM, RAM, status);
    let mut rep = HypercallInput::rep(Code::DEPOSIT_MEMORY, 1);
    rep.0 |= 1 << 16;
    refused(rep, RAM, 0, status);
}

#[test]
fn blocks_are_aligned_to_8_bytes_and_cross_no_page() {
    let status = HvStatus::INVALID_ALIGNMENT;
    let post = HypercallInput::simple(Code::POST_MESSAGE);
    for offset in 1..8 {
        refused(post, RAM + offset, 0, status);
    }
    accepted(post, RAM + 0x1000 - 256, 0);
    refused(post, RAM + 0x1000 - 248, 0, status);
    let id = HypercallInput::simple(Code::GET_PARTITION_ID);
    accepted(id, 0, RAM + 0xff8);
    refused(id, 0, RAM + 0xffc, status);
    // A header of 16 bytes and a list that does not end in the same page.
    let deposit = |count| HypercallInput::rep(Code::DEPOSIT_MEMORY, count);
    assert_eq!(call(deposit(511), RAM, 0), (Outcome::GoesOn(128), true));
    refused(deposit(512), RAM, 0, status);
    refused(deposit(0xfff), RAM, 0, status);
    // Results that end in another page.
    let registers = |count| HypercallInput::rep(Code::GET_VP_REGISTERS, count);
    assert_eq!(call(registers(256), 0, RAM), (Outcome::GoesOn(16), true));
    refused(registers(257), 0, RAM, status);
}

#[test]
fn input_in_a_hole_and_output_where_the_guest_cannot_write_are_refused() {
    let status = HvStatus::INVALID_PARAMETER;
    let post = HypercallInput::simple(Code::POST_MESSAGE);
    accepted(post, READ_ONLY, 0);
    for hole in [HOLE, 0x10_0000, 0xfee0_0000, !0xfff] {
        refused(post, hole, 0, status);
        refused(HypercallInput::rep(Code::DEPOSIT_MEMORY, 1), hole, 0, status);
    }
    let id = HypercallInput::simple(Code::GET_PARTITION_ID);
    let registers = HypercallInput::rep(Code::GET_VP_REGISTERS, 1);
    for place in [HOLE, READ_ONLY, 0x10_0000] {
        refused(id, RAM, place, status);
        refused(registers, RAM, place, status);
    }
}

#[test]
fn a_rep_call_goes_on_where_its_turn_ended_until_an_element_fails() {
    let mut guest = Guest::new(Privileges::all());
    guest.successes = 35;
    let mut start = 0;
    let turns = core::iter::from_fn(|| {
        let control = HypercallInput::rep(Code::UNMAP_GPA_PAGES, 60).with_rep_start(start);
        let request = Request {
            control,
            first: RAM,
            second: 0,
        };
        match make(&mut guest, &calls(), &request).0 {
            Outcome::GoesOn(next) => {
                start = next;
                Some(next)
            }
            ended => {
                assert_eq!(ended, Outcome::Ended(HvStatus::INVALID_PARAMETER, 35));
                None
            }
        }
    });
    assert_eq!(turns.collect::<Vec<_>>(), [16, 32]);
    assert_eq!(guest.seen.len(), 36);
}

#[test]
fn a_handler_that_refuses_writes_no_output() {
    let mut guest = Guest::new(Privileges::all());
    guest.successes = 0;
    let control = HypercallInput::simple(Code::GET_PARTITION_ID);
    let request = Request {
        control,
        first: 0,
        second: RAM,
    };
    let (outcome, written) = make(&mut guest, &calls(), &request);
    assert_eq!(outcome, Outcome::Ended(HvStatus::INVALID_PARAMETER, 0));
    assert!(written.is_empty() && guest.seen.len() == 1);
}
