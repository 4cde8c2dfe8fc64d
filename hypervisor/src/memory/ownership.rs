//! Who else uses a frame of the root's: whether it is deposited, or how many mappings of children hold it. A frame that a
//! child can reach is never deposited, and a deposited frame is never mapped.

use super::address::Frame;
use core::sync::atomic::{AtomicU8, Ordering};
use hypercall_api::status::HvStatus;

/// The frame is deposited.
const DEPOSITED: u8 = u8::MAX;
/// Most mappings of one frame.
const MOST: u8 = u8::MAX - 1;

/// The state of every frame, by its number.
pub struct Ownership {
    frames: &'static [AtomicU8],
}

impl Ownership {
    /// Nothing is deposited or mapped. `frames` are zeroes, one a frame from number 0 on.
    pub const fn new(frames: &'static [AtomicU8]) -> Self {
        Self { frames }
    }

    fn state(&self, frame: Frame) -> Result<&AtomicU8, HvStatus> {
        usize::try_from(frame.number())
            .ok()
            .and_then(|number| self.frames.get(number))
            .ok_or(HvStatus::INVALID_PARAMETER)
    }

    /// Takes note that a child maps the frame.
    pub fn map(&self, frame: Frame) -> Result<(), HvStatus> {
        let changed =
            self.state(frame)?
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| match state {
                    DEPOSITED => None,
                    MOST => None,
                    mappings => Some(mappings + 1),
                });
        match changed {
            Ok(_) => Ok(()),
            Err(MOST) => Err(HvStatus::NO_RESOURCES),
            Err(_) => Err(HvStatus::OPERATION_DENIED),
        }
    }

    /// Takes note that a child does not map the frame any more.
    pub fn unmap(&self, frame: Frame) {
        if let Ok(state) = self.state(frame) {
            let changed = state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| match state {
                0 | DEPOSITED => None,
                mappings => Some(mappings - 1),
            });
            debug_assert!(
                changed.is_ok(),
                "{frame:?} is unmapped more often than it was mapped"
            );
        }
    }

    /// Takes note that the frame is deposited; refused while a child maps it.
    pub fn deposit(&self, frame: Frame) -> Result<(), HvStatus> {
        self.deposit_run(frame, 1).1
    }

    /// The same for `count` frames from `first` on, up to the first that is refused. Tells how many were not, and why that one
    /// was.
    pub fn deposit_run(&self, first: Frame, count: u64) -> (u64, Result<(), HvStatus>) {
        let run = usize::try_from(first.number())
            .ok()
            .and_then(|first| self.frames.get(first..)?.get(..count as usize));
        let Some(run) = run else {
            return (0, Err(HvStatus::INVALID_PARAMETER));
        };
        let free = |state: &AtomicU8| {
            state
                .compare_exchange(0, DEPOSITED, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        };
        match run.iter().position(|state| !free(state)) {
            None => (count, Ok(())),
            Some(refused) => (refused as u64, Err(HvStatus::OPERATION_DENIED)),
        }
    }

    /// Takes note that the frame is the root's again.
    pub fn withdraw(&self, frame: Frame) {
        if let Ok(state) = self.state(frame) {
            let before = state.swap(0, Ordering::AcqRel);
            debug_assert_eq!(before, DEPOSITED, "{frame:?} was not deposited");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::Spa;
    use super::*;

    fn world() -> (Ownership, Frame) {
        let frames = (0..16).map(|_| AtomicU8::new(0)).collect::<Vec<_>>().leak();
        (Ownership::new(frames), Frame::containing(Spa(0x3000)))
    }

    #[test]
    fn a_mapped_frame_cannot_be_deposited() {
        let (ownership, frame) = world();
        ownership.map(frame).unwrap();
        ownership.map(frame).unwrap();
        ownership.unmap(frame);
        assert_eq!(ownership.deposit(frame), Err(HvStatus::OPERATION_DENIED));
        ownership.unmap(frame);
        assert_eq!(ownership.deposit(frame), Ok(()));
    }

    #[test]
    fn a_run_is_deposited_up_to_the_first_that_is_mapped() {
        let (ownership, frame) = world();
        let mapped = Frame::containing(Spa(0x6000));
        ownership.map(mapped).unwrap();
        let denied = Err(HvStatus::OPERATION_DENIED);
        assert_eq!(ownership.deposit_run(frame, 8), (3, denied));
        assert_eq!(ownership.deposit_run(frame, 1), (0, denied));
        assert_eq!(
            ownership.deposit_run(Frame::containing(Spa(0x7000)), 9),
            (9, Ok(()))
        );
        assert_eq!(
            ownership.deposit_run(Frame::containing(Spa(0x8000)), 9),
            (0, Err(HvStatus::INVALID_PARAMETER))
        );
        ownership.unmap(mapped);
        assert_eq!(ownership.deposit(mapped), Ok(()));
    }

    #[test]
    fn a_deposited_frame_can_be_neither_mapped_nor_deposited() {
        let (ownership, frame) = world();
        ownership.deposit(frame).unwrap();
        assert_eq!(ownership.map(frame), Err(HvStatus::OPERATION_DENIED));
        assert_eq!(ownership.deposit(frame), Err(HvStatus::OPERATION_DENIED));
        ownership.withdraw(frame);
        assert_eq!(ownership.map(frame), Ok(()));
    }

    #[test]
    fn mappings_of_one_frame_are_bounded() {
        let (ownership, frame) = world();
        for _ in 0..MOST {
            ownership.map(frame).unwrap();
        }
        assert_eq!(ownership.map(frame), Err(HvStatus::NO_RESOURCES));
    }

    #[test]
    fn frames_beyond_memory_are_refused() {
        let (ownership, _) = world();
        let beyond = Frame::containing(Spa(0x10_0000));
        assert_eq!(ownership.map(beyond), Err(HvStatus::INVALID_PARAMETER));
    }
}
