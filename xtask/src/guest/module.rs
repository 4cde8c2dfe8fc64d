//! Files of kernel modules, which newer kernels' packages have compressed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const PLAIN: &str = ".ko";
const XZ: &str = ".ko.xz";

fn file_name(file: &Path) -> String {
    file.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Whether `file` is called as modules are.
pub(super) fn is_module(file: &Path) -> bool {
    let name = file_name(file);
    name.ends_with(PLAIN) || name.ends_with(XZ)
}

/// The module's name, as its file has it.
pub(super) fn name(file: &Path) -> String {
    let name = file_name(file);
    let stem = name.strip_suffix(XZ).or_else(|| name.strip_suffix(PLAIN));
    stem.unwrap_or(&name).to_owned()
}

/// The module itself, not compressed.
pub(super) fn read(file: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    if !file_name(file).ends_with(XZ) {
        return Ok(bytes);
    }
    let mut module = Vec::new();
    lzma_rs::xz_decompress(&mut bytes.as_slice(), &mut module)
        .map_err(|error| anyhow::anyhow!("{}: {error:?}", file.display()))?;
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_known_by_their_names_compressed_or_not() {
        for (file, named) in [
            ("a/hv_utils.ko", "hv_utils"),
            ("b/pci-hyperv.ko.xz", "pci-hyperv"),
        ] {
            assert!(is_module(Path::new(file)));
            assert_eq!(name(Path::new(file)), named);
        }
        assert!(!is_module(Path::new("modules.order")));
    }

    #[test]
    fn a_compressed_module_is_read_as_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.ko.xz");
        let mut compressed = Vec::new();
        lzma_rs::xz_compress(&mut &b"module"[..], &mut compressed).unwrap();
        fs::write(&file, compressed).unwrap();
        assert_eq!(read(&file).unwrap(), b"module");
        fs::write(&file, b"none").unwrap();
        assert!(read(&file).is_err());
    }
}
