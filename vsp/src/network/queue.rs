//! A channel of a card, open: its rings, and the completions that wait for room.

use super::link::Link;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use spin::Mutex;
use vmbus::protocol::network::nvsp::{self, MessageType, Status};
use vmbus::ring::{self, PacketFlags, PacketType, RingError};
use zerocopy::IntoBytes;

pub(super) struct Queue {
    pub(super) link: Arc<dyn Link>,
    pub(super) outgoing: Mutex<ring::Writer>,
    pub(super) incoming: Mutex<Incoming>,
}

pub(super) struct Incoming {
    pub(super) reader: ring::Reader,
    /// Completions that found no room: transaction and message.
    pub(super) answers: VecDeque<(u64, Answer)>,
}

pub(super) enum Answer {
    /// What became of a packet.
    Sent(Status),
    Message(Box<[u8; nvsp::MESSAGE_SIZE]>),
    Empty,
}

impl Queue {
    pub(super) fn new(rings: ring::Channel, link: Arc<dyn Link>) -> Self {
        Self {
            link,
            outgoing: Mutex::new(rings.outgoing),
            incoming: Mutex::new(Incoming {
                reader: rings.incoming,
                answers: VecDeque::new(),
            }),
        }
    }

    /// Whether each side has read all that the other has written, and no completion waits.
    pub(super) fn is_quiet(&self) -> Result<bool, RingError> {
        let incoming = self.incoming.lock();
        let outgoing = self.outgoing.lock();
        Ok(incoming.answers.is_empty()
            && incoming.reader.filled()? == 0
            && outgoing.free()? == outgoing.size())
    }

    /// Sends completions as far as there is room; whether all went.
    pub(super) fn answer(&self, answers: &mut VecDeque<(u64, Answer)>) -> Result<bool, RingError> {
        if answers.is_empty() {
            return Ok(true);
        }
        let mut outgoing = self.outgoing.lock();
        loop {
            let mut full = None;
            let mut batch = outgoing.batch()?;
            while let Some((transaction, answer)) = answers.front() {
                let complete;
                let bytes = match answer {
                    Answer::Sent(status) => {
                        complete = nvsp::RndisComplete {
                            message_type: MessageType::SEND_RNDIS_PACKET_COMPLETE,
                            complete: nvsp::RndisPacketComplete { status: *status },
                        };
                        complete.as_bytes()
                    }
                    Answer::Message(message) => message.as_slice(),
                    Answer::Empty => &[],
                };
                match batch.push(
                    PacketType::COMPLETION,
                    *transaction,
                    PacketFlags::empty(),
                    &[bytes],
                ) {
                    Ok(()) => drop(answers.pop_front()),
                    Err(RingError::Full { needed }) => {
                        full = Some(needed);
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            if batch.commit().is_needed() {
                self.link.signal();
            }
            match full {
                None => return Ok(true),
                Some(needed) if outgoing.request_space(needed)? => {}
                Some(_) => return Ok(false),
            }
        }
    }
}
