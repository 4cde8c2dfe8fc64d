//! `cargo xtask iso`: one bootable image for BIOS and UEFI.

use std::path::PathBuf;

use anyhow::Result;

use crate::archive::ArchiveSpec;
use crate::iso::{self, Contents};
use crate::{images, paths};

/// Options of `cargo xtask iso`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The image's file [default: target/partita/partita.iso]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Add text to the hypervisor's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    append: Vec<String>,
}

/// Builds the images and writes the bootable image.
pub fn run(arguments: &Arguments) -> Result<()> {
    let output = match &arguments.output {
        Some(path) => path.clone(),
        None => paths::work()?.join("partita.iso"),
    };
    let images = images::build()?;
    let archive = images::archive(&ArchiveSpec::Default, &[], &[])?;
    let cmdline = arguments.append.join(" ");
    iso::write(
        &Contents {
            hypervisor: &images.hypervisor,
            archive,
            cmdline: &cmdline,
        },
        &output,
    )?;
    println!("{}", output.display());
    Ok(())
}
