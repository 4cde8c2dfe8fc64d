//! What the parent emulates: ports and memory without a device, and the devices of Partita's VM worker.

use crate::access;
use crate::report::{equal, holds};
use vsc_runtime::serial::COM1;

/// A port that no device has.
const NO_PORT: u16 = 0x700;
/// Memory that no device has.
const NO_MEMORY: u64 = 0xd000_0000;
const IO_APIC: u64 = 0xfec0_0000;

/// Checks devices.
pub(crate) fn check() {
    let name = "I/O port intercept";
    equal(
        name,
        "no device: a byte reads as ones",
        access::in_byte(NO_PORT),
        0xff,
    );
    equal(
        name,
        "no device: two bytes read as ones",
        access::in_word(NO_PORT),
        0xffff,
    );
    equal(
        name,
        "no device: four bytes read as ones",
        access::in_double(NO_PORT),
        0xffff_ffff,
    );
    access::out_byte(NO_PORT, 0x5a);
    equal(
        name,
        "no device: a write is ignored",
        access::in_byte(NO_PORT),
        0xff,
    );
    for value in [0x5a, 0xa5] {
        access::out_byte(COM1 + 7, value);
        equal(
            name,
            "COM1's scratch register keeps its value",
            access::in_byte(COM1 + 7),
            value,
        );
    }
    let mut status = [0; 4];
    access::in_string(COM1 + 5, &mut status);
    holds(
        name,
        "REP INSB reads each time",
        status.iter().all(|&byte| byte != 0 && byte & 1 << 7 == 0),
    );
    let mut ones = [0; 3];
    access::in_string(NO_PORT, &mut ones);
    equal(name, "REP INSB writes where it should", ones, [0xff; 3]);
    vsc_runtime::serial::flush();
    access::out_string(COM1, b"REP OUTSB\r\n");
    holds(name, "REP OUTSB prints the line above", true);

    let name = "GPA intercept";
    equal(
        name,
        "no device: MOV of a byte reads ones",
        access::read_byte(NO_MEMORY + 3),
        0xff,
    );
    equal(
        name,
        "no device: MOVZX reads ones",
        access::read_word(NO_MEMORY),
        0xffff,
    );
    equal(
        name,
        "no device: MOV of four bytes reads ones",
        access::read_double(NO_MEMORY + 4),
        0xffff_ffff,
    );
    access::write_double(NO_MEMORY, 0x1234);
    access::write_constant(NO_MEMORY + 8);
    equal(
        name,
        "no device: a write is ignored",
        access::read_double(NO_MEMORY),
        0xffff_ffff,
    );
    access::write_double(IO_APIC, 1);
    let version = access::read_double(IO_APIC + 0x10);
    equal(name, "the IOAPIC has 24 pins", version >> 16 & 0xff, 23);
    access::write_double(IO_APIC, 0x10 + 2 * 7 + 1);
    access::write_double(IO_APIC + 0x10, 0x0300_0000);
    equal(
        name,
        "a redirection entry keeps its destination",
        access::read_double(IO_APIC + 0x10),
        0x0300_0000,
    );
    access::write_double(IO_APIC + 0x10, 0);
}
