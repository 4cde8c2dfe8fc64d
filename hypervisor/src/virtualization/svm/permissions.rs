//! The MSR and I/O permission maps (APM 2, 15.10 and 15.11): a set bit makes the access exit.
#![allow(unsafe_code)]

use crate::memory::address::Frame;
use hypercall_api::address::PAGE_SIZE;

/// Frames of the I/O permission map.
pub const IO_FRAMES: u64 = 3;
/// Frames of the MSR permission map.
pub const MSR_FRAMES: u64 = 2;

/// MSRs that every guest has to itself: VMLOAD, VMSAVE or VMRUN switch them, and TSC_AUX the scheduler.
const GUEST_OWNED: [u32; 11] = [
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0100, // FS_BASE
    0xc000_0101, // GS_BASE
    0xc000_0102, // KERNEL_GS_BASE
    0xc000_0103, // TSC_AUX
];

/// The maps of a partition: at first every port and every MSR exits but those that VMRUN and VMLOAD switch.
pub struct Permissions {
    /// First of [`IO_FRAMES`].
    pub io: Frame,
    /// First of [`MSR_FRAMES`].
    pub msr: Frame,
}

impl Permissions {
    /// Maps in the frames given.
    ///
    /// # Safety
    /// `io` and `msr` must each begin a run of as many frames as [`IO_FRAMES`] and [`MSR_FRAMES`] say, for this alone.
    pub unsafe fn new(io: Frame, msr: Frame) -> Self {
        // SAFETY: the caller gives us the frames.
        unsafe {
            (io.start().0 as *mut u8).write_bytes(0xff, (IO_FRAMES * PAGE_SIZE) as usize);
            (msr.start().0 as *mut u8).write_bytes(0xff, (MSR_FRAMES * PAGE_SIZE) as usize);
        }
        let mut permissions = Self { io, msr };
        for msr in GUEST_OWNED {
            permissions.pass_msr(msr);
        }
        permissions
    }

    /// Lets the guest read and write an MSR without an exit.
    fn pass_msr(&mut self, msr: u32) {
        let Some(bit) = msr_bit(msr) else { return };
        // SAFETY: `msr_bit` stays inside the map's two frames.
        unsafe {
            let byte = (self.msr.start().0 as *mut u8).add(bit / 8);
            *byte &= !(0b11 << (bit % 8));
        }
    }

    /// Lets the guest use every port without an exit.
    pub fn pass_all_ports(&mut self) {
        // SAFETY: the map's frames are ours.
        unsafe { (self.io.start().0 as *mut u8).write_bytes(0, (IO_FRAMES * PAGE_SIZE) as usize) }
    }

    /// Makes every access to `port` exit.
    pub fn intercept_port(&mut self, port: u16) {
        // SAFETY: a port's bit lies in the first two frames.
        unsafe {
            let byte = (self.io.start().0 as *mut u8).add(port as usize / 8);
            *byte |= 1 << (port % 8);
        }
    }
}

/// Index of the read bit of an MSR; the write bit follows. `None` where the map has none, and every access exits.
const fn msr_bit(msr: u32) -> Option<usize> {
    let (vector, base) = match msr {
        0..=0x1fff => (0, 0),
        0xc000_0000..=0xc000_1fff => (0x800, 0xc000_0000),
        0xc001_0000..=0xc001_1fff => (0x1000, 0xc001_0000),
        _ => return None,
    };
    Some(vector * 8 + (msr - base) as usize * 2)
}

#[cfg(test)]
mod tests {
    use super::msr_bit;

    #[test]
    fn bits_of_an_msr_lie_where_the_manual_puts_them() {
        assert_eq!(msr_bit(0x174), Some(0x174 * 2));
        assert_eq!(msr_bit(0xc000_0081), Some(0x800 * 8 + 0x81 * 2));
        assert_eq!(msr_bit(0xc001_1fff), Some(0x1800 * 8 - 2));
        assert_eq!(msr_bit(0x4000_0000), None);
    }
}
