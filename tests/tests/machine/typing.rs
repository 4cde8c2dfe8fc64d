//! A user at the serial console: line editing, history, completion, Ctrl-C.

use anyhow::Result;
use tests::{Shell, machine};

const BACKSPACE: &str = "\x7f";
const CTRL_A: &str = "\x01";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_K: &str = "\x0b";
const CTRL_U: &str = "\x15";
const CTRL_W: &str = "\x17";
const UP: &str = "\x1b[A";
const DOWN: &str = "\x1b[B";
const LEFT: &str = "\x1b[D";
const END: &str = "\x1b[F";

/// Types `keys` and Enter; what the line's command prints must hold a line that is `printed`.
fn typing_prints(shell: &mut Shell, keys: &str, printed: &str) -> Result<()> {
    shell.console().send(&format!("{keys}\r"))?;
    shell.console().wait_for(&format!("\n{printed}\n"))?;
    shell.console().wait_for_shell()
}

#[test]
fn a_line_can_be_edited_anywhere() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    typing_prints(&mut shell, &format!("echo onw{BACKSPACE}e"), "one")?;
    typing_prints(&mut shell, &format!("echo t{LEFT}wo{END}!"), "wot!")?;
    typing_prints(&mut shell, &format!("three{CTRL_A}echo "), "three")?;
    typing_prints(&mut shell, &format!("nonsense{CTRL_U}echo four"), "four")?;
    typing_prints(&mut shell, &format!("echo five nonsense{CTRL_W}"), "five")?;
    typing_prints(&mut shell, &format!("echo sixty{LEFT}{LEFT}{CTRL_K}"), "six")
}

#[test]
fn a_line_longer_than_the_screen_is_taken_whole() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    let long = "0123456789".repeat(30);
    typing_prints(&mut shell, &format!("echo {long}"), &long)
}

#[test]
fn the_arrow_keys_recall_lines_typed_before() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    typing_prints(&mut shell, "echo first", "first")?;
    typing_prints(&mut shell, "echo second", "second")?;
    typing_prints(&mut shell, UP, "second")?;
    typing_prints(&mut shell, &format!("{UP}{UP}"), "first")?;
    typing_prints(&mut shell, &format!("{UP}{UP}{DOWN} again"), "first again")
}

#[test]
fn tab_completes_command_names_arguments_and_flags() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    typing_prints(&mut shell, "ec\tcompleted", "completed")?;
    shell.console().send("hv in\t--js\t\r")?;
    shell.console().wait_for("hv info --json")?;
    shell.console().wait_for("{\"version\"")?;
    shell.console().wait_for_shell()?;
    shell.console().send("hv selftest apic\t\r")?;
    shell.console().wait_for("the APIC page at")?;
    shell.console().wait_for_shell()
}

#[test]
fn a_second_tab_lists_what_may_follow() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    shell.console().send("hv \t\t")?;
    let listed = shell.console().wait_for("stats")?;
    for verb in ["bench", "check", "info", "log", "selftest"] {
        assert!(listed.contains(verb), "{verb} is not in {listed:?}");
    }
    // The line is still there.
    typing_prints(&mut shell, &format!("{CTRL_U}echo done"), "done")
}

#[test]
fn ctrl_c_drops_the_line() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    shell.console().send(&format!("poweroff{CTRL_C}"))?;
    shell.console().wait_for("poweroff^C")?;
    shell.console().wait_for_shell()?;
    typing_prints(&mut shell, "echo alive", "alive")
}

#[test]
fn ctrl_c_ends_a_command_that_goes_on() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    shell.console().send("hv log --follow\r")?;
    shell.console().wait_for("starting the root partition")?;
    shell.console().send(CTRL_C)?;
    shell.console().wait_for_shell()?;
    typing_prints(&mut shell, "echo alive", "alive")
}

#[test]
fn ctrl_d_on_an_empty_line_tells_how_to_leave() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    shell.console().send(CTRL_D)?;
    shell.console().wait_for("'poweroff' powers the machine off")?;
    shell.console().wait_for_shell()
}

#[test]
fn typing_ahead_loses_nothing() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    let lines: String = (0..40).map(|line| format!("echo line-{line}\r")).collect();
    shell.console().send(&lines)?;
    for line in 0..40 {
        shell.console().wait_for(&format!("\nline-{line}\n"))?;
    }
    Ok(())
}
