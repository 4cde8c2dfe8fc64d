//! Rep calls: a list of elements, done in turns so that interrupts are never held off for long.

use super::call::{BatchHandler, Call, Caller, Outcome, RepHandler, Request, check_block};
use crate::partition::guest_memory::Unreachable;
use crate::processor::local::Page;
use hypercall_api::address::Gpa;
use hypercall_api::control::HypercallInput;
use hypercall_api::status::HvStatus;

/// Elements of a rep call that are done before interrupts get their turn: one by one, and where many are cheaper at once.
pub(crate) const BATCH: u16 = 16;
pub(crate) const LONG_BATCH: u16 = 128;

/// A rep call: a header, a list of elements in, a list of elements out.
pub(super) struct RepCall {
    header: usize,
    element: usize,
    output: usize,
    input_gpa: Gpa,
    output_gpa: Gpa,
    control: HypercallInput,
}

impl RepCall {
    /// Checks where the call's header, elements and results lie.
    pub(super) fn new<C: Caller>(
        caller: &C,
        call: &Call<C>,
        request: &Request,
        element: usize,
    ) -> Result<Self, HvStatus> {
        let control = request.control;
        if control.is_fast() {
            return Err(HvStatus::INVALID_HYPERCALL_INPUT);
        }
        let count = control.rep_count() as usize;
        let header = call.input + control.variable_header_qwords() as usize * 8;
        let (input_gpa, output_gpa) = (Gpa(request.first), Gpa(request.second));
        check_block(input_gpa, header + count * element)?;
        check_block(output_gpa, count * call.output)?;
        if call.output != 0 && !caller.is_writable(output_gpa, count * call.output) {
            return Err(HvStatus::INVALID_PARAMETER);
        }
        Ok(Self {
            header,
            element,
            output: call.output,
            input_gpa,
            output_gpa,
            control,
        })
    }

    /// Copies the header and the elements from `start` to `end` to the start of `page`, each byte once.
    fn copy_in<'a, C: Caller>(
        &self,
        caller: &C,
        start: u16,
        end: u16,
        page: &'a mut Page,
    ) -> Result<(&'a [u8], &'a [u8]), Unreachable> {
        let size = self.header + (end - start) as usize * self.element;
        let copy = &mut page[..size];
        if start == 0 {
            caller.read(self.input_gpa, copy)?;
        } else {
            let (header, elements) = copy.split_at_mut(self.header);
            let skipped = self.header + start as usize * self.element;
            caller.read(self.input_gpa, header)?;
            caller.read(Gpa(self.input_gpa.0 + skipped as u64), elements)?;
        }
        Ok(copy.split_at(self.header))
    }

    /// Does as many elements as one turn allows.
    pub(super) fn perform<C: Caller>(
        &self,
        caller: &mut C,
        handler: RepHandler<C>,
        input: &mut Page,
        output: &mut Page,
    ) -> Outcome {
        let (start, count) = (self.control.rep_start(), self.control.rep_count());
        let end = count.min(start.saturating_add(BATCH));
        let Ok((header, elements)) = self.copy_in(caller, start, end, input) else {
            return Outcome::Ended(HvStatus::INVALID_PARAMETER, start);
        };
        for index in start..end {
            let offset = (index - start) as usize * self.element;
            let element = &elements[offset..offset + self.element];
            let result = &mut output[..self.output];
            let done = handler(caller, header, element, index, result).and_then(|()| {
                let place = Gpa(self.output_gpa.0 + index as u64 * self.output as u64);
                if result.is_empty() {
                    return Ok(());
                }
                caller
                    .write(place, result)
                    .map_err(|_| HvStatus::INVALID_PARAMETER)
            });
            if let Err(status) = done {
                return Outcome::Ended(status, index);
            }
        }
        Self::progress(end, count)
    }

    /// Does as many elements as one turn allows, all at once.
    pub(super) fn perform_batch<C: Caller>(
        &self,
        caller: &mut C,
        handler: BatchHandler<C>,
        input: &mut Page,
    ) -> Outcome {
        let (start, count) = (self.control.rep_start(), self.control.rep_count());
        let end = count.min(start.saturating_add(LONG_BATCH));
        let Ok((header, elements)) = self.copy_in(caller, start, end, input) else {
            return Outcome::Ended(HvStatus::INVALID_PARAMETER, start);
        };
        match handler(caller, header, elements) {
            (_, Ok(())) => Self::progress(end, count),
            (done, Err(status)) => Outcome::Ended(status, start + done),
        }
    }

    fn progress(end: u16, count: u16) -> Outcome {
        if end == count {
            Outcome::Ended(HvStatus::SUCCESS, count)
        } else {
            Outcome::GoesOn(end)
        }
    }
}
