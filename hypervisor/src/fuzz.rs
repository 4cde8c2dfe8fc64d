//! Entries for fuzzers: what guests say to the hypervisor, without a processor below it. Each takes the fuzzer's bytes.

use crate::hypercall::call::{self, Call, Caller, Form, Outcome, Request};
use crate::hypercall::rep::{BATCH, LONG_BATCH};
use crate::hypercall::table::CALLS;
use crate::partition::guest_memory::Unreachable;
use crate::partition::installed_intercepts::InstalledIntercepts;
use crate::partition::instruction::{self, Kind};
use crate::partition::lifecycle::Progress;
use crate::partition::{mmio, synic::SynicRegisters};
use core::cell::RefCell;
use hypercall_api::address::{Gpa, PAGE_SIZE};
use hypercall_api::code::HypercallCode;
use hypercall_api::control::HypercallInput;
use hypercall_api::flush::VpSet;
use hypercall_api::intercept::InstallIntercept;
use hypercall_api::privilege::Privileges;
use hypercall_api::status::HvStatus;
use std::sync::LazyLock;
use std::vec::Vec;
use zerocopy::FromBytes;

const PAGE: usize = PAGE_SIZE as usize;

/// The bytes of a fuzzer, taken from the front; zeroes when they are used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.byte()))
    }

    fn one_in(&mut self, chances: u8) -> bool {
        self.byte().is_multiple_of(chances)
    }
}

/// The page of the model's memory that `gpa` is in.
fn page(gpa: Gpa) -> Option<&'static (Kept, [u8; PAGE])> {
    MEMORY.get(usize::try_from(gpa.0 / PAGE_SIZE).ok()?)
}

/// What a page of the model's memory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kept {
    Ram,
    ReadOnly,
    /// Nothing, or what the parent emulates.
    Hole,
}

/// The model's memory from GPA 0 on. It never changes: what is written is noted instead.
static MEMORY: LazyLock<Vec<(Kept, [u8; PAGE])>> = LazyLock::new(|| {
    let kinds = [Kept::Ram, Kept::ReadOnly, Kept::Ram, Kept::Hole, Kept::Ram];
    let contents = |page: usize| core::array::from_fn(|offset| (offset * 7 + page * 31) as u8);
    (0..)
        .zip(kinds)
        .map(|(page, kind)| (kind, contents(page)))
        .collect()
});

std::thread_local! {
    static WRITTEN: RefCell<Vec<(Gpa, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
}

/// A guest that is nothing but privileges, and handlers that note what they are given.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) privileges: Privileges,
    /// What handlers were given: header or input, elements, index of the first.
    pub(crate) seen: Vec<(Vec<u8>, Vec<u8>, u16)>,
    /// The handler's answers: how many succeed, and what the next one says.
    pub(crate) successes: usize,
    pub(crate) refusal: HvStatus,
}

impl Guest {
    /// One whose handlers succeed.
    pub(crate) fn new(privileges: Privileges) -> Self {
        Self {
            privileges,
            seen: Vec::new(),
            successes: usize::MAX,
            refusal: HvStatus::INVALID_PARAMETER,
        }
    }

    /// What the handler of an element says.
    fn answer(&mut self) -> Result<(), HvStatus> {
        match self.successes.checked_sub(1) {
            Some(left) => {
                self.successes = left;
                Ok(())
            }
            None if self.refusal == HvStatus::SUCCESS => Ok(()),
            None => Err(self.refusal),
        }
    }
}

impl Caller for Guest {
    fn privileges(&self) -> Privileges {
        self.privileges
    }

    fn read(&self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Unreachable> {
        for (offset, byte) in (0..).zip(bytes) {
            let at = gpa.checked_add(offset).ok_or(Unreachable(gpa))?;
            *byte = match page(at) {
                Some((Kept::Ram | Kept::ReadOnly, page)) => page[at.page_offset() as usize],
                _ => return Err(Unreachable(at)),
            };
        }
        Ok(())
    }

    fn is_writable(&self, gpa: Gpa, length: usize) -> bool {
        gpa.fits_page(length as u64) && matches!(page(gpa), Some((Kept::Ram, _)))
    }

    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), Unreachable> {
        match self.is_writable(gpa, bytes.len()) {
            true => {
                WRITTEN.with_borrow_mut(|written| written.push((gpa, bytes.to_vec())));
                Ok(())
            }
            false => Err(Unreachable(gpa)),
        }
    }
}

/// The table with the model's handlers in place of the real ones.
pub(crate) fn calls() -> Vec<Call<Guest>> {
    CALLS
        .iter()
        .map(|real| Call {
            code: real.code,
            input: real.input,
            output: real.output,
            variable_header: real.variable_header,
            privileges: real.privileges,
            form: match real.form {
                Form::Simple(_) => Form::Simple(whole),
                Form::Sized(_, size) => Form::Sized(whole, size),
                Form::Continued(_) => Form::Continued(|guest, input| {
                    guest.seen.push((input.to_vec(), Vec::new(), 0));
                    match guest.refusal {
                        HvStatus::SUCCESS => Ok(Progress::Again),
                        _ => guest.answer().map(|()| Progress::Done),
                    }
                }),
                Form::Rep(element, _) => Form::Rep(element, |guest, header, element, index, output| {
                    guest.seen.push((header.to_vec(), element.to_vec(), index));
                    output.fill(index as u8);
                    guest.answer()
                }),
                Form::Batch(8, _) => Form::Batch(8, batch::<8>),
                Form::Batch(32, _) => Form::Batch(32, batch::<32>),
                Form::Batch(element, _) => panic!("no batch of elements of {element} bytes is known here"),
            },
        })
        .collect()
}

/// Takes elements of `SIZE` bytes, and answers for each.
fn batch<const SIZE: usize>(
    guest: &mut Guest,
    header: &[u8],
    elements: &[u8],
) -> (u16, Result<(), HvStatus>) {
    guest.seen.push((header.to_vec(), elements.to_vec(), 0));
    let answers: Vec<_> = (0..elements.len() / SIZE).map(|_| guest.answer()).collect();
    match answers.iter().position(|answer| answer.is_err()) {
        Some(done) => (done as u16, answers[done]),
        None => (answers.len() as u16, Ok(())),
    }
}

fn whole(guest: &mut Guest, input: &[u8], output: &mut [u8]) -> Result<(), HvStatus> {
    guest.seen.push((input.to_vec(), Vec::new(), 0));
    output.fill(0xee);
    guest.answer()
}

/// Makes one call of the model's, and returns what came of it and what was written.
pub(crate) fn make(
    guest: &mut Guest,
    calls: &[Call<Guest>],
    request: &Request,
) -> (Outcome, Vec<(Gpa, Vec<u8>)>) {
    let (mut input, mut output) = ([0xa5; PAGE], [0x5a; PAGE]);
    WRITTEN.take();
    let outcome = match call::find(calls, request.control) {
        Ok(found) => call::perform(guest, found, request, &mut input, &mut output),
        Err(status) => Outcome::Ended(status, 0),
    };
    (outcome, WRITTEN.take())
}

/// An address near a border of the model's pages, mostly a good one.
fn address(input: &mut Input<'_>) -> u64 {
    let base = u64::from(input.byte() % 6) * PAGE_SIZE;
    let offset = u64::from(input.byte());
    match input.byte() % 8 {
        0..4 => base + offset * 8,
        4 => (base + PAGE_SIZE).saturating_sub(offset * 8),
        5 => base + offset,
        6 => base,
        _ => input.word(),
    }
}

fn request(input: &mut Input<'_>) -> Request {
    let code = match input.one_in(16) {
        true => HypercallCode(input.word() as u16),
        false => CALLS[input.byte() as usize % CALLS.len()].code,
    };
    let mut control = HypercallInput::simple(code);
    if input.one_in(2) {
        let count = [1, 2, 15, 16, 17, 60, 128, 129, 500, 0xfff][input.byte() as usize % 10];
        control = HypercallInput::rep(code, count);
        if input.one_in(4) {
            control = control.with_rep_start(u16::from(input.byte()) * 3);
        }
    } else if input.one_in(3) {
        control.0 |= 1 << 16;
    }
    if input.one_in(4) {
        control = control.with_variable_header(u16::from(input.byte()) % 70);
    }
    if input.one_in(16) {
        control.0 ^= 1 << (input.byte() % 64);
    }
    Request {
        control,
        first: address(input),
        second: address(input),
    }
}

/// Calls of every form against the dispatcher: what is refused reaches no handler and changes nothing, handlers see what was
/// in memory and no more of it than one turn allows, results go where the caller said and nowhere else.
pub fn hypercalls(data: &[u8]) {
    let mut input = Input(data);
    let calls = calls();
    while !input.0.is_empty() {
        let privileges = match input.one_in(4) {
            true => Privileges::from_bits_retain(input.word()),
            false => Privileges::all(),
        };
        let mut guest = Guest::new(privileges);
        if input.one_in(3) {
            guest.successes = input.byte() as usize;
            guest.refusal = HvStatus(u16::from(input.byte() % 16));
        }
        check(&calls, &mut guest, &request(&mut input));
    }
}

/// Makes a call and holds it against the rules, written down once more.
fn check(calls: &[Call<Guest>], guest: &mut Guest, request: &Request) {
    let before = guest.clone();
    let (outcome, written) = make(guest, calls, request);
    let Some(call) = calls.iter().find(|call| call.code == request.control.code()) else {
        assert!(matches!(outcome, Outcome::Ended(status, 0) if status != HvStatus::SUCCESS));
        assert!(guest.seen.is_empty() && written.is_empty());
        return;
    };
    let control = request.control;
    let (start, count) = (control.rep_start(), control.rep_count());
    let allowed = privileges_allow(call, &before) && control.reserved_is_zero() && !control.is_nested();
    if !allowed || guest.seen.is_empty() {
        assert!(guest.seen.is_empty() && written.is_empty(), "{request:x?}");
        assert!(
            matches!(outcome, Outcome::Ended(status, done) if status != HvStatus::SUCCESS && done <= start)
        );
        return;
    }
    // A handler was reached: then every rule held.
    let header = call.input + control.variable_header_qwords() as usize * 8;
    assert!(control.variable_header_qwords() <= call.variable_header);
    for (seen, ..) in &guest.seen {
        assert_eq!(seen.len(), header);
        let mut expected = Vec::from(request.first.to_le_bytes());
        expected.extend(request.second.to_le_bytes());
        if !control.is_fast() {
            expected = std::vec![0; header];
            assert!(
                header == 0
                    || request.first.is_multiple_of(8)
                        && request.first % PAGE_SIZE + header as u64 <= PAGE_SIZE
            );
            assert!(before.read(Gpa(request.first), &mut expected).is_ok());
        }
        assert_eq!(seen[..], expected[..header]);
    }
    let (element, turn) = match call.form {
        Form::Rep(element, _) => (element, BATCH),
        Form::Batch(element, _) => (element, LONG_BATCH),
        Form::Simple(_) | Form::Sized(..) | Form::Continued(_) => {
            assert_eq!((start, count, guest.seen.len()), (0, 0, 1));
            check_whole(call, request, outcome, &written);
            return;
        }
    };
    assert!(!control.is_fast() && start < count);
    let reached = match outcome {
        Outcome::GoesOn(next) => {
            assert!(next < count && next > start);
            next
        }
        Outcome::Ended(status, done) => {
            assert!(
                (start..=count).contains(&done)
                    && (status == HvStatus::SUCCESS || done < count || guest.refusal == HvStatus::SUCCESS)
            );
            done
        }
    };
    assert!(reached - start <= turn);
    // The elements lie behind the header, and are seen in order.
    let mut list = std::vec![0; element * (count - start) as usize];
    let at = Gpa(request.first + (header + element * start as usize) as u64);
    assert!(before.read(at, &mut list).is_ok());
    let seen: Vec<u8> = guest
        .seen
        .iter()
        .flat_map(|(_, elements, _)| elements)
        .copied()
        .collect();
    assert_eq!(seen[..], list[..seen.len()]);
    let mut index = start;
    for (gpa, bytes) in &written {
        assert_eq!(gpa.0, request.second + u64::from(index) * call.output as u64);
        assert!(bytes.len() == call.output && gpa.fits_page(bytes.len() as u64));
        index += 1;
    }
    assert!(index <= reached);
}

fn privileges_allow(call: &Call<Guest>, guest: &Guest) -> bool {
    guest.privileges.contains(call.privileges)
}

/// The rules for the results of a call that is no rep call.
fn check_whole(call: &Call<Guest>, request: &Request, outcome: Outcome, written: &[(Gpa, Vec<u8>)]) {
    match outcome {
        Outcome::GoesOn(next) => {
            assert!(next == 0 && matches!(call.form, Form::Continued(_)) && written.is_empty())
        }
        Outcome::Ended(HvStatus::SUCCESS, 0) => {
            for (gpa, bytes) in written {
                assert!(gpa.0 == request.second && gpa.is_aligned(8) && !request.control.is_fast());
                assert!(bytes.iter().all(|byte| *byte == 0xee));
                assert!(matches!(call.form, Form::Sized(..)) || bytes.len() == call.output);
            }
            assert!(written.len() <= 1 && (call.output == 0 || written.len() == 1));
        }
        Outcome::Ended(_, done) => assert!(done == 0 && written.is_empty()),
    }
}

/// Any bytes, against what handlers parse: sets of VPs, intercepts, SINTs, and the instructions that exit.
pub fn parameters(data: &[u8]) {
    let mut input = Input(data);
    if let Ok((wanted, _)) = InstallIntercept::read_from_prefix(data) {
        let intercepts = InstalledIntercepts::new();
        let refused = intercepts.install(&wanted).is_err();
        let nothing =
            intercepts.exceptions() == 0 && !intercepts.wants_msr(true) && !intercepts.wants_msr(false);
        assert!(!refused || nothing);
    }
    let (format, valid) = (u64::from(input.byte() % 3), input.word());
    let banks: Vec<u64> = (0..input.byte() % 66).map(|_| input.word()).collect();
    if let Some(set) = VpSet::decode(format, valid, &banks) {
        assert!(format == VpSet::ALL || set.wire_banks().count() <= banks.len());
    }
    let synic = SynicRegisters::new();
    let (sint, value) = (input.byte() as usize % 16, input.word());
    let before = synic.sint(sint);
    let refused = synic.set_sint(sint, value).is_err();
    assert_eq!(synic.sint(sint), if refused { before } else { value });
    for is_64_bit in [false, true] {
        for kind in [Kind::OneByte, Kind::TwoBytes, Kind::ThreeBytes] {
            assert!((1..=instruction::LONGEST).contains(&instruction::length(kind, data, is_64_bit)));
        }
        if let Some(decoded) = mmio::decode(&data[..data.len().min(instruction::LONGEST)], is_64_bit) {
            assert!(decoded.length <= data.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn calls_of_every_form_keep_to_the_rules(data in prop::collection::vec(any::<u8>(), 0..600)) {
            super::hypercalls(&data);
        }

        #[test]
        fn any_parameters_can_be_parsed(data in prop::collection::vec(any::<u8>(), 0..700)) {
            super::parameters(&data);
        }
    }
}
