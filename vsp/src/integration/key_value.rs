//! Key/value exchange: asks the guest's system what it is, pair by pair.

use super::session::{Answer, Session, State};
use super::{Packet, Service};
use alloc::string::String;
use alloc::vec::Vec;
use uuid::Uuid;
use vmbus::protocol::guid::class;
use vmbus::protocol::integration::frame::{MessageType, Status};
use vmbus::protocol::integration::key_value::{Enumerate, Pool, VERSIONS};
use zerocopy::{FromBytes, IntoBytes};

/// Pairs that are kept; a guest that has more is not asked for them.
const MOST: usize = 64;

/// A pair of texts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// Its name, such as `OSName`.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// The service: knows what the guest last told.
#[derive(Debug)]
pub struct KeyValue {
    session: Session,
    known: Vec<Pair>,
    /// Those of the round under way.
    coming: Vec<Pair>,
}

impl Default for KeyValue {
    fn default() -> Self {
        Self {
            session: Session::new(MessageType::KEY_VALUE, &VERSIONS),
            known: Vec::new(),
            coming: Vec::new(),
        }
    }
}

impl KeyValue {
    /// Starts to ask anew: what to send; `None` while the guest does not take part, or a round is under way.
    pub fn refresh(&mut self) -> Option<Packet> {
        let packet = self.ask(0)?;
        self.coming.clear();
        Some(packet)
    }

    /// What the guest told when it was last asked for everything.
    pub fn pairs(&self) -> &[Pair] {
        &self.known
    }

    /// Whether the guest's system takes part.
    pub const fn is_ready(&self) -> bool {
        matches!(self.session.state(), State::Ready { .. })
    }

    fn ask(&mut self, index: usize) -> Option<Packet> {
        let request = Enumerate::new(Pool::AUTOMATIC, index as u32);
        self.session.request(request.as_bytes()).ok()
    }

    fn take(&mut self, status: Status, body: &[u8]) -> Option<Packet> {
        match Enumerate::read_from_prefix(body) {
            Ok((pair, _)) if status == Status::OK && self.coming.len() < MOST => {
                self.coming.push(Pair {
                    key: pair.key(),
                    value: pair.value(),
                });
                self.ask(self.coming.len())
            }
            _ => {
                self.known = core::mem::take(&mut self.coming);
                None
            }
        }
    }
}

impl Service for KeyValue {
    fn class(&self) -> Uuid {
        class::KEY_VALUE_PAIR
    }

    fn opened(&mut self) -> Packet {
        self.known.clear();
        self.coming.clear();
        self.session.open()
    }

    fn receive(&mut self, packet: &[u8]) -> Option<Packet> {
        match self.session.receive(packet) {
            Answer::Ready => self.refresh(),
            Answer::Done { status, body } => self.take(status, body),
            Answer::Ignored => None,
        }
    }

    fn closed(&mut self) {
        self.session.close();
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::guest;
    use super::*;

    /// A guest with `pairs`; returns how often it was asked.
    fn serve(service: &mut KeyValue, first: Packet, pairs: usize) -> usize {
        let mut next = Some(first);
        for asked in 0.. {
            let Some(packet) = next else { return asked };
            let index = asked;
            let answer = if index < pairs {
                guest::answer(&packet, Status::OK, |body| {
                    let pair = Enumerate::mut_from_bytes(body).unwrap();
                    assert_eq!(pair.index.get() as usize, index);
                    (pair.key_size, pair.value_size) = (4.into(), 2.into());
                    pair.key[..4].copy_from_slice(&[b'k', 0, 0, 0]);
                    pair.value[..2].copy_from_slice(&[b'0' + index as u8 % 10, 0]);
                })
            } else {
                guest::answer(&packet, Status::NO_MORE_ITEMS, |_| ())
            };
            next = service.receive(&answer);
        }
        unreachable!()
    }

    fn ready() -> (KeyValue, Packet) {
        let mut service = KeyValue::default();
        let offer = service.opened();
        let first = service.receive(&guest::agree(&offer, Some(VERSIONS[0]))).unwrap();
        (service, first)
    }

    #[test]
    fn all_pairs_are_asked_for_up_to_the_last() {
        let (mut service, first) = ready();
        assert_eq!(serve(&mut service, first, 3), 4);
        let values: Vec<_> = service.pairs().iter().map(|pair| pair.value.as_str()).collect();
        assert_eq!(values, ["0", "1", "2"]);
        let again = service.refresh().unwrap();
        assert_eq!(serve(&mut service, again, 1), 2);
        assert_eq!(service.pairs().len(), 1);
    }

    #[test]
    fn a_guest_that_never_ends_is_asked_no_further() {
        let (mut service, first) = ready();
        assert_eq!(serve(&mut service, first, usize::MAX), MOST + 1);
        assert_eq!(service.pairs().len(), MOST);
    }
}
