//! A channel of a card, open: its rings, and the completions that wait for room.

use super::link::Link;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use spin::Mutex;
use vmbus::protocol::network::nvsp::{self, MessageType, Status};
use vmbus::ring::{self, PacketFlags, PacketType, RingError, WriteBatch};
use zerocopy::{Immutable, IntoBytes};

pub(super) struct Queue {
    pub(super) link: Arc<dyn Link>,
    pub(super) outgoing: Mutex<ring::Writer>,
    pub(super) incoming: Mutex<Incoming>,
}

pub(super) struct Incoming {
    pub(super) reader: ring::Reader,
    pub(super) completions: Completions,
}

/// Completions that have not gone yet.
#[derive(Default)]
pub(super) struct Completions {
    /// Packets that were sent, as most are.
    sent: Vec<u64>,
    /// Others: transaction and answer.
    others: VecDeque<(u64, Answer)>,
}

impl Completions {
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.others.is_empty()
    }

    #[inline]
    pub(super) fn add(&mut self, transaction: u64, answer: Answer) {
        match answer {
            Answer::Sent(Status::SUCCESS) => self.sent.push(transaction),
            answer => self.others.push_back((transaction, answer)),
        }
    }

    /// Puts them into the ring, as far as there is room.
    fn put(&mut self, batch: &mut WriteBatch<'_>) -> Result<(), RingError> {
        let mut gone = 0;
        let mut result = Ok(());
        for &transaction in &self.sent {
            result = push(batch, transaction, &complete(Status::SUCCESS));
            if result.is_err() {
                break;
            }
            gone += 1;
        }
        self.sent.drain(..gone);
        result?;
        while let Some((transaction, answer)) = self.others.front() {
            match answer {
                Answer::Sent(status) => push(batch, *transaction, &complete(*status))?,
                Answer::Message(message) => push(batch, *transaction, message.as_ref())?,
                Answer::Empty => push(batch, *transaction, &())?,
            }
            self.others.pop_front();
        }
        Ok(())
    }
}

const fn complete(status: Status) -> nvsp::RndisComplete {
    nvsp::RndisComplete {
        message_type: MessageType::SEND_RNDIS_PACKET_COMPLETE,
        complete: nvsp::RndisPacketComplete { status },
    }
}

#[inline]
fn push(
    batch: &mut WriteBatch<'_>,
    transaction: u64,
    message: &(impl IntoBytes + Immutable),
) -> Result<(), RingError> {
    batch.push_value(PacketType::COMPLETION, transaction, PacketFlags::empty(), message)
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
                completions: Completions::default(),
            }),
        }
    }

    /// Whether each side has read all that the other has written, and no completion waits.
    pub(super) fn is_quiet(&self) -> Result<bool, RingError> {
        let incoming = self.incoming.lock();
        let outgoing = self.outgoing.lock();
        Ok(incoming.completions.is_empty()
            && incoming.reader.filled()? == 0
            && outgoing.free()? == outgoing.size())
    }

    /// Sends completions as far as there is room; whether all went.
    pub(super) fn answer(&self, completions: &mut Completions) -> Result<bool, RingError> {
        if completions.is_empty() {
            return Ok(true);
        }
        let mut outgoing = self.outgoing.lock();
        loop {
            let mut batch = outgoing.batch()?;
            let put = completions.put(&mut batch);
            if batch.commit().is_needed() {
                self.link.signal();
            }
            match put {
                Ok(()) => return Ok(true),
                Err(RingError::Full { needed }) if outgoing.request_space(needed)? => {}
                Err(RingError::Full { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}
