//! Shutdown: asks the guest's system to end in good order.

use super::session::{Answer, NotNow, Session};
use super::{Packet, Service};
use uuid::Uuid;
use vmbus::protocol::guid::class;
use vmbus::protocol::integration::frame::{MessageType, Status, Version};
use vmbus::protocol::integration::shutdown::{Action, Shutdown as Request, VERSIONS};
use zerocopy::IntoBytes;

/// Guests older than this know no reboot.
const REBOOT_SINCE: Version = Version::new(3, 1);

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Outcome {
    /// None was made.
    #[default]
    None,
    /// The guest has not answered.
    Waiting,
    /// The guest does it.
    Accepted,
    /// The guest does not do it.
    Refused(Status),
}

/// Why a request could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShutdownError {
    /// The guest cannot be asked.
    #[error(transparent)]
    NotNow(#[from] NotNow),
    /// The guest cannot do it.
    #[error("the guest's driver is too old to be asked for a reboot")]
    NoReboot,
}

/// The service.
#[derive(Debug)]
pub struct Shutdown {
    session: Session,
    outcome: Outcome,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            session: Session::new(MessageType::SHUTDOWN, &VERSIONS),
            outcome: Outcome::None,
        }
    }
}

impl Shutdown {
    /// Whether the guest takes part.
    pub const fn is_ready(&self) -> bool {
        self.session.version().is_some()
    }

    /// A request to do `action`, to be sent; with `force`, without waiting for programs.
    pub fn request(&mut self, action: Action, force: bool) -> Result<Packet, ShutdownError> {
        let version = self.session.version().ok_or(NotNow::Absent)?;
        let known = (version.major.get(), version.minor.get())
            >= (REBOOT_SINCE.major.get(), REBOOT_SINCE.minor.get());
        if action == Action::Reboot && !known {
            return Err(ShutdownError::NoReboot);
        }
        let packet = self.session.request(Request::new(action, force).as_bytes())?;
        self.outcome = Outcome::Waiting;
        Ok(packet)
    }

    /// What became of the last request.
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }
}

impl Service for Shutdown {
    fn class(&self) -> Uuid {
        class::SHUTDOWN
    }

    fn opened(&mut self) -> Packet {
        self.outcome = Outcome::None;
        self.session.open()
    }

    fn receive(&mut self, packet: &[u8]) -> Option<Packet> {
        if let Answer::Done { status, .. } = self.session.receive(packet) {
            self.outcome = match status {
                Status::OK => Outcome::Accepted,
                refused => Outcome::Refused(refused),
            };
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
    use zerocopy::FromBytes;

    fn ready(version: Version) -> Shutdown {
        let mut shutdown = Shutdown::default();
        let offer = shutdown.opened();
        shutdown.receive(&guest::agree(&offer, Some(version)));
        shutdown
    }

    #[test]
    fn a_guest_without_the_driver_is_not_asked() {
        let mut shutdown = Shutdown::default();
        let absent = Err(ShutdownError::NotNow(NotNow::Absent));
        assert_eq!(shutdown.request(Action::PowerOff, false), absent);
        shutdown.opened();
        assert_eq!(shutdown.request(Action::PowerOff, false), absent);
    }

    #[test]
    fn the_request_says_what_to_do_and_the_answer_how_it_went() {
        for (status, outcome) in [
            (Status::OK, Outcome::Accepted),
            (Status::FAIL, Outcome::Refused(Status::FAIL)),
        ] {
            let mut shutdown = ready(VERSIONS[0]);
            let packet = shutdown.request(Action::Reboot, true).unwrap();
            let (request, _) = Request::read_from_prefix(&packet[28..]).unwrap();
            assert_eq!(request.action(), Some((Action::Reboot, true)));
            assert_eq!(shutdown.outcome(), Outcome::Waiting);
            shutdown.receive(&guest::answer(&packet, status, |_| ()));
            assert_eq!(shutdown.outcome(), outcome);
        }
    }

    #[test]
    fn an_old_driver_is_not_asked_for_a_reboot() {
        let mut shutdown = ready(Version::new(3, 0));
        assert_eq!(
            shutdown.request(Action::Reboot, false),
            Err(ShutdownError::NoReboot)
        );
        assert!(shutdown.request(Action::PowerOff, false).is_ok());
    }
}
