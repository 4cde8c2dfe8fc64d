//! Taking the host's messages and events, and posting messages to it.

use super::state::{Contact, State};
use super::{Bus, BusError};
use crate::hal::Hal;
use crate::wait::Waiting;
use hypercall_api::call::GuestCalls;
use hypercall_api::message::MESSAGE_PAYLOAD;
use hypercall_api::status::HvStatus;
use vmbus::client::ClientError;
use vmbus::protocol::id::{CHANNEL_MESSAGE, Relid};

/// Messages that are taken at once, so that a host that sends without end leaves time for others.
const MESSAGES: usize = 64;
/// Event flags of a word.
const WORD: u32 = 64;

impl<H: Hal> Bus<H> {
    /// Takes the messages and events that have come to the running VP, and posts what could not be posted before. Returns whether
    /// anything was done. Not to be called from an interrupt handler.
    pub fn poll(&self) -> bool {
        let messages = self.take_messages();
        let again = core::mem::take(&mut self.state().again);
        let mut events = !again.is_empty();
        for relid in again {
            self.interrupt(relid);
        }
        let last = self.state().last_flag();
        for word in 0..last.map_or(0, |last| last / WORD + 1) {
            let mut flags = self.0.hal.take_events(word as usize);
            events |= flags != 0;
            while flags != 0 {
                self.interrupt(Relid(word * WORD + flags.trailing_zeros()));
                flags &= flags - 1;
            }
        }
        messages || events
    }

    fn take_messages(&self) -> bool {
        let mut state = self.state();
        let mut count = 0;
        while count < MESSAGES {
            let Some(message) = self.0.hal.take_message() else {
                break;
            };
            count += 1;
            let size = usize::from(message.payload_size).min(MESSAGE_PAYLOAD);
            match message.message_type {
                CHANNEL_MESSAGE => state.receive(message.payload.get(..size).unwrap_or_default()),
                other => log::debug!("a message of type {:#x} is not for the bus", other.0),
            }
        }
        let posted = self.post(&mut state);
        if count == 0 && !posted {
            return false;
        }
        let gone = core::mem::take(&mut state.gone);
        let waiting = state.waiting.take();
        drop(state);
        gone.iter().for_each(|owner| owner.gone());
        waiting.wake();
        true
    }

    fn interrupt(&self, relid: Relid) {
        // The lock is not held while the owner works.
        let owner = self.state().interrupt(relid);
        if owner.is_some_and(|owner| owner.interrupt()) {
            self.state().again.push(relid);
        }
    }

    /// Changes the state, and posts what that has to say.
    pub(super) fn ask<T>(
        &self,
        act: impl FnOnce(&mut State<H>) -> Result<T, ClientError>,
    ) -> Result<T, BusError> {
        let mut state = self.state();
        let result = act(&mut state);
        let waiting = match self.post(&mut state) {
            true => state.waiting.take(),
            false => Waiting::new(),
        };
        drop(state);
        waiting.wake();
        Ok(result?)
    }

    /// Posts what waits, as far as the host takes it. Returns whether the state has changed by that.
    pub(super) fn post(&self, state: &mut State<H>) -> bool {
        let mut changed = false;
        while let Some((connection, message)) = state.outbox.front() {
            let posted = self
                .0
                .hal
                .hypercalls()
                .post_message(*connection, CHANNEL_MESSAGE, message);
            match posted {
                Ok(()) => {}
                // The host has to take others first.
                Err(HvStatus::INSUFFICIENT_BUFFERS | HvStatus::INSUFFICIENT_MEMORY) => break,
                Err(status) => {
                    changed = true;
                    log::debug!("a message to the host is refused: {status:?}");
                    state.outbox.clear();
                    match state.contact {
                        Contact::None => state.contact_refused(),
                        _ => state.failed = Some(status),
                    }
                    continue;
                }
            }
            state.outbox.pop_front();
        }
        changed
    }
}
