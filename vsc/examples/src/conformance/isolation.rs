//! Memory that is not the guest's: what it reads there tells it nothing, and what it writes changes nothing. Whether
//! somebody else's memory has changed is for whoever runs this guest to see.

use crate::access;
use crate::report::equal;
use vsc_runtime::boot::BootInfo;
use vsc_runtime::processor::probe;

const NAME: &str = "Isolation";
/// Distance of the addresses that are tried.
const STEP: u64 = 16 << 20;
/// Where the addresses of devices begin.
const END: u64 = 0xfec0_0000;

/// Tries addresses past the guest's RAM.
pub(crate) fn check(boot: &BootInfo) {
    let end = boot.ram().map(|range| range.end).filter(|&end| end <= END).max();
    let first = end.unwrap_or(0).next_multiple_of(4096);
    let mut told = 0;
    let mut changed = 0;
    let mut tried = 0;
    for address in (first..END).step_by(STEP as usize) {
        for offset in [0, 0xff8] {
            let address = address + offset;
            told += u32::from(probe::read(address) != Ok(u64::MAX));
            access::write_double(address, 0xdead_beef);
            changed += u32::from(probe::read(address) != Ok(u64::MAX));
            tried += 1;
        }
    }
    equal(
        NAME,
        format_args!("{tried} addresses past the guest's memory read as ones"),
        told,
        0,
    );
    equal(
        NAME,
        format_args!("{tried} addresses past the guest's memory keep nothing"),
        changed,
        0,
    );
}
