//! The card's registers (82574 datasheet, 10).

/// Bytes of the window that are used.
pub const WINDOW: u64 = 0x5800;

/// Device control.
pub const CTRL: u64 = 0x0000;
/// Device status.
pub const STATUS: u64 = 0x0008;
/// Extended device control.
pub const CTRL_EXT: u64 = 0x0018;
/// Causes of the interrupt; reading clears them.
pub const ICR: u64 = 0x00c0;
/// Raises causes.
pub const ICS: u64 = 0x00c8;
/// Turns causes on.
pub const IMS: u64 = 0x00d0;
/// Turns causes off.
pub const IMC: u64 = 0x00d8;
/// Receive control.
pub const RCTL: u64 = 0x0100;
/// Transmit control.
pub const TCTL: u64 = 0x0400;
/// Gaps between frames.
pub const TIPG: u64 = 0x0410;
/// Receive ring: address (64 bits), bytes, head, tail.
pub const RDBA: u64 = 0x2800;
/// Bytes of the receive ring.
pub const RDLEN: u64 = 0x2808;
/// The descriptor that the card fills next.
pub const RDH: u64 = 0x2810;
/// The first descriptor that the card may not fill.
pub const RDT: u64 = 0x2818;
/// Transmit ring: address (64 bits).
pub const TDBA: u64 = 0x3800;
/// Bytes of the transmit ring.
pub const TDLEN: u64 = 0x3808;
/// The descriptor that the card sends next.
pub const TDH: u64 = 0x3810;
/// The first descriptor that the card may not send.
pub const TDT: u64 = 0x3818;
/// When the card fetches and writes back transmit descriptors.
pub const TXDCTL: u64 = 0x3828;
/// Frames with a bad checksum of the wire. Reading clears this counter and the following ones.
pub const CRCERRS: u64 = 0x4000;
/// Frames with other errors of the wire.
pub const RXERRC: u64 = 0x400c;
/// Frames for which there was no room.
pub const MPC: u64 = 0x4010;
/// Checksums of received frames.
pub const RXCSUM: u64 = 0x5000;
/// Hash table of multicast addresses.
pub const MTA: u64 = 0x5200;
/// Words of [`MTA`].
pub const MTA_WORDS: u64 = 128;
/// The card's own address: 32 bits, then 16 with a bit that says whether it holds.
pub const RAL: u64 = 0x5400;
/// The second part.
pub const RAH: u64 = 0x5404;

/// What a register of a device that is gone reads.
pub const NOTHING_THERE: u32 = u32::MAX;

/// [`CTRL`]: link up.
pub const CTRL_SET_LINK_UP: u32 = 1 << 6;
/// [`CTRL`]: find out the speed.
pub const CTRL_AUTO_SPEED: u32 = 1 << 5;
/// [`CTRL`]: full duplex.
pub const CTRL_FULL_DUPLEX: u32 = 1;
/// [`CTRL`]: reset.
pub const CTRL_RESET: u32 = 1 << 26;
/// [`CTRL_EXT`]: a driver has the card.
pub const CTRL_EXT_DRIVER: u32 = 1 << 28;

/// [`ICR`]: the link has changed.
pub const CAUSE_LINK: u32 = 1 << 2;
/// [`ICR`]: few receive descriptors are left.
pub const CAUSE_RX_LOW: u32 = 1 << 4;
/// [`ICR`]: no receive descriptor was left.
pub const CAUSE_RX_OVERRUN: u32 = 1 << 6;
/// [`ICR`]: frames were received.
pub const CAUSE_RX: u32 = 1 << 7;
/// All causes that the driver wants.
pub const CAUSES: u32 = CAUSE_LINK | CAUSE_RX_LOW | CAUSE_RX_OVERRUN | CAUSE_RX;

/// [`RCTL`]: on, all addresses (there are others behind a switch), long frames, broadcast, without the wire's checksum; buffers
/// of 2048 bytes.
pub const RCTL_ON: u32 = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 15 | 1 << 26;
/// [`TCTL`]: on, short frames padded; collision threshold and distance as the datasheet has them for full duplex; several
/// requests to memory at a time.
pub const TCTL_ON: u32 = 1 << 1 | 1 << 3 | 0xf << 4 | 0x3f << 12 | 1 << 28;
/// [`TIPG`]: 8, 8 and 6, as the datasheet recommends.
pub const TIPG_COPPER: u32 = 8 | 8 << 10 | 6 << 20;
/// [`TXDCTL`]: write back each descriptor that asks for it; thresholds count descriptors; bit 22 must be set.
pub const TXDCTL_EACH: u32 = 1 << 24 | 1 << 22 | 1 << 16;
/// [`RXCSUM`]: check IP, TCP and UDP.
pub const RXCSUM_ON: u32 = 1 << 8 | 1 << 9;

/// The register [`STATUS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status(pub u32);

impl Status {
    /// Whether the device no longer answers.
    pub const fn is_gone(self) -> bool {
        self.0 == NOTHING_THERE
    }

    /// Whether there is a link.
    pub const fn link_up(self) -> bool {
        self.0 & 2 != 0 && !self.is_gone()
    }

    /// Megabits a second of the link.
    pub const fn speed(self) -> u32 {
        match self.0 >> 6 & 3 {
            0 => 10,
            1 => 100,
            _ => 1000,
        }
    }
}
