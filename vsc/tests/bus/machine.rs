//! A guest on a host that is the bus's server: hypercalls, pages and SynIC as the library asks for them, and whatever of that goes wrong.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::{BTreeMap, VecDeque};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use hypercall_api::address::Gpa;
use hypercall_api::call::Hypercalls;
use hypercall_api::code::HypercallCode;
use hypercall_api::control::{HypercallInput, HypercallResult};
use hypercall_api::id::VpIndex;
use hypercall_api::message::Message;
use hypercall_api::port::{ConnectionId, PostMessage};
use hypercall_api::status::HvStatus;
use vmbus::protocol::guid::class;
use vmbus::protocol::id::{CHANNEL_MESSAGE, CONTACT_CONNECTION, GpadlId, Status};
use vmbus::protocol::offer::Offer;
use vmbus::ring::Channel;
use vmbus::ring::channel::Rings;
use vmbus::server::{Action, Limits, OfferId, Server};
use vsc::bus::Bus;
use vsc::hal::Hal;
use zerocopy::FromBytes;

/// Changes a message.
pub(crate) type Lie = Box<dyn FnMut(&mut Vec<u8>) + Send>;

/// What the guest and the host share.
pub(crate) struct Shared {
    server: Server,
    actions: Vec<Action>,
    posted: VecDeque<Vec<u8>>,
    messages: VecDeque<Vec<u8>>,
    /// Pages that the guest has taken: address and count.
    pub(crate) allocated: BTreeMap<usize, usize>,
    /// Lists that the host has mapped, and their pages.
    pub(crate) mapped: BTreeMap<GpadlId, Vec<u64>>,
    /// The host's ends of open channels.
    pub(crate) open: BTreeMap<OfferId, Channel>,
    pub(crate) signals: Vec<ConnectionId>,
    pub(crate) released: Vec<OfferId>,
    /// Messages that the hypervisor does not take before it takes one again.
    pub(crate) full_for: usize,
    /// The connection of version 5 is not there.
    pub(crate) old: bool,
    pub(crate) refuse_gpadls: bool,
    pub(crate) refuse_opens: bool,
    /// The host does nothing.
    pub(crate) silent: bool,
    /// Changes messages of the host before the guest sees them.
    pub(crate) lie: Option<Lie>,
}

impl Shared {
    pub(crate) fn offer(&mut self, number: u128) -> OfferId {
        let offer = Offer::new(class::ECHO, uuid::Uuid::from_u128(number));
        self.server.offer(offer, &mut self.actions).unwrap()
    }

    pub(crate) fn rescind(&mut self, id: OfferId) {
        self.server.rescind(id, &mut self.actions);
    }

    /// The host does one thing; false where it has nothing to do.
    pub(crate) fn step(&mut self) -> bool {
        if self.silent {
            return false;
        }
        if !self.actions.is_empty() {
            let action = self.actions.remove(0);
            self.act(action);
            return true;
        }
        match self.posted.pop_front() {
            Some(message) => {
                self.server.receive(&message, &mut self.actions);
                true
            }
            None => false,
        }
    }

    fn act(&mut self, action: Action) {
        let refused = |refuse| if refuse { Err(Status::UNSUCCESSFUL) } else { Ok(()) };
        let (server, out) = (&mut self.server, &mut self.actions);
        match action {
            Action::Send { message, .. } => {
                let mut message = message.to_vec();
                if let Some(lie) = &mut self.lie {
                    lie(&mut message);
                }
                self.messages.push_back(message);
            }
            Action::MapGpadl { gpadl, ranges, .. } => {
                if !self.refuse_gpadls {
                    self.mapped.insert(gpadl, ranges[0].pages.clone());
                }
                server.gpadl_mapped(gpadl, refused(self.refuse_gpadls), out);
            }
            Action::UnmapGpadl(gpadl) => {
                self.mapped.remove(&gpadl);
                server.gpadl_unmapped(gpadl, out);
            }
            Action::Open(id, request) => {
                if !self.refuse_opens {
                    let base = self.mapped[&request.gpadl][0] * 4096;
                    let base = NonNull::new(base as *mut u8).unwrap();
                    let (pages, downstream) =
                        (request.pages as usize, request.downstream_page_offset as usize);
                    // SAFETY: the guest's pages are in a row, and are not freed while they are mapped, as `free_pages` checks.
                    let rings = unsafe { Rings::new(base, pages, downstream, Arc::new(())) };
                    self.open.insert(id, Channel::host(rings.unwrap()).unwrap());
                }
                server.opened(id, refused(self.refuse_opens), out);
            }
            Action::Close(id) => {
                self.open.remove(&id);
                server.closed(id, out);
            }
            Action::Modify(id, _) => server.modified(id, Ok(()), out),
            Action::Released(id) => self.released.push(id),
            Action::ConnectSocket(request) => {
                server.socket_connected(&request, Err(Status::CONNECTION_REFUSED), out);
            }
        }
    }
}

/// The guest's hypercalls, which reach the host.
pub(crate) struct Calls(Arc<Mutex<Shared>>);

impl Hypercalls for Calls {
    unsafe fn issue(&self, control: HypercallInput, input: &[u8], _: &mut [u8]) -> HypercallResult {
        assert_eq!(control.code(), HypercallCode::POST_MESSAGE);
        let (post, _) = PostMessage::read_from_prefix(input).unwrap();
        let mut shared = self.0.lock().unwrap();
        assert_eq!(post.message_type, CHANNEL_MESSAGE);
        if shared.old && post.connection == CONTACT_CONNECTION {
            return HypercallResult::new(HvStatus::INVALID_CONNECTION_ID, 0);
        }
        if shared.full_for > 0 {
            shared.full_for -= 1;
            return HypercallResult::new(HvStatus::INSUFFICIENT_BUFFERS, 0);
        }
        let payload = post.payload[..post.payload_size as usize].to_vec();
        shared.posted.push_back(payload);
        HypercallResult::new(HvStatus::SUCCESS, 0)
    }

    unsafe fn issue_fast(&self, control: HypercallInput, first: u64, _: u64) -> HypercallResult {
        assert_eq!(control.code(), HypercallCode::SIGNAL_EVENT);
        let connection = ConnectionId(first as u32);
        self.0.lock().unwrap().signals.push(connection);
        HypercallResult::new(HvStatus::SUCCESS, 0)
    }
}

/// The guest.
pub(crate) struct Guest {
    calls: Calls,
    flags: Arc<[AtomicU64; 32]>,
    now: AtomicU64,
}

fn layout(count: usize) -> Layout {
    Layout::from_size_align(count * 4096, 4096).unwrap()
}

// SAFETY: addresses are physical addresses, and pages are the taker's until they come back.
unsafe impl Hal for Guest {
    type Hypercalls = Calls;

    fn hypercalls(&self) -> &Calls {
        &self.calls
    }

    fn allocate_pages(&self, count: usize) -> Option<NonNull<u8>> {
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc_zeroed(layout(count)) })?;
        let mut shared = self.calls.0.lock().unwrap();
        shared.allocated.insert(start.as_ptr() as usize, count);
        Some(start)
    }

    unsafe fn free_pages(&self, start: NonNull<u8>, count: usize) {
        let mut shared = self.calls.0.lock().unwrap();
        let address = start.as_ptr() as usize;
        assert_eq!(shared.allocated.remove(&address), Some(count));
        let pages = (address / 4096) as u64..(address / 4096 + count) as u64;
        let used = shared.mapped.values().flatten().any(|page| pages.contains(page));
        assert!(
            !used || shared.lie.is_some(),
            "pages are freed that the host has mapped"
        );
        if !used {
            // SAFETY: they came from `allocate_pages`; those that the host uses are left.
            unsafe { dealloc(start.as_ptr(), layout(count)) };
        }
    }

    fn physical(&self, address: NonNull<u8>) -> Gpa {
        Gpa(address.as_ptr() as u64)
    }

    fn vp(&self) -> VpIndex {
        VpIndex(0)
    }

    fn take_message(&self) -> Option<Message> {
        let message = self.calls.0.lock().unwrap().messages.pop_front()?;
        Some(Message::new(CHANNEL_MESSAGE, 0, &message))
    }

    fn take_events(&self, word: usize) -> u64 {
        self.flags[word].swap(0, Ordering::AcqRel)
    }

    fn wait(&self) {
        self.now.fetch_add(1000, Ordering::Relaxed);
        self.calls.0.lock().unwrap().step();
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }
}

/// A guest and its host.
pub(crate) struct Machine {
    shared: Arc<Mutex<Shared>>,
    pub(crate) bus: Bus<Guest>,
    flags: Arc<[AtomicU64; 32]>,
}

impl Machine {
    /// A host with one echo device, and a guest that has not made contact.
    pub(crate) fn new() -> (Self, OfferId) {
        let mut shared = Shared {
            server: Server::new(Limits::default()),
            actions: Vec::new(),
            posted: VecDeque::new(),
            messages: VecDeque::new(),
            allocated: BTreeMap::new(),
            mapped: BTreeMap::new(),
            open: BTreeMap::new(),
            signals: Vec::new(),
            released: Vec::new(),
            full_for: 0,
            old: false,
            refuse_gpadls: false,
            refuse_opens: false,
            silent: false,
            lie: None,
        };
        let id = shared.offer(1);
        let shared = Arc::new(Mutex::new(shared));
        let flags: Arc<[AtomicU64; 32]> = Arc::new([const { AtomicU64::new(0) }; 32]);
        let guest = Guest {
            calls: Calls(shared.clone()),
            flags: flags.clone(),
            now: AtomicU64::new(0),
        };
        let bus = Bus::new(guest).unwrap();
        (Self { shared, bus, flags }, id)
    }

    /// A machine whose guest has made contact.
    pub(crate) fn connected() -> (Self, OfferId) {
        let (machine, id) = Self::new();
        machine.bus.block_on(machine.bus.connect()).unwrap();
        (machine, id)
    }

    pub(crate) fn host(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// The host signals a channel.
    pub(crate) fn signal(&self, flag: u32) {
        self.flags[flag as usize / 64].fetch_or(1 << (flag % 64), Ordering::AcqRel);
    }

    /// Both sides work until nothing is left to do.
    pub(crate) fn settle(&self) {
        loop {
            let host = self.host().step();
            if !self.bus.poll() && !host {
                return;
            }
        }
    }

    /// A page of the three that the contact tells of.
    pub(crate) fn contact_page(&self, index: usize) -> [u8; 4096] {
        let host = self.host();
        let (address, _) = host.allocated.iter().find(|(_, count)| **count == 3).unwrap();
        // SAFETY: the guest has allocated the pages and not given them back.
        unsafe { ((address + index * 4096) as *const [u8; 4096]).read_volatile() }
    }

    /// Pages that the guest has taken, but for those of the contact.
    pub(crate) fn pages(&self) -> usize {
        self.host().allocated.values().sum::<usize>() - 3
    }
}
