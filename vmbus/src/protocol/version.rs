//! Versions of the protocol, and what each can do.

use bitflags::bitflags;
use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A version: major in the upper 16 bits, minor in the lower. An open set; [`Version::ALL`] are the ones of this crate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Version(pub u32);

impl Version {
    /// Windows 8: an interrupt of its own for each channel.
    pub const V2_4: Self = Self::new(2, 4);
    /// Windows 8.1.
    pub const V3_0: Self = Self::new(3, 0);
    /// Windows 10: sockets.
    pub const V4_0: Self = Self::new(4, 0);
    /// A channel can move to another VP.
    pub const V4_1: Self = Self::new(4, 1);
    /// The host says where messages go; the guest, at which SINT it takes them.
    pub const V5_0: Self = Self::new(5, 0);
    /// As 5.0.
    pub const V5_1: Self = Self::new(5, 1);
    /// As 5.0.
    pub const V5_2: Self = Self::new(5, 2);
    /// A channel's move is answered.
    pub const V5_3: Self = Self::new(5, 3);
    /// Feature flags.
    pub const V6_0: Self = Self::new(6, 0);

    /// The versions that both ends here speak, newest first: the order in which a guest tries them.
    pub const ALL: [Self; 9] = [
        Self::V6_0,
        Self::V5_3,
        Self::V5_2,
        Self::V5_1,
        Self::V5_0,
        Self::V4_1,
        Self::V4_0,
        Self::V3_0,
        Self::V2_4,
    ];

    /// The version `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self((major as u32) << 16 | minor as u32)
    }

    /// Whether it is one of [`Self::ALL`].
    pub fn is_known(self) -> bool {
        Self::ALL.contains(&self)
    }

    /// `INITIATE_CONTACT` says at which SINT messages are taken, and `VERSION_RESPONSE` to which connection they go.
    pub fn has_message_target(self) -> bool {
        self >= Self::V5_0
    }

    /// `MODIFYCHANNEL` is answered.
    pub fn answers_modify(self) -> bool {
        self >= Self::V5_3
    }

    /// Both ends name [`FeatureFlags`].
    pub fn has_feature_flags(self) -> bool {
        self >= Self::V6_0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

bitflags! {
    /// What can be agreed on from version 6.0 on. Neither end here can do any of it yet.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct FeatureFlags: u32 {
        /// The guest names event flag and connection of a channel.
        const GUEST_SPECIFIED_SIGNAL_PARAMETERS = 1 << 0;
        /// A channel's interrupt may be taken by a device above it.
        const CHANNEL_INTERRUPT_REDIRECTION = 1 << 1;
        /// The monitor pages may change.
        const MODIFY_CONNECTION = 1 << 2;
        /// The guest says who it is.
        const CLIENT_ID = 1 << 3;
        /// Rings or buffers may be memory that the host cannot see.
        const CONFIDENTIAL_CHANNELS = 1 << 4;
        /// The connection can be paused.
        const PAUSE_RESUME = 1 << 5;
        /// The host names the monitor pages.
        const SERVER_SPECIFIED_MONITOR_PAGES = 1 << 6;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_tried_from_the_newest_on() {
        assert!(Version::ALL.is_sorted_by(|a, b| a > b));
        assert_eq!(Version::V5_3.0, 0x50003);
        assert_eq!(alloc::format!("{}", Version::V2_4), "2.4");
    }
}
