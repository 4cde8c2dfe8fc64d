//! A unit's commands, against a model of its registers that reads the queue from memory as the hardware does.
#![allow(unsafe_code)]

use super::*;
use crate::memory::address::Spa;
use crate::memory::frames::tests::TestFrames;
use std::collections::BTreeMap;
use std::vec::Vec;

const CAP: u64 = 0xd2_008c_222f_0606;
const ECAP: u64 = 0xf0_0f5a;

#[derive(Default)]
struct State {
    registers: BTreeMap<u64, u32>,
    /// Descriptors carried out, without those that wait.
    done: Vec<[u64; 2]>,
    /// Commands given to the IOTLB and context registers.
    direct: Vec<(u64, u64)>,
    commands: Vec<u32>,
    /// It takes no command and answers no wait.
    hangs: bool,
    /// It refuses this type of descriptor.
    refuses: Option<u64>,
}

/// A unit in memory.
pub(crate) struct FakeUnit(Mutex<State>);

impl FakeUnit {
    fn new(capability: u64, extended: u64) -> Self {
        let fake = Self(Mutex::default());
        fake.put(offset::CAPABILITY, capability);
        fake.put(offset::EXTENDED_CAPABILITY, extended);
        fake
    }

    fn put(&self, offset: u64, value: u64) {
        let registers = &mut self.0.lock().registers;
        registers.insert(offset, value as u32);
        registers.insert(offset + 4, (value >> 32) as u32);
    }

    fn run_queue(state: &mut State, base: u64, tail: u64) {
        let mut head = u64::from(*state.registers.get(&offset::QUEUE_HEAD).unwrap_or(&0));
        while head != tail && !state.hangs {
            // SAFETY: the queue's frames are the test's own.
            let descriptor = unsafe { ((base + head) as *const [u64; 2]).read_volatile() };
            if state.refuses == Some(descriptor[0] & 0xf) {
                state.registers.insert(offset::FAULT_STATUS, 1 << 4);
                return;
            }
            if descriptor[0] & 0xf == 5 {
                // SAFETY: as above: the word is behind the queue.
                unsafe { (descriptor[1] as *mut u32).write_volatile((descriptor[0] >> 32) as u32) };
            } else {
                state.done.push(descriptor);
            }
            head = (head + 16) % FRAME_SIZE;
            state.registers.insert(offset::QUEUE_HEAD, head as u32);
        }
    }
}

impl Registers for FakeUnit {
    fn read32(&self, offset: u64) -> u32 {
        self.0.lock().registers.get(&offset).copied().unwrap_or(0)
    }

    fn read64(&self, offset: u64) -> u64 {
        u64::from(self.read32(offset)) | u64::from(self.read32(offset + 4)) << 32
    }

    fn write32(&self, offset: u64, value: u32) {
        let mut state = self.0.lock();
        if offset != offset::GLOBAL_COMMAND {
            state.registers.insert(offset, value);
            return;
        }
        state.commands.push(value);
        if !state.hangs {
            let once = global::ROOT_TABLE | global::INTERRUPT_TABLE;
            let before = state.registers.get(&offset::GLOBAL_STATUS).copied().unwrap_or(0);
            let status = value & (global::KEPT | once) | before & once;
            state.registers.insert(offset::GLOBAL_STATUS, status);
        }
    }

    fn write64(&self, offset: u64, value: u64) {
        let iotlb = self.read64(offset::EXTENDED_CAPABILITY) >> 8 & 0x3ff;
        let is_command = offset == offset::CONTEXT_COMMAND || offset == iotlb * 16 + 8;
        if is_command {
            let mut state = self.0.lock();
            state.direct.push((offset, value));
            let pending = if state.hangs { value } else { value & !(1 << 63) };
            drop(state);
            self.put(offset, pending);
            return;
        }
        self.put(offset, value);
        if offset == offset::QUEUE_TAIL {
            let base = self.read64(offset::QUEUE_ADDRESS) & !0xfff;
            if base != 0 {
                Self::run_queue(&mut self.0.lock(), base, value);
            }
        }
    }
}

struct World {
    unit: Unit<FakeUnit>,
    _frames: TestFrames,
}

impl World {
    fn new(capability: u64, extended: u64) -> Self {
        let mut frames = TestFrames::new(16);
        let run = frames.allocator.allocate_run(1).unwrap();
        // SAFETY: two frames of the test's, zeroed.
        let queue = unsafe { Queue::new(run) };
        let unit = Unit::new(0, FakeUnit::new(capability, extended), queue);
        Self {
            unit,
            _frames: frames,
        }
    }

    fn started() -> Self {
        let world = Self::new(CAP, ECAP);
        world.unit.start_queue().unwrap();
        world
    }

    fn done(&self) -> Vec<[u64; 2]> {
        core::mem::take(&mut self.unit.registers.0.lock().done)
    }
}

#[test]
fn descriptors_are_as_the_specification_draws_them() {
    let world = World::started();
    world
        .unit
        .invalidate(&[
            Invalidation::AllContexts,
            Invalidation::Context {
                domain: 0x12,
                rid: 0x0118,
            },
            Invalidation::AllTranslations,
            Invalidation::Domain(0x12),
            Invalidation::Pages {
                domain: 0x12,
                address: 0x4000,
                order: 2,
            },
            Invalidation::AllInterrupts,
            Invalidation::Interrupt(0x105),
        ])
        .unwrap();
    assert_eq!(
        world.done(),
        [
            [0x11, 0],
            [0x0118_0012_0031, 0],
            [0xd2, 0],
            [0x12_00e2, 0],
            [0x12_00f2, 0x4002],
            [0x04, 0],
            [0x0105_0000_0014, 0],
        ]
    );
}

#[test]
fn more_than_the_queue_holds_goes_in_turns_and_wraps() {
    let world = World::started();
    let many: Vec<_> = (0..1000).map(Invalidation::Domain).collect();
    world.unit.invalidate(&many).unwrap();
    let done = world.done();
    assert_eq!(done.len(), 1000);
    assert!((0..1000).all(|n| done[n][0] >> 16 & 0xffff == n as u64));
}

#[test]
fn a_unit_that_does_not_answer_is_told_of_after_a_while() {
    let world = World::started();
    world.unit.registers.0.lock().hangs = true;
    assert!(matches!(
        world.unit.invalidate(&[Invalidation::AllContexts]),
        Err(UnitError::TimedOut(_))
    ));
    assert!(matches!(
        world.unit.start_translation(),
        Err(UnitError::TimedOut("started translating"))
    ));
}

#[test]
fn a_refused_descriptor_is_an_error_at_once() {
    let world = World::started();
    world.unit.registers.0.lock().refuses = Some(4);
    assert_eq!(
        world.unit.invalidate(&[Invalidation::AllInterrupts]),
        Err(UnitError::Invalidation(1 << 4))
    );
}

#[test]
fn without_a_queue_registers_are_used() {
    let world = World::new(CAP, ECAP & !0b1010);
    world.unit.start_queue().unwrap();
    world
        .unit
        .invalidate(&[
            Invalidation::Context { domain: 3, rid: 0x18 },
            Invalidation::Domain(3),
            Invalidation::Pages {
                domain: 3,
                address: 0x8000,
                order: 1,
            },
        ])
        .unwrap();
    let state = world.unit.registers.0.lock();
    assert_eq!(
        state.direct,
        [
            (0x28, 7 << 61 | 0x18_0003),
            (0xf8, 1 << 63 | 2 << 60 | 3 << 48 | 3 << 32),
            (0xf8, 1 << 63 | 3 << 60 | 3 << 48 | 3 << 32),
        ]
    );
    assert_eq!(state.registers[&0xf0], 0x8001);
}

#[test]
fn what_is_on_stays_on_while_more_is_turned_on() {
    let world = World::started();
    let (unit, frame) = (&world.unit, Frame::containing(Spa(0x5000)));
    unit.set_root_table(frame).unwrap();
    unit.start_interrupts(frame, 9, true).unwrap();
    unit.start_translation().unwrap();
    let status = unit.registers.read32(offset::GLOBAL_STATUS);
    let on = global::TRANSLATION | global::QUEUE | global::INTERRUPTS;
    assert_eq!(status & global::KEPT, on);
    assert_eq!(unit.registers.read64(offset::INTERRUPT_TABLE), 0x5808);
    unit.reset().unwrap();
    assert_eq!(unit.registers.read32(offset::GLOBAL_STATUS) & global::KEPT, 0);
}

#[test]
fn the_old_interrupt_format_is_blocked_where_firmware_let_it_pass() {
    let world = World::started();
    let registers = &world.unit.registers;
    registers.put(
        offset::GLOBAL_STATUS,
        (global::COMPATIBILITY | global::QUEUE).into(),
    );
    world
        .unit
        .start_interrupts(Frame::containing(Spa(0x5000)), 8, false)
        .unwrap();
    let status = registers.read32(offset::GLOBAL_STATUS) & global::KEPT;
    assert_eq!(status, global::QUEUE | global::INTERRUPTS);
}

#[test]
fn pages_are_named_by_the_smallest_run_that_holds_them() {
    let world = World::started();
    let pages = |address, count| world.unit.invalidation_of(1, address, count);
    let run = |address, order| Invalidation::Pages {
        domain: 1,
        address,
        order,
    };
    assert_eq!(pages(0x5000, 1), run(0x5000, 0));
    assert_eq!(pages(0x4000, 2), run(0x4000, 1));
    assert_eq!(pages(0x5000, 2), run(0x4000, 2));
    assert_eq!(pages(0x3000, 2), run(0x0000, 3));
    assert_eq!(pages(0, 1 << 18), run(0, 18));
    assert_eq!(pages(0, 1 << 19), Invalidation::Domain(1));
    // Not every unit can choose pages.
    let coarse = World::new(CAP & !(1 << 39), ECAP);
    assert_eq!(coarse.unit.invalidation_of(1, 0x5000, 1), Invalidation::Domain(1));
}
