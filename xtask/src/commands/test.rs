//! `cargo xtask test`: every test, whole machines included.

use std::env;
use std::ffi::OsString;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::{images, setup};

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// First check formatting and lints (on its own where the environment says CI=true)
    #[arg(long, overrides_with = "no_lint")]
    lint: bool,
    /// Do not check formatting and lints
    #[arg(long)]
    no_lint: bool,
    /// Arguments for `cargo test`, such as a test's name or `--package vmbus`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

/// Sets up, builds the images, and runs `cargo test`.
pub fn run(arguments: &Arguments) -> Result<()> {
    let ci = env::var_os("CI").is_some_and(|value| value == "true" || value == "1");
    if arguments.lint || (ci && !arguments.no_lint) {
        cargo(&["fmt", "--all", "--check"], &[])?;
        cargo(
            &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
            &[],
        )?;
        // The images' thin programs are freestanding, so each is looked at by itself.
        for image in images::PACKAGES {
            cargo(
                &[
                    "clippy",
                    "--package",
                    image,
                    "--bins",
                    "--features",
                    "image",
                    "--",
                    "-D",
                    "warnings",
                ],
                &[],
            )?;
        }
    }
    let qemu = setup::qemu()?;
    eprintln!(
        "machines run in QEMU {}.{}: {}",
        qemu.version.major,
        qemu.version.minor,
        qemu.program.display()
    );
    images::build()?;
    let selects = arguments.arguments.iter().any(|argument| {
        let text = argument.to_string_lossy();
        text.starts_with("-p") || text.starts_with("--package") || text == "--workspace"
    });
    let scope: &[&str] = if selects {
        &["test"]
    } else {
        &["test", "--workspace"]
    };
    cargo(scope, &arguments.arguments)
}

fn cargo(words: &[&str], more: &[OsString]) -> Result<()> {
    let mut command = images::cargo();
    command.args(words).args(more).stdin(Stdio::null());
    // Tests find the images there and need not ask cargo again.
    if let Some(images) = images::ready() {
        command.env(images::READY, images.folder());
    }
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo {} failed", words.join(" "));
    }
    Ok(())
}
