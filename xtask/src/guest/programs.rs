//! More of Debian's programs for a guest whose system is in its first file system: those that BusyBox does not stand for.

use std::fs;

use anyhow::{Context, Result};

use crate::apt::PackageRoot;
use crate::guest::debian::{Debian, INITRD_NAME};
use crate::guest::initrd::Initrd;
use crate::lock::FileLock;
use crate::paths;

/// The packages: what shows and sets a network card's offloads and queues, and what that needs.
const PACKAGES: [&str; 3] = ["ethtool", "libmnl0", "libc6"];
/// Where the loader and the libraries are looked for.
const LIBRARIES: [(&str, &str); 4] = [
    ("lib64/ld-linux-x86-64.so.2", "ld-linux-x86-64.so.2"),
    ("lib/x86_64-linux-gnu/libc.so.6", "libc.so.6"),
    ("lib/x86_64-linux-gnu/libm.so.6", "libm.so.6"),
    ("lib/x86_64-linux-gnu/libmnl.so.0", "libmnl.so.0"),
];
const PROGRAM: &str = "ethtool";
const FOLDERS: [&str; 4] = ["lib64", "lib", "lib/x86_64-linux-gnu", "sbin"];

impl Debian {
    /// The first file system with `ethtool` and `scripts` (where each goes, and its text) in it as well.
    pub fn initrd_with(&self, scripts: &[(&str, &str)]) -> Result<Vec<u8>> {
        let folder = paths::work()?.join("guests/debian");
        let root = folder.join("programs");
        let stamp = folder.join("programs.done");
        if !stamp.exists() {
            let tools = paths::tools()?;
            let _lock = FileLock::wait(&tools.join("lock"), "it is fetching packages")?;
            if !stamp.exists() {
                let apt = PackageRoot::prepare(&tools)?;
                fs::create_dir_all(&root)?;
                for package in PACKAGES {
                    apt.fetch(package, &folder)
                        .and_then(|package| package.unpack(&root))
                        .with_context(|| format!("cannot fetch the guest's package {package}"))?;
                }
                fs::write(&stamp, "")?;
            }
        }
        let find = |name: &str| {
            let places = ["", "usr/"].into_iter();
            let folders = ["lib64/", "lib/x86_64-linux-gnu/", "sbin/"];
            let mut paths =
                places.flat_map(|place| folders.map(|folder| root.join(format!("{place}{folder}{name}"))));
            let path = paths.find(|path| path.exists());
            let path = path.with_context(|| format!("the packages have no {name}"))?;
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let mut more = Initrd::new();
        for folder in FOLDERS {
            more = more.folder(folder)?;
        }
        for (name, file) in LIBRARIES {
            more = more.program(name, &find(file)?)?;
        }
        more = more.program(&format!("sbin/{PROGRAM}"), &find(PROGRAM)?)?;
        for (name, script) in scripts {
            more = more.program(name, script.as_bytes())?;
        }
        // Linux unpacks archives that stand in a row.
        let mut bytes = self.initrd()?;
        bytes.extend(more.build()?);
        Ok(bytes)
    }

    /// `description`, with the first file system called `name` in the boot archive in place of the plain one.
    pub fn with_initrd(description: &str, name: &str) -> String {
        description.replace(INITRD_NAME, name)
    }
}
