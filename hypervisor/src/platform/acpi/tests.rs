use super::*;
use crate::memory::physical::FakeMemory;
use crate::platform::fadt::{PmTimer, Register, Reset};
use crate::platform::madt::{InterruptOverride, IoApic, Processor};
use proptest::prelude::*;

/// A table with a right length and checksum around `body`.
pub(in crate::platform) fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = signature.to_vec();
    table.extend((HEADER as u32 + body.len() as u32).to_le_bytes());
    table.resize(HEADER, 0);
    table.extend(body);
    seal(&mut table);
    table
}

/// Makes the checksum right.
pub(in crate::platform) fn seal(table: &mut [u8]) {
    if table.len() > 9 {
        table[9] = table[9].wrapping_sub(sum(table));
    }
}

fn rsdp(revision: u8, rsdt: u32, xsdt: u64) -> [u8; 36] {
    let mut rsdp = [0; 36];
    rsdp[..8].copy_from_slice(b"RSD PTR ");
    rsdp[15] = revision;
    rsdp[16..20].copy_from_slice(&rsdt.to_le_bytes());
    rsdp[8] = 0u8.wrapping_sub(sum(&rsdp[..20]));
    rsdp[20] = 36;
    rsdp[24..32].copy_from_slice(&xsdt.to_le_bytes());
    rsdp[32] = 0u8.wrapping_sub(sum(&rsdp));
    rsdp
}

fn madt_body() -> Vec<u8> {
    let mut body = [0xfee0_0000u32, 1].map(u32::to_le_bytes).concat();
    body.extend([0, 8, 0, 3, 1, 0, 0, 0]);
    body.extend([0, 8, 1, 4, 0, 0, 0, 0]);
    body.extend([0, 8, 2, 255, 0, 0, 0, 0]);
    body.extend([1, 12, 7, 0, 0, 0, 0xc0, 0xfe, 24, 0, 0, 0]);
    body.extend([2, 10, 0, 9, 20, 0, 0, 0, 0x0f, 0]);
    body.extend([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    body.extend([9, 16, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    body.extend([77, 3, 1]);
    body
}

fn fadt_body(length: usize) -> Vec<u8> {
    let mut table = vec![0; 244];
    let mut put = |offset: usize, bytes: &[u8]| table[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(40, &0x7000u32.to_le_bytes());
    put(64, &0x604u32.to_le_bytes());
    put(76, &0x608u32.to_le_bytes());
    put(91, &[4]);
    put(112, &(FLAGS_RESET_AND_32_BIT_TIMER).to_le_bytes());
    put(116, &[1, 8, 0, 0]);
    put(120, &0xcf9u64.to_le_bytes());
    put(128, &[15]);
    put(184, &[1, 16, 0, 0]);
    put(188, &0xb004u64.to_le_bytes());
    table[HEADER..length].to_vec()
}
const FLAGS_RESET_AND_32_BIT_TIMER: u32 = 1 << 10 | 1 << 8;

fn mcfg_body() -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend(0xb000_0000u64.to_le_bytes());
    body.extend([0, 0, 0, 255, 0, 0, 0, 0]);
    body
}

/// A machine's tables: the MADT at 0x3000, the FADT at 0x4000, the MCFG at 0x5000, the DSDT at 0x7000.
struct Machine {
    madt: Vec<u8>,
    fadt: Vec<u8>,
    mcfg: Vec<u8>,
    xsdt: Vec<u8>,
    rsdp: Vec<u8>,
}

impl Machine {
    fn new() -> Self {
        Self {
            madt: table(b"APIC", &madt_body()),
            fadt: table(b"FACP", &fadt_body(244)),
            mcfg: table(b"MCFG", &mcfg_body()),
            xsdt: table(
                b"XSDT",
                &[0x4000u64, 0, 0x3000, 0x5000].map(u64::to_le_bytes).concat(),
            ),
            rsdp: rsdp(2, 0x6000, 0x2000).to_vec(),
        }
    }

    fn memory(&self) -> FakeMemory {
        let mut memory = FakeMemory::default();
        memory
            .put(0xe_0020, self.rsdp.clone())
            .put(0x2000, self.xsdt.clone());
        memory
            .put(0x3000, self.madt.clone())
            .put(0x4000, self.fadt.clone())
            .put(0x5000, self.mcfg.clone());
        memory
            .put(0x7000, table(b"DSDT", b"\x08_S5_\x12\x06\x04\x05\x00"))
            .put(
                0x6000,
                table(b"RSDT", &[0x3000u32].map(u32::to_le_bytes).concat()),
            );
        memory
    }

    fn read(&self) -> Result<Platform, AcpiError> {
        Platform::read(&self.memory(), Rsdp::At(Spa(0xe_0020)))
    }
}

fn damaged(signature: &[u8; 4], offset: usize, reason: &'static str) -> AcpiError {
    AcpiError::Damaged {
        signature: Signature(*signature),
        offset,
        reason,
    }
}

#[test]
fn processors_and_interrupt_controllers_come_from_the_madt() {
    let interrupts = Machine::new().read().unwrap().interrupts;
    let processor = |apic_id, enabled| Processor { apic_id, enabled };
    assert_eq!(
        interrupts.processors.as_slice(),
        [processor(3, true), processor(4, true), processor(0x100, true)]
    );
    let io_apic = IoApic {
        id: 7,
        address: Spa(0xfec0_0000),
        gsi_base: 24,
    };
    assert_eq!(interrupts.io_apics.as_slice(), [io_apic]);
    let source = InterruptOverride {
        irq: 9,
        gsi: 20,
        active_low: true,
        level_triggered: true,
    };
    assert_eq!(interrupts.overrides.as_slice(), [source]);
    assert_eq!(
        (interrupts.local_apic_address, interrupts.has_8259),
        (Spa(0xfee0_0000), true)
    );
}

#[test]
fn power_registers_come_from_the_fadt() {
    let power = Machine::new().read().unwrap().power;
    assert_eq!(
        power.timer,
        Some(PmTimer {
            port: 0x608,
            is_32_bit: true
        })
    );
    assert_eq!(
        power.reset,
        Some(Reset {
            register: Register::Port(0xcf9),
            value: 15
        })
    );
    assert_eq!(
        (power.pm1a_control, power.pm1b_control),
        (Some(0x604), Some(0xb004))
    );
}

#[test]
fn a_fadt_of_acpi_1_has_only_what_its_length_covers() {
    let mut machine = Machine::new();
    machine.fadt = table(b"FACP", &fadt_body(116));
    let power = machine.read().unwrap().power;
    assert_eq!((power.reset, power.pm1b_control), (None, None));
    assert_eq!(
        power.timer,
        Some(PmTimer {
            port: 0x608,
            is_32_bit: true
        })
    );
}

#[test]
fn configuration_regions_come_from_the_mcfg() {
    let ecam = Machine::new().read().unwrap().ecam;
    let region = Ecam {
        base: Spa(0xb000_0000),
        segment: 0,
        first_bus: 0,
        last_bus: 255,
    };
    assert_eq!(ecam.as_slice(), [region]);
}

#[test]
fn the_root_pointer_is_found_where_a_bios_puts_it() {
    let mut machine = Machine::new();
    let expected = machine.read();
    assert_eq!(Platform::read(&machine.memory(), Rsdp::Unknown), expected);
    let copy = Rsdp::Copy(machine.rsdp.clone().try_into().unwrap());
    machine.rsdp.fill(0);
    assert_eq!(
        Platform::read(&machine.memory(), Rsdp::Unknown),
        Err(AcpiError::NoRsdp)
    );
    assert_eq!(Platform::read(&machine.memory(), copy), expected);
    let mut memory = machine.memory();
    memory
        .put(0x40e, 0x9fc0u16.to_le_bytes())
        .put(0x9_fc10, Machine::new().rsdp);
    assert_eq!(Platform::read(&memory, Rsdp::Unknown), expected);
}

#[test]
fn an_old_root_pointer_leads_to_32_bit_pointers() {
    let mut machine = Machine::new();
    machine.rsdp = rsdp(0, 0x6000, 0)[..20].to_vec();
    let platform = machine.read().unwrap();
    assert_eq!(platform.interrupts.processors.len(), 3);
    assert!(platform.ecam.is_empty());
}

#[test]
fn a_root_pointer_with_a_wrong_checksum_is_no_root_pointer() {
    for place in [9, 33] {
        let mut machine = Machine::new();
        machine.rsdp[place] ^= 1;
        assert_eq!(machine.read(), Err(AcpiError::NoRsdp));
    }
}

#[test]
fn a_machine_without_a_madt_is_refused() {
    let mut machine = Machine::new();
    machine.xsdt = table(b"XSDT", &0x4000u64.to_le_bytes());
    assert_eq!(machine.read(), Err(AcpiError::Missing(Signature(*b"APIC"))));
}

#[test]
fn tables_with_a_wrong_checksum_or_length_are_refused() {
    let mut machine = Machine::new();
    machine.madt[50] ^= 1;
    assert_eq!(machine.read(), Err(damaged(b"APIC", 9, "its checksum is wrong")));
    for length in [0u32, 35, MAX + 1] {
        let mut machine = Machine::new();
        machine.mcfg[4..8].copy_from_slice(&length.to_le_bytes());
        assert_eq!(
            machine.read(),
            Err(damaged(b"MCFG", 4, "its length is impossible"))
        );
    }
    let mut machine = Machine::new();
    machine.mcfg[4..8].copy_from_slice(&0x1000u32.to_le_bytes());
    assert_eq!(machine.read(), Err(AcpiError::Unreadable(Spa(0x5000))));
}
const MAX: u32 = 4 << 20;

#[test]
fn a_root_table_shorter_than_its_header_is_refused() {
    let mut machine = Machine::new();
    machine.xsdt.truncate(20);
    machine.xsdt[4] = 20;
    seal(&mut machine.xsdt);
    assert!(machine.read().is_err());
}

#[test]
fn a_pointer_to_nowhere_is_refused() {
    let mut machine = Machine::new();
    machine.xsdt = table(b"XSDT", &u64::MAX.to_le_bytes());
    assert_eq!(machine.read(), Err(AcpiError::Unreadable(Spa(u64::MAX))));
}

#[test]
fn structures_with_impossible_lengths_are_refused() {
    let body = madt_body();
    for length in [0, 1, 200] {
        let mut body = body.clone();
        body[9] = length;
        let mut machine = Machine::new();
        machine.madt = table(b"APIC", &body);
        assert_eq!(
            machine.read(),
            Err(damaged(b"APIC", 44, "a structure has an impossible length"))
        );
    }
    let mut short = Machine::new();
    short.madt = table(b"APIC", &[&body[..8], &[0, 4, 0, 1], &body[8..]].concat());
    assert_eq!(short.read(), Err(damaged(b"APIC", 48, "it ends too early")));
}

#[test]
fn more_processors_than_are_supported_are_refused() {
    let mut body = madt_body();
    for id in 0..=256u32 {
        body.extend([9, 16, 0, 0]);
        body.extend([id + 0x1000, 1, 0].map(u32::to_le_bytes).concat());
    }
    let mut machine = Machine::new();
    machine.madt = table(b"APIC", &body);
    assert!(matches!(machine.read(), Err(AcpiError::Damaged { .. })));
}

#[test]
fn an_error_says_which_table_and_what() {
    let error = damaged(b"APIC", 9, "its checksum is wrong");
    assert_eq!(
        error.to_string(),
        "ACPI: APIC table, offset 0x9: its checksum is wrong"
    );
    assert_eq!(Signature([0xff, b'A', 0, b'"']).to_string(), "\\xffA\\x00\\\"");
}

proptest! {
    #[test]
    fn no_damage_makes_it_panic(
        which in 0usize..5,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        sealed in any::<bool>(),
    ) {
        let mut machine = Machine::new();
        let bytes = match which {
            0 => &mut machine.madt,
            1 => &mut machine.fadt,
            2 => &mut machine.mcfg,
            3 => &mut machine.xsdt,
            _ => &mut machine.rsdp,
        };
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if sealed && which < 4 {
            // As if the firmware had written a shorter table: the checksum does not help.
            bytes.truncate(10 + cut.index(bytes.len() - 10));
            let length = bytes.len() as u32;
            bytes[4..8].copy_from_slice(&length.to_le_bytes());
            seal(bytes);
        }
        let _ = machine.read();
        let _ = Platform::read(&machine.memory(), Rsdp::Unknown);
    }
}
