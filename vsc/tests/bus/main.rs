//! The driver of the bus against the bus's server. That no page is freed while the host has it mapped is checked with every page.

mod machine;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use hypercall_api::id::VpIndex;
use machine::{Guest, Machine};
use vmbus::protocol::body::OPEN_USER_DATA;
use vmbus::protocol::guid::class;
use vmbus::protocol::version::Version;
use vmbus::ring::{Channel, PacketFlags};
use vsc::bus::{BusError, ChannelHandle, Interrupt, RingPages};

const RINGS: RingPages = RingPages::both(2);
const VP: VpIndex = VpIndex(0);

#[derive(Default)]
struct Owner {
    interrupts: AtomicUsize,
    gone: AtomicUsize,
}

impl Interrupt for Owner {
    fn interrupt(&self) -> bool {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
        false
    }

    fn gone(&self) {
        self.gone.fetch_add(1, Ordering::Relaxed);
    }
}

fn open(machine: &Machine) -> Result<(Channel, ChannelHandle<Guest>), BusError> {
    let bus = &machine.bus;
    let offered = bus.find(class::ECHO).expect("the host offers it");
    bus.block_on(bus.open(&offered, RINGS, VP, &[0; OPEN_USER_DATA]))
}

#[test]
fn the_newest_version_is_agreed_on_and_the_offers_are_there() {
    let (machine, _) = Machine::new();
    let bus = &machine.bus;
    assert_eq!(bus.block_on(bus.connect()), Ok(Version::V6_0));
    assert_eq!(bus.offers().len(), 1);
    assert!(bus.find(class::SCSI).is_none());
}

#[test]
fn where_the_new_connection_is_missing_an_old_version_is_agreed_on() {
    let (machine, _) = Machine::new();
    machine.host().old = true;
    let bus = &machine.bus;
    assert_eq!(bus.block_on(bus.connect()), Ok(Version::V4_1));
}

#[test]
fn a_host_that_says_nothing_is_given_up_after_the_time_that_was_given() {
    let (machine, _) = Machine::new();
    machine.host().silent = true;
    let bus = &machine.bus;
    assert_eq!(bus.block_on_for(50_000, bus.connect()), None);
}

#[test]
fn messages_that_are_not_taken_are_posted_again() {
    let (machine, _) = Machine::connected();
    machine.host().full_for = 20;
    assert!(open(&machine).is_ok());
    assert_eq!(machine.host().full_for, 0);
}

#[test]
fn packets_go_both_ways_and_signals_reach_their_owners() {
    let (machine, id) = Machine::connected();
    let (mut rings, handle) = open(&machine).unwrap();
    let owner = Arc::new(Owner::default());
    handle.listen(&owner);
    machine.settle();
    let before = owner.interrupts.load(Ordering::Relaxed);
    let signal = rings
        .outgoing
        .send(7, PacketFlags::empty(), &[b"to the host"])
        .unwrap();
    assert!(signal.is_needed());
    handle.signal();
    assert_eq!(machine.host().signals, [handle.offered().connection]);
    {
        let mut host = machine.host();
        let channel = host.open.get_mut(&id).unwrap();
        let mut batch = channel.incoming.batch();
        assert_eq!(batch.next().unwrap().map(|packet| packet.transaction()), Some(7));
        let _ = batch.finish();
        let _ = channel.outgoing.complete(7, &[b"to the guest"]).unwrap();
    }
    machine.signal(handle.offered().relid.0);
    machine.signal(handle.offered().relid.0 + 100);
    assert!(machine.bus.poll());
    assert_eq!(owner.interrupts.load(Ordering::Relaxed), before + 1);
    let mut batch = rings.incoming.batch();
    assert_eq!(batch.next().unwrap().map(|packet| packet.transaction()), Some(7));
}

#[test]
fn a_channel_is_opened_once_at_a_time_and_its_pages_come_back() {
    let (machine, _) = Machine::connected();
    for _ in 0..3 {
        let (rings, handle) = open(&machine).unwrap();
        assert!(machine.bus.find(class::ECHO).is_none());
        let again = machine
            .bus
            .open(handle.offered(), RINGS, VP, &[0; OPEN_USER_DATA]);
        assert_eq!(
            machine.bus.block_on(again).map(drop),
            Err(BusError::InUse(handle.offered().relid))
        );
        assert_eq!(machine.pages(), 6);
        let owner = Arc::new(Owner::default());
        handle.listen(&owner);
        drop((rings, handle));
        machine.settle();
        assert_eq!(machine.pages(), 0);
        assert!(machine.host().open.is_empty());
        machine.signal(1);
        machine.settle();
        assert!(owner.gone.load(Ordering::Relaxed) == 0);
    }
}

#[test]
fn what_the_host_refuses_is_an_error_and_holds_no_pages() {
    let (machine, _) = Machine::connected();
    machine.host().refuse_gpadls = true;
    assert!(matches!(open(&machine).map(drop), Err(BusError::Refused(_))));
    machine.settle();
    assert_eq!(machine.pages(), 0);
    machine.host().refuse_gpadls = false;
    machine.host().refuse_opens = true;
    assert!(matches!(open(&machine).map(drop), Err(BusError::Refused(_))));
    machine.settle();
    assert_eq!(machine.pages(), 0);
    machine.host().refuse_opens = false;
    assert!(open(&machine).is_ok());
}

#[test]
fn a_device_that_goes_is_told_of_and_given_up() {
    let (machine, id) = Machine::connected();
    let (rings, handle) = open(&machine).unwrap();
    let owner = Arc::new(Owner::default());
    handle.listen(&owner);
    machine.host().rescind(id);
    machine.settle();
    assert_eq!(owner.gone.load(Ordering::Relaxed), 1);
    assert!(machine.bus.offers().is_empty());
    // The rings are there as long as somebody has them.
    assert_eq!(machine.pages(), 6);
    assert_eq!(machine.host().released, []);
    drop(rings);
    drop(handle);
    machine.settle();
    assert_eq!(machine.pages(), 0);
    assert_eq!(machine.host().released, [id]);
}

#[test]
fn offers_that_come_later_are_waited_for() {
    let (machine, id) = Machine::connected();
    let bus = &machine.bus;
    let seen = bus.block_on(bus.changed(0)).unwrap();
    machine.host().offer(2);
    let seen = bus.block_on(bus.changed(seen)).unwrap();
    assert_eq!(bus.offers().len(), 2);
    machine.host().rescind(id);
    bus.block_on(bus.changed(seen)).unwrap();
    assert_eq!(bus.offers().len(), 1);
}

/// Begins to open, lets both sides work for `steps` steps, does `then`, and lets everything come to its end.
fn halfway(steps: usize, then: impl FnOnce(&Machine)) -> Machine {
    let (machine, _) = Machine::connected();
    {
        let offered = machine.bus.find(class::ECHO).expect("the host offers it");
        let mut opening = pin!(machine.bus.open(&offered, RINGS, VP, &[0; OPEN_USER_DATA]));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..steps {
            if opening.as_mut().poll(&mut context).is_ready() {
                break;
            }
            machine.host().step();
            machine.bus.poll();
        }
        then(&machine);
    }
    machine.settle();
    machine
}

#[test]
fn an_open_that_nobody_waits_for_any_more_leaves_nothing_at_any_step() {
    for steps in 0..20 {
        let machine = halfway(steps, |_| {});
        assert_eq!(machine.pages(), 0, "after {steps} steps");
        assert!(machine.host().open.is_empty());
        assert!(open(&machine).is_ok());
    }
}

#[test]
fn a_device_that_goes_while_it_is_opened_leaves_nothing_at_any_step() {
    for steps in 0..20 {
        let machine = halfway(steps, |machine| {
            let id = vmbus::server::OfferId(1);
            machine.host().rescind(id);
        });
        assert_eq!(machine.pages(), 0, "after {steps} steps");
        assert_eq!(machine.host().released.len(), 1, "after {steps} steps");
        assert!(machine.bus.offers().is_empty());
    }
}

#[test]
fn a_host_that_lies_breaks_nothing() {
    for seed in 1..300_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        let (machine, id) = Machine::connected();
        machine.host().lie = Some(Box::new(move |message| match random() % 4 {
            0 => message.truncate(random() % (message.len() + 1)),
            1 => {
                let at = random() % message.len().max(1);
                if let Some(byte) = message.get_mut(at) {
                    *byte = random() as u8;
                }
            }
            2 => message[0] = (random() % 26) as u8,
            _ => {}
        }));
        for round in 0..6 {
            let bus = &machine.bus;
            if let Some(offered) = bus.find(class::ECHO) {
                let opening = bus.open(&offered, RINGS, VP, &[0; OPEN_USER_DATA]);
                drop(bus.block_on_for(40_000, opening));
            }
            if round == 2 {
                machine.host().offer(3);
                machine.host().rescind(id);
            }
            machine.settle();
        }
    }
}

/// Positions in an offer: the monitor, whether there is one, whether the interrupt is dedicated.
const MONITOR: usize = 188;
const HAS_MONITOR: usize = 189;
const DEDICATED: usize = 190;

/// A machine whose host's offers are changed by `change`, and which way its channel is signalled: hypercalls, the flag in the
/// interrupt page, triggers in the monitor page.
fn signalled(change: impl Fn(&mut [u8]) + Send + 'static) -> (usize, bool, [u32; 4]) {
    let (machine, _) = Machine::new();
    machine.host().lie = Some(Box::new(move |message| {
        if message[0] == 1 {
            change(message);
        }
    }));
    machine.bus.block_on(machine.bus.connect()).unwrap();
    let (_channel, handle) = open(&machine).unwrap();
    handle.signal();
    let relid = handle.offered().relid.0;
    let (interrupt, monitor) = (machine.contact_page(0), machine.contact_page(2));
    let flag = interrupt[2048 + relid as usize / 8] >> (relid % 8) & 1 != 0;
    let group = |index: usize| {
        let at = 8 + 8 * index;
        u32::from_le_bytes(monitor[at..at + 4].try_into().unwrap())
    };
    let signals = machine.host().signals.len();
    (signals, flag, [0, 1, 2, 3].map(group))
}

#[test]
fn a_channel_with_an_interrupt_of_its_own_is_signalled_by_a_hypercall_alone() {
    assert_eq!(signalled(|_| {}), (1, false, [0; 4]));
}

#[test]
fn a_channel_that_shares_its_interrupt_sets_its_flag_before_the_hypercall() {
    assert_eq!(signalled(|offer| offer[DEDICATED] = 0), (1, true, [0; 4]));
}

#[test]
fn a_host_that_monitors_a_channel_finds_its_trigger_and_gets_no_hypercall() {
    let monitored = |offer: &mut [u8]| (offer[MONITOR], offer[HAS_MONITOR]) = (37, 1);
    assert_eq!(signalled(monitored), (0, true, [0, 1 << 5, 0, 0]));
    // There are 128 triggers: whoever says another is signalled as usual.
    let beyond = |offer: &mut [u8]| (offer[MONITOR], offer[HAS_MONITOR]) = (128, 1);
    assert_eq!(signalled(beyond), (1, false, [0; 4]));
}
