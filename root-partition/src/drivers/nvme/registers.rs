//! The controller's registers (NVM Express Base 2.0, 3.1.3).

/// Controller capabilities, 64 bits.
pub const CAP: u64 = 0x00;
/// Version.
pub const VS: u64 = 0x08;
/// Controller configuration.
pub const CC: u64 = 0x14;
/// Controller status.
pub const CSTS: u64 = 0x1c;
/// Sizes of the admin queues.
pub const AQA: u64 = 0x24;
/// Address of the admin submission queue, 64 bits.
pub const ASQ: u64 = 0x28;
/// Address of the admin completion queue, 64 bits.
pub const ACQ: u64 = 0x30;
/// The first doorbell.
pub const DOORBELLS: u64 = 0x1000;

/// What a register of a device that is gone reads.
pub const NOTHING_THERE: u32 = u32::MAX;

/// The register `CAP`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Entries that a queue may have, at least 2.
    pub const fn most_entries(self) -> u32 {
        let entries = (self.0 & 0xffff) as u32 + 1;
        if entries < 2 { 2 } else { entries }
    }

    /// How long becoming ready may take, in 100 ns.
    pub const fn ready_limit(self) -> u64 {
        (self.0 >> 24 & 0xff) * 5_000_000
    }

    /// Bytes from one doorbell to the next.
    pub const fn doorbell_stride(self) -> u64 {
        4 << (self.0 >> 32 & 0xf)
    }

    /// Whether it speaks the NVM command set.
    pub const fn has_nvm_commands(self) -> bool {
        self.0 & 1 << 37 != 0
    }

    /// Whether it takes pages of 4 KiB.
    pub const fn has_4_kib_pages(self) -> bool {
        self.0 >> 48 & 0xf == 0
    }

    /// Offset of the doorbell of submission queue `queue`, and of completion queue `queue`.
    pub const fn doorbells(self, queue: u16) -> (u64, u64) {
        let stride = self.doorbell_stride();
        let first = DOORBELLS + 2 * queue as u64 * stride;
        (first, first + stride)
    }
}

/// The register `CC`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Configuration(pub u32);

impl Configuration {
    /// Off.
    pub const DISABLED: Self = Self(0);
    /// On: the NVM command set, pages of 4 KiB, round robin, submission entries of 64 and completion entries of 16 bytes.
    pub const ENABLED: Self = Self(1 | 6 << 16 | 4 << 20);
    /// [`ENABLED`](Self::ENABLED), and a normal shutdown is asked for.
    pub const SHUTDOWN: Self = Self(Self::ENABLED.0 | 1 << 14);
    /// The bit that turns the controller on.
    pub const ENABLE: u32 = 1;
}

/// The register `CSTS`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControllerStatus(pub u32);

impl ControllerStatus {
    /// Whether the device no longer answers.
    pub const fn is_gone(self) -> bool {
        self.0 == NOTHING_THERE
    }

    /// Whether it takes commands.
    pub const fn ready(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether it has failed and must be reset.
    pub const fn fatal(self) -> bool {
        self.0 & 2 != 0
    }

    /// Whether a shutdown is complete.
    pub const fn shut_down(self) -> bool {
        self.0 >> 2 & 3 == 2
    }
}

/// The register `VS`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version(pub u32);

impl Version {
    /// 1.1, the first that lists its namespaces.
    pub const LISTS_NAMESPACES: Self = Self(0x1_0100);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_taken_apart() {
        // QEMU's: 2048 entries, contiguous, 7.5 s, stride 4, NVM commands, pages from 4 KiB to 64 KiB.
        let capabilities = Capabilities(0x0040_0020_0f01_07ff);
        assert_eq!(capabilities.most_entries(), 2048);
        assert_eq!(capabilities.ready_limit(), 75_000_000);
        assert!(capabilities.has_nvm_commands() && capabilities.has_4_kib_pages());
        assert_eq!(capabilities.doorbells(3), (0x1018, 0x101c));
        assert_eq!(Capabilities(2 << 32).doorbells(1), (0x1020, 0x1030));
        assert_eq!(Capabilities(0).most_entries(), 2);
        assert!(!Capabilities(1 << 48).has_4_kib_pages());
    }

    #[test]
    fn a_device_that_is_gone_is_neither_ready_nor_shut_down_by_mistake() {
        let gone = ControllerStatus(NOTHING_THERE);
        assert!(gone.is_gone());
        assert!(
            !ControllerStatus(9).fatal() && ControllerStatus(9).ready() && ControllerStatus(9).shut_down()
        );
    }
}
