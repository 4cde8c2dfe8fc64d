//! Locks between processes: one installer at a time, one image build at a time, and as many machines at a time as
//! the host's memory and cores carry.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context, Result};

/// Memory that one slot of [`MachineToken`] stands for, in MiB: a default machine and QEMU's own needs.
const SLOT_MIB: u64 = 2560;

/// An exclusive lock on a file; it ends when the value is dropped or the process dies.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits for the lock on `path`, and says so once on stderr when it is not free.
    pub fn wait(path: &Path, purpose: &str) -> Result<Self> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("waiting for another process: {purpose}");
                file.lock()
                    .with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        Ok(Self { _file: file })
    }

    fn try_take(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }
}

fn open(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open the lock {}", path.display()))
}

/// The right to run one machine beside those of other threads and processes of this user.
///
/// The host has one slot for each core, but no more than its memory carries; a machine takes one slot for each
/// 2 GiB of its memory.
#[derive(Debug)]
pub struct MachineToken {
    _slots: Vec<FileLock>,
}

impl MachineToken {
    /// Waits until a machine with `memory_mib` MiB may start.
    pub fn wait(memory_mib: u64) -> Result<Self> {
        let folder = slot_folder()?;
        let total = slots_of_host();
        let wanted = slots_of_machine(memory_mib, total);
        // One waiter at a time collects slots, so that two large machines cannot each hold half of what both need.
        let _gate = {
            let gate = open(&folder.join("gate"))?;
            gate.lock().context("cannot wait for a machine slot")?;
            gate
        };
        let mut slots = Vec::new();
        loop {
            for index in 0..total {
                if slots.len() == wanted {
                    return Ok(Self { _slots: slots });
                }
                slots.extend(FileLock::try_take(&folder.join(format!("slot-{index}")))?);
            }
            if slots.len() == wanted {
                return Ok(Self { _slots: slots });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn slots_of_machine(memory_mib: u64, total: usize) -> usize {
    usize::try_from(memory_mib.div_ceil(2048)).map_or(total, |slots| slots.clamp(1, total))
}

fn slots_of_host() -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let by_memory = host_memory_mib().map_or(usize::MAX, |mib| {
        usize::try_from(mib / SLOT_MIB).unwrap_or(usize::MAX)
    });
    cores.min(by_memory).max(1)
}

fn host_memory_mib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

fn slot_folder() -> Result<PathBuf> {
    let user = fs::metadata("/proc/self").map_or(0, |data| data.uid());
    let folder = env::temp_dir().join(format!("partita-slots-{user}"));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_takes_a_slot_for_each_two_gibibytes_but_never_more_than_there_are() {
        assert_eq!(slots_of_machine(64, 4), 1);
        assert_eq!(slots_of_machine(2048, 4), 1);
        assert_eq!(slots_of_machine(2049, 4), 2);
        assert_eq!(slots_of_machine(1 << 20, 4), 4);
        assert_eq!(slots_of_machine(4096, 1), 1);
    }

    #[test]
    fn a_taken_lock_is_not_given_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = FileLock::try_take(&path).unwrap();
        assert!(first.is_some());
        assert!(FileLock::try_take(&path).unwrap().is_none());
        drop(first);
        assert!(FileLock::try_take(&path).unwrap().is_some());
    }
}
