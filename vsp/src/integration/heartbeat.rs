//! Heartbeat: a number goes to the guest now and then, and the next one comes back.

use super::session::{Answer, NotNow, Session, State};
use super::{Packet, Service};
use uuid::Uuid;
use vmbus::protocol::guid::class;
use vmbus::protocol::integration::frame::MessageType;
use vmbus::protocol::integration::heartbeat::{Heartbeat as Beat, VERSIONS};
use zerocopy::{FromBytes, IntoBytes};

/// What is known of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pulse {
    /// It has no driver for this, or not yet.
    Unknown,
    /// It answered the last beat, or there was none yet.
    Alive,
    /// So many beats in a row have no answer.
    Missed(u32),
}

/// The service.
#[derive(Debug)]
pub struct Heartbeat {
    session: Session,
    sequence: u64,
    missed: u32,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            session: Session::new(MessageType::HEARTBEAT, &VERSIONS),
            sequence: 0,
            missed: 0,
        }
    }
}

impl Heartbeat {
    /// The next beat, to be sent every few seconds. One that is still without an answer counts as missed.
    pub fn beat(&mut self) -> Option<Packet> {
        let beat = Beat {
            sequence: (self.sequence + 1).into(),
            ..Beat::default()
        };
        match self.session.request(beat.as_bytes()) {
            Ok(packet) => {
                self.sequence += 1;
                Some(packet)
            }
            Err(NotNow::Busy) => {
                self.missed = self.missed.saturating_add(1);
                None
            }
            Err(NotNow::Absent) => None,
        }
    }

    /// What is known of the guest.
    pub const fn pulse(&self) -> Pulse {
        match (self.session.state(), self.missed) {
            (State::Ready { .. }, 0) => Pulse::Alive,
            (State::Ready { .. }, missed) => Pulse::Missed(missed),
            _ => Pulse::Unknown,
        }
    }
}

impl Service for Heartbeat {
    fn class(&self) -> Uuid {
        class::HEARTBEAT
    }

    fn opened(&mut self) -> Packet {
        self.missed = 0;
        self.session.open()
    }

    fn receive(&mut self, packet: &[u8]) -> Option<Packet> {
        match self.session.receive(packet) {
            Answer::Ready => return self.beat(),
            Answer::Done { body, .. } => {
                // A guest that answers with a wrong number answers all the same.
                if let Ok((beat, _)) = Beat::read_from_prefix(body) {
                    self.sequence = self.sequence.max(beat.sequence.get().min(self.sequence + 1));
                }
                self.missed = 0;
            }
            Answer::Ignored => {}
        }
        None
    }

    fn closed(&mut self) {
        self.session.close();
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::guest;
    use super::*;
    use vmbus::protocol::integration::frame::Status;

    #[test]
    fn beats_without_an_answer_are_counted_until_one_comes() {
        let mut heartbeat = Heartbeat::default();
        assert_eq!((heartbeat.beat(), heartbeat.pulse()), (None, Pulse::Unknown));
        let offer = heartbeat.opened();
        let first = heartbeat
            .receive(&guest::agree(&offer, Some(VERSIONS[0])))
            .unwrap();
        assert_eq!(heartbeat.pulse(), Pulse::Alive);
        assert_eq!((heartbeat.beat(), heartbeat.beat()), (None, None));
        assert_eq!(heartbeat.pulse(), Pulse::Missed(2));
        assert_eq!(
            heartbeat.receive(&guest::answer(&first, Status::OK, |body| body[0] += 1)),
            None
        );
        assert_eq!(heartbeat.pulse(), Pulse::Alive);
        let second = heartbeat.beat().unwrap();
        assert_eq!(second[28], 3, "the number goes on from the guest's");
        heartbeat.closed();
        assert_eq!(heartbeat.pulse(), Pulse::Unknown);
    }
}
