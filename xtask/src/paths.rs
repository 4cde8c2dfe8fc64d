//! Where things lie on the host: the workspace, Cargo's target folder, and our own folders in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// The folder of the workspace's `Cargo.toml`.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

/// The cargo that started this program, or the one in PATH.
pub fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Cargo's target folder: `CARGO_TARGET_DIR`, or what `cargo metadata` says.
pub fn target() -> Result<&'static Path> {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    if let Some(target) = TARGET.get() {
        return Ok(target);
    }
    let found = match env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty()) {
        Some(path) => workspace().join(path),
        None => target_from_metadata()?,
    };
    Ok(TARGET.get_or_init(|| found))
}

fn target_from_metadata() -> Result<PathBuf> {
    let output = Command::new(cargo())
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(workspace())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target_directory")?;
    Ok(PathBuf::from(target))
}

/// `target/partita`: what this tool makes (archives, disks, images). Created when missing.
pub fn work() -> Result<PathBuf> {
    create(target()?.join("partita"))
}

/// The folder of the private package root and its wrapper scripts: `PARTITA_TOOLS`, or `target/partita/tools` of the
/// workspace, whatever `CARGO_TARGET_DIR` says: the tools do not depend on a build. Created when missing.
pub fn tools() -> Result<PathBuf> {
    create(
        match env::var_os("PARTITA_TOOLS").filter(|value| !value.is_empty()) {
            Some(path) => std::path::absolute(path)?,
            None => workspace().join("target/partita/tools"),
        },
    )
}

/// The first program of that name in PATH.
pub fn in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

fn create(folder: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}
