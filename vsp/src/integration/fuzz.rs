//! Entry for fuzzers: guests that answer the services with what they like.

use super::Service;
use super::heartbeat::Heartbeat;
use super::key_value::KeyValue;
use super::shutdown::Shutdown;
use super::time_sync::{Moment, TimeSync};
use alloc::vec::Vec;
use vmbus::fuzz::Input;
use vmbus::protocol::integration::shutdown::Action;
use vmbus::protocol::integration::time_sync::Kind;

/// Largest packet of a guest: a key, a value and what is around them.
const MOST: usize = 3000;

/// All services against one guest that answers them with what they sent, changed here and there, or with anything.
pub fn services(data: &[u8]) {
    let mut input = Input::new(data);
    let mut heartbeat = Heartbeat::default();
    let mut shutdown = Shutdown::default();
    let mut key_value = KeyValue::default();
    let mut time_sync = TimeSync::new(|| Moment {
        host_time: u64::MAX,
        reference: 1,
    });
    // What each service sent last.
    let mut last: [Vec<u8>; 4] = [
        heartbeat.opened(),
        shutdown.opened(),
        key_value.opened(),
        time_sync.opened(),
    ];
    while !input.is_empty() {
        let which = input.index(4);
        let service: &mut dyn Service = [
            &mut heartbeat as &mut dyn Service,
            &mut shutdown,
            &mut key_value,
            &mut time_sync,
        ]
        .into_iter()
        .nth(which)
        .unwrap_or_else(|| unreachable!("there are four"));
        let sent = match input.small(10) {
            0..6 => {
                let answer = answer(&last[which], &mut input);
                service.receive(&answer)
            }
            6 => {
                let length = input.index(120);
                let bytes = input.bytes(length);
                service.receive(&bytes)
            }
            7 => {
                service.closed();
                Some(service.opened())
            }
            _ => match which {
                0 => heartbeat.beat(),
                1 => shutdown.request(Action::PowerOff, input.small(2) > 0).ok(),
                2 => key_value.refresh(),
                _ => time_sync.tell(Kind::Sync),
            },
        };
        if let Some(sent) = sent {
            assert!(
                sent.len() <= MOST,
                "a packet that no ring of these services holds"
            );
            last[which] = sent;
        }
    }
}

/// A packet that says that it answers `request`, with a few bytes changed.
fn answer(request: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    /// Where the flags are, and the one that says that it is an answer.
    const FLAGS: usize = 25;
    const RESPONSE: u8 = 4;
    /// Where the body begins, which in a negotiation is: how many versions of the framing, of the service, zeroes, the versions.
    const BODY: usize = 28;
    let mut answer = request.to_vec();
    let versions = request.get(BODY..BODY + 4).unwrap_or(&[0; 4]);
    let (frameworks, services) = (usize::from(versions[0]), usize::from(versions[2]));
    // One version of each is chosen, most often one that was offered.
    if request.get(12..14) == Some(&[0, 0]) && input.small(8) > 0 {
        let version = |index: usize| {
            let at = BODY + 8 + 4 * index;
            request.get(at..at + 4).unwrap_or_default().to_vec()
        };
        answer.truncate(BODY);
        answer.extend([1, 0, 1, 0, 0, 0, 0, 0]);
        answer.extend(version(input.index(frameworks)));
        answer.extend(version(frameworks + input.index(services)));
        let size = answer.len();
        answer[4..8].copy_from_slice(&(size as u32 - 8).to_le_bytes());
        answer[18..20].copy_from_slice(&(size as u16 - 28).to_le_bytes());
    }
    if let Some(flags) = answer.get_mut(FLAGS) {
        *flags |= RESPONSE;
    }
    for _ in 0..input.small(4) {
        let at = input.word() as usize % answer.len().max(1);
        if let Some(byte) = answer.get_mut(at) {
            *byte = input.byte();
        }
    }
    if input.small(8) == 0 {
        let length = input.word() as usize % (answer.len() + 1);
        answer.truncate(length);
    }
    answer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn guests_that_answer_with_anything_are_harmless(data in prop::collection::vec(any::<u8>(), 0..1500)) {
            super::services(&data);
        }
    }
}
