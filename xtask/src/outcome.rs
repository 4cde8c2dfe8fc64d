//! How a machine ended.

use std::fmt::Write;

use anyhow::{Result, bail};

use crate::console::{TAIL_LINES, tail};

/// QEMU's exit status is `code << 1 | 1` for a code written to the debug port; `root-partition` writes these.
const SUCCESS: i32 = 0x10 << 1 | 1;
const COMMAND_FAILED: i32 = 0x11 << 1 | 1;
const STOPPED: i32 = 0x12 << 1 | 1;

/// The way in which a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// The root said: every command succeeded.
    Success,
    /// The root said: a command failed.
    CommandFailed,
    /// The hypervisor or the root stopped with a report.
    Stopped,
    /// The machine was powered off, without a result.
    PowerOff,
    /// The machine was reset: by its software, or by a triple fault.
    Reset,
    /// It printed nothing for as long as the silence limit, and was ended.
    Hung,
    /// QEMU ended by itself, with this status (or the negated signal that killed it).
    QemuError(i32),
}

impl ExitKind {
    /// Reads QEMU's exit status and the reason that its monitor gave.
    pub(crate) fn from_qemu(status: i32, reason: Option<&str>) -> Self {
        match (status, reason) {
            (SUCCESS, _) => Self::Success,
            (COMMAND_FAILED, _) => Self::CommandFailed,
            (STOPPED, _) => Self::Stopped,
            (0, Some("guest-reset" | "subsystem-reset")) => Self::Reset,
            (0, _) => Self::PowerOff,
            (status, _) => Self::QemuError(status),
        }
    }

    /// A sentence for a person.
    pub fn describe(self) -> String {
        match self {
            Self::Success => "every command succeeded".into(),
            Self::CommandFailed => "a command failed".into(),
            Self::Stopped => "the hypervisor or the root partition stopped with a report".into(),
            Self::PowerOff => "the machine was powered off without a result".into(),
            Self::Reset => "the machine was reset (by its software or by a triple fault)".into(),
            Self::Hung => "the machine hung: nothing came over its serial lines for too long".into(),
            Self::QemuError(status) if status < 0 => format!("QEMU was killed by signal {}", -status),
            Self::QemuError(status) => format!("QEMU failed with status {status}"),
        }
    }
}

/// What a machine left behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitKind,
    /// All that came over COM1, as clean text: the root's console.
    pub serial: String,
    /// All that came over COM2: the hypervisor's log, where it was separate.
    pub hypervisor_log: String,
    /// QEMU's own messages.
    pub qemu_messages: String,
    /// The processors' registers, where the machine hung.
    pub registers: String,
}

impl Outcome {
    /// An error that tells all, unless the machine ended in this way.
    pub fn expect(self, status: ExitKind) -> Result<Self> {
        if self.status != status {
            bail!("expected {status:?}, but {}", self.report());
        }
        Ok(self)
    }

    /// How the machine ended, with the last lines of all that it printed.
    pub fn report(&self) -> String {
        let mut text = self.status.describe();
        for (title, part) in [
            ("serial console", &self.serial),
            ("hypervisor log", &self.hypervisor_log),
            ("QEMU", &self.qemu_messages),
            ("registers", &self.registers),
        ] {
            if !part.trim().is_empty() {
                let _ = write!(
                    text,
                    "\n--- {title} (last {TAIL_LINES} lines) ---\n{}",
                    tail(part)
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_port_codes_are_results() {
        assert_eq!(ExitKind::from_qemu(33, None), ExitKind::Success);
        assert_eq!(ExitKind::from_qemu(35, None), ExitKind::CommandFailed);
        assert_eq!(ExitKind::from_qemu(37, None), ExitKind::Stopped);
        assert_eq!(ExitKind::from_qemu(1, None), ExitKind::QemuError(1));
    }

    #[test]
    fn a_reset_is_no_power_off() {
        assert_eq!(ExitKind::from_qemu(0, Some("guest-shutdown")), ExitKind::PowerOff);
        assert_eq!(ExitKind::from_qemu(0, Some("guest-reset")), ExitKind::Reset);
        assert_eq!(ExitKind::from_qemu(0, None), ExitKind::PowerOff);
    }

    #[test]
    fn a_report_shows_what_there_is() {
        let outcome = Outcome {
            status: ExitKind::Hung,
            serial: "root> \n".into(),
            hypervisor_log: String::new(),
            qemu_messages: String::new(),
            registers: "RIP=0".into(),
        };
        let error = outcome.expect(ExitKind::Success).unwrap_err().to_string();
        assert!(error.starts_with("expected Success, but the machine hung"));
        assert!(error.contains("serial console") && error.contains("RIP=0") && !error.contains("QEMU"));
    }
}
