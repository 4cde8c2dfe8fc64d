//! One hypercall, from its input value to its result: the checks that need no handler, and the copying of parameters.
//!
//! The checks run in the order reserved bits, code, privilege, form, alignment, memory, and then the handler's own; a refused
//! call has changed nothing. Handlers work on copies: parameters are copied in once, results are copied out at the end.
//! Who makes a call is a [`Caller`], so that all of this runs on the host too, in tests and under a fuzzer.

use super::rep::RepCall;
use crate::partition::guest_memory::Unreachable;
use crate::partition::lifecycle::Progress;
use crate::processor::local::Page;
use hypercall_api::address::{Gpa, PAGE_SIZE};
use hypercall_api::code::HypercallCode;
use hypercall_api::control::HypercallInput;
use hypercall_api::privilege::Privileges;
use hypercall_api::status::HvStatus;
use zerocopy::IntoBytes;

/// Who makes a call, as far as the checks need to know.
pub(crate) trait Caller {
    /// What its partition may do.
    fn privileges(&self) -> Privileges;
    /// Copies guest memory at `gpa` into `bytes`. The range may cross pages.
    fn read(&self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Unreachable>;
    /// Whether `length` bytes at `gpa` are in one page of RAM that the guest may write.
    fn is_writable(&self, gpa: Gpa, length: usize) -> bool;
    /// Copies `bytes` to guest memory at `gpa`, which must lie in one page.
    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), Unreachable>;
}

/// A call that the hypervisor handles, made by a `C`.
pub(crate) struct Call<C> {
    pub(crate) code: HypercallCode,
    /// Bytes of input before a variable header or the list of a rep call.
    pub(crate) input: usize,
    /// Bytes of output; of a rep call, of each element.
    pub(crate) output: usize,
    /// Longest variable header, in 8-byte units.
    pub(crate) variable_header: u16,
    pub(crate) privileges: Privileges,
    pub(crate) form: Form<C>,
}

/// How a call is made and carried out.
pub(crate) enum Form<C> {
    /// At once.
    Simple(SimpleHandler<C>),
    /// At once, with an output whose size depends on the input.
    Sized(SimpleHandler<C>, fn(&[u8]) -> usize),
    /// In pieces: until it is done, the caller makes the same call again and again without noticing.
    Continued(ContinuedHandler<C>),
    /// For each element of a list, of so many bytes each.
    Rep(usize, RepHandler<C>),
    /// For many elements of a list at once.
    Batch(usize, BatchHandler<C>),
}

/// Takes the input, with its variable header, and the output, which it fills whole where it succeeds.
pub(crate) type SimpleHandler<C> = fn(&mut C, &[u8], &mut [u8]) -> Result<(), HvStatus>;
/// Takes the input.
pub(crate) type ContinuedHandler<C> = fn(&mut C, &[u8]) -> Result<Progress, HvStatus>;
/// Takes the header, an element, its index, and the output of the element, which it fills whole where it succeeds.
pub(crate) type RepHandler<C> = fn(&mut C, &[u8], &[u8], u16, &mut [u8]) -> Result<(), HvStatus>;
/// Takes the header and elements, and says how many of them were done, and what the next one failed with.
pub(crate) type BatchHandler<C> = fn(&mut C, &[u8], &[u8]) -> (u16, Result<(), HvStatus>);

/// What the caller's registers say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) control: HypercallInput,
    /// Input GPA, or the first parameter of a fast call.
    pub(crate) first: u64,
    /// Output GPA, or the second parameter of a fast call.
    pub(crate) second: u64,
}

/// How far a call has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It has ended, after so many elements.
    Ended(HvStatus, u16),
    /// The caller makes it again, from this element on.
    GoesOn(u16),
}

impl From<Result<(), HvStatus>> for Outcome {
    fn from(result: Result<(), HvStatus>) -> Self {
        Self::Ended(result.err().unwrap_or(HvStatus::SUCCESS), 0)
    }
}

/// The call of `calls`, which stand in the order of their codes, that an input value names.
#[inline]
pub(crate) fn find<C>(calls: &[Call<C>], control: HypercallInput) -> Result<&Call<C>, HvStatus> {
    if !control.reserved_is_zero() || control.is_nested() {
        return Err(HvStatus::INVALID_HYPERCALL_INPUT);
    }
    let found = calls.binary_search_by_key(&control.code(), |call| call.code);
    found
        .map(|index| &calls[index])
        .map_err(|_| HvStatus::INVALID_HYPERCALL_CODE)
}

/// Checks what needs no look at memory: the privilege, and whether there are elements and a variable header only where the
/// call has them.
fn check<C: Caller>(caller: &C, call: &Call<C>, control: HypercallInput) -> Result<(), HvStatus> {
    if !caller.privileges().contains(call.privileges) {
        return Err(HvStatus::ACCESS_DENIED);
    }
    let reps_fit = match call.form {
        Form::Rep(..) | Form::Batch(..) => control.rep_start() < control.rep_count(),
        _ => control.rep_count() == 0 && control.rep_start() == 0,
    };
    if !reps_fit || control.variable_header_qwords() > call.variable_header {
        return Err(HvStatus::INVALID_HYPERCALL_INPUT);
    }
    Ok(())
}

/// Checks a call and carries it out, or as much of it as one turn allows. `input` and `output` are pages for the copies of
/// the parameters.
pub(crate) fn perform<C: Caller>(
    caller: &mut C,
    call: &Call<C>,
    request: &Request,
    input: &mut Page,
    output: &mut Page,
) -> Outcome {
    let control = request.control;
    if let Err(status) = check(caller, call, control) {
        return Outcome::Ended(status, 0);
    }
    match call.form {
        Form::Rep(element, handler) => match RepCall::new(caller, call, request, element) {
            Ok(rep) => rep.perform(caller, handler, input, output),
            Err(status) => Outcome::Ended(status, control.rep_start()),
        },
        Form::Batch(element, handler) => match RepCall::new(caller, call, request, element) {
            Ok(rep) => rep.perform_batch(caller, handler, input),
            Err(status) => Outcome::Ended(status, control.rep_start()),
        },
        Form::Simple(handler) => with_input(caller, call, request, input)
            .and_then(|input| {
                with_output(caller, call.output, request, output, |caller, output| {
                    handler(caller, input, output)
                })
            })
            .into(),
        Form::Sized(handler, size) => with_input(caller, call, request, input)
            .and_then(|input| {
                with_output(caller, size(input), request, output, |caller, output| {
                    handler(caller, input, output)
                })
            })
            .into(),
        Form::Continued(handler) => {
            match with_input(caller, call, request, input).and_then(|input| handler(caller, input)) {
                Ok(Progress::Done) => Outcome::Ended(HvStatus::SUCCESS, 0),
                Ok(Progress::Again) => Outcome::GoesOn(0),
                Err(status) => Outcome::Ended(status, 0),
            }
        }
    }
}

/// Whether a parameter block may lie there: 8-byte aligned, inside one page. An empty one may lie anywhere.
pub(super) fn check_block(gpa: Gpa, size: usize) -> Result<(), HvStatus> {
    let fits = size == 0 || (gpa.is_aligned(8) && size as u64 <= PAGE_SIZE && gpa.fits_page(size as u64));
    if fits {
        Ok(())
    } else {
        Err(HvStatus::INVALID_ALIGNMENT)
    }
}

/// Copies the input of a call that is no rep call, from registers or from memory.
fn with_input<'a, C: Caller>(
    caller: &C,
    call: &Call<C>,
    request: &Request,
    page: &'a mut Page,
) -> Result<&'a [u8], HvStatus> {
    let size = call.input + request.control.variable_header_qwords() as usize * 8;
    let input = page.get_mut(..size).ok_or(HvStatus::INVALID_HYPERCALL_INPUT)?;
    if request.control.is_fast() {
        if size > 16 || call.output != 0 {
            return Err(HvStatus::INVALID_HYPERCALL_INPUT);
        }
        input.copy_from_slice(&[request.first, request.second].as_bytes()[..size]);
    } else {
        check_block(Gpa(request.first), size)?;
        check_block(Gpa(request.second), call.output)?;
        caller
            .read(Gpa(request.first), input)
            .map_err(|_| HvStatus::INVALID_PARAMETER)?;
    }
    Ok(input)
}

/// Calls `handler` with the output block, and copies that out where it succeeds. That it can be copied is made sure of
/// before.
fn with_output<C: Caller>(
    caller: &mut C,
    size: usize,
    request: &Request,
    page: &mut Page,
    handler: impl FnOnce(&mut C, &mut [u8]) -> Result<(), HvStatus>,
) -> Result<(), HvStatus> {
    let gpa = Gpa(request.second);
    check_block(gpa, size)?;
    let output = &mut page[..size];
    if output.is_empty() {
        return handler(caller, output);
    }
    if !caller.is_writable(gpa, output.len()) {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    handler(caller, output)?;
    caller.write(gpa, output).map_err(|_| HvStatus::INVALID_PARAMETER)
}

#[cfg(test)]
mod tests;
