//! Any bytes, against the parsers.

use crate::protocol::gpadl;
use crate::protocol::integration::frame::Header;
use crate::protocol::integration::negotiate;
use crate::protocol::message::{ChannelMessage, MessageHeader, Sender};
use crate::protocol::network::{nvsp, packet_info, rndis};
use crate::protocol::version::Version;
use zerocopy::FromBytes;

/// Channel messages and lists of pages.
pub fn messages(data: &[u8]) {
    for sender in [Sender::Host, Sender::Guest] {
        for version in Version::ALL {
            if let Ok((message, rest)) = ChannelMessage::parse(data, sender, version) {
                assert!(rest.len() < data.len());
                let header = MessageHeader::read_from_prefix(data).map(|(header, _)| header.message_type);
                assert_eq!(header, Ok(message.message_type()));
            }
        }
    }
    let _ = ChannelMessage::parse_padded(data);
    if let [ranges, low, high, rest @ ..] = data
        && let Ok(mut assembly) =
            gpadl::Assembly::new(u16::from(*ranges), u16::from_le_bytes([*low, *high]), 4096)
    {
        let pages = assembly.pages();
        if rest.chunks(28 * 8).any(|chunk| assembly.push(chunk))
            && let Ok(ranges) = assembly.finish()
        {
            assert_eq!(ranges.iter().map(|range| range.pages.len()).sum::<usize>(), pages);
        }
    }
}

/// Messages of the devices that have parsers of their own: network cards and integration services.
pub fn devices(data: &[u8]) {
    if let Some((_, body)) = nvsp::split(data) {
        assert!(body.len() <= data.len());
    }
    if let Some((_, body)) = rndis::split(data) {
        assert!(body.len() <= data.len());
    }
    if let Some((numbers, body)) = data.split_at_checked(8) {
        let word = |at: usize| u32::from_le_bytes(core::array::from_fn(|byte| numbers[at + byte]));
        if let Some(value) = rndis::value(body, word(0), word(4)) {
            assert_eq!(value.len(), word(4) as usize);
        }
    }
    // Each item has at least a header of 12 bytes.
    assert!(packet_info::iter(data).count() <= data.len() / 12);
    if let Ok((_, body)) = Header::read_from_prefix(data) {
        let _ = negotiate::chosen(body);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes_can_be_parsed(data in prop::collection::vec(any::<u8>(), 0..300)) {
            super::messages(&data);
            super::devices(&data);
        }
    }
}
