//! Calls over lists: as many as it takes, each going on where the one before left off.
//!
//! A call may stop early with success (the hypervisor bounds its time) and says how many elements it did. What is left
//! then goes into a new call of its own, so that nothing depends on a parameter page surviving between two calls.

use super::{Hypercalls, PAGE};
use crate::code::HypercallCode as Code;
use crate::control::{HypercallInput, HypercallResult};
use crate::status::HvStatus;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A call over a list that ended with an error after some elements were done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{status}, after {completed} elements")]
pub struct Incomplete {
    /// Why it ended.
    pub status: HvStatus,
    /// Elements that were done, and stay done.
    pub completed: usize,
}

impl From<Incomplete> for HvStatus {
    fn from(error: Incomplete) -> Self {
        error.status
    }
}

/// What a call did: `done` grows by its reps; an error ends the list, and so does a success that did nothing.
fn account(result: HypercallResult, asked: usize, done: &mut usize) -> Result<(), Incomplete> {
    let reps = result.reps_completed() as usize;
    *done += reps.min(asked);
    let status = match result.status() {
        HvStatus::SUCCESS if reps == 0 => HvStatus::OPERATION_FAILED,
        status => status,
    };
    status.ok().map_err(|status| Incomplete {
        status,
        completed: *done,
    })
}

/// A call over `elements`, behind a header that `header` makes for the element to start with.
///
/// # Safety
/// As for [`Hypercalls::issue`].
pub(super) unsafe fn input<H, I, E>(
    calls: &H,
    code: Code,
    header: impl Fn(usize) -> I,
    elements: &[E],
) -> Result<(), Incomplete>
where
    H: Hypercalls + ?Sized,
    I: IntoBytes + Immutable,
    E: IntoBytes + Immutable,
{
    // SAFETY: the caller vouches for what the call does.
    unsafe { input_with_header(calls, code, header, &[], elements) }
}

/// The same with a variable header, which each call gets.
///
/// # Safety
/// As for [`Hypercalls::issue`].
pub(super) unsafe fn input_with_header<H, I, E>(
    calls: &H,
    code: Code,
    header: impl Fn(usize) -> I,
    variable: &[u64],
    elements: &[E],
) -> Result<(), Incomplete>
where
    H: Hypercalls + ?Sized,
    I: IntoBytes + Immutable,
    E: IntoBytes + Immutable,
{
    let start = size_of::<I>() + size_of_val(variable);
    let mut done = 0;
    while done < elements.len() {
        let count = (elements.len() - done).min((PAGE - start) / size_of::<E>());
        let list = elements[done..done + count].as_bytes();
        let control = HypercallInput::rep(code, count as u16).with_variable_header(variable.len() as u16);
        let header = header(done);
        let parts = [header.as_bytes(), variable.as_bytes(), list];
        // SAFETY: the caller vouches for what the call does.
        let result = unsafe { calls.issue_parts(control, parts, &mut []) };
        account(result, count, &mut done)?;
    }
    Ok(())
}

/// A call that is repeated `count` times without a list, behind a header that `header` makes for the rep to start with.
///
/// # Safety
/// As for [`Hypercalls::issue`].
pub(super) unsafe fn counted<H, I>(
    calls: &H,
    code: Code,
    header: impl Fn(usize) -> I,
    count: usize,
) -> Result<(), Incomplete>
where
    H: Hypercalls + ?Sized,
    I: IntoBytes + Immutable,
{
    let mut done = 0;
    while done < count {
        let asked = (count - done).min(HypercallInput::MAX_REPS as usize);
        let control = HypercallInput::rep(code, asked as u16);
        // SAFETY: the caller vouches for what the call does.
        let result = unsafe { calls.issue(control, header(done).as_bytes(), &mut []) };
        account(result, asked, &mut done)?;
    }
    Ok(())
}

/// A call that fills `output`, one element a rep, from `elements` (as many, or none where the call takes no list).
///
/// # Safety
/// As for [`Hypercalls::issue`].
pub(super) unsafe fn output<H, I, E, O>(
    calls: &H,
    code: Code,
    header: &I,
    elements: &[E],
    output: &mut [O],
) -> Result<(), Incomplete>
where
    H: Hypercalls + ?Sized,
    I: IntoBytes + Immutable,
    E: IntoBytes + Immutable,
    O: FromBytes + IntoBytes,
{
    let has_list = !elements.is_empty();
    let room = (PAGE - size_of::<I>()) / size_of::<E>().max(1);
    let most = (PAGE / size_of::<O>()).min(if has_list { room } else { PAGE });
    let total = match has_list {
        true => output.len().min(elements.len()),
        false => output.len(),
    };
    let mut done = 0;
    while done < total {
        let count = (total - done).min(most);
        let list: &[u8] = match has_list {
            true => elements[done..done + count].as_bytes(),
            false => &[],
        };
        let control = HypercallInput::rep(code, count as u16);
        let values = output[done..done + count].as_mut_bytes();
        // SAFETY: the caller vouches for what the call does.
        let result = unsafe { calls.issue_parts(control, [header.as_bytes(), &[], list], values) };
        account(result, count, &mut done)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use crate::address::Gpfn;
    use crate::call::{GuestCalls, Hypercalls, Incomplete, PartitionCalls, VpCalls};
    use crate::code::HypercallCode as Code;
    use crate::control::{HypercallInput, HypercallResult};
    use crate::flush::{FlushFlags, GvaRange, VpSet};
    use crate::id::{PartitionId, VpIndex};
    use crate::memory::MapGpaFlags;
    use crate::register::{RegisterName, RegisterValue};
    use crate::status::HvStatus;
    use std::cell::RefCell;
    use std::vec::Vec;

    /// A hypervisor that does at most `pace` reps a call and has `limit` of everything.
    struct Fake {
        pace: u16,
        limit: usize,
        done: RefCell<usize>,
        calls: RefCell<Vec<(HypercallInput, Vec<u8>)>>,
    }

    impl Fake {
        fn new(pace: u16, limit: usize) -> Self {
            Self {
                pace,
                limit,
                done: RefCell::new(0),
                calls: RefCell::default(),
            }
        }
    }

    impl Hypercalls for Fake {
        unsafe fn issue(&self, control: HypercallInput, input: &[u8], output: &mut [u8]) -> HypercallResult {
            assert!(input.len() <= 4096 && output.len() <= 4096);
            self.calls.borrow_mut().push((control, input.to_vec()));
            let left = self.limit - *self.done.borrow();
            let reps = control.rep_count().min(self.pace).min(left as u16);
            *self.done.borrow_mut() += reps as usize;
            if control.rep_count() != 0 {
                let size = output.len() / control.rep_count() as usize;
                output[..size * reps as usize].fill(reps as u8);
            }
            let status = match reps < control.rep_count().min(self.pace) {
                true => HvStatus::NO_RESOURCES,
                false => HvStatus::SUCCESS,
            };
            HypercallResult::new(status, reps)
        }

        unsafe fn issue_fast(&self, control: HypercallInput, first: u64, second: u64) -> HypercallResult {
            let words = [first.to_le_bytes(), second.to_le_bytes()].concat();
            self.calls.borrow_mut().push((control, words));
            HypercallResult::new(HvStatus::SUCCESS, 0)
        }
    }

    const CHILD: PartitionId = PartitionId(7);

    fn pages(count: u64) -> Vec<Gpfn> {
        (0..count).map(|page| Gpfn(0x100 + page)).collect()
    }

    fn word(bytes: &[u8], index: usize) -> u64 {
        u64::from_le_bytes(bytes[8 * index..8 * index + 8].try_into().unwrap())
    }

    #[test]
    fn a_list_longer_than_a_page_goes_in_several_calls() {
        let fake = Fake::new(0xfff, 2000);
        // SAFETY: a fake gives nothing away.
        unsafe { fake.deposit_memory(CHILD, &pages(1000)) }.unwrap();
        let counts: Vec<_> = fake
            .calls
            .borrow()
            .iter()
            .map(|call| call.0.rep_count())
            .collect();
        assert_eq!(counts, [511, 489]);
    }

    #[test]
    fn a_mapping_goes_on_at_the_page_where_a_call_stopped() {
        let fake = Fake::new(3, 100);
        // SAFETY: as above.
        unsafe { fake.map_gpa_pages(CHILD, Gpfn(0x1000), MapGpaFlags::RAM, &pages(8)) }.unwrap();
        let calls = fake.calls.borrow();
        let starts: Vec<_> = calls
            .iter()
            .map(|call| (word(&call.1, 1), word(&call.1, 3)))
            .collect();
        assert_eq!(starts, [(0x1000, 0x100), (0x1003, 0x103), (0x1006, 0x106)]);
    }

    #[test]
    fn large_pages_go_on_by_512() {
        let fake = Fake::new(2, 100);
        fake.unmap_gpa_pages(CHILD, Gpfn(0x400), true, 3).unwrap();
        let calls = fake.calls.borrow();
        assert_eq!(word(&calls[1].1, 1), 0x400 + 2 * 512);
        assert_eq!(calls[1].0.rep_count(), 1);
    }

    #[test]
    fn an_error_tells_how_many_elements_were_done() {
        let fake = Fake::new(4, 6);
        // SAFETY: as above.
        let result = unsafe { fake.deposit_memory(CHILD, &pages(10)) };
        let expected = Incomplete {
            status: HvStatus::NO_RESOURCES,
            completed: 6,
        };
        assert_eq!(result, Err(expected));
    }

    #[test]
    fn a_pool_that_runs_dry_gives_what_it_has() {
        let fake = Fake::new(0xfff, 6);
        let mut pages = [Gpfn(0); 10];
        assert_eq!(fake.withdraw_memory(CHILD, &mut pages), Ok(6));
        assert!(pages[5].0 != 0 && pages[6].0 == 0);
        assert_eq!(fake.withdraw_memory(CHILD, &mut pages), Ok(0));
    }

    #[test]
    fn values_arrive_at_their_names() {
        let fake = Fake::new(2, 100);
        let names = [RegisterName::RAX, RegisterName::RBX, RegisterName::RIP];
        let mut values = [RegisterValue::default(); 3];
        fake.get_vp_registers(CHILD, VpIndex(0), &names, &mut values)
            .unwrap();
        assert_eq!(values.map(|value| value.low as u8), [2, 2, 1]);
    }

    #[test]
    fn a_call_that_does_nothing_ends_the_list() {
        let fake = Fake::new(0, 100);
        let mut values = [RegisterValue::default(); 1];
        let result = fake.get_vp_registers(CHILD, VpIndex(0), &[RegisterName::RAX], &mut values);
        assert_eq!(
            result.map_err(|error| error.status),
            Err(HvStatus::OPERATION_FAILED)
        );
    }

    #[test]
    fn banks_of_a_set_are_the_variable_header() {
        let fake = Fake::new(0xfff, 100);
        let mut set = VpSet::from_mask(0b101);
        set.insert(VpIndex(130));
        fake.send_ipi_ex(0x80, &set).unwrap();
        let calls = fake.calls.borrow();
        let (control, input) = &calls[0];
        assert_eq!(control.variable_header_qwords(), 2);
        assert_eq!(control.code(), Code::SEND_SYNTHETIC_CLUSTER_IPI_EX);
        assert_eq!(
            (0..5).map(|index| word(input, index)).collect::<Vec<_>>(),
            [0x80, 0, 0b101, 5, 4]
        );
    }

    #[test]
    fn a_list_stands_behind_the_banks() {
        let fake = Fake::new(0xfff, 100);
        let ranges = [GvaRange(0x1000), GvaRange(0x2000)];
        fake.flush_address_list_ex(0x5000, FlushFlags::empty(), &VpSet::from_mask(3), &ranges)
            .unwrap();
        let calls = fake.calls.borrow();
        let (control, input) = &calls[0];
        assert_eq!((control.variable_header_qwords(), control.rep_count()), (1, 2));
        assert_eq!(
            (0..7).map(|index| word(input, index)).collect::<Vec<_>>(),
            [0x5000, 0, 0, 1, 3, 0x1000, 0x2000]
        );
    }

    #[test]
    fn an_ipi_to_few_vps_is_a_fast_call() {
        let fake = Fake::new(0xfff, 100);
        fake.send_ipi(0x90, 6).unwrap();
        let calls = fake.calls.borrow();
        assert!(calls[0].0.is_fast());
        assert_eq!((word(&calls[0].1, 0), word(&calls[0].1, 1)), (0x90, 6));
    }

    #[test]
    fn a_message_that_is_too_long_is_not_sent() {
        let fake = Fake::new(0xfff, 100);
        let connection = crate::port::ConnectionId(1);
        let result = fake.post_message(connection, crate::message::MessageType(1), &[0; 241]);
        assert_eq!(result, Err(HvStatus::INVALID_PARAMETER));
        assert!(fake.calls.borrow().is_empty());
        fake.post_message(connection, crate::message::MessageType(1), &[0; 240])
            .unwrap();
    }
}
