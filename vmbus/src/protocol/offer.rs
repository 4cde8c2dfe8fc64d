//! What a host offers.

use super::guid::WireGuid;
use super::id::Relid;
use bitflags::bitflags;
use hypercall_api::port::ConnectionId;
use uuid::Uuid;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of an offer that its device class gives a meaning to.
pub const USER_DEFINED: usize = 120;

bitflags! {
    /// Properties of an offer (`chn_flags`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct OfferFlags: u16 {
        /// Programs of the guest may see it.
        const ENUMERATE_DEVICE_INTERFACE = 1 << 0;
        /// The rings may be memory that the host cannot see.
        const CONFIDENTIAL_RING_BUFFER = 1 << 1;
        /// So may other buffers.
        const CONFIDENTIAL_EXTERNAL_MEMORY = 1 << 2;
        /// The packets are messages of a pipe.
        const NAMED_PIPE_MODE = 1 << 4;
        /// Loops back.
        const LOOPBACK = 1 << 8;
        /// Offered by a parent.
        const PARENT_OFFER = 1 << 9;
        /// Signals may be delayed by monitoring.
        const REQUEST_MONITORED_NOTIFICATION = 1 << 10;
        /// A socket.
        const TLNPI_PROVIDER = 1 << 13;
    }
}

/// Body of `OFFERCHANNEL`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OfferChannel {
    /// Class of the device.
    pub class: WireGuid,
    /// Which of its class.
    pub instance: WireGuid,
    /// Reserved.
    pub reserved: [U64; 2],
    /// [`OfferFlags`].
    pub flags: u16,
    /// MMIO space that it needs, in MiB.
    pub mmio_megabytes: u16,
    /// Of the class.
    pub user_defined: [u8; USER_DEFINED],
    /// 0: the device's first channel; others belong to it.
    pub sub_channel_index: u16,
    /// Reserved.
    pub reserved2: u16,
    /// The channel's name, and its interrupt's event flag.
    pub relid: Relid,
    /// Monitor, if it has one.
    pub monitor_id: u8,
    /// Bit 0: it has a monitor.
    pub monitor_allocated: u8,
    /// Bit 0: the guest signals by `connection` alone; otherwise by the shared interrupt page too.
    pub dedicated_interrupt: u16,
    /// Where the guest signals.
    pub connection: ConnectionId,
}
const _: () = assert!(size_of::<OfferChannel>() == 196 - 8);

/// What a device is to a guest, apart from the numbers that a bus gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Class of the device.
    pub class: Uuid,
    /// Which of its class.
    pub instance: Uuid,
    /// 0: the device's first channel; others belong to it.
    pub sub_channel_index: u16,
    /// Properties.
    pub flags: OfferFlags,
    /// MMIO space that it needs, in MiB.
    pub mmio_megabytes: u16,
    /// Of the class.
    pub user_defined: [u8; USER_DEFINED],
}

impl Offer {
    /// A device without peculiarities.
    pub const fn new(class: Uuid, instance: Uuid) -> Self {
        Self {
            class,
            instance,
            sub_channel_index: 0,
            flags: OfferFlags::ENUMERATE_DEVICE_INTERFACE,
            mmio_megabytes: 0,
            user_defined: [0; USER_DEFINED],
        }
    }

    /// A device whose packets are messages of a pipe, each with a header of its own in the ring.
    pub fn pipe(class: Uuid, instance: Uuid) -> Self {
        let mut offer = Self::new(class, instance);
        offer.flags |= OfferFlags::NAMED_PIPE_MODE;
        offer.user_defined[..4].copy_from_slice(&PIPE_MODE_MESSAGE.to_le_bytes());
        offer
    }

    /// The sub-channel `index` of the same device.
    pub fn sub_channel(&self, index: u16) -> Self {
        Self {
            sub_channel_index: index,
            ..self.clone()
        }
    }

    /// Whether it is made for one connection of the guest, and is not offered to the next: sub-channels and sockets are.
    pub const fn ends_with_connection(&self) -> bool {
        self.sub_channel_index != 0 || self.flags.contains(OfferFlags::TLNPI_PROVIDER)
    }

    /// As it goes to the guest.
    pub fn to_wire(&self, relid: Relid, connection: ConnectionId) -> OfferChannel {
        OfferChannel {
            class: self.class.into(),
            instance: self.instance.into(),
            reserved: [U64::ZERO; 2],
            flags: self.flags.bits(),
            mmio_megabytes: self.mmio_megabytes,
            user_defined: self.user_defined,
            sub_channel_index: self.sub_channel_index,
            reserved2: 0,
            relid,
            monitor_id: 0,
            monitor_allocated: 0,
            dedicated_interrupt: 1,
            connection,
        }
    }

    /// From what a host has sent.
    pub fn from_wire(wire: &OfferChannel) -> Self {
        Self {
            class: wire.class.into(),
            instance: wire.instance.into(),
            sub_channel_index: wire.sub_channel_index,
            flags: OfferFlags::from_bits_retain(wire.flags),
            mmio_megabytes: wire.mmio_megabytes,
            user_defined: wire.user_defined,
        }
    }
}

/// `pipe_mode` of a pipe of messages, the first field of [`Offer::user_defined`] of a pipe.
pub const PIPE_MODE_MESSAGE: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::guid::class;
    use core::mem::offset_of;

    #[test]
    fn fields_are_where_linux_reads_them() {
        let offsets = [
            (offset_of!(OfferChannel, instance), 24),
            (offset_of!(OfferChannel, flags), 56),
            (offset_of!(OfferChannel, user_defined), 60),
            (offset_of!(OfferChannel, sub_channel_index), 180),
            (offset_of!(OfferChannel, relid), 184),
            (offset_of!(OfferChannel, monitor_allocated), 189),
            (offset_of!(OfferChannel, dedicated_interrupt), 190),
            (offset_of!(OfferChannel, connection), 192),
        ];
        for (body, message) in offsets {
            assert_eq!(body + 8, message);
        }
    }

    #[test]
    fn an_offer_survives_the_wire() {
        let offer = Offer::pipe(class::ECHO, Uuid::from_u128(7)).sub_channel(3);
        let wire = offer.to_wire(Relid(5), ConnectionId(0x2005));
        assert_eq!(Offer::from_wire(&wire), offer);
    }
}
