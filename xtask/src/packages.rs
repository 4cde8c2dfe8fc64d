//! The package sets that this tool can fetch, and the wrapper scripts that start their programs.
//!
//! A set is fetched when first asked for and stamped when complete. Its programs are started by scripts in
//! `target/partita/tools/bin/`, which go through the private root's own loader and libraries.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apt::PackageRoot;
use crate::lock::FileLock;
use crate::paths;

/// Raise this when the wrapper scripts change, so that they are written anew.
const WRAPPER_VERSION: u32 = 2;

/// Packages that belong together, and the programs of them that we start.
#[derive(Debug)]
pub struct PackageSet {
    /// The name of the set's stamp.
    pub name: &'static str,
    /// What the set is for, in a message to a person.
    pub purpose: &'static str,
    /// The packages; what they depend on comes with them.
    pub packages: &'static [&'static str],
    /// The programs that get a wrapper script.
    pub programs: &'static [Program],
}

/// A program of a package set.
#[derive(Debug)]
pub struct Program {
    /// The wrapper script's name.
    pub name: &'static str,
    /// The executable's path in the package root.
    pub path: &'static str,
    /// Arguments and variables that make it find its own files; `@` stands for the package root.
    pub arguments: &'static str,
    /// Variables set for it, as `NAME=value` in shell words.
    pub variables: &'static str,
}

/// The machine emulator.
pub const QEMU: PackageSet = PackageSet {
    name: "qemu",
    purpose: "the machine emulator (QEMU 9 or newer)",
    packages: &["qemu-system-x86", "seabios", "ipxe-qemu"],
    programs: &[Program {
        name: "qemu-system-x86_64",
        path: "usr/bin/qemu-system-x86_64",
        arguments: "-L @/usr/share/qemu -L @/usr/share/seabios -L @/usr/lib/ipxe/qemu",
        variables: "",
    }],
};

/// What builds a bootable GRUB image.
pub const ISO: PackageSet = PackageSet {
    name: "iso",
    purpose: "the image builders",
    packages: &[
        "grub-pc-bin",
        "grub-efi-amd64-bin",
        "grub-common",
        "xorriso",
        "mtools",
    ],
    programs: &[
        Program {
            name: "grub-mkimage",
            path: "usr/bin/grub-mkimage",
            arguments: "",
            variables: "",
        },
        Program {
            name: "xorriso",
            path: "usr/bin/xorriso",
            arguments: "",
            variables: "",
        },
        Program {
            name: "mformat",
            path: "usr/bin/mformat",
            arguments: "",
            variables: "",
        },
        Program {
            name: "mmd",
            path: "usr/bin/mmd",
            arguments: "",
            variables: "",
        },
        Program {
            name: "mcopy",
            path: "usr/bin/mcopy",
            arguments: "",
            variables: "",
        },
    ],
};

/// UEFI firmware for the emulator.
pub const OVMF: PackageSet = PackageSet {
    name: "ovmf",
    purpose: "the UEFI firmware",
    packages: &["ovmf"],
    programs: &[],
};

/// The second emulator, which has VMX. Its configuration must say
/// `sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy`: on a host without sound it crashes otherwise.
pub const BOCHS: PackageSet = PackageSet {
    name: "bochs",
    purpose: "the VMX emulator",
    packages: &["bochs", "bochs-term", "bochsbios", "vgabios"],
    programs: &[Program {
        name: "bochs",
        path: "usr/bin/bochs-bin",
        arguments: "",
        variables: "BXSHARE=@/usr/share/bochs LTDL_LIBRARY_PATH=@/usr/lib/x86_64-linux-gnu/bochs/plugins",
    }],
};

/// Every set there is.
pub const SETS: &[&PackageSet] = &[&QEMU, &ISO, &OVMF, &BOCHS];

impl PackageSet {
    /// Makes sure that the set is there, and says where.
    pub fn ensure(&self) -> Result<Tools> {
        let tools = Tools {
            folder: paths::tools()?,
        };
        let stamp = tools.folder.join("stamps").join(self.name);
        let contents = format!("{WRAPPER_VERSION} {}\n", self.packages.join(" "));
        let complete = || fs::read_to_string(&stamp).is_ok_and(|text| text == contents);
        if complete() {
            return Ok(tools);
        }
        let _lock = FileLock::wait(&tools.folder.join("lock"), "it is fetching packages")?;
        if complete() {
            return Ok(tools);
        }
        eprintln!("fetching {} into {}", self.purpose, tools.folder.display());
        let advice = || self.advice();
        let root = PackageRoot::prepare(&tools.folder).with_context(advice)?;
        root.install(self.packages).with_context(advice)?;
        for program in self.programs {
            tools.write_wrapper(program)?;
        }
        fs::create_dir_all(tools.folder.join("stamps"))?;
        fs::write(&stamp, contents)?;
        Ok(tools)
    }

    fn advice(&self) -> String {
        let programs: Vec<_> = self.programs.iter().map(|program| program.name).collect();
        let packages = self.packages.join(" ");
        match programs.as_slice() {
            [] => format!("cannot fetch {} (the packages {packages})", self.purpose),
            _ => format!(
                "cannot fetch {}; install it so that PATH has {} (Debian's packages: {packages})",
                self.purpose,
                programs.join(", ")
            ),
        }
    }
}

/// The folder with the private package root and its wrapper scripts.
#[derive(Clone, Debug)]
pub struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// The wrapper script of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// A file of the private package root.
    pub fn file(&self, path: &str) -> PathBuf {
        self.folder.join("root").join(path)
    }

    fn write_wrapper(&self, program: &Program) -> Result<()> {
        let root = self.folder.join("root");
        if !root.join(program.path).is_file() {
            bail!("the packages do not hold {}", program.path);
        }
        let script = wrapper(program, &loader(&root)?);
        let path = self.program(program.name);
        fs::create_dir_all(self.folder.join("bin"))?;
        // Written beside and renamed: a script that another process runs is never half there.
        let part = path.with_extension("part");
        fs::write(&part, script)?;
        fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
        fs::rename(&part, &path)?;
        Ok(())
    }
}

/// The dynamic loader's path in the package root: in `lib64`, or in `usr/lib64` where the release has merged them.
fn loader(root: &Path) -> Result<String> {
    ["lib64", "usr/lib64"]
        .into_iter()
        .map(|folder| format!("{folder}/ld-linux-x86-64.so.2"))
        .find(|loader| root.join(loader).exists())
        .context("the packages hold no dynamic loader for x86-64")
}

fn wrapper(program: &Program, loader: &str) -> String {
    let in_root = |words: &str| words.replace('@', "$root");
    let quoted = |words: &str| {
        let words = in_root(words);
        words
            .split_whitespace()
            .map(|word| format!("\"{word}\" "))
            .collect::<String>()
    };
    let variables = quoted(program.variables);
    let environment = if variables.is_empty() {
        variables
    } else {
        format!("env {variables}")
    };
    format!(
        "#!/bin/sh\n\
         # Starts {name} of the private package root through the root's own loader. Written by `cargo xtask setup`.\n\
         root=$(dirname \"$(readlink -f \"$0\")\")/../root\n\
         exec {environment}\"$root/{loader}\" --library-path \\\n  \
         \"$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu\" \\\n  \
         \"$root/{path}\" {arguments}\"$@\"\n",
        name = program.name,
        path = program.path,
        arguments = quoted(program.arguments),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapper_goes_through_the_roots_own_loader_and_passes_its_arguments_on() {
        let script = wrapper(&QEMU.programs[0], "lib64/ld-linux-x86-64.so.2");
        assert!(script.starts_with("#!/bin/sh\n"));
        assert!(script.contains("exec \"$root/lib64/ld-linux-x86-64.so.2\" --library-path"));
        assert!(script.contains("\"$root/usr/bin/qemu-system-x86_64\" \"-L\" \"$root/usr/share/qemu\""));
        assert!(script.ends_with(" \"$@\"\n"));
    }

    #[test]
    fn a_wrapper_sets_the_programs_variables() {
        let script = wrapper(&BOCHS.programs[0], "lib64/ld-linux-x86-64.so.2");
        assert!(script.contains("exec env \"BXSHARE=$root/usr/share/bochs\" "));
    }

    #[test]
    fn set_names_are_unique() {
        for (index, set) in SETS.iter().enumerate() {
            assert!(
                SETS[..index].iter().all(|other| other.name != set.name),
                "{}",
                set.name
            );
        }
    }
}
