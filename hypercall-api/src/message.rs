//! SynIC messages (TLFS, "Inter-Partition Communication").

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

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
    /// A GPA without a mapping was accessed.
    pub const UNMAPPED_GPA: Self = Self(0x8000_0000);
    /// A GPA was accessed in a way that its mapping does not allow.
    pub const GPA_INTERCEPT: Self = Self(0x8000_0001);
    /// Synthetic timer expiry.
    pub const TIMER_EXPIRED: Self = Self(0x8000_0010);
    /// The VP's registers are a state that the processor refuses.
    pub const INVALID_VP_REGISTER_VALUE: Self = Self(0x8000_0020);
    /// A triple fault.
    pub const UNRECOVERABLE_EXCEPTION: Self = Self(0x8000_0021);
    /// Something that the hypervisor does not support.
    pub const UNSUPPORTED_FEATURE: Self = Self(0x8000_0022);
    /// An intercept whose message is in the VP's intercept message page.
    pub const OPAQUE_INTERCEPT: Self = Self(0x8000_003f);
    /// A hypercall that the hypervisor does not handle.
    pub const HYPERCALL_INTERCEPT: Self = Self(0x8000_0050);
    /// A SINT can take a message.
    pub const SYNIC_SINT_DELIVERABLE: Self = Self(0x8000_0062);
    /// A call that was pending has ended.
    pub const ASYNC_CALL_COMPLETION: Self = Self(0x8000_0070);
    /// An I/O port was accessed.
    pub const IO_PORT_INTERCEPT: Self = Self(0x8001_0000);
    /// An MSR was accessed.
    pub const MSR_INTERCEPT: Self = Self(0x8001_0001);
    /// CPUID was executed.
    pub const CPUID_INTERCEPT: Self = Self(0x8001_0002);
    /// An exception was raised.
    pub const EXCEPTION_INTERCEPT: Self = Self(0x8001_0003);
    /// A level-triggered interrupt was ended.
    pub const APIC_EOI: Self = Self(0x8001_0004);
    /// HLT was executed.
    pub const HALT: Self = Self(0x8001_0007);
    /// An interrupt can be delivered.
    pub const INTERRUPTION_DELIVERABLE: Self = Self(0x8001_0008);
    /// SIPI was sent.
    pub const SIPI_INTERCEPT: Self = Self(0x8001_0009);

    /// Partita's own, to the root: devices have tried what they may not; `HvCallPartitaQueryIommu` says what. No payload, and none
    /// more until it has been asked.
    pub const PARTITA_DMA_FAULT: Self = Self(0x8000_7f00);

    /// Whether it is the hypervisor's own; partitions may send other types only.
    pub const fn is_hypervisor(self) -> bool {
        self.0 & 1 << 31 != 0
    }
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

impl Message {
    /// A message of `message_type` from `origin`; what of `payload` is longer than [`MESSAGE_PAYLOAD`] is left out.
    pub fn new(message_type: MessageType, origin: u64, payload: &[u8]) -> Self {
        let length = payload.len().min(MESSAGE_PAYLOAD);
        let mut message = Self::new_zeroed();
        message.message_type = message_type;
        message.payload_size = length as u8;
        message.origin = origin;
        message.payload[..length].copy_from_slice(&payload[..length]);
        message
    }

    /// The payload as a `T`, `None` where `payload_size` is too small for it.
    pub fn payload_as<T: FromBytes>(&self) -> Option<T> {
        let size = (self.payload_size as usize).min(MESSAGE_PAYLOAD);
        T::read_from_prefix(&self.payload[..size])
            .ok()
            .map(|(value, _)| value)
    }
}

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
