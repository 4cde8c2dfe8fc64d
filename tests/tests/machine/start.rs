//! Starts that cannot succeed: one line says what is missing and how to get it, and the machine halts.

use anyhow::{Context, Result};
use tests::{Ended, machine};
use xtask::images::built;
use xtask::{ArchiveBuilder, ArchiveSpec, ExitKind, Firmware, Machine};

/// Runs a machine that cannot start: it stops, and its one line of why holds all of `parts`.
fn stops_with(machine: &Machine, parts: &[&str]) -> Result<()> {
    let ended = Ended::run(machine, ExitKind::Stopped)?;
    let lines = ended.lines_with("cannot start: ");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for part in parts {
        assert!(lines[0].contains(part), "{part:?} is not in {:?}", lines[0]);
    }
    assert!(
        ended.hypervisor_log.contains(lines[0]),
        "the log does not have it"
    );
    assert!(ended.lines_with("Partita root partition").is_empty());
    Ok(())
}

fn root_image() -> Result<Vec<u8>> {
    std::fs::read(built()?.root).context("no root image")
}

#[test]
fn a_processor_without_svm_is_told_how_to_get_it() -> Result<()> {
    stops_with(
        &machine().cpu("max,-svm"),
        &["no AMD-V (SVM)", "`-cpu max`", "firmware"],
    )
}

#[test]
fn a_processor_without_nested_paging_is_told_so() -> Result<()> {
    stops_with(&machine().cpu("max,-npt"), &["nested paging"])
}

#[test]
fn too_little_memory_is_told_with_both_amounts() -> Result<()> {
    stops_with(&machine().memory_mib(64), &["has 63 MiB of memory", "at least"])
}

#[test]
fn a_missing_boot_archive_is_told_with_the_way_to_give_it() -> Result<()> {
    stops_with(
        &machine().archive(ArchiveSpec::None),
        &["there is no boot archive", "-initrd", "module2"],
    )
}

#[test]
fn grub_without_a_module_gives_the_same_line() -> Result<()> {
    stops_with(
        &machine().archive(ArchiveSpec::None).firmware(Firmware::GrubBios),
        &["there is no boot archive"],
    )
}

#[test]
fn bytes_that_are_no_archive_are_told() -> Result<()> {
    stops_with(
        &machine().archive(ArchiveSpec::Raw(vec![0x5a; 10_000])),
        &["the boot archive is damaged", "no cpio (newc) member at byte 0"],
    )
}

#[test]
fn an_archive_that_is_cut_off_is_told() -> Result<()> {
    let archive = ArchiveBuilder::new().file("root", root_image()?).build()?;
    let half = archive[..archive.len() / 2].to_vec();
    stops_with(
        &machine().archive(ArchiveSpec::Raw(half)),
        &["the boot archive is damaged", "cut off"],
    )
}

#[test]
fn an_archive_without_a_root_image_is_told() -> Result<()> {
    stops_with(&machine().archive(ArchiveSpec::WithoutRoot), &["no file `root`"])
}

#[test]
fn a_root_that_is_no_elf_file_is_told() -> Result<()> {
    stops_with(
        &machine().archive(ArchiveSpec::WithRoot(b"#!/bin/sh\n".to_vec())),
        &["the root image is damaged", "not an ELF file"],
    )
}

#[test]
fn a_root_that_is_cut_off_is_told() -> Result<()> {
    let image = root_image()?;
    for length in [100, image.len() / 3] {
        stops_with(
            &machine().archive(ArchiveSpec::WithRoot(image[..length].to_vec())),
            &["the root image is damaged"],
        )?;
    }
    Ok(())
}

#[test]
fn a_root_image_for_another_machine_is_told() -> Result<()> {
    const E_MACHINE: usize = 18;
    let mut image = root_image()?;
    image[E_MACHINE] = 0xb7;
    stops_with(
        &machine().archive(ArchiveSpec::WithRoot(image)),
        &["the root image is damaged", "x86-64"],
    )
}

#[test]
fn the_hypervisor_itself_is_no_root_image_for_where_it_lies() -> Result<()> {
    let image = std::fs::read(built()?.hypervisor)?;
    stops_with(
        &machine().archive(ArchiveSpec::WithRoot(image)),
        &["the root image wants memory at"],
    )
}

#[test]
fn words_of_the_command_line_that_make_no_sense_are_told_and_left_out() -> Result<()> {
    let machine = machine()
        .cmdline("serial=loud log=everything nonsense")
        .exec(&["version"]);
    let ended = Ended::run(&machine, ExitKind::Success)?;
    assert_eq!(ended.lines_with("command line: serial=loud").len(), 1);
    assert_eq!(ended.lines_with("command line: log=everything").len(), 1);
    Ok(())
}
