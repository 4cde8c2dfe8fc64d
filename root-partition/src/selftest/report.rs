//! What a self-test of rules has seen.

use super::Outcome;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{Debug, Display};
use hypercall_api::status::HvStatus;

/// What was seen, a line a rule.
#[derive(Default)]
pub(super) struct Report {
    held: Vec<String>,
    broken: Vec<String>,
}

impl Report {
    /// What must be as it is `wanted`.
    pub(super) fn equal<T: PartialEq + Debug>(&mut self, call: &str, rule: impl Display, got: T, wanted: T) {
        match got == wanted {
            true => self.held.push(format!("{call}: {rule}")),
            false => self
                .broken
                .push(format!("{call}: {rule}: got {got:x?}, wanted {wanted:x?}")),
        }
    }

    /// A call that must be refused with the status `wanted`.
    pub(super) fn refuses<T: Debug>(
        &mut self,
        call: &str,
        rule: impl Display,
        got: Result<T, HvStatus>,
        wanted: HvStatus,
    ) {
        let status = got.map_or_else(|status| status, |_| HvStatus::SUCCESS);
        self.equal(call, rule, status, wanted);
    }

    /// The rules that held; the broken ones where there are any.
    pub(super) fn outcome(self) -> Outcome {
        match self.broken.is_empty() {
            true => Ok(self.held.join("\n")),
            false => Err(self.broken.join("\n")),
        }
    }
}

/// An error as the self-test's end.
pub(super) fn text(error: impl Display) -> String {
    error.to_string()
}
