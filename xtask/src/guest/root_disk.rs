//! A root disk for the Debian guest: a small system of Debian's packages on an ext4 file system, made without root rights.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::PackageRoot;
use crate::guest::debian::DHCP;
use crate::lock::FileLock;
use crate::paths;
use crate::process::tied;

/// The packages, besides what they depend on.
const PACKAGES: &[&str] = &[
    "base-files",
    "base-passwd",
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "dropbear-bin",
    "e2fsprogs",
    "ethtool",
    "findutils",
    "grep",
    "hostname",
    "hyperv-daemons",
    "iproute2",
    "iputils-ping",
    "kexec-tools",
    "kmod",
    "libc-bin",
    "mount",
    "ncurses-base",
    "procps",
    "sed",
    "util-linux",
];
/// Names under which BusyBox stands in the system; the packages have no init of their own.
const BUSYBOX: &[&str] = &[
    "sbin/init",
    "sbin/poweroff",
    "sbin/reboot",
    "sbin/halt",
    "usr/bin/vi",
    "usr/bin/wget",
];
/// Files of our own: where, what, whether it is a program.
const FILES: &[(&str, &str, bool)] = &[
    ("etc/inittab", include_str!("userland/inittab"), false),
    ("etc/rc", include_str!("userland/rc"), true),
    ("etc/console", include_str!("userland/console"), true),
    ("etc/rc.shutdown", include_str!("userland/rc.shutdown"), true),
    ("etc/profile", include_str!("userland/profile"), false),
    ("etc/udhcpc/default.script", DHCP, true),
    ("etc/hostname", "partita-guest\n", false),
    ("etc/fstab", "/dev/sda / ext4 rw 0 1\n", false),
];
/// Folders that the system mounts on, or writes to.
const FOLDERS: &[&str] = &[
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "root",
    "mnt",
    "boot",
    "var/log",
    "etc/udhcpc",
    "etc/dropbear",
];
/// Bytes of the disk, most of them a hole.
const SIZE: &str = "768M";
/// Raise this when the disk is to be made anew.
const VERSION: &str = "4";

/// What the disk holds of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<'a> {
    /// Its release, such as `6.1.0-50-cloud-amd64`.
    pub release: &'a str,
    /// The folder of its modules.
    pub modules: &'a Path,
    /// Itself, and its first file system, for `kexec`.
    pub boot: &'a [(&'a str, Vec<u8>)],
}

/// The disk's image, made where there is none.
///
/// The image is not to be written: take a copy.
pub fn ensure(kernel: &Kernel<'_>) -> Result<PathBuf> {
    let release = kernel.release;
    let folder = paths::work()?.join("guests/debian");
    let image = folder.join(format!("root-{release}-{VERSION}.img"));
    if image.exists() {
        return Ok(image);
    }
    fs::create_dir_all(&folder)?;
    let _lock = FileLock::wait(&folder.join("lock"), "it is making the guest's root disk")?;
    if image.exists() {
        return Ok(image);
    }
    eprintln!("making the guest's root disk {}", image.display());
    let system = folder.join("system");
    fs::create_dir_all(&system)?;
    let apt = PackageRoot::prepare(&system)?;
    apt.install(PACKAGES)
        .context("cannot fetch the guest's system as packages")?;
    let root = apt.files();
    furnish(&root, kernel)?;
    let new = image.with_extension("new");
    format(&root, &new, release)?;
    fs::rename(&new, &image)?;
    Ok(image)
}

/// A program of the system, called `name`, that runs on this host. The disk must have been made.
pub fn program(name: &str) -> Result<Command> {
    let root = paths::work()?.join("guests/debian/system/root");
    let places = ["bin", "usr/bin", "sbin", "usr/sbin"].map(|folder| format!("{folder}/{name}"));
    own_program(&root, name, &places.each_ref().map(String::as_str))
}

/// What the packages' own scripts would do, and our files.
fn furnish(root: &Path, kernel: &Kernel<'_>) -> Result<()> {
    // Another kernel's disk may have been made before.
    for folder in ["boot", "lib/modules"] {
        let folder = root.join(folder);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
    }
    for folder in FOLDERS {
        fs::create_dir_all(root.join(folder))?;
    }
    for (name, contents, program) in FILES {
        let path = root.join(name);
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
        let mode = if *program { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    for (master, name) in [("passwd.master", "passwd"), ("group.master", "group")] {
        let master = root.join("usr/share/base-passwd").join(master);
        fs::copy(&master, root.join("etc").join(name)).with_context(|| format!("no {}", master.display()))?;
    }
    for name in BUSYBOX {
        link("/bin/busybox", &root.join(name))?;
    }
    if !root.join("bin/sh").exists() {
        link("dash", &root.join("bin/sh"))?;
    }
    for (name, bytes) in kernel.boot {
        fs::write(root.join("boot").join(name), bytes)?;
    }
    copy_tree(kernel.modules, &root.join("lib/modules").join(kernel.release))
}

fn link(to: &str, path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        fs::remove_file(path)?;
    }
    symlink(to, path).with_context(|| format!("cannot link {}", path.display()))
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Makes the index of the modules, and the file system, by the system's own programs.
fn format(root: &Path, image: &Path, release: &str) -> Result<()> {
    let mut depmod = own_program(
        root,
        "depmod",
        &["bin/kmod", "usr/bin/kmod", "sbin/depmod", "usr/sbin/depmod"],
    )?;
    depmod.arg("-b").arg(root).arg(release);
    run(depmod, "indexing the guest's modules")?;
    let mut mke2fs = own_program(root, "mke2fs", &["sbin/mke2fs", "usr/sbin/mke2fs"])?;
    mke2fs.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-L",
        "partita",
        "-E",
        "root_owner=0:0",
        "-d",
    ]);
    mke2fs.arg(root).arg(image).arg(SIZE);
    run(mke2fs, "making the guest's file system")
}

/// A program of the system itself, called `name`, through the system's own loader and libraries.
fn own_program(root: &Path, name: &str, paths: &[&str]) -> Result<Command> {
    let mut found = paths
        .iter()
        .map(|path| root.join(path))
        .filter(|path| path.is_file());
    let program = found
        .next()
        .with_context(|| format!("the packages have no {name}"))?;
    let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"]
        .map(|folder| root.join(folder).display().to_string());
    let mut command = tied(root.join("lib64/ld-linux-x86-64.so.2"));
    command
        .args(["--argv0", name, "--library-path", &libraries.join(":")])
        .arg(program);
    Ok(command)
}

fn run(mut command: Command, what: &str) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{what}: cannot start"))?;
    if !output.status.success() {
        bail!(
            "{what} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
