//! Shutdown: the host asks the guest's system to end in good order. The answer says only that it was understood.

use super::frame::Version;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Versions, the newest first.
pub const VERSIONS: [Version; 4] = [
    Version::new(3, 2),
    Version::new(3, 1),
    Version::new(3, 0),
    Version::new(1, 0),
];

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Power off.
    PowerOff,
    /// Reboot. Guests know it from version 3.1 on.
    Reboot,
}

/// Bytes of the text.
pub const TEXT: usize = 2048;

/// A request.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Shutdown {
    /// Why, as Windows counts reasons.
    pub reason: U32,
    /// Seconds that the guest should wait.
    pub timeout: U32,
    /// What to do in all but the lowest bit; that one: do not wait for programs.
    pub flags: U32,
    /// A text for users, UTF-16.
    pub text: [u8; TEXT],
}
const _: () = assert!(size_of::<Shutdown>() == 12 + TEXT);

impl Shutdown {
    /// A request to do `action` now.
    pub fn new(action: Action, force: bool) -> Self {
        let what = match action {
            Action::PowerOff => 0,
            Action::Reboot => 2,
        };
        Self {
            flags: U32::new(what | u32::from(force)),
            ..Self::new_zeroed()
        }
    }

    /// What is asked for, and whether by force; `None` for what is neither power off nor reboot.
    pub fn action(&self) -> Option<(Action, bool)> {
        let force = self.flags.get() & 1 != 0;
        match self.flags.get() >> 1 {
            0 => Some((Action::PowerOff, force)),
            1 => Some((Action::Reboot, force)),
            _ => None,
        }
    }
}
