//! GUIDs on the wire, and the classes of devices.

use core::fmt;
use uuid::{Uuid, uuid};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A GUID as it stands in a message: the first three fields little endian.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct WireGuid(pub [u8; 16]);

impl From<Uuid> for WireGuid {
    fn from(uuid: Uuid) -> Self {
        Self(uuid.to_bytes_le())
    }
}

impl From<WireGuid> for Uuid {
    fn from(guid: WireGuid) -> Self {
        Uuid::from_bytes_le(guid.0)
    }
}

impl fmt::Debug for WireGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Uuid::from(*self), f)
    }
}

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $guid:literal, $text:literal;)*) => {
        /// What devices there are (`if_type` of an offer).
        pub mod class {
            use super::*;

            $($(#[$doc])* pub const $name: Uuid = uuid!($guid);)*
        }

        /// What a person calls devices of `class`.
        pub fn class_name(class: Uuid) -> Option<&'static str> {
            match class {
                $(class::$name => Some($text),)*
                _ => None,
            }
        }
    };
}

classes! {
    /// Network card.
    NETWORK = "f8615163-df3e-46c5-913f-f2d2f965ed0e", "network";
    /// IDE disk.
    IDE = "32412632-86cb-44a2-9b5c-50d1417354f5", "ide";
    /// SCSI controller.
    SCSI = "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f", "scsi";
    /// Synthetic fibre channel.
    FIBRE_CHANNEL = "2f9bcc4a-0069-4af3-b76b-6fd0be528cda", "fibre-channel";
    /// Keyboard.
    KEYBOARD = "f912ad6d-2b17-48ea-bd65-f927a61c7684", "keyboard";
    /// Mouse.
    MOUSE = "cfa8b69e-5b4a-4cc0-b98b-8ba1a1f3f95a", "mouse";
    /// Video.
    VIDEO = "da0a7802-e377-4aac-8e77-0558eb1073f8", "video";
    /// Integration component: heartbeat.
    HEARTBEAT = "57164f39-9115-4e78-ab55-382f3bd5422d", "heartbeat";
    /// Integration component: shutdown.
    SHUTDOWN = "0e0b6031-5213-4934-818b-38d90ced39db", "shutdown";
    /// Integration component: time.
    TIME_SYNC = "9527e630-d0ae-497b-adce-e80ab0175caf", "timesync";
    /// Integration component: keys and values.
    KEY_VALUE_PAIR = "a9a0f4e7-5a45-4d96-b827-8a841e8c03e6", "kvp";
    /// Integration component: freezing of file systems.
    VOLUME_SHADOW_COPY = "35fa2e29-ea23-4236-96ae-3a6ebacba440", "vss";
    /// Integration component: copying of files.
    FILE_COPY = "34d14be3-dee4-41c8-9ae7-6b174977c192", "fcopy";
    /// Dynamic memory.
    DYNAMIC_MEMORY = "525074dc-8985-46e2-8057-a307dc18a502", "balloon";
    /// Virtual PCI bus.
    PCI = "44c4f61d-4444-4400-9d52-802e27ede19f", "pci";
    /// Network direct (RDMA).
    NETWORK_DIRECT = "8c2eaf3d-32a7-4b09-ab99-bd1f1c86b501", "network-direct";
    /// Activation of virtual machines; guests leave it alone.
    ACTIVATION_1 = "f8e65716-3cb3-4a06-9a60-1889c5cccab5", "activation";
    /// The same, second form.
    ACTIVATION_2 = "3375baf4-9e15-4b30-b765-67acb10d607b", "activation-2";
    /// Remote desktop control; guests leave it alone.
    REMOTE_CONTROL = "276aacf4-ac15-426c-98dd-7521ad3f01fe", "remote-control";
    /// Configuration of the mouse; guests leave it alone.
    MOUSE_CONFIGURATION = "c376c1c3-d276-48d2-90a9-c04748072c60", "mouse-configuration";
    /// Partita's own: what is sent comes back.
    ECHO = "5b7dc2f0-7a1e-4c6e-9d0a-3f2a41c9e8b1", "echo";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_fields_are_little_endian() {
        let wire = WireGuid::from(class::SCSI);
        assert_eq!(wire.0[..8], [0xd9, 0x63, 0x61, 0xba, 0xa1, 0x04, 0x29, 0x4d]);
        assert_eq!(wire.0[8..10], [0xb6, 0x05]);
        assert_eq!(Uuid::from(wire), class::SCSI);
        assert_eq!(class_name(class::SCSI), Some("scsi"));
        assert_eq!(class_name(Uuid::nil()), None);
    }
}
