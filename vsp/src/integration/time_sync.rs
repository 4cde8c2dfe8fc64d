//! Time synchronisation: tells the guest the wall clock.

use super::session::{Answer, Session};
use super::{Packet, Service};
use uuid::Uuid;
use vmbus::protocol::guid::class;
use vmbus::protocol::integration::frame::{MessageType, Version};
use vmbus::protocol::integration::time_sync::{Kind, PlainTime, ReferenceTime, VERSIONS};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

/// The version since which the reference time is told.
const WITH_REFERENCE: Version = VERSIONS[0];

/// A moment on two clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// The wall clock, in 100 ns since 1601, UTC.
    pub host_time: u64,
    /// The guest's reference counter then, in 100 ns.
    pub reference: u64,
}

/// The service. Its clock is read when a packet is made, so that no time passes in between.
#[derive(Debug)]
pub struct TimeSync<C> {
    session: Session,
    clock: C,
}

impl<C: FnMut() -> Moment> TimeSync<C> {
    /// The service, closed.
    pub const fn new(clock: C) -> Self {
        Self {
            session: Session::new(MessageType::TIME_SYNC, &VERSIONS),
            clock,
        }
    }

    /// The time, to be sent; `None` while the guest does not take part.
    pub fn tell(&mut self, kind: Kind) -> Option<Packet> {
        let version = self.session.version()?;
        // Guests need not answer, and a lost answer must not stop the clock.
        self.session.give_up();
        let Moment { host_time, reference } = (self.clock)();
        let packet = if version == WITH_REFERENCE {
            let time = ReferenceTime {
                host_time: U64::new(host_time),
                reference: U64::new(reference),
                flags: kind as u8,
                leap: 0,
                stratum: 0,
                reserved: [0; 3],
            };
            self.session.request(time.as_bytes())
        } else {
            let time = PlainTime {
                host_time: U64::new(host_time),
                guest_time: U64::new(0),
                round_trip: U64::new(0),
                flags: kind as u8,
            };
            self.session.request(time.as_bytes())
        };
        packet.ok()
    }
}

impl<C: FnMut() -> Moment> Service for TimeSync<C> {
    fn class(&self) -> Uuid {
        class::TIME_SYNC
    }

    fn opened(&mut self) -> Packet {
        self.session.open()
    }

    fn receive(&mut self, packet: &[u8]) -> Option<Packet> {
        match self.session.receive(packet) {
            Answer::Ready => self.tell(Kind::Sync),
            _ => None,
        }
    }

    fn closed(&mut self) {
        self.session.close();
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::guest;
    use super::*;
    use zerocopy::FromBytes;

    const NOW: Moment = Moment {
        host_time: 7_000,
        reference: 70,
    };

    #[test]
    fn the_time_is_told_as_soon_as_the_guest_is_ready_in_the_form_that_it_knows() {
        let mut service = TimeSync::new(|| NOW);
        assert_eq!(service.tell(Kind::Sample), None);
        let offer = service.opened();
        let told = service.receive(&guest::agree(&offer, Some(VERSIONS[0]))).unwrap();
        let time = ReferenceTime::read_from_bytes(&told[28..]).unwrap();
        assert_eq!(
            (time.host_time.get(), time.reference.get(), time.flags),
            (7_000, 70, 1)
        );

        let offer = service.opened();
        let told = service.receive(&guest::agree(&offer, Some(VERSIONS[1]))).unwrap();
        let time = PlainTime::read_from_bytes(&told[28..]).unwrap();
        assert_eq!((time.host_time.get(), time.flags), (7_000, 1));
    }

    #[test]
    fn an_answer_that_never_comes_does_not_stop_the_clock() {
        let mut service = TimeSync::new(|| NOW);
        let offer = service.opened();
        service.receive(&guest::agree(&offer, Some(VERSIONS[0])));
        assert!(service.tell(Kind::Sample).is_some() && service.tell(Kind::Sync).is_some());
    }
}
