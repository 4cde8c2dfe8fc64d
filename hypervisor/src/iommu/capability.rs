//! What a remapping unit can do: its capability registers (VT-d, 11.4.2 and 11.4.3), and what all units can do.

use crate::memory::address::PageSize;

/// The capability register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability(pub u64);

/// The extended capability register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtendedCapability(pub u64);

/// `width` bits of `register` from bit `low` on.
const fn bits(register: u64, low: u32, width: u32) -> u64 {
    register >> low & ((1 << width) - 1)
}

const fn bit(register: u64, index: u32) -> bool {
    bits(register, index, 1) != 0
}

impl Capability {
    /// Domain ids that there are, 0 included (ND).
    pub const fn domains(self) -> u32 {
        1 << (4 + 2 * bits(self.0, 0, 3))
    }

    /// Whether the write buffer must be flushed after a change of tables in memory (RWBF).
    pub const fn needs_write_buffer_flush(self) -> bool {
        bit(self.0, 4)
    }

    /// Whether there is a protected low-memory or high-memory region (PLMR, PHMR).
    pub const fn protects_memory(self) -> bool {
        bits(self.0, 5, 2) != 0
    }

    /// Whether absent entries are cached too (CM).
    pub const fn caches_absent_entries(self) -> bool {
        bit(self.0, 7)
    }

    /// Whether tables of `levels` levels can be walked (SAGAW).
    pub const fn walks(self, levels: u8) -> bool {
        levels >= 3 && levels <= 5 && bit(self.0, 6 + levels as u32)
    }

    /// Bits of the addresses that can be translated (MGAW).
    pub const fn address_bits(self) -> u32 {
        bits(self.0, 16, 6) as u32 + 1
    }

    /// Offset of the first fault record (FRO).
    pub const fn fault_records(self) -> u64 {
        bits(self.0, 24, 10) * 16
    }

    /// Number of fault records (NFR).
    pub const fn fault_record_count(self) -> u64 {
        bits(self.0, 40, 8) + 1
    }

    /// The largest pages (SLLPS).
    pub const fn largest_page(self) -> PageSize {
        match (bit(self.0, 34), bit(self.0, 35)) {
            (true, true) => PageSize::Huge1G,
            (true, false) => PageSize::Large2M,
            _ => PageSize::Small4K,
        }
    }

    /// The largest run of pages that one invalidation takes, as a power of two; `None` where pages cannot be chosen (PSI, MAMV).
    pub const fn page_selective(self) -> Option<u32> {
        if bit(self.0, 39) {
            Some(bits(self.0, 48, 6) as u32)
        } else {
            None
        }
    }

    /// Whether an invalidation can wait for writes and for reads that are under way (DWD, DRD).
    pub const fn drains(self) -> (bool, bool) {
        (bit(self.0, 54), bit(self.0, 55))
    }
}

impl ExtendedCapability {
    /// Whether tables are read through the caches (C).
    pub const fn is_coherent(self) -> bool {
        bit(self.0, 0)
    }

    /// Queued invalidation (QI).
    pub const fn has_queue(self) -> bool {
        bit(self.0, 1)
    }

    /// Interrupt remapping (IR), which needs the queue.
    pub const fn remaps_interrupts(self) -> bool {
        self.has_queue() && bit(self.0, 3)
    }

    /// 32-bit APIC ids in remapped interrupts (EIM).
    pub const fn has_extended_interrupts(self) -> bool {
        bit(self.0, 4)
    }

    /// Offset of the IOTLB registers (IRO).
    pub const fn iotlb_registers(self) -> u64 {
        bits(self.0, 8, 10) * 16
    }
}

/// What every unit can do. All units share their tables, so this is what the tables are made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abilities {
    /// Levels of the page tables, 3 or 4; `None` where units have none in common, so that DMA cannot be translated.
    pub levels: Option<u8>,
    /// Bits of the addresses that can be translated.
    pub address_bits: u32,
    /// The largest pages.
    pub largest: PageSize,
    /// Whether tables are read through the caches.
    pub coherent: bool,
    /// Domain ids.
    pub domains: u32,
    /// Interrupt remapping.
    pub remaps_interrupts: bool,
    /// To 32-bit APIC ids.
    pub extended_interrupts: bool,
}

impl Abilities {
    /// What all of `units` can do; nothing where there is none.
    pub fn common(units: impl Iterator<Item = (Capability, ExtendedCapability)>) -> Option<Self> {
        units
            .map(|(capability, extended)| Self::of(capability, extended))
            .reduce(|one, other| Self {
                levels: match (one.levels, other.levels) {
                    // Who walks four levels and not three has them in common only with its like.
                    (Some(one), Some(other)) if one == other => Some(one),
                    _ => None,
                },
                address_bits: one.address_bits.min(other.address_bits),
                largest: one.largest.min(other.largest),
                coherent: one.coherent && other.coherent,
                domains: one.domains.min(other.domains),
                remaps_interrupts: one.remaps_interrupts && other.remaps_interrupts,
                extended_interrupts: one.extended_interrupts && other.extended_interrupts,
            })
    }

    fn of(capability: Capability, extended: ExtendedCapability) -> Self {
        let levels = [4, 3].into_iter().find(|&levels| capability.walks(levels));
        let walked = levels.map_or(0, |levels| 12 + 9 * levels as u32);
        Self {
            levels,
            address_bits: capability.address_bits().min(walked),
            largest: capability.largest_page(),
            coherent: extended.is_coherent(),
            domains: capability.domains(),
            remaps_interrupts: extended.remaps_interrupts(),
            extended_interrupts: extended.remaps_interrupts() && extended.has_extended_interrupts(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// QEMU's, by its options.
    const CAP: Capability = Capability(0xd2_008c_222f_0606);
    const ECAP: ExtendedCapability = ExtendedCapability(0xf0_0f5a);

    #[test]
    fn the_registers_of_qemus_unit_are_read_right() {
        assert_eq!((CAP.domains(), CAP.address_bits()), (1 << 16, 48));
        assert!(CAP.walks(3) && CAP.walks(4) && !CAP.walks(5) && !CAP.walks(2));
        assert_eq!((CAP.fault_records(), CAP.fault_record_count()), (0x220, 1));
        assert_eq!(CAP.largest_page(), PageSize::Huge1G);
        assert_eq!(CAP.page_selective(), Some(18));
        assert_eq!(CAP.drains(), (true, true));
        assert!(!CAP.caches_absent_entries() && Capability(0xd2_008c_222f_0686).caches_absent_entries());
        assert_eq!(ECAP.iotlb_registers(), 0xf0);
        assert!(!ECAP.is_coherent() && ECAP.has_queue() && ECAP.has_extended_interrupts());
    }

    #[test]
    fn units_are_used_for_what_all_of_them_can_do() {
        let narrow = (Capability(0xd2_0084_0026_0206), ExtendedCapability(0xf42));
        let all = Abilities::common([(CAP, ECAP), (CAP, ECAP)].into_iter()).unwrap();
        assert_eq!((all.levels, all.address_bits), (Some(4), 48));
        assert!(all.remaps_interrupts && all.extended_interrupts);
        let narrow_only = Abilities::common([narrow].into_iter()).unwrap();
        assert_eq!((narrow_only.levels, narrow_only.address_bits), (Some(3), 39));
        let mixed = Abilities::common([(CAP, ECAP), narrow].into_iter()).unwrap();
        assert_eq!((mixed.levels, mixed.remaps_interrupts), (None, false));
        assert_eq!(Abilities::common(core::iter::empty()), None);
    }
}
