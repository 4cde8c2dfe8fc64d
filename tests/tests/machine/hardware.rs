//! Processors and IOMMUs that lack something: what can do without it does, and `hv check` says what is missing.

use anyhow::Result;
use tests::{Shell, machine, row, texts};
use xtask::Machine;

/// Boots, and looks whether all self-tests pass, whether `hv check` finds these missing, and whether `hv info` no longer lists
/// these features.
fn works_without(machine: &Machine, missing: &[&str], features: &[&str]) -> Result<()> {
    let mut shell = Shell::boot(machine)?;
    shell.text("hv selftest --all")?;
    let check = shell.json("hv check")?;
    let table = shell.text("hv check")?;
    for &name in missing {
        assert_eq!(row(&check, "checks", "name", name)["found"], false, "{name}");
        let cost = row(&check, "checks", "name", name)["without"].as_str();
        assert!(cost.is_some_and(|cost| table.contains(cost)), "{name}: {table}");
    }
    assert_eq!(check["needed_missing"].as_array().map(Vec::len), Some(0));
    let info = shell.json("hv info")?;
    for feature in features {
        assert!(
            !texts(&info, "/cpu/features").contains(feature),
            "{feature}: {info}"
        );
    }
    Ok(())
}

#[test]
fn it_works_without_an_iommu() -> Result<()> {
    works_without(
        &machine().iommu(false),
        &["IOMMU", "interrupt remapping", "queued invalidation"],
        &["iommu", "interrupt-remapping"],
    )
}

#[test]
fn it_works_without_interrupt_remapping() -> Result<()> {
    works_without(
        &machine().iommu("intel-iommu,intremap=off"),
        &["interrupt remapping", "extended interrupt mode"],
        &["interrupt-remapping"],
    )
}

#[test]
fn it_works_without_extended_interrupt_mode() -> Result<()> {
    works_without(
        &machine().iommu("intel-iommu,intremap=on,eim=off"),
        &["extended interrupt mode"],
        &["extended-interrupt-mode"],
    )
}

#[test]
fn it_works_without_a_virtual_gif() -> Result<()> {
    works_without(&machine().cpu("EPYC,+x2apic"), &["virtual GIF"], &["virtual-gif"])
}

#[test]
fn it_works_without_x2apic() -> Result<()> {
    works_without(&machine().cpu("EPYC").cpus(4), &["x2APIC"], &["x2apic"])
}

#[test]
fn it_works_without_1_gib_pages() -> Result<()> {
    works_without(&machine().cpu("max,-pdpe1gb"), &["1 GiB pages"], &["gib-pages"])
}

#[test]
fn it_works_without_xsave() -> Result<()> {
    works_without(&machine().cpu("max,-xsave"), &["XSAVE"], &["xsave"])
}

#[test]
fn a_machine_with_all_that_the_tools_offer_lists_it() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    let info = shell.json("hv info")?;
    let features = texts(&info, "/cpu/features");
    for feature in [
        "nested-paging",
        "virtual-gif",
        "gib-pages",
        "x2apic",
        "xsave",
        "iommu",
        "interrupt-remapping",
        "extended-interrupt-mode",
        "queued-invalidation",
        "ecam",
    ] {
        assert!(features.contains(&feature), "{feature} in {features:?}");
    }
    let unit = row(&info, "iommus", "version", "1.0");
    assert_eq!(unit["register_base"], "0xfed90000");
    assert_eq!(unit["interrupt_remapping"], true);
    assert_eq!(unit["extended_interrupt_mode"], true);
    Ok(())
}
