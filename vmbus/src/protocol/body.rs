//! The layouts of channel messages behind their header (drivers/hv/channel_mgmt.c and include/linux/hyperv.h of Linux).
//! Offsets in the comments count from the message's first byte, as the header is 8 bytes.

use super::guid::WireGuid;
use super::id::{GpadlId, Relid, Status};
use super::version::Version;
use hypercall_api::id::VpIndex;
use hypercall_api::port::ConnectionId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of an open that the device class gives a meaning to.
pub const OPEN_USER_DATA: usize = 120;

macro_rules! bodies {
    ($($(#[$doc:meta])* $name:ident, $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
        const _: () = assert!(size_of::<$name>() + 8 == $size);
    )*};
}

bodies! {
    /// Nothing.
    Empty, 8 {}

    /// Names a channel.
    ChannelNamed, 12 {
        /// The channel.
        relid: Relid,
    }

    /// `OPENCHANNEL`.
    OpenChannel, 148 {
        /// The channel.
        relid: Relid,
        /// Comes back in the answer.
        open_id: u32,
        /// Pages of both rings.
        gpadl: GpadlId,
        /// VP that takes the channel's interrupt.
        target_vp: VpIndex,
        /// First page of the ring from host to guest.
        downstream_page_offset: u32,
        /// Of the class.
        user_data: [u8; OPEN_USER_DATA],
    }

    /// `OPENCHANNEL_RESULT`.
    OpenResult, 20 {
        /// The channel.
        relid: Relid,
        /// Of the request.
        open_id: u32,
        /// How it ended.
        status: Status,
    }

    /// `GPADL_HEADER`, before the ranges.
    GpadlHeader, 20 {
        /// The channel.
        relid: Relid,
        /// The guest's name for the list.
        gpadl: GpadlId,
        /// Bytes of all ranges, those in further messages with them.
        range_bytes: u16,
        /// Ranges.
        range_count: u16,
    }

    /// `GPADL_BODY`, before the page numbers.
    GpadlBody, 16 {
        /// Which of the further messages; guests leave it zero.
        message_number: u32,
        /// The list.
        gpadl: GpadlId,
    }

    /// `GPADL_CREATED`.
    GpadlCreated, 20 {
        /// The channel.
        relid: Relid,
        /// The list.
        gpadl: GpadlId,
        /// How it ended.
        status: Status,
    }

    /// `GPADL_TEARDOWN`.
    GpadlTeardown, 16 {
        /// The channel.
        relid: Relid,
        /// The list.
        gpadl: GpadlId,
    }

    /// `GPADL_TORNDOWN`.
    GpadlTorndown, 12 {
        /// The list.
        gpadl: GpadlId,
    }

    /// `INITIATE_CONTACT`.
    InitiateContact, 40 {
        /// What the guest wants to speak.
        version: Version,
        /// VP that takes messages.
        target_vp: VpIndex,
        /// Below 5.0: GPA of the interrupt page. From 5.0 on: a [`MessageTarget`].
        interrupt_page_or_target: u64,
        /// GPA of the page by which the host's signals are monitored; zero: none.
        parent_to_child_monitor: u64,
        /// GPA of the page by which the guest's signals are monitored; zero: none.
        child_to_parent_monitor: u64,
    }

    /// `VERSION_RESPONSE`; from 6.0 on, feature flags follow.
    VersionResponse, 16 {
        /// Not zero: the host speaks the version.
        supported: u8,
        /// Zero: connected.
        connection_state: u8,
        /// Zero.
        reserved: u16,
        /// Where messages go from now on.
        message_connection: ConnectionId,
    }

    /// `TL_CONNECT_REQUEST`.
    SocketConnect, 40 {
        /// The guest's end.
        endpoint: WireGuid,
        /// The service of the host's.
        service: WireGuid,
    }

    /// `MODIFYCHANNEL`.
    ModifyChannel, 16 {
        /// The channel.
        relid: Relid,
        /// VP that takes its interrupt from now on.
        target_vp: VpIndex,
    }

    /// `TL_CONNECT_RESULT`.
    SocketResult, 44 {
        /// The guest's end.
        endpoint: WireGuid,
        /// The service.
        service: WireGuid,
        /// How it ended.
        status: Status,
    }

    /// `MODIFYCHANNEL_RESPONSE`.
    ModifyResponse, 16 {
        /// The channel.
        relid: Relid,
        /// How it ended.
        status: Status,
    }
}

/// Where a guest takes messages, from version 5.0 on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageTarget {
    /// SINT.
    pub sint: u8,
    /// Virtual trust level.
    pub vtl: u8,
    /// What the guest can do, from version 6.0 on.
    pub feature_flags: u32,
}

impl MessageTarget {
    /// From [`InitiateContact::interrupt_page_or_target`].
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            sint: bits as u8,
            vtl: (bits >> 8) as u8,
            feature_flags: (bits >> 32) as u32,
        }
    }

    /// For [`InitiateContact::interrupt_page_or_target`].
    pub const fn to_bits(self) -> u64 {
        self.sint as u64 | (self.vtl as u64) << 8 | (self.feature_flags as u64) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn fields_are_where_linux_puts_them() {
        assert_eq!(offset_of!(OpenChannel, gpadl) + 8, 16);
        assert_eq!(offset_of!(OpenChannel, user_data) + 8, 28);
        assert_eq!(offset_of!(GpadlHeader, range_count) + 8, 18);
        assert_eq!(offset_of!(InitiateContact, interrupt_page_or_target) + 8, 16);
        assert_eq!(offset_of!(InitiateContact, child_to_parent_monitor) + 8, 32);
        assert_eq!(offset_of!(VersionResponse, message_connection) + 8, 12);
        let target = MessageTarget {
            sint: 2,
            vtl: 1,
            feature_flags: 0x10,
        };
        assert_eq!(target.to_bits(), 0x10_0000_0102);
        assert_eq!(MessageTarget::from_bits(target.to_bits()), target);
    }
}
