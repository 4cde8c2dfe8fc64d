//! ICMP echo requests of the root. `embassy-net` has a ping of its own, which keeps the processor busy while it waits for the answer.

use super::stack::PingFailure;
use core::net::Ipv4Addr;
use embassy_net::Stack;
use embassy_net::icmp::{
    ChecksumCapabilities, IcmpEndpoint, IcmpSocket, Icmpv4Packet, Icmpv4Repr, PacketMetadata,
};
use embassy_time::{Duration, Instant, with_timeout};

/// What a request carries.
const PAYLOAD: &[u8; 56] = b"abcdefghijklmnopqrstuvwabcdefghijklmnopqrstuvwabcdefghij";
/// Bytes of a socket's buffers.
const BUFFER: usize = 256;
/// Messages in a socket's buffers.
const MESSAGES: usize = 2;

/// Sends one request numbered `ident` to `target`, and waits for its answer, but not longer than `limit`.
///
/// # Errors
///
/// Where nobody answers in time, or where no way leads.
pub(super) async fn ping(
    stack: Stack<'_>,
    ident: u16,
    target: Ipv4Addr,
    limit: Duration,
) -> Result<Duration, PingFailure> {
    let (mut receive, mut send) = ([0; BUFFER], [0; BUFFER]);
    let mut notes = [[PacketMetadata::EMPTY; MESSAGES]; 2];
    let [receive_notes, send_notes] = &mut notes;
    let mut socket = IcmpSocket::new(stack, receive_notes, &mut receive, send_notes, &mut send);
    socket
        .bind(IcmpEndpoint::Ident(ident))
        .map_err(|_| PingFailure::NotSent)?;
    let request = Icmpv4Repr::EchoRequest {
        ident,
        seq_no: 0,
        data: PAYLOAD,
    };
    let fill = |bytes: &mut [u8]| {
        let mut packet = Icmpv4Packet::new_unchecked(bytes);
        request.emit(&mut packet, &ChecksumCapabilities::default());
        (request.buffer_len(), Instant::now())
    };
    let sent = socket.send_to_with(request.buffer_len(), target, fill);
    let begun = sent.await.map_err(|_| PingFailure::NoRoute)?;
    let answered = async {
        loop {
            socket.wait_recv_ready().await;
            // The stack hands over what bears the identifier, errors too.
            let answer = socket.recv_from_with(|(bytes, _)| is_answer(bytes, ident));
            if matches!(answer.await, Ok(true)) {
                return begun.elapsed();
            }
        }
    };
    with_timeout(limit, answered)
        .await
        .map_err(|_| PingFailure::NoAnswer)
}

/// Whether `bytes` are the answer to request `ident`.
fn is_answer(bytes: &[u8], ident: u16) -> bool {
    let Ok(packet) = Icmpv4Packet::new_checked(bytes) else {
        return false;
    };
    let message = Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default());
    matches!(message, Ok(Icmpv4Repr::EchoReply { ident: its, data, .. }) if its == ident && data == PAYLOAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(repr: Icmpv4Repr<'_>) -> Vec<u8> {
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(
            &mut Icmpv4Packet::new_unchecked(&mut bytes[..]),
            &ChecksumCapabilities::default(),
        );
        bytes
    }

    #[test]
    fn only_its_own_whole_reply_is_an_answer() {
        let reply = |ident, data| {
            message(Icmpv4Repr::EchoReply {
                ident,
                seq_no: 0,
                data,
            })
        };
        assert!(is_answer(&reply(7, PAYLOAD), 7));
        assert!(!is_answer(&reply(8, PAYLOAD), 7));
        assert!(!is_answer(&reply(7, b"other"), 7));
        let request = Icmpv4Repr::EchoRequest {
            ident: 7,
            seq_no: 0,
            data: PAYLOAD,
        };
        assert!(!is_answer(&message(request), 7));
        let mut damaged = reply(7, PAYLOAD);
        damaged[20] ^= 1;
        assert!(!is_answer(&damaged, 7));
    }

    proptest! {
        #[test]
        fn nothing_made_up_is_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(!is_answer(&bytes, 7));
        }
    }
}
