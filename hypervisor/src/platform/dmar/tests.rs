use super::*;
use crate::memory::physical::FakeMemory;
use crate::platform::acpi::tests::{seal, table};
use proptest::prelude::*;

pub(crate) fn structure(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes(), &(body.len() as u16 + 4).to_le_bytes(), body].concat()
}

fn drhd(flags: u8, registers: u64, scopes: &[u8]) -> Vec<u8> {
    drhd_of(0, flags, registers, scopes)
}

pub(crate) fn drhd_of(segment: u8, flags: u8, registers: u64, scopes: &[u8]) -> Vec<u8> {
    let start = [flags, 0, segment, 0];
    structure(
        kind::DRHD,
        &[&start, registers.to_le_bytes().as_slice(), scopes].concat(),
    )
}

pub(crate) fn rmrr(base: u64, limit: u64, scopes: &[u8]) -> Vec<u8> {
    let body = [
        &[0, 0, 1, 0],
        base.to_le_bytes().as_slice(),
        &limit.to_le_bytes(),
        scopes,
    ]
    .concat();
    structure(kind::RMRR, &body)
}

/// Function 1f.2 on bus 0, and I/O APIC 0 as bus ff device 0.
const SCOPES: [u8; 16] = [1, 8, 0, 0, 0, 0, 0x1f, 2, 3, 8, 0, 0, 0, 0xff, 0, 0];

pub(crate) fn bytes(structures: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![47, 0b11];
    body.resize(12, 0);
    body.extend(structures.concat());
    table(b"DMAR", &body)
}

pub(crate) fn read(table: Vec<u8>) -> Result<Dmar, AcpiError> {
    Dmar::read(Part::table(
        FakeMemory::default().put(0x1000, table),
        Spa(0x1000),
    )?)
}

fn reason(structures: &[Vec<u8>]) -> &'static str {
    match read(bytes(structures)) {
        Err(AcpiError::Damaged { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn units_and_regions_come_with_their_devices() {
    let structures = [
        drhd(0, 0xfed9_0000, &SCOPES[..8]),
        drhd(1, 0xfed9_1000, &SCOPES[8..]),
        rmrr(0x7f00_0000, 0x7f0f_ffff, &SCOPES),
        structure(kind::ATSR, &[&[1, 0, 2, 0][..], &SCOPES[..8]].concat()),
        structure(99, &[1, 2, 3]),
    ];
    let dmar = read(bytes(&structures)).unwrap();
    assert_eq!(
        (
            dmar.host_address_width,
            dmar.interrupt_remapping,
            dmar.x2apic_opt_out
        ),
        (48, true, true)
    );
    let [report] = dmar.ats_reports.as_slice() else {
        panic!("{:?}", dmar.ats_reports)
    };
    assert_eq!(
        (report.segment, report.all_ports, dmar.scopes(report.scopes).len()),
        (2, true, 1)
    );
    let [first, rest] = dmar.units.as_slice() else {
        panic!("{:?}", dmar.units)
    };
    assert_eq!((first.registers, first.include_all), (Spa(0xfed9_0000), false));
    assert_eq!((rest.registers, rest.include_all), (Spa(0xfed9_1000), true));
    assert_eq!(dmar.scopes(first.scopes)[0].path.as_slice(), [[0x1f, 2]]);
    let [io_apic] = dmar.scopes(rest.scopes) else {
        panic!("{:?}", rest.scopes)
    };
    assert_eq!(
        (io_apic.kind, io_apic.start_bus, io_apic.enumeration_id),
        (ScopeKind::IO_APIC, 0xff, 0)
    );
    let region = dmar.reserved_regions[0];
    assert_eq!(
        region.range,
        SpaRange::new(Spa(0x7f00_0000), Spa(0x7f10_0000)).unwrap()
    );
    assert_eq!((region.segment, dmar.scopes(region.scopes).len()), (1, 2));
}

#[test]
fn a_table_without_structures_has_no_units() {
    assert!(read(bytes(&[])).unwrap().units.is_empty());
}

#[test]
fn a_unit_without_a_place_or_at_a_place_taken_is_refused() {
    let impossible = "a remapping unit has an impossible register address";
    assert_eq!(reason(&[drhd(1, 0, &[])]), impossible);
    assert_eq!(reason(&[drhd(1, 0xfed9_0800, &[])]), impossible);
    let twice = [drhd(0, 0xfed9_0000, &SCOPES), drhd(1, 0xfed9_0000, &[])];
    assert_eq!(reason(&twice), "two remapping units have one register address");
    let rest = [drhd(1, 0xfed9_0000, &[]), drhd(1, 0xfed9_1000, &[])];
    assert_eq!(
        reason(&rest),
        "two remapping units have all other devices of one segment"
    );
}

#[test]
fn a_region_that_ends_before_it_starts_is_refused() {
    let expected = "a reserved region ends before it starts";
    assert_eq!(reason(&[rmrr(0x2000, 0x1000, &[])]), expected);
    assert_eq!(reason(&[rmrr(0x2000, u64::MAX, &[])]), expected);
}

#[test]
fn damaged_scopes_are_refused() {
    assert_eq!(
        reason(&[drhd(0, 0xfed9_0000, &[1, 6, 0, 0, 0, 0])]),
        "a device scope has no whole path"
    );
    assert_eq!(
        reason(&[drhd(0, 0xfed9_0000, &[1, 7, 0, 0, 0, 0, 1])]),
        "a device scope has no whole path"
    );
    assert_eq!(
        reason(&[drhd(0, 0xfed9_0000, &[1, 9, 0, 0])]),
        "a structure has an impossible length"
    );
    assert_eq!(
        reason(&[drhd(0, 0xfed9_0000, &[1, 0, 0, 0])]),
        "a structure has an impossible length"
    );
    let mut long = vec![1, 6 + 2 * 7, 0, 0, 0, 0];
    long.resize(20, 0);
    assert_eq!(
        reason(&[drhd(0, 0xfed9_0000, &long)]),
        "a device scope's path is too long"
    );
}

#[test]
fn more_than_is_supported_is_refused() {
    let units: Vec<_> = (0..=MAX_UNITS as u64)
        .map(|i| drhd(0, 0xfed0_0000 + i * 0x1000, &[]))
        .collect();
    assert_eq!(reason(&units), "there are too many remapping units");
    let regions = vec![rmrr(0x1000, 0x1fff, &[]); MAX_RESERVED_REGIONS + 1];
    assert_eq!(reason(&regions), "there are too many reserved regions");
    assert_eq!(
        reason(&[drhd(0, 0xfed9_0000, &SCOPES.repeat(65))]),
        "there are too many device scopes"
    );
}

proptest! {
    #[test]
    fn no_damage_makes_it_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut table = bytes(&[drhd(0, 0xfed9_0000, &SCOPES), rmrr(0x1000, 0x2fff, &SCOPES), drhd(1, 0xfed9_1000, &[])]);
        for (place, byte) in damage {
            let place = 36 + place.index(table.len() - 36);
            table[place] = byte;
        }
        table.truncate(36 + cut.index(table.len() - 35));
        let length = table.len() as u32;
        table[4..8].copy_from_slice(&length.to_le_bytes());
        seal(&mut table);
        if let Ok(dmar) = read(table) {
            for unit in &dmar.units {
                prop_assert!(dmar.scopes(unit.scopes).iter().all(|scope| !scope.path.is_empty()));
            }
        }
    }

    #[test]
    fn the_fuzzers_entry_takes_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..400), first in 0u8..4) {
        // Mostly a structure of a known kind comes first.
        if let Some(kind) = bytes.get_mut(48..50) {
            kind.copy_from_slice(&[first, 0]);
        }
        fuzz(&bytes);
    }

    /// The fuzz: a body of structures with true lengths and wild contents, so that damage reaches every field.
    #[test]
    fn wild_structures_are_read_or_refused(
        structures in prop::collection::vec(
            (0u16..7, prop::collection::vec(any::<u8>(), 0..80)),
            0..40,
        ),
        header in any::<[u8; 12]>(),
    ) {
        let parts = structures.iter().map(|(kind, body)| structure(*kind, body));
        let body = header.into_iter().chain(parts.flatten()).collect::<Vec<_>>();
        if let Ok(dmar) = read(table(b"DMAR", &body)) {
            for (index, unit) in dmar.units.iter().enumerate() {
                prop_assert!(unit.registers.0 != 0 && unit.registers.is_aligned(4096));
                prop_assert!(dmar.units[..index].iter().all(|other| other.registers != unit.registers));
            }
            for region in &dmar.reserved_regions {
                prop_assert!(!region.range.is_empty());
                prop_assert!(dmar.scopes(region.scopes).iter().all(|scope| scope.path.len() <= MAX_PATH));
            }
            prop_assert!(dmar.host_address_width <= 64);
        }
    }
}
