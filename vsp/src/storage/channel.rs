//! One channel of a controller: takes the guest's packets, keeps its requests, and answers them as they end.

use super::controller::Controller;
use super::disk::Disk;
use super::epoch::{Ending, Epoch};
use super::request::{self, Pages};
use super::scsi::block::MAX_TRANSFER;
use crate::buffer::Buffer;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use futures_util::stream::{FuturesUnordered, Stream};
use vmbus::protocol::storage::{
    CreateSubChannels, MULTI_CHANNEL, Operation, Packet, Properties, ProtocolVersion, REQUEST_COMPLETION,
    ScsiRequest, SrbStatus, Status, Version,
};
use vmbus::ring::gpa::{GpaRanges, PageRange, RangeError};
use vmbus::ring::{self, PacketFlags, PacketType, RingError, WriteBatch};
use zerocopy::{FromZeros, IntoBytes};

/// Requests of one channel that may be under way.
const MAX_OUTSTANDING: usize = 512;
/// Bytes of a guest page.
const PAGE: u64 = 4096;

/// What a channel needs of the bus.
pub trait Link: Send + Sync {
    /// Completes when the guest has signalled since the last time.
    fn wait(&self) -> impl Future<Output = ()> + Send;
    /// Signals the guest.
    fn signal(&self);
    /// The memory of `pieces`, guest physical addresses with their lengths, in a row; `None` where the guest does not have it.
    fn buffer(&self, pieces: impl IntoIterator<Item = (u64, usize)>) -> Option<Buffer>;
    /// As [`buffer`](Self::buffer), of one piece, which most requests have.
    #[inline]
    fn piece(&self, gpa: u64, length: usize) -> Option<Buffer> {
        self.buffer([(gpa, length)])
    }
    /// Offers so many sub-channels, and says how many there are. Only asked for on the first channel.
    fn offer_sub_channels(&self, count: u16) -> u16;
    /// So many packets were taken, and so many sent.
    fn count(&self, _received: u64, _sent: u64) {}
}

/// Whether a channel is the first of its controller, on which that is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It is.
    Primary,
    /// It carries requests only.
    SubChannel,
}

/// Serves the channel until its ring is broken by the guest; to be dropped when the channel closes.
pub async fn serve<D: Disk>(
    controller: &Controller<D>,
    role: Role,
    rings: ring::Channel,
    link: &impl Link,
) -> RingError {
    let mut session = Session {
        controller,
        role,
        version: (role == Role::SubChannel).then_some(Version::V6_2),
        initialized: false,
        answers: VecDeque::new(),
        reset: None,
        sent: 0,
        teller: None,
    };
    let ring::Channel {
        mut outgoing,
        mut incoming,
    } = rings;
    let mut running = FuturesUnordered::new();
    // Looked at when there is nothing else to do, and made anew when it has come.
    let mut signal = pin!(link.wait());
    // One state and not one for each wait, as what is kept from one to the next costs more than most requests.
    poll_fn(move |cx| {
        // It is what has woken the task, mostly, and is to be seen before the ring is looked at.
        came(signal.as_mut(), cx, || link.wait());
        loop {
            incoming.mask();
            let mut taken = 0;
            if session.answers.is_empty() && session.reset.is_none() {
                let ends = (&mut incoming, &mut outgoing);
                match session.take_all(ends, link, &mut running, cx, work) {
                    Ok(count) => taken = count,
                    Err(error) => return Poll::Ready(error),
                }
            }
            // What the disks have done by now is answered in one batch.
            if !running.is_empty() {
                session.settle(&mut running, cx);
            }
            session.poll_reset(cx);
            if session.has_more_to_say() {
                match session.answer(&mut outgoing, link) {
                    Ok(more) => session.sent += more,
                    Err(error) => return Poll::Ready(error),
                }
            }
            link.count(taken, core::mem::take(&mut session.sent));
            let takes =
                session.answers.is_empty() && session.reset.is_none() && running.len() < MAX_OUTSTANDING;
            if incoming.unmask() && takes {
                continue;
            }
            if came(signal.as_mut(), cx, || link.wait()) {
                continue;
            }
            let mut ready = !running.is_empty() && session.settle(&mut running, cx);
            ready |= session.poll_reset(cx);
            if role == Role::Primary {
                session.register(cx.waker());
                ready |= session.has_news() && session.answers.is_empty();
            }
            if !ready {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Whether the guest has signalled; `again` waits for the next time.
#[inline(always)]
fn came<W: Future<Output = ()>>(
    mut signal: Pin<&mut W>,
    cx: &mut Context<'_>,
    again: impl FnOnce() -> W,
) -> bool {
    let came = signal.as_mut().poll(cx).is_ready();
    if came {
        signal.set(again());
    }
    came
}

/// A request that a disk works on, until its answer.
async fn work<D: Disk>(reply: Reply, mut pending: request::Pending<D>) -> (Reply, ScsiRequest) {
    (reply, pending.run().await)
}

/// What is known of a channel's guest.
struct Session<'a, D> {
    controller: &'a Controller<D>,
    role: Role,
    /// The version that was agreed on.
    version: Option<Version>,
    /// It has set the controller up, and looks for units by itself; later it has to be told.
    initialized: bool,
    /// Answers that have not gone yet, with their transactions.
    answers: VecDeque<(u64, Packet)>,
    /// A reset that waits for the requests before it, and where its answer goes.
    reset: Option<(Reply, Ending)>,
    /// Answers that have gone and were not counted.
    sent: u64,
    /// Who was registered as the one that tells of changes.
    teller: Option<Waker>,
}

/// Where the answer to a packet goes.
#[derive(Clone, Copy)]
enum Reply {
    /// To nobody: the guest did not ask for one.
    Unwanted,
    /// To this transaction.
    To(u64),
}

impl<D: Disk> Session<'_, D> {
    /// Takes what the guest has sent, as far as it may be under way at once, and says how much that was.
    #[inline(always)]
    fn take_all<F: Future<Output = (Reply, ScsiRequest)>>(
        &mut self,
        (incoming, outgoing): (&mut ring::Reader, &mut ring::Writer),
        link: &impl Link,
        running: &mut FuturesUnordered<F>,
        cx: &mut Context<'_>,
        work: impl Fn(Reply, request::Pending<D>) -> F,
    ) -> Result<u64, RingError> {
        let epoch = self.controller.epoch();
        let mut taken = 0;
        let mut batch = incoming.batch();
        let mut out = outgoing.batch()?;
        // What is behind a reset waits until that is done.
        while running.len() + self.answers.len() < MAX_OUTSTANDING && self.reset.is_none() {
            let Some(packet) = batch.next()? else {
                break;
            };
            taken += 1;
            self.take(&packet, &epoch, link, &mut out, |session, reply, pending| {
                running.push(work(reply, pending));
                // A disk begins with it now: a reset that follows gives up only what is not begun.
                session.settle(running, cx);
            })?;
        }
        let (room, answers) = (batch.finish(), out.commit());
        if room.is_needed() || answers.is_needed() {
            link.signal();
        }
        Ok(taken)
    }

    /// Lets the disks work on what runs, and takes what has ended; returns whether something has.
    fn settle<F: Future<Output = (Reply, ScsiRequest)>>(
        &mut self,
        running: &mut FuturesUnordered<F>,
        cx: &mut Context<'_>,
    ) -> bool {
        let mut ended = false;
        while let Poll::Ready(Some((reply, answer))) = pin!(&mut *running).poll_next(cx) {
            self.push(reply, Packet::new(Operation::COMPLETE_IO, 0, &answer));
            ended = true;
        }
        ended
    }

    /// Takes a packet: answers it, or has `begin` begin what a disk has to do first.
    #[inline(always)]
    fn take(
        &mut self,
        packet: &ring::Packet<'_>,
        epoch: &Arc<Epoch>,
        link: &impl Link,
        out: &mut WriteBatch<'_>,
        begin: impl FnOnce(&mut Self, Reply, request::Pending<D>),
    ) -> Result<(), RingError> {
        if !matches!(packet.kind(), PacketType::IN_BAND | PacketType::GPA_DIRECT) {
            return Ok(());
        }
        // What the packet does not have is zero.
        let mut message = Packet::new_zeroed();
        if packet.copy_payload(0, message.as_mut_bytes()).is_err() {
            packet.copy_most(message.as_mut_bytes());
        }
        let reply = match packet.wants_completion() || message.flags & REQUEST_COMPLETION != 0 {
            true => Reply::To(packet.transaction()),
            false => Reply::Unwanted,
        };
        match message.operation {
            Operation::EXECUTE_SRB if self.version.is_some() => {
                let data = Data {
                    packet: *packet,
                    link,
                };
                if let Some(request) = message.body_mut::<ScsiRequest>()
                    && let Some(pending) = request::begin(self.controller, request, data, epoch)
                {
                    begin(self, reply, pending);
                    return Ok(());
                }
                (message.operation, message.flags, message.status) =
                    (Operation::COMPLETE_IO, 0, Status::SUCCESS);
            }
            Operation::RESET_BUS | Operation::RESET_ADAPTER | Operation::RESET_LUN => {
                self.reset = Some((reply, self.controller.reset()));
                return Ok(());
            }
            _ => message = self.control(message, link),
        }
        self.answer_now(out, reply, &message)
    }

    /// Answers with what is about to be committed, or later if there is no room.
    #[inline(always)]
    fn answer_now(
        &mut self,
        out: &mut WriteBatch<'_>,
        reply: Reply,
        answer: &Packet,
    ) -> Result<(), RingError> {
        if let Reply::To(transaction) = reply
            && self.answers.is_empty()
        {
            match complete(out, transaction, answer) {
                Ok(()) => {
                    self.sent += 1;
                    return Ok(());
                }
                Err(RingError::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.push(reply, *answer);
        Ok(())
    }

    fn push(&mut self, reply: Reply, answer: Packet) {
        if let Reply::To(transaction) = reply {
            self.answers.push_back((transaction, answer));
        }
    }

    /// Answers a reset once nothing that came before it, on any channel, is under way. Returns whether it is done now.
    #[inline(always)]
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> bool {
        self.reset.is_some() && self.poll_pending_reset(cx)
    }

    #[cold]
    fn poll_pending_reset(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((reply, ending)) = &mut self.reset else {
            return false;
        };
        if Pin::new(ending).poll(cx).is_pending() {
            return false;
        }
        let reply = *reply;
        self.reset = None;
        self.push(reply, Packet::new(Operation::COMPLETE_IO, 0, &[0_u8; 4]));
        true
    }

    /// Everything but requests.
    fn control(&mut self, message: Packet, link: &impl Link) -> Packet {
        let mut answer = Packet::new_zeroed();
        answer.operation = Operation::COMPLETE_IO;
        answer.status = Status::SUCCESS;
        match (message.operation, self.role) {
            (Operation::BEGIN_INITIALIZATION, Role::Primary) => {
                (self.version, self.initialized) = (None, false);
            }
            (Operation::END_INITIALIZATION, Role::Primary) => {
                if self.version.is_none() {
                    answer.status = Status::UNSUCCESSFUL;
                } else {
                    self.initialized = true;
                    self.controller.take_change();
                }
            }
            (Operation::QUERY_PROTOCOL_VERSION, Role::Primary) => {
                let asked: ProtocolVersion = message.body();
                if Version::ALL.contains(&asked.version) {
                    self.version = Some(asked.version);
                } else {
                    answer.status = Status::REVISION_MISMATCH;
                }
                answer.set_body(&asked);
            }
            (Operation::QUERY_PROPERTIES, _) => answer.set_body(&self.properties()),
            (Operation::CREATE_SUB_CHANNELS, Role::Primary) => {
                let wanted: CreateSubChannels = message.body();
                if wanted.count > self.controller.max_sub_channels() || self.version.is_none() {
                    answer.status = Status::INVALID_PARAMETER;
                } else if link.offer_sub_channels(wanted.count) < wanted.count {
                    answer.status = Status::UNSUCCESSFUL;
                }
                answer.set_body(&wanted);
            }
            (Operation::EXECUTE_SRB, _) => {
                answer.status = Status::UNSUCCESSFUL;
                let mut refused: ScsiRequest = message.body();
                request::answer_refused(&mut refused, SrbStatus::INVALID_REQUEST);
                answer.set_body(&refused);
            }
            _ => answer.status = Status::NOT_SUPPORTED,
        }
        answer
    }

    fn properties(&self) -> Properties {
        let sub_channels = self.controller.max_sub_channels();
        Properties {
            max_channels: sub_channels,
            flags: if sub_channels > 0 { MULTI_CHANNEL } else { 0 },
            max_transfer_bytes: MAX_TRANSFER,
            ..Properties::new_zeroed()
        }
    }

    /// Whether there is something to send that was not sent with what was taken.
    #[inline(always)]
    fn has_more_to_say(&self) -> bool {
        !self.answers.is_empty() || self.has_news()
    }

    /// Has `waker` woken by changes from now on.
    #[inline(always)]
    fn register(&mut self, waker: &Waker) {
        if !self.teller.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.controller.register(waker);
            self.teller = Some(waker.clone());
        }
    }

    /// Whether the guest is to be told of a change.
    #[inline(always)]
    fn has_news(&self) -> bool {
        self.initialized && self.controller.has_changed()
    }

    /// Sends what is to be sent, as far as there is room, and says how much that was.
    fn answer(&mut self, outgoing: &mut ring::Writer, link: &impl Link) -> Result<u64, RingError> {
        let mut sent = 0;
        loop {
            let (more, full) = self.answer_batch(outgoing, link)?;
            sent += more;
            match full {
                // There may be room by now; otherwise the guest signals when there is.
                Some(needed) if outgoing.request_space(needed)? => {}
                _ => return Ok(sent),
            }
        }
    }

    /// Sends what fits now: how much that was, and the room that the next answer needs where it did not fit.
    fn answer_batch(
        &mut self,
        outgoing: &mut ring::Writer,
        link: &impl Link,
    ) -> Result<(u64, Option<u32>), RingError> {
        let mut sent = 0;
        let mut batch = outgoing.batch()?;
        let mut full = None;
        while let Some((transaction, answer)) = self.answers.front() {
            match complete(&mut batch, *transaction, answer) {
                Ok(()) => drop(self.answers.pop_front()),
                Err(RingError::Full { needed }) => {
                    full = Some(needed);
                    break;
                }
                Err(error) => return Err(error),
            }
            sent += 1;
        }
        if self.initialized && full.is_none() && self.controller.take_change() {
            // A guest that looks for units finds those that came, and asks those that it knows whether they are there.
            let notice = Packet::new(Operation::ENUMERATE_BUS, 0, &[0_u8; 4]);
            match batch.push_value(PacketType::IN_BAND, 0, PacketFlags::empty(), &notice) {
                Ok(()) => sent += 1,
                Err(error) => log::debug!("a change of disks is not told to the guest: {error}"),
            }
        }
        if batch.commit().is_needed() {
            link.signal();
        }
        Ok((sent, full))
    }
}

#[inline(always)]
fn complete(batch: &mut WriteBatch<'_>, transaction: u64, answer: &Packet) -> Result<(), RingError> {
    batch.push_value(PacketType::COMPLETION, transaction, PacketFlags::empty(), answer)
}

/// The memory that a packet names.
struct Data<'a, L> {
    packet: ring::Packet<'a>,
    link: &'a L,
}

impl<L> Clone for Data<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Data<'_, L> {}

/// Pieces of guest memory that a packet names, a page or less each, up to so many bytes; a range that makes no sense is a piece that
/// nobody has.
struct Pieces<'a> {
    ranges: GpaRanges<'a>,
    range: Option<PageRange<'a>>,
    /// The next page of the range.
    page: u32,
    /// Where in that page the next piece begins.
    offset: u64,
    /// Bytes of the range that are left.
    in_range: usize,
    /// Bytes that are wanted.
    left: usize,
}

impl<'a> Pieces<'a> {
    fn new(packet: &ring::Packet<'a>, bytes: usize) -> Result<Self, RangeError> {
        Ok(Self {
            ranges: packet.gpa_ranges()?,
            range: None,
            page: 0,
            offset: 0,
            in_range: 0,
            left: bytes,
        })
    }
}

impl Iterator for Pieces<'_> {
    type Item = (u64, usize);

    #[inline]
    fn next(&mut self) -> Option<(u64, usize)> {
        if self.left == 0 {
            return None;
        }
        loop {
            if let Some(page) = self.range.and_then(|range| range.page(self.page)) {
                let length = self.left.min(self.in_range).min((PAGE - self.offset) as usize);
                let gpa = page
                    .checked_mul(PAGE)
                    .map_or(u64::MAX, |start| start + self.offset);
                (self.page, self.offset) = (self.page + 1, 0);
                self.in_range -= length;
                self.left -= length;
                return Some((gpa, length));
            }
            match self.ranges.next()? {
                Ok(range) => {
                    (self.page, self.offset) = (0, range.byte_offset().into());
                    self.in_range = range.byte_count() as usize;
                    self.range = Some(range);
                }
                Err(_) => {
                    self.left = 0;
                    return Some((u64::MAX, usize::MAX));
                }
            }
        }
    }
}

impl<L> Data<'_, L> {
    fn pieces(&self, bytes: usize) -> Result<Pieces<'_>, RangeError> {
        Pieces::new(&self.packet, bytes)
    }

    #[inline(never)]
    fn buffer_of_pieces(self, bytes: usize) -> Option<Buffer>
    where
        L: Link,
    {
        let buffer = self.link.buffer(self.pieces(bytes).ok()?)?;
        (buffer.size() == bytes).then_some(buffer)
    }
}

impl<L: Link> Pages for Data<'_, L> {
    #[inline(always)]
    fn buffer(self, bytes: usize) -> Option<Buffer> {
        // As it is for most small requests.
        if let Some((gpa, length)) = self.packet.only_page()
            && (1..=length).contains(&bytes)
        {
            return self.link.piece(gpa, bytes);
        }
        self.buffer_of_pieces(bytes)
    }

    fn size(self) -> usize {
        self.pieces(usize::MAX).map_or(0, |pieces| {
            pieces.fold(0_usize, |sum, (_, length)| sum.saturating_add(length))
        })
    }
}
