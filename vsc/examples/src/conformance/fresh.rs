//! A new VP: nothing in it is anybody's (SDM 3, "Processor State After Reset").

use crate::report::{equal, holds};
use crate::state;
use vsc_runtime::processor::probe;
use x86_64::registers::debug::{DebugAddressRegister, Dr0, Dr1, Dr2, Dr3};

const NAME: &str = "A new VP";

/// Checks the boot processor before it has done much.
pub(crate) fn check() {
    equal(
        NAME,
        "DR0 to DR3 are zero",
        [Dr0::read(), Dr1::read(), Dr2::read(), Dr3::read()],
        [0; 4],
    );
    for (number, name) in [
        (0xc000_0081, "STAR"),
        (0xc000_0082, "LSTAR"),
        (0xc000_0083, "CSTAR"),
        (0xc000_0084, "SFMASK"),
        (0xc000_0102, "KERNEL_GS_BASE"),
        (0xc000_0100, "FS_BASE"),
        (0x174, "SYSENTER_CS"),
        (0x175, "SYSENTER_ESP"),
        (0x176, "SYSENTER_EIP"),
        (0xc000_0103, "TSC_AUX"),
    ] {
        let value = probe::read_msr(number);
        equal(NAME, format_args!("MSR {name} is zero"), value.ok(), Some(0));
    }
    equal(
        NAME,
        "MSR PAT is as after reset",
        probe::read_msr(0x277).ok(),
        Some(0x0007_0406_0007_0406),
    );
    if let Some(zero) = state::upper_halves_are_zero() {
        holds(NAME, "the upper halves of the YMM registers are zero", zero);
    }
}
