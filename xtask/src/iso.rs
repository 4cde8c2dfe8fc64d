//! The bootable image: GRUB for BIOS and UEFI on one ISO 9660 file, which also boots from a USB stick.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages::ISO;
use crate::paths;

/// GRUB's modules that both firmwares need: to find the image's files, to talk over the serial line, and to boot.
const MODULES: &str = "iso9660 part_gpt part_msdos search search_fs_file normal configfile multiboot2 boot serial terminal echo sleep reboot";

/// A file by which GRUB knows the image among the machine's disks.
const MARK: &str = "/boot/partita.mark";

/// The FAT image with GRUB's UEFI program is a floppy image of this size, the largest that every firmware knows.
const EFI_IMAGE_KIB: u64 = 2880;

/// What a bootable image holds.
#[derive(Debug)]
pub struct Contents<'a> {
    /// The hypervisor's ELF file.
    pub hypervisor: &'a Path,
    /// The boot archive, if any.
    pub archive: Option<Vec<u8>>,
    /// The hypervisor's command line.
    pub cmdline: &'a str,
}

/// Writes a bootable image.
pub fn write(contents: &Contents<'_>, image: &Path) -> Result<()> {
    let tools = Builders::find()?;
    let folder = tempfile::Builder::new().prefix("partita-iso-").tempdir()?;
    let work = folder.path();
    let tree = work.join("tree");
    let grub = tree.join("boot/grub");
    fs::create_dir_all(&grub)?;
    fs::copy(contents.hypervisor, tree.join("boot/hypervisor"))
        .with_context(|| format!("cannot copy {}", contents.hypervisor.display()))?;
    if let Some(archive) = &contents.archive {
        fs::write(tree.join("boot/boot.cpio"), archive)?;
    }
    fs::write(tree.join(MARK.trim_start_matches('/')), "")?;
    fs::write(
        grub.join("grub.cfg"),
        configuration(contents.cmdline, contents.archive.is_some())?,
    )?;
    let early = work.join("early.cfg");
    fs::write(&early, early_configuration())?;
    let bios = grub.join("bios.img");
    tools.grub("i386-pc", "i386-pc-eltorito", "biosdisk", &early, &bios)?;
    let efi = work.join("bootx64.efi");
    tools.grub("x86_64-efi", "x86_64-efi", "fat", &early, &efi)?;
    let efi_image = grub.join("efi.img");
    tools.efi_image(&efi, &efi_image)?;
    tools.image(&tree, image)
}

/// What GRUB's core does before it knows its own folder.
fn early_configuration() -> String {
    format!(
        "search --no-floppy --set=root --file {MARK}\nset prefix=($root)/boot/grub\nconfigfile ($root)/boot/grub/grub.cfg\n"
    )
}

/// GRUB's own configuration: one way to go, and a reset where that fails, so that nobody waits before a dead menu.
fn configuration(cmdline: &str, archive: bool) -> Result<String> {
    let mut arguments = String::new();
    for word in cmdline.split_whitespace() {
        if word.contains('\'') {
            bail!("the command line's {word} holds a quote, which GRUB's configuration cannot");
        }
        arguments.push_str(&format!(" '{word}'"));
    }
    let module = if archive {
        "module2 /boot/boot.cpio boot.cpio\n"
    } else {
        ""
    };
    Ok(format!(
        "if serial --unit=0 --speed=115200; then\n  \
         terminal_input serial console\n  \
         terminal_output serial console\n\
         fi\n\
         echo 'Starting Partita'\n\
         multiboot2 /boot/hypervisor{arguments}\n\
         {module}boot\n\
         echo 'GRUB cannot start the hypervisor; the machine will be reset.'\n\
         sleep 10\n\
         reboot\n"
    ))
}

/// The programs that build an image: the system's, or those of the private package root.
#[derive(Debug)]
struct Builders {
    programs: Option<PathBuf>,
    modules: PathBuf,
}

impl Builders {
    fn find() -> Result<Self> {
        let system = Path::new("/usr/lib/grub");
        let complete = ISO
            .programs
            .iter()
            .all(|program| paths::in_path(program.name).is_some())
            && ["i386-pc", "x86_64-efi"]
                .iter()
                .all(|platform| system.join(platform).is_dir());
        if complete {
            return Ok(Self {
                programs: None,
                modules: system.to_owned(),
            });
        }
        let tools = ISO.ensure()?;
        Ok(Self {
            programs: Some(tools.program("")),
            modules: tools.file("usr/lib/grub"),
        })
    }

    fn command(&self, program: &str) -> Command {
        Command::new(self.programs.as_deref().unwrap_or(Path::new("")).join(program))
    }

    fn grub(&self, platform: &str, format: &str, module: &str, early: &Path, output: &Path) -> Result<()> {
        let mut command = self.command("grub-mkimage");
        command.arg("--directory").arg(self.modules.join(platform));
        command
            .args(["--format", format, "--prefix", "/boot/grub", "--config"])
            .arg(early);
        command
            .arg("--output")
            .arg(output)
            .arg(module)
            .args(MODULES.split(' '));
        run(command)
    }

    fn efi_image(&self, program: &Path, image: &Path) -> Result<()> {
        let kib = fs::metadata(program)?.len().div_ceil(1024);
        if kib + 100 > EFI_IMAGE_KIB {
            bail!("GRUB's UEFI program has {kib} KiB and does not fit into {EFI_IMAGE_KIB} KiB");
        }
        let mut format = self.command("mformat");
        format
            .args(["-C", "-f", &EFI_IMAGE_KIB.to_string(), "-i"])
            .arg(image)
            .arg("::");
        run(format)?;
        let mut folders = self.command("mmd");
        folders.arg("-i").arg(image).args(["::/EFI", "::/EFI/BOOT"]);
        run(folders)?;
        let mut copy = self.command("mcopy");
        copy.arg("-i")
            .arg(image)
            .arg(program)
            .arg("::/EFI/BOOT/BOOTX64.EFI");
        run(copy)
    }

    fn image(&self, tree: &Path, image: &Path) -> Result<()> {
        let mut command = self.command("xorriso");
        command.args("-as mkisofs -quiet -R -V PARTITA".split(' '));
        command.args("-b boot/grub/bios.img -no-emul-boot -boot-load-size 4 -boot-info-table".split(' '));
        command
            .arg("--grub2-boot-info")
            .arg("--grub2-mbr")
            .arg(self.modules.join("i386-pc/boot_hybrid.img"));
        command
            .args("-eltorito-alt-boot -e boot/grub/efi.img -no-emul-boot -isohybrid-gpt-basdat".split(' '));
        command.arg("-o").arg(image).arg(tree);
        run(command)
    }
}

fn run(mut command: Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grub_starts_the_hypervisor_with_its_words_quoted_and_its_archive() {
        let text = configuration("log=com2 a;b $x", true).unwrap();
        assert!(text.contains(
            "multiboot2 /boot/hypervisor 'log=com2' 'a;b' '$x'\nmodule2 /boot/boot.cpio boot.cpio\nboot\n"
        ));
    }

    #[test]
    fn without_an_archive_there_is_no_module() {
        assert!(!configuration("", false).unwrap().contains("module2"));
    }

    #[test]
    fn a_quote_cannot_be_written() {
        assert!(configuration("a'b", false).is_err());
    }
}
