//! The interrupt remapping table (VT-d, 5.1 and 9.10): what a device's interrupt becomes is written here, by a number that the
//! device is given, together with the only device that may use the number. All units share the table.
#![allow(unsafe_code)]

use super::cache;
use crate::memory::address::{FRAME_SIZE, Frame, Spa};
use core::sync::atomic::{AtomicU64, Ordering};

/// Entries in a frame.
const IN_FRAME: u32 = (FRAME_SIZE / 16) as u32;
/// Most entries that a table can have, as a power of two.
const MOST: u32 = 16;

const PRESENT: u64 = 1 << 0;
const NO_FAULTS: u64 = 1 << 1;
const LEVEL: u64 = 1 << 4;
/// SVT 1 with SQ 0: all of the source id must be right.
const VERIFY_SOURCE: u64 = 1 << 18;

/// Where a remapped interrupt goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// APIC id of the processor.
    pub apic_id: u32,
    /// Vector there.
    pub vector: u8,
}

/// An entry in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remapped {
    /// Where the interrupt goes.
    pub target: Target,
    /// Whether it is level-triggered.
    pub level: bool,
    /// Who may raise it: bus, device and function of a device, or what the firmware gives an I/O APIC.
    pub source: u16,
}

/// The table.
#[derive(Debug)]
pub struct InterruptTable {
    start: Frame,
    order: u32,
    /// Whether targets have 32-bit APIC ids.
    extended: bool,
}

impl InterruptTable {
    /// Order of the run of frames for a table with room for `interrupts` entries.
    pub fn frame_order(interrupts: u32) -> u32 {
        let entries = interrupts.next_power_of_two().clamp(IN_FRAME, 1 << MOST);
        (entries / IN_FRAME).trailing_zeros()
    }

    /// An empty table.
    ///
    /// # Safety
    /// The 2^`frame_order` frames from `start` on are zeroed, the table's alone, and mapped for good.
    pub unsafe fn new(start: Frame, frame_order: u32, extended: bool) -> Self {
        cache::write_back(start.start(), FRAME_SIZE << frame_order);
        Self {
            start,
            order: frame_order + IN_FRAME.trailing_zeros(),
            extended,
        }
    }

    /// Its first frame, and its number of entries as a power of two.
    pub fn place(&self) -> (Frame, u32) {
        (self.start, self.order)
    }

    /// Whether targets have 32-bit APIC ids.
    pub fn is_extended(&self) -> bool {
        self.extended
    }

    /// Whether a processor's interrupts can be reached from it.
    pub fn reaches(&self, apic_id: u32) -> bool {
        self.extended || apic_id < 0xff
    }

    fn entry(&self, index: u16) -> Option<&[AtomicU64; 2]> {
        if u32::from(index) >= 1 << self.order {
            return None;
        }
        let entries = self.start.start().0 as *const [AtomicU64; 2];
        // SAFETY: the index is inside the run that `new` was given; the units and we access it atomically.
        Some(unsafe { &*entries.add(index as usize) })
    }

    fn low_word(&self, remapped: Remapped) -> u64 {
        let Target { apic_id, vector } = remapped.target;
        let destination = match self.extended {
            true => u64::from(apic_id) << 32,
            false => u64::from(apic_id) << 40,
        };
        PRESENT | if remapped.level { LEVEL } else { 0 } | u64::from(vector) << 16 | destination
    }

    /// What an entry says; `None` where it is free, or there is no such.
    pub fn get(&self, index: u16) -> Option<Remapped> {
        let entry = self.entry(index)?;
        let low = entry[0].load(Ordering::Acquire);
        let high = entry[1].load(Ordering::Acquire);
        (low & PRESENT != 0).then_some(Remapped {
            target: Target {
                apic_id: (low >> if self.extended { 32 } else { 40 }) as u32,
                vector: (low >> 16) as u8,
            },
            level: low & LEVEL != 0,
            source: high as u16,
        })
    }

    /// Takes a free entry; `None` where there is none. Callers take turns, and have the units forget the entry.
    pub fn allocate(&self, remapped: Remapped) -> Option<u16> {
        let index = (0..1u32 << self.order).find_map(|index| {
            let index = u16::try_from(index).ok()?;
            self.get(index).is_none().then_some(index)
        })?;
        let entry = self.entry(index)?;
        entry[1].store(VERIFY_SOURCE | u64::from(remapped.source), Ordering::Release);
        entry[0].store(self.low_word(remapped), Ordering::Release);
        cache::write_back(Spa(entry.as_ptr() as u64), 16);
        Some(index)
    }

    /// Sends what comes by an entry elsewhere: one store, so that an interrupt goes to the one place or to the other.
    pub fn retarget(&self, index: u16, target: Target) -> bool {
        let (Some(entry), Some(remapped)) = (self.entry(index), self.get(index)) else {
            return false;
        };
        entry[0].store(self.low_word(Remapped { target, ..remapped }), Ordering::Release);
        cache::write_back(Spa(entry.as_ptr() as u64), 16);
        true
    }

    /// Frees an entry. What still comes by it is refused.
    pub fn free(&self, index: u16) {
        self.absent(index, 0);
    }

    /// Has what comes by a free entry refused without a word.
    pub fn silence(&self, index: u16) {
        if self.get(index).is_none() {
            self.absent(index, NO_FAULTS);
        }
    }

    fn absent(&self, index: u16, low: u64) {
        if let Some(entry) = self.entry(index) {
            entry[0].store(low, Ordering::Release);
            entry[1].store(0, Ordering::Release);
            cache::write_back(Spa(entry.as_ptr() as u64), 16);
        }
    }

    /// The entries in use.
    pub fn all(&self) -> impl Iterator<Item = (u16, Remapped)> {
        (0..=u16::MAX)
            .take(1 << self.order)
            .filter_map(|index| Some((index, self.get(index)?)))
    }
}

/// Address and data of an MSI in the remappable format, for entry `index` (VT-d, 5.1.5.2).
pub const fn message(index: u16) -> (u32, u32) {
    const REMAPPABLE: u32 = 1 << 4;
    let index = index as u32;
    (
        0xfee0_0000 | REMAPPABLE | (index & 0x7fff) << 5 | (index >> 15) << 2,
        0,
    )
}

/// The entry that an MSI's address names, if it is in the remappable format.
pub const fn index_of_message(address: u32) -> Option<u16> {
    if address >> 20 != 0xfee || address & 1 << 4 == 0 {
        return None;
    }
    Some((address >> 5 & 0x7fff | (address >> 2 & 1) << 15) as u16)
}

/// An I/O APIC's redirection entry in the remappable format (VT-d, 5.1.5.1). The vector is the one that the entry of the
/// table has, since the I/O APIC knows an end of interrupt by it.
pub const fn redirection(index: u16, vector: u8, trigger: u64) -> u64 {
    const REMAPPABLE: u64 = 1 << 48;
    let index = index as u64;
    REMAPPABLE | (index & 0x7fff) << 49 | (index >> 15) << 11 | trigger | vector as u64
}

/// The entry that a redirection entry names, if it is in the remappable format.
pub const fn index_of_redirection(entry: u64) -> Option<u16> {
    if entry & 1 << 48 == 0 {
        return None;
    }
    Some((entry >> 49 | (entry >> 11 & 1) << 15) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::frames::tests::TestFrames;
    use proptest::prelude::*;

    fn table(test: &mut TestFrames, extended: bool) -> InterruptTable {
        let start = test.allocator.allocate_run(0).unwrap();
        // SAFETY: the frame was just allocated, zeroed, for the test.
        unsafe { InterruptTable::new(start, 0, extended) }
    }

    const REMAPPED: Remapped = Remapped {
        target: Target {
            apic_id: 3,
            vector: 0x41,
        },
        level: false,
        source: 0x0018,
    };

    #[test]
    fn entries_are_as_the_specification_draws_them() {
        let mut test = TestFrames::new(8);
        for (extended, low) in [(true, 0x3_0041_0001), (false, 0x300_0041_0001)] {
            let table = table(&mut test, extended);
            let index = table.allocate(REMAPPED).unwrap();
            let entry = table.entry(index).unwrap();
            assert_eq!(entry[0].load(Ordering::Relaxed), low);
            assert_eq!(entry[1].load(Ordering::Relaxed), 0x4_0018);
            assert_eq!(table.get(index), Some(REMAPPED));
        }
    }

    #[test]
    fn retargeting_changes_the_target_and_nothing_else() {
        let mut test = TestFrames::new(8);
        let table = table(&mut test, true);
        let level = Remapped {
            level: true,
            ..REMAPPED
        };
        let index = table.allocate(level).unwrap();
        let target = Target {
            apic_id: 0x1_0000,
            vector: 0x99,
        };
        assert!(table.retarget(index, target));
        assert_eq!(table.get(index), Some(Remapped { target, ..level }));
        assert!(!table.retarget(index + 1, target));
    }

    #[test]
    fn a_full_table_gives_nothing_and_a_freed_entry_is_given_again() {
        let mut test = TestFrames::new(8);
        let table = table(&mut test, true);
        for index in 0..256 {
            assert_eq!(table.allocate(REMAPPED), Some(index));
        }
        assert_eq!(table.allocate(REMAPPED), None);
        table.free(7);
        assert_eq!(table.get(7), None);
        table.silence(7);
        assert_eq!(table.allocate(REMAPPED), Some(7));
        assert_eq!(table.get(256), None);
    }

    #[test]
    fn without_extended_mode_only_small_apic_ids_are_reached() {
        let mut test = TestFrames::new(8);
        assert!(!table(&mut test, false).reaches(0xff));
        assert!(table(&mut test, false).reaches(0xfe));
        assert!(table(&mut test, true).reaches(0x1_0000));
    }

    proptest! {
        #[test]
        fn messages_and_redirection_entries_name_their_entry(index: u16, vector: u8) {
            let (address, _) = message(index);
            prop_assert_eq!(index_of_message(address), Some(index));
            let entry = redirection(index, vector, 1 << 15);
            prop_assert_eq!(index_of_redirection(entry), Some(index));
            prop_assert_eq!(entry as u8, vector);
        }
    }

    #[test]
    fn the_old_formats_name_no_entry() {
        assert_eq!(index_of_message(0xfee0_1000), None);
        assert_eq!(index_of_message(0x1234_0010), None);
        assert_eq!(index_of_redirection(0x0100_0000_0000_0030), None);
    }
}
