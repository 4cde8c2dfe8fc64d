//! Programs that end when we do.

use std::ffi::OsStr;
use std::process::Command;

use crate::paths;

/// A command that the kernel ends together with the *thread* that starts it, where the host has `setpriv`: whoever is
/// killed leaves no machine and no download behind.
pub fn tied(program: impl AsRef<OsStr>) -> Command {
    match paths::in_path("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}
