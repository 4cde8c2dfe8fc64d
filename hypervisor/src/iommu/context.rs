//! Root and context tables: which domain a device is of (VT-d, 9.1 and 9.3). One tree a PCI segment, which all units of the
//! segment share: whichever of them a device is behind, it finds the same entry.
#![allow(unsafe_code)]

use super::cache;
use crate::memory::address::{Frame, Spa};
use crate::memory::frames::FrameSource;
use core::sync::atomic::{AtomicU64, Ordering};

/// An entry of either table.
type Entry = [AtomicU64; 2];

const PRESENT: u64 = 1 << 0;
const NO_FAULTS: u64 = 1 << 1;
const ADDRESS: u64 = !0xfff;

/// What a context entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Context {
    /// The device reaches nothing, and what it tries is reported.
    Blocked,
    /// The device reaches nothing, and is not heard any more.
    Silenced,
    /// The device reaches what the domain's page tables map.
    Translated {
        /// Number of the domain.
        domain: u16,
        /// Root of its page tables.
        root: Frame,
        /// Their depth (AW): 1 three levels, 2 four.
        width: u64,
    },
}

impl Context {
    const fn words(self) -> [u64; 2] {
        match self {
            Self::Blocked => [0, 0],
            Self::Silenced => [NO_FAULTS, 0],
            // Translation type 0: only untranslated requests, so that no device translates by itself.
            Self::Translated { domain, root, width } => {
                [root.start().0 | PRESENT, width | (domain as u64) << 8]
            }
        }
    }

    fn of(words: [u64; 2]) -> Self {
        match words[0] {
            0 => Self::Blocked,
            low if low & PRESENT == 0 => Self::Silenced,
            low => Self::Translated {
                domain: (words[1] >> 8) as u16,
                root: Frame::containing(Spa(low & ADDRESS)),
                width: words[1] & 7,
            },
        }
    }
}

/// The tree of one segment. It lives for ever.
#[derive(Debug)]
pub struct ContextTree {
    root: Frame,
}

/// The entries of a table.
///
/// # Safety
/// `table` is a root or context table of a [`ContextTree`].
unsafe fn entries(table: Frame) -> &'static [Entry; 256] {
    // SAFETY: tables are whole frames, mapped, never freed; the units and we access them atomically.
    unsafe { &*(table.start().0 as *const [Entry; 256]) }
}

fn write(entry: &Entry, [low, high]: [u64; 2]) {
    // Nothing of an entry counts while it is not present.
    if entry[0].load(Ordering::Relaxed) & PRESENT != 0 {
        entry[0].store(0, Ordering::Release);
    }
    entry[1].store(high, Ordering::Release);
    entry[0].store(low, Ordering::Release);
    cache::write_back(Spa(entry.as_ptr() as u64), 16);
}

impl ContextTree {
    /// A tree in which every device is blocked.
    pub fn new(source: &mut dyn FrameSource) -> Option<Self> {
        let root = source.allocate()?;
        cache::write_back(root.start(), 4096);
        Some(Self { root })
    }

    /// The root table.
    pub fn root(&self) -> Frame {
        self.root
    }

    fn context_table(&self, bus: u8) -> Option<&'static [Entry; 256]> {
        // SAFETY: the root is a root table.
        let entry = unsafe { &entries(self.root)[bus as usize] };
        let low = entry[0].load(Ordering::Acquire);
        // SAFETY: present root entries lead to context tables, made in `set`.
        (low & PRESENT != 0).then(|| unsafe { entries(Frame::containing(Spa(low & ADDRESS))) })
    }

    /// What is said of a device.
    pub fn get(&self, rid: u16) -> Context {
        self.context_table((rid >> 8) as u8)
            .map_or(Context::Blocked, |table| {
                let entry = &table[rid as usize & 0xff];
                Context::of([0, 1].map(|word| entry[word].load(Ordering::Acquire)))
            })
    }

    /// Changes what is said of a device; `false` where a table is needed and there is no frame for it. Callers take turns,
    /// and have the units forget the device.
    pub fn set(&self, rid: u16, context: Context, source: &mut dyn FrameSource) -> bool {
        let bus = (rid >> 8) as u8;
        if self.context_table(bus).is_none() {
            if context == Context::Blocked {
                return true;
            }
            let Some(table) = source.allocate() else {
                return false;
            };
            cache::write_back(table.start(), 4096);
            // SAFETY: the root is a root table.
            let entry = unsafe { &entries(self.root)[bus as usize] };
            write(entry, [table.start().0 | PRESENT, 0]);
        }
        if let Some(table) = self.context_table(bus) {
            write(&table[rid as usize & 0xff], context.words());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::frames::tests::TestFrames;

    #[test]
    fn entries_are_as_the_specification_draws_them() {
        let root = Frame::containing(Spa(0x12_3000));
        let context = Context::Translated {
            domain: 0x305,
            root,
            width: 2,
        };
        assert_eq!(context.words(), [0x12_3001, 0x3_0502]);
        assert_eq!(Context::Silenced.words(), [2, 0]);
        assert_eq!(Context::of(context.words()), context);
    }

    #[test]
    fn a_device_is_blocked_until_it_is_told_otherwise() {
        let mut test = TestFrames::new(16);
        let tree = ContextTree::new(&mut test.allocator).unwrap();
        let root = test.allocator.allocate().unwrap();
        let context = Context::Translated {
            domain: 1,
            root,
            width: 1,
        };
        assert_eq!(tree.get(0x0208), Context::Blocked);
        assert!(tree.set(0x0208, context, &mut test.allocator));
        assert_eq!(tree.get(0x0208), context);
        assert_eq!(
            (tree.get(0x0209), tree.get(0x0308)),
            (Context::Blocked, Context::Blocked)
        );
        assert!(tree.set(0x0208, Context::Silenced, &mut test.allocator));
        assert_eq!(tree.get(0x0208), Context::Silenced);
    }

    #[test]
    fn without_a_frame_for_a_table_nothing_changes() {
        let mut test = TestFrames::new(4);
        let tree = ContextTree::new(&mut test.allocator).unwrap();
        while test.allocator.allocate().is_some() {}
        assert!(!tree.set(1, Context::Silenced, &mut test.allocator));
        assert_eq!(tree.get(1), Context::Blocked);
        assert!(tree.set(1, Context::Blocked, &mut test.allocator));
    }
}
