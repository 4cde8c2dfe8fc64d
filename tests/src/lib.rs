//! Tests that start whole machines, and what they share: a machine at its shell's prompt ([`Shell`]) and one that has
//! ended ([`Ended`]). A test that fails shows what its machine printed.

pub mod debugger;
pub mod image;
pub mod outside;
pub mod wire;

use std::ops::Deref;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::{ExitKind, Machine, Outcome, Reply, Session};

/// How long a machine may print nothing. The host may be slow, and much may run beside.
const SILENCE: Duration = Duration::from_secs(120);

/// The default machine of these tests.
pub fn machine() -> Machine {
    Machine::new().silence_limit(SILENCE)
}

/// Where QEMU's TCG meets an entry of its TLB that it has thrown away while it waited for its own lock: its MMIO paths keep a pointer to
/// one (<https://github.com/espressif/qemu/issues/174> has the details). It depends on the host's timing, and on nothing of ours.
const QEMU_STALE_ENTRY: &str = "iotlb_to_section: Assertion";

/// A machine whose root partition's shell stands at its prompt.
#[derive(Debug)]
pub struct Shell {
    session: Session,
}

impl Shell {
    /// Starts the machine and waits for the prompt; once more where QEMU has stopped itself over its own TLB.
    pub fn boot(machine: &Machine) -> Result<Self> {
        match Self::boot_once(machine) {
            Err(error) if format!("{error:#}").contains(QEMU_STALE_ENTRY) => {
                eprintln!(
                    "QEMU has met its own assertion ({QEMU_STALE_ENTRY}): the machine is started once more"
                );
                Self::boot_once(machine)
            }
            booted => booted,
        }
    }

    fn boot_once(machine: &Machine) -> Result<Self> {
        let mut session = machine.spawn()?;
        session.wait_for_shell()?;
        Ok(Self { session })
    }

    /// Runs a command, whatever its status.
    pub fn run(&mut self, line: &str) -> Result<Reply> {
        self.session.command(line)
    }

    /// Runs a command that must succeed; returns what it printed.
    pub fn text(&mut self, line: &str) -> Result<String> {
        let reply = self.run(line)?;
        ensure!(
            reply.status == 0,
            "{line} failed with status {}:\n{}\n{}",
            reply.status,
            reply.text,
            self.printed()
        );
        Ok(reply.text)
    }

    /// Runs a command that must succeed, with `--json`; returns its document.
    pub fn json(&mut self, line: &str) -> Result<Value> {
        let text = self.text(&format!("{line} --json"))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{line} --json printed no JSON document:\n{text}"))
    }

    /// The lines of the hypervisor's log, as the shell shows them.
    pub fn log(&mut self) -> Result<Vec<String>> {
        let document = self.json("hv log")?;
        let lines = document["lines"].as_array().context("hv log has no lines")?;
        Ok(lines
            .iter()
            .filter_map(|line| line.as_str().map(str::to_owned))
            .collect())
    }

    /// The console, for a test that types key by key.
    pub fn console(&mut self) -> &mut Session {
        &mut self.session
    }

    fn printed(&self) -> String {
        format!(
            "--- serial console ---\n{}\n--- hypervisor log ---\n{}",
            self.session.serial(),
            self.session.hypervisor_log()
        )
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.printed());
        }
    }
}

/// A machine that has ended.
#[derive(Debug)]
pub struct Ended(Outcome);

impl Ended {
    /// Runs the machine to its end, which must be of this kind.
    pub fn run(machine: &Machine, kind: ExitKind) -> Result<Self> {
        Ok(Self(machine.run()?.expect(kind)?))
    }

    /// The lines of the console that hold `part`.
    pub fn lines_with(&self, part: &str) -> Vec<&str> {
        self.0.serial.lines().filter(|line| line.contains(part)).collect()
    }
}

impl Deref for Ended {
    type Target = Outcome;

    fn deref(&self) -> &Outcome {
        &self.0
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.0.report());
        }
    }
}

/// A number in a document.
pub fn number(document: &Value, pointer: &str) -> u64 {
    let found = document.pointer(pointer).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number {pointer} in {document}"))
}

/// The texts of an array in a document.
pub fn texts<'v>(document: &'v Value, pointer: &str) -> Vec<&'v str> {
    let found = document.pointer(pointer).and_then(Value::as_array);
    let found = found.unwrap_or_else(|| panic!("no array {pointer} in {document}"));
    found.iter().filter_map(Value::as_str).collect()
}

/// The row of the table `name` in which `key` holds `value`.
pub fn row<'v>(document: &'v Value, name: &str, key: &str, value: &str) -> &'v Value {
    let rows = document[name].as_array();
    let found = rows.and_then(|rows| rows.iter().find(|row| row[key] == value));
    found.unwrap_or_else(|| panic!("no row with {key} {value} in the table {name} of {document}"))
}
