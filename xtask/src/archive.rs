//! The boot archive: one cpio file (newc format) that the boot loader hands to the hypervisor.

use anyhow::{Context, Result, bail};
use cpio::newc;

/// The archive's file with the root partition's image.
pub const ROOT: &str = "root";
/// The archive's file with commands for the root's shell, one a line.
pub const EXEC: &str = "exec";

/// What a machine gets as its boot archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ArchiveSpec {
    /// The built root image, the commands of `exec` and the machine's further files.
    #[default]
    Default,
    /// No boot module at all.
    None,
    /// These bytes in place of an archive.
    Raw(Vec<u8>),
    /// The usual archive without the root image.
    WithoutRoot,
    /// The usual archive with these bytes as the root image.
    WithRoot(Vec<u8>),
}

/// Collects files and writes them as one cpio archive.
#[derive(Clone, Debug, Default)]
pub struct ArchiveBuilder {
    files: Vec<(String, Vec<u8>)>,
}

impl ArchiveBuilder {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file; its name may hold folders (`vms/web.toml`).
    #[must_use]
    pub fn file(mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.into(), bytes.into()));
        self
    }

    /// Adds the commands that the root's shell runs before it ends the machine.
    pub fn exec(self, commands: &[String]) -> Result<Self> {
        if let Some(command) = commands.iter().find(|command| command.contains(['\n', '\r'])) {
            bail!("the command {command:?} holds a line break; give one command at a time");
        }
        let text = commands
            .iter()
            .map(|command| format!("{command}\n"))
            .collect::<String>();
        Ok(self.file(EXEC, text))
    }

    /// The archive's bytes.
    pub fn build(self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for (index, (name, contents)) in self.files.iter().enumerate() {
            if name.is_empty() || self.files[..index].iter().any(|(other, _)| other == name) {
                bail!("the boot archive would hold two files of one name, or one without: {name:?}");
            }
            let length = u32::try_from(contents.len())
                .with_context(|| format!("{name} is too large for a cpio archive (4 GiB)"))?;
            let inode = u32::try_from(index + 1)?;
            let entry = newc::Builder::new(name).ino(inode).mode(0o100_644).nlink(1);
            let mut writer = entry.write(&mut bytes, length);
            std::io::Write::write_all(&mut writer, contents)?;
            writer.finish()?;
        }
        newc::trailer(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn read_back(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        let mut rest = bytes;
        loop {
            let mut reader = newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return files;
            }
            let mut contents = Vec::new();
            reader.read_to_end(&mut contents).unwrap();
            files.push((reader.entry().name().to_owned(), contents));
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn files_of_every_length_modulo_four_are_read_back_in_order() {
        let files: Vec<(String, Vec<u8>)> = (0..9)
            .map(|length| (format!("vms/{}", "n".repeat(length + 1)), vec![0x5a; length]))
            .collect();
        let builder = files
            .iter()
            .fold(ArchiveBuilder::new(), |builder, (name, bytes)| {
                builder.file(name, bytes.clone())
            });
        assert_eq!(read_back(&builder.build().unwrap()), files);
    }

    #[test]
    fn file_data_begins_at_a_multiple_of_four() {
        let bytes = ArchiveBuilder::new()
            .file("root", *b"\x7fELF")
            .file("a", *b"\x7fELF")
            .build()
            .unwrap();
        let starts: Vec<_> = (0..bytes.len())
            .filter(|&at| bytes[at..].starts_with(b"\x7fELF"))
            .collect();
        assert_eq!(starts.len(), 2);
        assert!(starts.iter().all(|start| start % 4 == 0), "{starts:?}");
    }

    #[test]
    fn commands_become_lines_of_the_exec_file() {
        let commands = ["hv info".to_owned(), "vm list --json".to_owned()];
        let bytes = ArchiveBuilder::new().exec(&commands).unwrap().build().unwrap();
        assert_eq!(
            read_back(&bytes),
            [(EXEC.to_owned(), b"hv info\nvm list --json\n".to_vec())]
        );
        assert!(ArchiveBuilder::new().exec(&["a\nb".to_owned()]).is_err());
    }

    #[test]
    fn an_empty_archive_is_only_its_trailer_and_a_name_stands_once() {
        assert_eq!(read_back(&ArchiveBuilder::new().build().unwrap()), []);
        assert!(
            ArchiveBuilder::new()
                .file("root", *b"")
                .file("root", *b"")
                .build()
                .is_err()
        );
    }
}
