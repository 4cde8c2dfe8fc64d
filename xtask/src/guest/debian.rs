//! Debian's cloud kernel as a guest: kernel and modules byte for byte as the package has them, BusyBox for a user space.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::PackageRoot;
use crate::guest::initrd::Initrd;
use crate::guest::{module, root_disk, vmlinux};
use crate::lock::FileLock;
use crate::paths;

/// The kernel that the release's package of this name stands for.
const KERNEL: &str = "linux-image-cloud-amd64";
/// A user space in one file.
const BUSYBOX: &str = "busybox-static";
/// BusyBox in its package.
const BUSYBOX_FILE: &str = "bin/busybox";
/// The guest's first program.
const INIT: &str = include_str!("init.sh");
/// What its DHCP client does with what it is told.
pub(super) const DHCP: &str = include_str!("userland/udhcpc");

/// Modules for the guest's devices and VLANs; those that they need come with them.
const MODULES: [&str; 12] = [
    "hv_vmbus",
    "hv_storvsc",
    "hv_netvsc",
    "8021q",
    "hv_utils",
    "hv_balloon",
    "hv_sock",
    "hyperv-keyboard",
    "pci-hyperv",
    "sd_mod",
    "sr_mod",
    "ext4",
];

/// The disk of the root that the guest's system is on: [`Debian::root_disk`], as the second disk of the machine.
pub const DISK: &str = "nvme1";

/// The kernel's name in the boot archive.
pub const KERNEL_NAME: &str = "kernels/debian";
/// The first file system's.
pub(super) const INITRD_NAME: &str = "initrds/debian";

/// Which of Debian's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suite {
    /// The release's own.
    Release,
    /// The newest that this machine's release offers: that of its backports, where they are used.
    Newest,
}

/// The packages, unpacked.
#[derive(Clone, Debug)]
pub struct Debian {
    root: PathBuf,
    release: String,
}

impl Debian {
    /// The release's own kernel. Fetches the packages, unless they are there.
    pub fn ensure() -> Result<Self> {
        Self::ensure_kernel("guests/debian", Suite::Release)
    }

    /// The newest kernel that this machine's release offers: on Debian 12, that of its backports.
    pub fn ensure_newest() -> Result<Self> {
        Self::ensure_kernel("guests/debian-newest", Suite::Newest)
    }

    fn ensure_kernel(folder: &str, suite: Suite) -> Result<Self> {
        let folder = paths::work()?.join(folder);
        let stamp = folder.join("release");
        let root = folder.join("root");
        let done = |release: String| Self {
            root: root.clone(),
            release: release.trim().to_owned(),
        };
        if let Ok(release) = fs::read_to_string(&stamp) {
            return Ok(done(release));
        }
        let tools = paths::tools()?;
        let _lock = FileLock::wait(&tools.join("lock"), "it is fetching packages")?;
        if let Ok(release) = fs::read_to_string(&stamp) {
            return Ok(done(release));
        }
        eprintln!("fetching Debian's kernel into {}", folder.display());
        let failed = || format!("cannot fetch the guest's packages ({KERNEL}, {BUSYBOX})");
        let apt = PackageRoot::prepare(&tools).with_context(failed)?;
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        fs::create_dir_all(&root)?;
        let named = match suite {
            Suite::Release => apt.fetch(KERNEL, &folder),
            Suite::Newest => apt.fetch_newest(KERNEL, &folder),
        };
        let named = named.with_context(failed)?;
        let kernel = named.depends().with_context(failed)?;
        for package in [kernel.as_str(), BUSYBOX] {
            apt.fetch(package, &folder)
                .and_then(|package| package.unpack(&root))
                .with_context(failed)?;
        }
        let release = kernel_release(&root)?;
        fs::write(&stamp, &release)?;
        Ok(done(release))
    }

    /// The kernel's release, such as `6.1.0-50-cloud-amd64`.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The kernel, as the package has it.
    pub fn kernel(&self) -> Result<Vec<u8>> {
        read(&self.root.join(format!("boot/vmlinuz-{}", self.release)))
    }

    /// The first file system: BusyBox, the first program, modules.
    pub fn initrd(&self) -> Result<Vec<u8>> {
        let busybox = read(&self.root.join(BUSYBOX_FILE))?;
        let mut initrd = Initrd::new()
            .folder("bin")?
            .folder("dev")?
            .device("dev/console", 5, 1)?
            .program("bin/busybox", &busybox)?
            .program("init", INIT.as_bytes())?
            .folder("etc")?
            .folder("etc/udhcpc")?
            .program("etc/udhcpc/default.script", DHCP.as_bytes())?;
        let folder = format!("lib/modules/{}", self.release);
        for parent in ["lib", "lib/modules", &folder] {
            initrd = initrd.folder(parent)?;
        }
        let modules = self.modules()?;
        let mut index = String::new();
        for module in &modules {
            let mut needs = Vec::new();
            all_needs(&modules, module, &mut needs);
            // They are loaded from the last to the first.
            let needs: String = needs.iter().rev().map(|name| format!(" {name}.ko")).collect();
            index += &format!("{}.ko:{needs}\n", module.name);
            initrd = initrd.file(&format!("{folder}/{}.ko", module.name), &module.contents)?;
        }
        initrd
            .file(&format!("{folder}/modules.dep"), index.as_bytes())?
            .build()
    }

    /// The kernel, decompressed: an ELF file with a PVH entry.
    pub fn vmlinux(&self) -> Result<Vec<u8>> {
        vmlinux::extract(&self.kernel()?)
    }

    /// A first file system that has only `program`, and the modules `wanted` with what they need; `/modules` lists these in the order in
    /// which they can be loaded.
    pub fn initrd_of(&self, program: &[u8], wanted: &[&str]) -> Result<Vec<u8>> {
        let modules = self.modules()?;
        let mut order = Vec::new();
        for name in wanted {
            // What is built in is no module.
            let found = modules.iter().find(|module| same_module(&module.name, name));
            if let Some(module) = found.filter(|module| !order.contains(&module.name.as_str())) {
                all_needs(&modules, module, &mut order);
                order.push(&module.name);
            }
        }
        let mut initrd = Initrd::new()
            .folder("dev")?
            .device("dev/console", 5, 1)?
            .program("init", program)?
            .folder("lib")?;
        let mut list = String::new();
        for module in modules
            .iter()
            .filter(|module| order.contains(&module.name.as_str()))
        {
            initrd = initrd.file(&format!("lib/{}.ko", module.name), &module.contents)?;
        }
        for name in order {
            list += &format!("/lib/{name}.ko\n");
        }
        initrd.file("modules", list.as_bytes())?.build()
    }

    /// A disk with a system of Debian's packages, in a file that is not to be written.
    pub fn root_disk(&self) -> Result<PathBuf> {
        root_disk::ensure(&root_disk::Kernel {
            release: &self.release,
            modules: &self.root.join("lib/modules").join(&self.release),
            boot: &[("vmlinuz", self.kernel()?), ("initrd.img", self.initrd()?)],
        })
    }

    /// A program of the system on [`Debian::root_disk`] that runs on this host, such as the client of a server that the guest runs.
    pub fn program(&self, name: &str) -> Result<Command> {
        self.root_disk()?;
        root_disk::program(name)
    }

    /// The guest as files of the boot archive: kernel, first file system, and the descriptions `debian`, whose system is on the
    /// root's second disk, and `debian-ram`, which needs none. Both have a network card.
    pub fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let with_card = |text: String| (text + "\n[[network]]\n").into_bytes();
        Ok(vec![
            (KERNEL_NAME.to_owned(), self.kernel()?),
            (INITRD_NAME.to_owned(), self.initrd()?),
            ("vms/debian.toml".to_owned(), with_card(disk_description(2, ""))),
            ("vms/debian-ram.toml".to_owned(), with_card(description(2, ""))),
        ])
    }

    /// [`MODULES`] and what they need.
    fn modules(&self) -> Result<Vec<Module>> {
        let tree = self.root.join(format!("lib/modules/{}/kernel", self.release));
        let mut files = Vec::new();
        collect(&tree, &mut files)?;
        let mut wanted: Vec<String> = MODULES.iter().map(ToString::to_string).collect();
        let mut modules: Vec<Module> = Vec::new();
        while let Some(name) = wanted.pop() {
            let same = |module: &Module| same_module(&module.name, &name);
            let Some(file) = files.iter().find(|file| same_module(&module::name(file), &name)) else {
                // Built in, or not in this kernel.
                continue;
            };
            if modules.iter().any(same) {
                continue;
            }
            let contents = module::read(file)?;
            let needs = needs(&contents);
            wanted.extend(needs.iter().cloned());
            modules.push(Module {
                name: module::name(file),
                needs,
                contents,
            });
        }
        modules.sort_by(|a, b| a.name.cmp(&b.name));
        let known: Vec<String> = modules.iter().map(|module| module.name.clone()).collect();
        for module in &mut modules {
            module.needs = module
                .needs
                .iter()
                .filter_map(|need| known.iter().find(|name| same_module(name, need)).cloned())
                .collect();
        }
        Ok(modules)
    }
}

/// A description of the guest with `processors` VPs. `commands` run in place of a login; none do where it is empty.
pub fn description(processors: u32, commands: &str) -> String {
    let arguments = match commands {
        "" => String::new(),
        commands => format!(" -- \"{commands}\""),
    };
    format!(
        "# Debian's cloud kernel with BusyBox in its first file system.\n\
         processors = {processors}\n\
         memory = \"256MiB\"\n\
         kernel = \"{KERNEL_NAME}\"\n\
         modules = [\"{INITRD_NAME}\"]\n\
         command_line = '''console=ttyS0 panic=-1{arguments}'''\n\
         triple_fault = \"reset\"\n"
    )
}

/// A description of the guest whose system is on the disk [`DISK`], with `processors` VPs. `commands` run there in place of a
/// login, and the guest then powers itself off.
pub fn disk_description(processors: u32, commands: &str) -> String {
    let text = description(processors, commands).replace("console=ttyS0", "console=ttyS0 root=/dev/sda");
    format!("{text}\n[[disk]]\nsource = \"{DISK}\"\n")
}

/// A kernel module.
struct Module {
    name: String,
    needs: Vec<String>,
    contents: Vec<u8>,
}

/// Adds all that `module` needs to `found`, each after what it needs itself.
fn all_needs<'m>(modules: &'m [Module], module: &'m Module, found: &mut Vec<&'m str>) {
    for need in &module.needs {
        if let Some(needed) = modules.iter().find(|module| module.name == *need)
            && !found.contains(&needed.name.as_str())
        {
            all_needs(modules, needed, found);
            found.push(&needed.name);
        }
    }
}

/// Whether two names mean one module: files say `-` where the kernel says `_`.
fn same_module(one: &str, other: &str) -> bool {
    one.replace('-', "_") == other.replace('-', "_")
}

/// The modules that a module says it needs: `depends=a,b` in its information section.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"depends=";
    let starts = module.windows(KEY.len()).enumerate();
    let at = starts
        .filter(|(at, window)| *window == KEY && at.checked_sub(1).is_some_and(|before| module[before] == 0))
        .map(|(at, _)| at + KEY.len())
        .next();
    let Some(at) = at else {
        return Vec::new();
    };
    let end = module[at..].iter().position(|&byte| byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&module[at..at + end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if module::is_module(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

fn kernel_release(root: &Path) -> Result<String> {
    for entry in fs::read_dir(root.join("boot")).context("the kernel's package has no folder boot")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(release) = name.strip_prefix("vmlinuz-") {
            return Ok(release.to_owned());
        }
    }
    bail!("the kernel's package has no kernel")
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modules_needs_are_read_from_its_information() {
        let module = b"\x7fELF\0license=GPL\0depends=hv_vmbus,scsi_transport_fc\0retpoline=Y\0";
        assert_eq!(needs(module), ["hv_vmbus", "scsi_transport_fc"]);
        assert!(needs(b"\0depends=\0").is_empty());
        assert!(needs(b"no information").is_empty());
        assert!(same_module("hyperv-keyboard", "hyperv_keyboard"));
    }

    #[test]
    fn what_a_module_needs_comes_after_what_that_needs() {
        let module = |name: &str, needs: &[&str]| Module {
            name: name.to_owned(),
            needs: needs.iter().map(ToString::to_string).collect(),
            contents: Vec::new(),
        };
        let modules = [
            module("storvsc", &["vmbus", "scsi", "fc"]),
            module("fc", &["scsi"]),
            module("scsi", &["common"]),
            module("vmbus", &[]),
            module("common", &[]),
        ];
        let mut needs = Vec::new();
        all_needs(&modules, &modules[0], &mut needs);
        assert_eq!(needs, ["vmbus", "common", "scsi", "fc"]);
    }

    #[test]
    fn commands_stand_behind_the_dashes_in_quotes() {
        assert!(description(2, "dmesg; poweroff -f").contains(" -- \"dmesg; poweroff -f\"'''"));
        assert!(description(1, "").contains("panic=-1'''"));
    }
}
