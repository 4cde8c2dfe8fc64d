//! One service's channel: versions are negotiated, then there is at most one request without an answer.

use super::Packet;
use alloc::vec::Vec;
use vmbus::protocol::integration::frame::{Header, MessageType, Status, Version};
use vmbus::protocol::integration::negotiate::{self, FRAMEWORKS, Negotiate};
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, IntoBytes};

/// How far the guest has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// No channel is open.
    #[default]
    Closed,
    /// The versions were sent, and the guest has not answered.
    Negotiating,
    /// Versions are agreed.
    Ready {
        /// Of the framing.
        framework: Version,
        /// Of the service.
        service: Version,
    },
    /// The guest has no version in common with us.
    Unused,
}

/// Why nothing can be asked now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotNow {
    /// The guest has no driver for the service, or has not loaded it yet.
    #[error("the guest's system does not take part in this (yet)")]
    Absent,
    /// The answer to the request before has not come.
    #[error("the guest has not answered the request before")]
    Busy,
}

/// What a packet of the guest means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer<'a> {
    /// Versions are agreed: requests can be made.
    Ready,
    /// The request that waited was answered.
    Done {
        /// How it ended.
        status: Status,
        /// What came with it.
        body: &'a [u8],
    },
    /// Nothing that was asked for.
    Ignored,
}

/// The channel's state.
#[derive(Debug)]
pub struct Session {
    message_type: MessageType,
    versions: &'static [Version],
    state: State,
    /// Number of the last request.
    transaction: u8,
    waiting: bool,
}

impl Session {
    /// A service with these versions, the newest first; closed.
    pub const fn new(message_type: MessageType, versions: &'static [Version]) -> Self {
        Self {
            message_type,
            versions,
            state: State::Closed,
            transaction: 0,
            waiting: false,
        }
    }

    /// How far the guest has come.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The agreed version of the service.
    pub const fn version(&self) -> Option<Version> {
        match self.state {
            State::Ready { service, .. } => Some(service),
            _ => None,
        }
    }

    /// The channel was opened: our versions, to be sent.
    pub fn open(&mut self) -> Packet {
        self.state = State::Negotiating;
        let head = Negotiate {
            frameworks: U16::new(FRAMEWORKS.len() as u16),
            services: U16::new(self.versions.len() as u16),
            reserved: 0.into(),
        };
        let mut body = head.as_bytes().to_vec();
        body.extend_from_slice(FRAMEWORKS.as_bytes());
        body.extend_from_slice(self.versions.as_bytes());
        let none = Version::new(0, 0);
        self.packet(MessageType::NEGOTIATE, none, none, &body)
    }

    /// The channel was closed.
    pub fn close(&mut self) {
        self.state = State::Closed;
        self.waiting = false;
    }

    /// A request, to be sent.
    pub fn request(&mut self, body: &[u8]) -> Result<Packet, NotNow> {
        let State::Ready { framework, service } = self.state else {
            return Err(NotNow::Absent);
        };
        if self.waiting {
            return Err(NotNow::Busy);
        }
        Ok(self.packet(self.message_type, framework, service, body))
    }

    /// Stops to wait for an answer, which may never come.
    pub fn give_up(&mut self) {
        self.waiting = false;
    }

    /// Takes a packet of the guest.
    pub fn receive<'a>(&mut self, packet: &'a [u8]) -> Answer<'a> {
        let Ok((header, body)) = Header::read_from_prefix(packet) else {
            return Answer::Ignored;
        };
        if !header.is_response() || !self.waiting || header.transaction != self.transaction {
            return Answer::Ignored;
        }
        if self.state == State::Negotiating {
            if header.message_type != MessageType::NEGOTIATE {
                return Answer::Ignored;
            }
            self.waiting = false;
            return self.agree(body);
        }
        if header.message_type != self.message_type {
            return Answer::Ignored;
        }
        self.waiting = false;
        Answer::Done {
            status: header.status,
            body,
        }
    }

    fn agree(&mut self, body: &[u8]) -> Answer<'static> {
        let ours = |&(framework, service): &(Version, Version)| {
            FRAMEWORKS.contains(&framework) && self.versions.contains(&service)
        };
        match negotiate::chosen(body).filter(ours) {
            Some((framework, service)) => {
                self.state = State::Ready { framework, service };
                Answer::Ready
            }
            None => {
                self.state = State::Unused;
                Answer::Ignored
            }
        }
    }

    fn packet(
        &mut self,
        message_type: MessageType,
        framework: Version,
        service: Version,
        body: &[u8],
    ) -> Packet {
        self.transaction = self.transaction.wrapping_add(1);
        self.waiting = true;
        let header = Header::request(
            message_type,
            framework,
            service,
            body.len() as u16,
            self.transaction,
        );
        let mut packet = Vec::with_capacity(size_of::<Header>() + body.len());
        packet.extend_from_slice(header.as_bytes());
        packet.extend_from_slice(body);
        packet
    }
}

#[cfg(test)]
pub(super) mod guest {
    //! A guest's driver, as Linux has it: it answers in the packet that it got.
    use super::*;
    use vmbus::protocol::integration::frame::Flags;

    /// Answers with the newest versions, or with none.
    pub(in super::super) fn agree(packet: &[u8], with: Option<Version>) -> Packet {
        let mut answer = packet.to_vec();
        let (header, body) = Header::mut_from_prefix(&mut answer).unwrap();
        header.flags = (Flags::TRANSACTION | Flags::RESPONSE).bits();
        let count = u16::from(with.is_some()).to_le_bytes();
        body[0..2].copy_from_slice(&count);
        body[2..4].copy_from_slice(&count);
        if let Some(version) = with {
            body[12..16].copy_from_slice(version.as_bytes());
        }
        answer
    }

    /// Answers with `status`, after `change` of the body.
    pub(in super::super) fn answer(packet: &[u8], status: Status, change: impl FnOnce(&mut [u8])) -> Packet {
        let mut answer = packet.to_vec();
        let (header, body) = Header::mut_from_prefix(&mut answer).unwrap();
        header.flags = (Flags::TRANSACTION | Flags::RESPONSE).bits();
        header.status = status;
        change(body);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmbus::protocol::integration::shutdown::VERSIONS;

    fn session() -> Session {
        Session::new(MessageType::SHUTDOWN, &VERSIONS)
    }

    #[test]
    fn the_guest_chooses_among_our_versions() {
        let mut session = session();
        let offer = session.open();
        assert_eq!(offer.len(), 28 + 8 + 4 * (2 + 4));
        assert_eq!(session.request(&[]), Err(NotNow::Absent));
        assert_eq!(
            session.receive(&guest::agree(&offer, Some(VERSIONS[2]))),
            Answer::Ready
        );
        assert_eq!(session.version(), Some(VERSIONS[2]));
    }

    #[test]
    fn a_guest_without_a_common_version_or_with_a_version_of_its_own_does_not_take_part() {
        for with in [None, Some(Version::new(9, 9))] {
            let mut session = session();
            let offer = session.open();
            assert_eq!(session.receive(&guest::agree(&offer, with)), Answer::Ignored);
            assert_eq!(session.state(), State::Unused);
            assert_eq!(session.request(&[]), Err(NotNow::Absent));
        }
    }

    #[test]
    fn answers_that_nobody_waits_for_are_ignored() {
        let mut session = session();
        let offer = session.open();
        let agreed = guest::agree(&offer, Some(VERSIONS[0]));
        session.receive(&agreed);
        assert_eq!(session.receive(&agreed), Answer::Ignored, "a second time");
        let request = session.request(&[1, 2]).unwrap();
        assert_eq!(session.request(&[]), Err(NotNow::Busy));
        assert_eq!(
            session.receive(&request),
            Answer::Ignored,
            "a request, not an answer"
        );
        let done = guest::answer(&request, Status::FAIL, |body| body[0] = 7);
        let expected = Answer::Done {
            status: Status::FAIL,
            body: &[7, 2],
        };
        assert_eq!(session.receive(&done), expected);
        assert_eq!(session.receive(&done), Answer::Ignored);
        session.close();
        assert_eq!(session.state(), State::Closed);
    }

    #[test]
    fn cut_packets_are_ignored() {
        let mut session = session();
        let offer = session.open();
        let agreed = guest::agree(&offer, Some(VERSIONS[0]));
        for length in 0..28 {
            assert_eq!(session.receive(&agreed[..length]), Answer::Ignored);
        }
        assert_eq!(session.state(), State::Negotiating);
        session.receive(&agreed[..40]);
        assert_eq!(session.state(), State::Unused, "the versions were cut off");
    }
}
