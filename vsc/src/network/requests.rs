//! Questions that wait for their answers: NVSP messages by the transaction of their completion, RNDIS requests by their own numbers.

use alloc::vec::Vec;
use vmbus::protocol::network::nvsp::MESSAGE_SIZE;
use vmbus::protocol::network::rndis::MessageType;

/// Questions that may wait at once.
const MAX_WAITING: usize = 16;

/// What was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Question {
    /// An NVSP message with this transaction.
    Nvsp(u64),
    /// An RNDIS request of this number, whose answer is of this type.
    Rndis(u32, MessageType),
}

/// Questions, and answers that were not fetched yet.
#[derive(Debug, Default)]
pub(super) struct Requests {
    next: u32,
    waiting: Vec<(Question, Option<Vec<u8>>)>,
}

impl Requests {
    /// A number for the next question.
    pub(super) fn number(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1).max(1);
        self.next
    }

    /// Whether one more question may be asked.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING
    }

    /// A question was sent.
    pub(super) fn asked(&mut self, question: Question) {
        self.waiting.push((question, None));
    }

    /// An answer has come. The first one counts; one to nothing is ignored.
    pub(super) fn answered(&mut self, question: Question, answer: &[u8]) -> bool {
        let waiting = self
            .waiting
            .iter_mut()
            .find(|(asked, answer)| *asked == question && answer.is_none());
        match waiting {
            Some((_, place)) => {
                *place = Some(answer.to_vec());
                true
            }
            None => false,
        }
    }

    /// Takes the answer to a question, if it has come.
    pub(super) fn take(&mut self, question: Question) -> Option<Vec<u8>> {
        let index = self
            .waiting
            .iter()
            .position(|(asked, answer)| *asked == question && answer.is_some())?;
        self.waiting.swap_remove(index).1
    }

    /// Nobody waits for the answer any more.
    pub(super) fn forget(&mut self, question: Question) {
        self.waiting.retain(|(asked, _)| *asked != question);
    }
}

/// Bytes of an NVSP answer that are kept.
pub(super) const ANSWER: usize = MESSAGE_SIZE;
