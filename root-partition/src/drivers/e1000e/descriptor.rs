//! Entries of the rings, 16 bytes each (82574 datasheet, 7.1.4 and 7.2).

/// Bytes of a descriptor.
pub const DESCRIPTOR: usize = 16;
/// Bytes of memory that a descriptor has for its frame or a part of it.
pub const PART: usize = 2048;

/// What the card says of a received part: the upper half of a legacy receive descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    length_and_checksum: u32,
    state: u32,
}

impl Received {
    /// The third and fourth word of a descriptor.
    pub const fn new(length_and_checksum: u32, state: u32) -> Self {
        Self {
            length_and_checksum,
            state,
        }
    }

    /// Whether the fourth word of a descriptor says that the card is done with it.
    pub const fn is_done(state: u32) -> bool {
        state & 1 != 0
    }

    /// Bytes of the part, as the card says.
    pub const fn length(self) -> usize {
        (self.length_and_checksum & 0xffff) as usize
    }

    /// Whether it is the last part of its frame.
    pub const fn is_last(self) -> bool {
        self.state & 2 != 0
    }

    /// Whether the frame is damaged (CRC, symbol, sequence, carrier, or data errors).
    pub const fn is_damaged(self) -> bool {
        self.state >> 8 & 0b1001_0111 != 0
    }

    /// Whether the card checked the checksum of TCP or UDP, and it is right.
    pub const fn transport_is_right(self) -> bool {
        let (checked, ignore) = (self.state & (1 << 5 | 1 << 4) != 0, self.state & 1 << 2 != 0);
        checked && !ignore && self.state >> 8 & 1 << 5 == 0
    }

    /// Whether the card checked the checksum of the IPv4 header, and it is right.
    pub const fn ip_is_right(self) -> bool {
        let (checked, ignore) = (self.state & 1 << 6 != 0, self.state & 1 << 2 != 0);
        checked && !ignore && self.state >> 8 & 1 << 6 == 0
    }
}

const EXTENDED: u32 = 1 << 29;
const REPORT: u32 = 1 << 27;
const SEGMENT: u32 = 1 << 26;
const WIRE_CHECKSUM: u32 = 1 << 25;
const LAST: u32 = 1 << 24;
const TYPE_DATA: u32 = 1 << 20;

/// What the card is to do with a frame: the words of a context descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// Where the IP header begins.
    pub ip: usize,
    /// It is version 6.
    pub ipv6: bool,
    /// Where the TCP or UDP header begins.
    pub transport: usize,
    /// Where its checksum is.
    pub checksum: usize,
    /// It is TCP.
    pub tcp: bool,
    /// Cut into segments: bytes of headers, bytes of data, data bytes of a segment.
    pub segments: Option<(usize, usize, usize)>,
}

impl Context {
    /// As a descriptor: two 64-bit words.
    pub fn words(&self) -> [u64; 2] {
        let (ip, transport) = (self.ip as u64, self.transport as u64);
        let first = ip
            | (ip + 10) << 8
            | transport.saturating_sub(1) << 16
            | transport << 32
            | (self.checksum as u64) << 40;
        let mut command = u64::from(EXTENDED) | u64::from(self.tcp) << 24 | u64::from(!self.ipv6) << 25;
        if let Some((headers, data, mss)) = self.segments {
            command |= u64::from(SEGMENT) | (data as u64 & 0xf_ffff);
            command |= (headers as u64 & 0xff) << 40 | (mss as u64 & 0xffff) << 48;
        }
        [first, command]
    }
}

/// The second 64-bit word of a data descriptor for `length` bytes, the last of its frame or not.
pub const fn data(length: usize, last: bool, offload: Offload) -> u64 {
    let mut command = EXTENDED | TYPE_DATA | WIRE_CHECKSUM | length as u32 & 0xf_ffff;
    if last {
        command |= LAST | REPORT;
    }
    if matches!(offload, Offload::Segments { .. }) {
        command |= SEGMENT;
    }
    let options = match offload {
        Offload::None => 0,
        Offload::Checksum | Offload::Segments { ipv6: true } => 2,
        Offload::Segments { ipv6: false } => 3,
    };
    command as u64 | options << 40
}

/// What a data descriptor has the card do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offload {
    /// Nothing.
    None,
    /// Fill in the checksum of TCP or UDP.
    Checksum,
    /// Cut, and fill in all checksums.
    Segments {
        /// The packet has no checksum of its IP header.
        ipv6: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_received_part_says_its_length_end_and_checksums() {
        let whole = Received::new(0xabcd_05ea, 0x0000_0063);
        assert_eq!((whole.length(), whole.is_last()), (1514, true));
        assert!(whole.ip_is_right() && whole.transport_is_right() && !whole.is_damaged());
        let wrong = Received::new(60, 0x0000_2063);
        assert!(wrong.ip_is_right() && !wrong.transport_is_right() && !wrong.is_damaged());
        assert!(!Received::new(60, 0x67).transport_is_right());
        assert!(Received::new(60, 0x0000_0103).is_damaged());
        assert!(!Received::is_done(2));
    }

    #[test]
    fn fields_of_a_context_lie_where_the_datasheet_has_them() {
        let context = Context {
            ip: 14,
            ipv6: false,
            transport: 34,
            checksum: 50,
            tcp: true,
            segments: Some((54, 5000, 1460)),
        };
        assert_eq!(context.words(), [0x0000_3222_0021_180e, 0x05b4_3600_2700_1388]);
        assert_eq!(data(1514, true, Offload::Checksum), 0x0000_0200_2b10_05ea);
        assert_eq!(
            data(2048, false, Offload::Segments { ipv6: false }),
            0x0000_0300_2610_0800
        );
    }
}
