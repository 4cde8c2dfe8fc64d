//! SynIC messages (TLFS, "Inter-Partition Communication").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of payload that a message can carry.
pub const MESSAGE_PAYLOAD: usize = 240;
/// SINTs, message slots and event flag areas of a VP.
pub const SINT_COUNT: usize = 16;
/// Event flags of a SINT.
pub const EVENT_FLAGS: usize = 2048;

/// Type of a message. Zero marks an empty slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct MessageType(pub u32);

impl MessageType {
    /// The slot is empty.
    pub const NONE: Self = Self(0);
    /// Synthetic timer expiry.
    pub const TIMER_EXPIRED: Self = Self(0x8000_0010);
}

/// One slot of the SynIC message page.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Message {
    /// What the payload is.
    pub message_type: MessageType,
    /// Bytes of `payload` that count.
    pub payload_size: u8,
    /// Bit 0: another message waits for this slot; write EOM once it is free.
    pub flags: u8,
    /// Reserved.
    pub reserved: u16,
    /// Port or partition that sent it.
    pub origin: u64,
    /// The message itself.
    pub payload: [u8; MESSAGE_PAYLOAD],
}
const _: () = assert!(size_of::<Message>() == 256);

/// [`Message::flags`]: another message waits.
pub const MESSAGE_PENDING: u8 = 1;

/// Payload of [`MessageType::TIMER_EXPIRED`].
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TimerMessage {
    /// Which timer, 0 to 3.
    pub timer_index: u32,
    /// Reserved.
    pub reserved: u32,
    /// When it was to expire, in 100 ns of reference time.
    pub expiration_time: u64,
    /// When the message was delivered, in 100 ns of reference time.
    pub delivery_time: u64,
}
const _: () = assert!(size_of::<TimerMessage>() == 24);
