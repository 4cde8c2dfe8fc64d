//! `cargo xtask …`: see `cargo xtask --help`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::commands;

/// Builds, runs and tests Partita
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch the tools that the other commands need (they also do it by themselves)
    Setup(commands::setup::Arguments),
    /// Build all images and start the machine; Ctrl-A X ends it
    Run(commands::run::Arguments),
    /// Build all images and run every test
    Test(commands::test::Arguments),
    /// Write a bootable image for BIOS and UEFI machines
    Iso(commands::iso::Arguments),
    /// Print figures and their targets
    Bench(commands::bench::Arguments),
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Setup(arguments) => commands::setup::run(arguments).map(|()| ExitCode::SUCCESS),
        Command::Run(arguments) => commands::run::run(arguments),
        Command::Test(arguments) => commands::test::run(arguments).map(|()| ExitCode::SUCCESS),
        Command::Iso(arguments) => commands::iso::run(arguments).map(|()| ExitCode::SUCCESS),
        Command::Bench(arguments) => commands::bench::run(arguments),
    }
}
