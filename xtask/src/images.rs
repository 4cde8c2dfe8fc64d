//! Builds the freestanding images with plain cargo, each by itself so that features do not unify.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::archive::{ArchiveBuilder, ArchiveSpec, ROOT};
use crate::lock::FileLock;
use crate::paths;

/// The environment variable that names a folder with built images; they are then used as they are.
pub const READY: &str = "PARTITA_IMAGES";

/// Packages of the images; each has programs behind the feature `image`: one of its own name, or the demo guests.
pub const PACKAGES: [&str; 3] = [HYPERVISOR, ROOT_PARTITION, EXAMPLES];
const EXAMPLES: &str = "examples";
/// The demo guests; in the boot archive they are `kernels/hello` and so on, with the descriptions of `vsc/examples/vms`.
const GUESTS: [&str; 10] = [
    "hello",
    "conformance",
    "registers",
    "bench",
    "bench-io",
    "echo",
    "disk",
    "dma",
    "chat",
    "web",
];
/// Their descriptions, in the workspace.
const DESCRIPTIONS: &str = "vsc/examples/vms";
const HYPERVISOR: &str = "hypervisor";
const ROOT_PARTITION: &str = "root-partition";

/// The built images.
#[derive(Clone, Debug)]
pub struct Images {
    /// The hypervisor's ELF file.
    pub hypervisor: PathBuf,
    /// The root partition's ELF file.
    pub root: PathBuf,
}

impl Images {
    fn in_folder(folder: &Path) -> Self {
        Self {
            hypervisor: folder.join(HYPERVISOR),
            root: folder.join(ROOT_PARTITION),
        }
    }

    /// The folder that holds both.
    pub fn folder(&self) -> &Path {
        self.hypervisor.parent().unwrap_or(Path::new("."))
    }
}

/// The images, built at most once a process and without a word unless the build fails. What tests use.
pub fn built() -> Result<Images> {
    once(false)
}

/// As [`built`], but shows cargo's own progress. What commands use.
pub fn build() -> Result<Images> {
    once(true)
}

static BUILT: Mutex<Option<Images>> = Mutex::new(None);

/// The images that this process has built before, if it has.
pub fn ready() -> Option<Images> {
    BUILT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn once(visible: bool) -> Result<Images> {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(images) = &*built {
        return Ok(images.clone());
    }
    let images = match env::var_os(READY) {
        Some(folder) => Images::in_folder(Path::new(&folder)),
        None => build_all(visible)?,
    };
    for image in [&images.hypervisor, &images.root] {
        if !image.is_file() {
            bail!("there is no image {}", image.display());
        }
    }
    *built = Some(images.clone());
    Ok(images)
}

fn build_all(visible: bool) -> Result<Images> {
    let _lock = FileLock::wait(&paths::work()?.join("images.lock"), "it is building the images")?;
    for package in PACKAGES {
        build_package(package, visible)?;
    }
    Ok(Images::in_folder(&paths::target()?.join("release")))
}

fn build_package(package: &str, visible: bool) -> Result<()> {
    let mut command = cargo();
    command
        .args(["build", "--release", "--package", package, "--features", "image"])
        .stdin(Stdio::null());
    let failed = || format!("the image {package} does not build");
    if visible {
        let status = command.status().context("cannot start cargo")?;
        return if status.success() { Ok(()) } else { bail!(failed()) };
    }
    let output = command.arg("--quiet").output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("{}:\n{}", failed(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A cargo for this workspace, without what the cargo that started this program set for it: build scripts would see
/// that and build anew.
pub fn cargo() -> Command {
    let mut command = Command::new(paths::cargo());
    command.current_dir(paths::workspace());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let of_a_package = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
            "CARGO_PRIMARY_",
        ];
        if of_a_package.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// The demo guests that are built, and their descriptions, as files of the boot archive.
fn guests(images: &Images) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    let folder = paths::workspace().join(DESCRIPTIONS);
    let listing = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = listing.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut descriptions: Vec<String> = names.collect::<Result<_>>()?;
    descriptions.sort();
    for guest in GUESTS {
        let image = images.folder().join(guest);
        if !image.is_file() {
            continue;
        }
        files.push((format!("kernels/{guest}"), read(&image)?));
        // A guest that takes several machines has a description for each, as `chat-one.toml`.
        for description in &descriptions {
            let name = description.strip_suffix(".toml").unwrap_or_default();
            let one_of_several = name.strip_prefix(guest).is_some_and(|rest| rest.starts_with('-'));
            if name == guest || one_of_several && !GUESTS.contains(&name) {
                files.push((format!("vms/{description}"), read(&folder.join(description))?));
            }
        }
    }
    Ok(files)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Writes a machine's boot archive: `None` where it gets none.
pub fn archive(spec: &ArchiveSpec, exec: &[String], files: &[(String, Vec<u8>)]) -> Result<Option<Vec<u8>>> {
    let builder = ArchiveBuilder::new();
    let builder = match spec {
        ArchiveSpec::None => return Ok(None),
        ArchiveSpec::Raw(bytes) => return Ok(Some(bytes.clone())),
        ArchiveSpec::WithoutRoot => builder,
        ArchiveSpec::WithRoot(bytes) => builder.file(ROOT, bytes.clone()),
        ArchiveSpec::Default => {
            let images = built()?;
            let builder = builder.file(ROOT, read(&images.root)?);
            let given = |name: &str| files.iter().any(|(given, _)| given == name);
            let guests = guests(&images)?.into_iter().filter(|(name, _)| !given(name));
            guests.fold(builder, |builder, (name, bytes)| builder.file(name, bytes))
        }
    };
    let builder = if exec.is_empty() {
        builder
    } else {
        builder.exec(exec)?
    };
    let builder = files.iter().fold(builder, |builder, (name, bytes)| {
        builder.file(name, bytes.clone())
    });
    builder.build().map(Some)
}
