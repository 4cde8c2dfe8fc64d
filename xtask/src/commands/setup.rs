//! `cargo xtask setup`: fetches the tools that the other commands need.

use anyhow::Result;

use crate::packages::SETS;
use crate::setup;

/// Options of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Fetch every optional package set as well (image builders, UEFI firmware, the VMX emulator)
    #[arg(long)]
    all: bool,
}

/// Fetches what is missing and says what will be used.
pub fn run(arguments: &Arguments) -> Result<()> {
    let qemu = setup::qemu()?;
    println!(
        "QEMU {}.{}: {}",
        qemu.version.major,
        qemu.version.minor,
        qemu.program.display()
    );
    if arguments.all {
        for set in SETS {
            set.ensure()?;
            println!("{}: ready", set.name);
        }
    }
    Ok(())
}
