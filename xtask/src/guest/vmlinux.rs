//! The kernel inside a `bzImage`: an ELF file, compressed (Linux, Documentation/arch/x86/boot.rst, "payload_offset").

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use lz4_flex::frame::FrameDecoder;

/// Where the header says how many sectors of 512 bytes come before the code, less one.
const SETUP_SECTORS: usize = 0x1f1;
const SECTOR: usize = 512;
/// `HdrS`, then the protocol's version.
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The payload ends with the size of what it holds.
const SIZE: usize = 4;

/// What payloads begin with.
const LZ4: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
const ELF: &[u8] = b"\x7fELF";

/// The ELF file in `kernel`, compressed by LZ4 or not at all.
pub(super) fn extract(kernel: &[u8]) -> Result<Vec<u8>> {
    let word = |at: usize| -> Result<usize> {
        let bytes = kernel.get(at..at + 4).context("it is cut off")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    ensure!(kernel.get(MAGIC..MAGIC + 4) == Some(b"HdrS"), "it is no bzImage");
    let sectors = usize::from(kernel[SETUP_SECTORS]).max(1) + 1;
    let start = sectors * SECTOR + word(PAYLOAD_OFFSET)?;
    let payload = start
        .checked_add(word(PAYLOAD_LENGTH)?)
        .and_then(|end| kernel.get(start..end))
        .context("its payload is cut off")?;
    if payload.starts_with(ELF) {
        return Ok(payload.to_vec());
    }
    let compressed = payload
        .get(..payload.len().saturating_sub(SIZE))
        .unwrap_or_default();
    if !compressed.starts_with(&LZ4) {
        bail!(
            "it is compressed by something else than LZ4: {:02x?}",
            &compressed[..compressed.len().min(6)]
        );
    }
    let mut vmlinux = Vec::new();
    FrameDecoder::new(compressed)
        .read_to_end(&mut vmlinux)
        .context("its payload is damaged")?;
    ensure!(vmlinux.starts_with(ELF), "its payload is no ELF file");
    Ok(vmlinux)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `bzImage` of one sector before the code, with this payload.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR + 16];
        image[SETUP_SECTORS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET] = 16;
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend(payload);
        image
    }

    /// LZ4's old form, as Linux uses it, with literals only.
    fn old_lz4(bytes: &[u8]) -> Vec<u8> {
        assert!(bytes.len() < 15);
        let mut payload = LZ4.to_vec();
        payload.extend((bytes.len() as u32 + 1).to_le_bytes());
        payload.push((bytes.len() as u8) << 4);
        payload.extend(bytes);
        payload.extend((bytes.len() as u32).to_le_bytes());
        payload
    }

    #[test]
    fn the_kernel_is_found_compressed_or_not() {
        assert_eq!(extract(&image(b"\x7fELF plain")).unwrap(), b"\x7fELF plain");
        assert_eq!(
            extract(&image(&old_lz4(b"\x7fELF packed"))).unwrap(),
            b"\x7fELF packed"
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let said = |kernel: &[u8]| format!("{:#}", extract(kernel).unwrap_err());
        assert!(said(b"none").contains("no bzImage"));
        assert!(said(&image(b"\x28\xb5\x2f\xfd zstandard")).contains("something else than LZ4"));
        assert!(said(&image(&old_lz4(b"text"))).contains("no ELF file"));
        let whole = image(&old_lz4(b"\x7fELF"));
        assert!(said(&whole[..whole.len() - 1]).contains("cut off"));
    }
}
