//! Work on frames that is left to the host, or was done by it: checksums and segmentation.

use super::error::NetworkError;
use vmbus::protocol::network::ETHERNET_HEADER;
use vmbus::protocol::network::offload::{
    Checksum4, Checksum6, ENCAPSULATION_ETHERNET, OBJECT_DEFAULT, OBJECT_OFFLOAD, Offload, OffloadParameters,
    Setting,
};
use vmbus::protocol::network::packet_info::{LargeSend, ReceiveChecksum, SendChecksum};
use zerocopy::{FromZeros, IntoBytes};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// TCP's flag of packets that begin a connection.
const SYN: u8 = 2;
const OPTION_END: u8 = 0;
const OPTION_NONE: u8 = 1;
const OPTION_SEGMENT_SIZE: u8 = 2;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];

/// Work that was agreed on, each for both directions and both versions of IP unless it says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offloads {
    /// The checksums of IPv4 headers.
    pub ip_checksums: bool,
    /// Those of TCP.
    pub tcp_checksums: bool,
    /// Those of UDP.
    pub udp_checksums: bool,
    /// Bytes of an IPv4 frame at most that is cut into segments while sending; 0: none are.
    pub large_4: u32,
    /// The same of IPv6.
    pub large_6: u32,
    /// Large frames come whole, and segments of one flow may be joined by the host.
    pub coalesced: bool,
}

impl Offloads {
    /// What a host says that it can do; a shorter form leaves the rest out. `takes_fragments`: large frames may come in pieces.
    pub(super) fn read(value: &[u8], takes_fragments: bool) -> Option<Self> {
        if value.len() < Offload::SIZE_6_0 {
            return None;
        }
        let mut said = Offload::new_zeroed();
        let to = said.as_mut_bytes().iter_mut();
        to.zip(value).for_each(|(to, from)| *to = *from);
        if said.header.object_type != OBJECT_OFFLOAD {
            return None;
        }
        let checksum = &said.checksum;
        let four = Checksum4::from_bits_truncate(checksum.send_4 & checksum.receive_4);
        let six = Checksum6::from_bits_truncate(checksum.send_6 & checksum.receive_6);
        let large = &said.large_send;
        let most = |encapsulation: u32, most| match encapsulation & ENCAPSULATION_ETHERNET {
            0 => 0,
            _ => most,
        };
        Some(Self {
            ip_checksums: four.contains(Checksum4::IP),
            tcp_checksums: four.contains(Checksum4::TCP) && six.contains(Checksum6::TCP),
            udp_checksums: four.contains(Checksum4::UDP) && six.contains(Checksum6::UDP),
            large_4: most(large.encapsulation_4, large.max_size_4),
            large_6: most(large.encapsulation_6, large.max_size_6),
            coalesced: takes_fragments && said.coalesce_4 != 0 && said.coalesce_6 != 0,
        })
    }

    /// What the host is to switch on.
    pub(super) fn parameters(&self, size: usize) -> OffloadParameters {
        let checksum = |on| match on {
            true => Setting::BOTH_ENABLED,
            false => Setting::DISABLED,
        };
        let other = |on| match on {
            true => Setting::ENABLED,
            false => Setting::DISABLED,
        };
        let mut parameters = OffloadParameters::new_zeroed();
        parameters.header.object_type = OBJECT_DEFAULT;
        parameters.header.revision = if size == size_of::<OffloadParameters>() {
            3
        } else {
            1
        };
        parameters.header.size = size as u16;
        parameters.ip_checksum = checksum(self.ip_checksums);
        parameters.tcp_4_checksum = checksum(self.tcp_checksums);
        parameters.tcp_6_checksum = checksum(self.tcp_checksums);
        parameters.udp_4_checksum = checksum(self.udp_checksums);
        parameters.udp_6_checksum = checksum(self.udp_checksums);
        parameters.large_send_4 = other(self.large_4 != 0);
        parameters.large_send_6 = other(self.large_6 != 0);
        parameters.coalesce_4 = other(self.coalesced);
        parameters.coalesce_6 = other(self.coalesced);
        parameters
    }
}

/// What goes beside a frame, and what is left to be done to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Beside {
    /// Its VLAN tag: priority and VLAN, as in a tagged frame.
    pub tag: Option<u16>,
    /// The checksums of IPv4, TCP and UDP are to be filled in: by the host, or by the driver where the host does not.
    pub fill_checksums: bool,
    /// If it is a TCP packet larger than the MTU, it is to be cut into segments. Checksums are filled in then, too.
    pub cut: bool,
}

/// What the host has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Work {
    pub(super) checksum: Option<SendChecksum>,
    pub(super) large: Option<LargeSend>,
}

/// Where the headers of an IP packet are in its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Layout {
    ipv6: bool,
    ip: usize,
    transport: usize,
    /// Where the packet ends.
    end: usize,
    /// `None` for fragments.
    protocol: Option<u8>,
}

impl Layout {
    #[inline]
    fn read(frame: &[u8]) -> Option<Self> {
        let ethertype = |at: usize| frame.get(at..)?.first_chunk::<2>().copied();
        let (kind, ip) = match ethertype(12)? {
            ETHERTYPE_VLAN => (ethertype(16)?, ETHERNET_HEADER + 4),
            kind => (kind, ETHERNET_HEADER),
        };
        let packet = frame.get(ip..)?;
        let word = |at: usize| Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?));
        match kind {
            ETHERTYPE_IPV4 => {
                let header = packet.first_chunk::<20>()?;
                let length = usize::from(header[0] & 0xf) * 4;
                let fragment = word(6)? & 0x3fff != 0;
                (length >= 20 && length <= packet.len()).then_some(Self {
                    ipv6: false,
                    ip,
                    transport: ip + length,
                    end: ip + usize::from(word(2)?),
                    protocol: (!fragment).then_some(header[9]),
                })
            }
            ETHERTYPE_IPV6 => {
                let header = packet.first_chunk::<40>()?;
                Some(Self {
                    ipv6: true,
                    ip,
                    transport: ip + 40,
                    end: ip + 40 + usize::from(word(4)?),
                    protocol: Some(header[6]),
                })
            }
            _ => None,
        }
    }

    /// Where the checksum of TCP or UDP is.
    fn checksum(&self) -> Option<usize> {
        match self.protocol? {
            TCP => Some(self.transport + 16),
            UDP => Some(self.transport + 6),
            _ => None,
        }
    }

    /// The sum of the pseudo header of a packet with `length` bytes behind the IP header.
    #[inline]
    fn pseudo(&self, frame: &[u8], length: usize) -> u64 {
        let addresses = match self.ipv6 {
            true => self.ip + 8..self.ip + 40,
            false => self.ip + 12..self.ip + 20,
        };
        let addresses = frame.get(addresses).map_or(0, sum);
        let words = [
            u16::from(self.protocol.unwrap_or(0)),
            (length >> 16) as u16,
            length as u16,
        ];
        addresses + words.map(|word| u64::from(word.to_be())).iter().sum::<u64>()
    }
}

/// The sum of 16-bit words as the processor reads them; a last odd byte counts as if a zero followed.
#[inline]
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let words = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word)));
    let mut last = [0; 4];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    words.sum::<u64>() + u64::from(u32::from_ne_bytes(last))
}

/// A sum as 16 bits, in the order of the wire.
const fn fold(mut sum: u64) -> [u8; 2] {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum as u16).to_ne_bytes()
}

fn put(frame: &mut [u8], at: usize, value: [u8; 2]) -> Option<()> {
    *frame.get_mut(at..)?.first_chunk_mut()? = value;
    Some(())
}

const fn inverted([a, b]: [u8; 2]) -> [u8; 2] {
    [!a, !b]
}

/// Makes a frame ready for a host with `offloads`, and says what is left for the host to do.
#[inline]
pub(super) fn prepare(
    frame: &mut [u8],
    beside: &Beside,
    offloads: &Offloads,
    mtu: usize,
) -> Result<Work, NetworkError> {
    let size = NetworkError::FrameSize(frame.len());
    if frame.len() > mtu + ETHERNET_HEADER {
        if beside.cut {
            return cut(frame, offloads, mtu).ok_or(size);
        }
        // A tag in the frame does not count.
        if frame.len() > mtu + ETHERNET_HEADER + 4 || frame.get(12..14) != Some(&ETHERTYPE_VLAN) {
            return Err(size);
        }
    }
    if frame.len() < ETHERNET_HEADER {
        return Err(size);
    }
    if !beside.fill_checksums {
        return Ok(Work::default());
    }
    Ok(fill(frame, offloads).unwrap_or_default())
}

/// A TCP packet that the host cuts: lengths and checksums are zero, but for the pseudo header, whose length is zero.
fn cut(frame: &mut [u8], offloads: &Offloads, mtu: usize) -> Option<Work> {
    let layout = Layout::read(frame).filter(|layout| layout.protocol == Some(TCP))?;
    let most = if layout.ipv6 {
        offloads.large_6
    } else {
        offloads.large_4
    };
    if frame.len() > most as usize {
        return None;
    }
    let header = usize::from(frame.get(layout.transport + 12)? >> 4) * 4;
    let headers = layout.transport + header.max(20) - layout.ip;
    let mss = mtu.checked_sub(headers).filter(|mss| *mss > 0)?;
    let pseudo = layout.pseudo(frame, 0);
    put(frame, layout.transport + 16, fold(pseudo))?;
    if layout.ipv6 {
        put(frame, layout.ip + 4, [0; 2])?;
    } else {
        put(frame, layout.ip + 2, [0; 2])?;
        put(frame, layout.ip + 10, [0; 2])?;
    }
    let large = LargeSend::new(mss as u32, layout.transport as u16, layout.ipv6);
    Some(Work {
        checksum: None,
        large: Some(large),
    })
}

/// Fills in checksums, or what the host wants in their place.
#[inline]
fn fill(frame: &mut [u8], offloads: &Offloads) -> Option<Work> {
    let layout = Layout::read(frame)?;
    let mut flags = if layout.ipv6 {
        SendChecksum::IPV6
    } else {
        SendChecksum::IPV4
    };
    if !layout.ipv6 {
        put(frame, layout.ip + 10, [0; 2])?;
        if offloads.ip_checksums {
            flags |= SendChecksum::IP_HEADER;
        } else {
            let header = inverted(fold(sum(frame.get(layout.ip..layout.transport)?)));
            put(frame, layout.ip + 10, header)?;
        }
    }
    // A datagram of IPv4 without a checksum is complete.
    if let Some(at) = layout.checksum().filter(|_| layout.end <= frame.len()) {
        let pseudo = layout.pseudo(frame, layout.end.saturating_sub(layout.transport));
        let (offloaded, flag) = match layout.protocol {
            Some(TCP) => (offloads.tcp_checksums, SendChecksum::TCP),
            _ => (offloads.udp_checksums, SendChecksum::UDP),
        };
        if offloaded {
            put(frame, at, fold(pseudo))?;
            flags |= flag;
        } else {
            put(frame, at, [0; 2])?;
            let whole = inverted(fold(pseudo + sum(frame.get(layout.transport..layout.end)?)));
            let none = whole == [0; 2] && layout.protocol == Some(UDP);
            put(frame, at, if none { [0xff; 2] } else { whole })?;
        }
    }
    let work = flags & !(SendChecksum::IPV4 | SendChecksum::IPV6) != 0;
    Some(Work {
        checksum: work.then(|| SendChecksum::new(flags, layout.transport as u16)),
        large: None,
    })
}

/// The largest segment that the sender of a TCP packet says that it takes, if the packet begins a connection; `change` may say another.
/// The packet's checksum is not looked after.
#[inline]
pub(super) fn change_segment_size(frame: &mut [u8], change: impl FnOnce(u16, bool) -> u16) -> Option<()> {
    let layout = Layout::read(frame).filter(|layout| layout.protocol == Some(TCP))?;
    let header = frame.get(layout.transport..)?.first_chunk::<20>()?;
    if header[13] & SYN == 0 {
        return None;
    }
    let end = (layout.transport + usize::from(header[12] >> 4) * 4).min(frame.len());
    let mut at = layout.transport + 20;
    while at < end {
        match *frame.get(at)? {
            OPTION_END => break,
            OPTION_NONE => at += 1,
            OPTION_SEGMENT_SIZE => {
                let size = frame.get(at + 2..end)?.first_chunk()?;
                let size = change(u16::from_be_bytes(*size), layout.ipv6);
                return put(frame, at + 2, size.to_be_bytes());
            }
            _ => at += usize::from(*frame.get(at + 1)?).max(2),
        }
    }
    None
}

/// Whether the checksums of a received frame hold, or the host says so.
#[inline]
pub(super) fn holds(frame: &[u8], known: ReceiveChecksum) -> bool {
    if known.has(ReceiveChecksum::TCP_FAILED | ReceiveChecksum::UDP_FAILED | ReceiveChecksum::IP_FAILED) {
        return false;
    }
    let Some(layout) = Layout::read(frame) else {
        // No IP, which has nothing to check here.
        return true;
    };
    let ip = layout.ipv6
        || known.has(ReceiveChecksum::IP_SUCCEEDED)
        || frame
            .get(layout.ip..layout.transport)
            .is_some_and(|header| fold(sum(header)) == [0xff; 2]);
    let (succeeded, field) = match layout.protocol {
        Some(TCP) => (ReceiveChecksum::TCP_SUCCEEDED, layout.transport + 16),
        Some(UDP) => (ReceiveChecksum::UDP_SUCCEEDED, layout.transport + 6),
        _ => return ip,
    };
    if known.has(succeeded) {
        return ip;
    }
    let Some(packet) = frame.get(layout.transport..layout.end) else {
        return false;
    };
    let none = !layout.ipv6 && layout.protocol == Some(UDP) && frame.get(field..field + 2) == Some(&[0; 2]);
    ip && (none || fold(layout.pseudo(frame, packet.len()) + sum(packet)) == [0xff; 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const ALL: Offloads = Offloads {
        ip_checksums: true,
        tcp_checksums: true,
        udp_checksums: true,
        large_4: 60_000,
        large_6: 60_000,
        coalesced: true,
    };

    /// A TCP or UDP packet without checksums.
    fn packet(ipv6: bool, protocol: u8, data: &[u8]) -> Vec<u8> {
        let header = if protocol == TCP { 20 } else { 8 };
        let length = (header + data.len()) as u16;
        let mut bytes = vec![2; 12];
        if ipv6 {
            bytes.extend(ETHERTYPE_IPV6);
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend((0..32).map(|byte| byte * 7));
        } else {
            bytes.extend(ETHERTYPE_IPV4);
            bytes.extend([0x45, 0]);
            bytes.extend((length + 20).to_be_bytes());
            bytes.extend([0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        let mut transport = vec![0; header];
        (transport[0], transport[3]) = (0x12, 80);
        if protocol == TCP {
            transport[12] = 0x50;
        }
        bytes.extend(transport);
        bytes.extend(data);
        bytes
    }

    proptest! {
        #[test]
        fn checksums_that_are_filled_in_hold_and_no_other(
            ipv6: bool, tcp: bool, data in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, bit in 0..8_u8,
        ) {
            let mut frame = packet(ipv6, if tcp { TCP } else { UDP }, &data);
            let beside = Beside { fill_checksums: true, ..Beside::default() };
            let work = prepare(&mut frame, &beside, &Offloads::default(), 1500).unwrap();
            prop_assert_eq!(work, Work::default());
            prop_assert!(holds(&frame, ReceiveChecksum::default()));
            // Behind the transport header's first byte, nothing else says how to read it.
            let first = if ipv6 { 54 } else { 34 };
            let at = first + at.index(frame.len() - first);
            frame[at] ^= 1 << bit;
            let unsaid = frame[first + 6] == 0 && frame[first + 7] == 0 && !tcp && !ipv6;
            prop_assert_eq!(holds(&frame, ReceiveChecksum::default()), unsaid);
        }

        #[test]
        fn any_bytes_are_harmless(mut frame in prop::collection::vec(any::<u8>(), 0..200), kind in 0..3_usize, known: u32, cut: bool, mtu in 0..200_usize) {
            if let (Some(place), Some(kind)) = (frame.get_mut(12..14), [ETHERTYPE_IPV4, ETHERTYPE_IPV6].get(kind)) {
                place.copy_from_slice(kind);
            }
            holds(&frame, ReceiveChecksum(known));
            change_segment_size(&mut frame, |size, _| !size);
            for offloads in [ALL, Offloads::default()] {
                let _ = prepare(&mut frame, &Beside { tag: None, fill_checksums: true, cut }, &offloads, mtu);
            }
        }
    }

    #[test]
    fn what_is_left_to_the_host_has_the_pseudo_header_in_its_place() {
        for ipv6 in [false, true] {
            let mut frame = packet(ipv6, TCP, &[9; 33]);
            let beside = Beside {
                fill_checksums: true,
                ..Beside::default()
            };
            let checksum = prepare(&mut frame, &beside, &ALL, 1500)
                .unwrap()
                .checksum
                .unwrap();
            assert!(checksum.has(SendChecksum::TCP) && checksum.has(SendChecksum::IP_HEADER) != ipv6);
            let start = checksum.transport_offset();
            // Summed up as they are, the bytes give what is to be inverted.
            let whole = inverted(fold(sum(&frame[start..])));
            put(&mut frame, start + 16, whole).unwrap();
            assert!(holds(&frame, ReceiveChecksum(ReceiveChecksum::IP_SUCCEEDED)));
        }
    }

    #[test]
    fn the_segment_size_of_what_begins_a_connection_is_found_and_no_other() {
        for (ipv6, flags, options, found) in [
            (false, 2, &[2, 4, 5, 0xb4][..], Some(1460)),
            (true, 0x12, &[1, 1, 3, 3, 7, 4, 2, 2, 4, 5, 0xa0, 0], Some(1440)),
            (false, 0x10, &[2, 4, 5, 0xb4], None),
            (false, 2, &[0, 4, 2, 2, 4, 5, 0xb4, 0], None),
            (false, 2, &[3, 0, 2, 4], None),
        ] {
            let mut frame = packet(ipv6, TCP, options);
            let transport = if ipv6 { 54 } else { 34 };
            frame[transport + 12] = (((20 + options.len()) / 4) << 4) as u8;
            frame[transport + 13] = flags;
            let mut seen = None;
            let changed = change_segment_size(&mut frame, |size, six| {
                seen = Some(size);
                assert_eq!(six, ipv6);
                77
            });
            assert_eq!((seen, changed.is_some()), (found, found.is_some()), "{options:?}");
            assert_eq!(frame.windows(2).any(|pair| pair == [0, 77]), found.is_some());
        }
    }

    #[test]
    fn large_packets_are_cut_where_the_host_can_and_refused_otherwise() {
        let beside = Beside {
            cut: true,
            ..Beside::default()
        };
        for ipv6 in [false, true] {
            let frame = packet(ipv6, TCP, &[1; 4000]);
            let work = prepare(&mut frame.clone(), &beside, &ALL, 1500).unwrap();
            let headers = if ipv6 { 60 } else { 40 };
            assert_eq!(work.large.unwrap().mss(), 1500 - headers);
            for (offloads, protocol) in [(Offloads::default(), TCP), (ALL, UDP)] {
                let mut frame = packet(ipv6, protocol, &[1; 4000]);
                let length = frame.len();
                assert_eq!(
                    prepare(&mut frame, &beside, &offloads, 1500),
                    Err(NetworkError::FrameSize(length))
                );
            }
        }
    }
}
