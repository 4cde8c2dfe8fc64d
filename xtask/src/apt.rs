//! The private package root: packages of the machine's own distribution, unpacked into a folder of ours.
//!
//! apt gets its own sources, lists, cache and an *empty* status file, so that it resolves every dependency and neither
//! reads nor changes what the machine has installed; nothing here needs root rights. The archives' addresses come from
//! the machine's own apt configuration.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, thread};

use anyhow::{Context, Result, anyhow, bail};

use crate::progress::Progress;
use crate::sources::{self, Source};
use crate::{paths, process};

/// The oldest Debian release whose own QEMU is new enough; older ones need their backports suite.
const FIRST_DEBIAN_WITH_NEW_QEMU: u32 = 13;

/// What this machine runs, from `/etc/os-release`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Release {
    id: String,
    version: Option<u32>,
    codename: String,
}

impl Release {
    fn parse(os_release: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = os_release
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
            Some(line.trim().trim_matches(['"', '\'']).to_owned())
        };
        Some(Self {
            id: field("ID")?,
            version: field("VERSION_ID").and_then(|version| version.split('.').next()?.parse().ok()),
            codename: field("VERSION_CODENAME")?,
        })
    }

    /// The suites to take packages from; the last is preferred.
    fn suites(&self) -> Vec<String> {
        let old = self.id == "debian"
            && self
                .version
                .is_some_and(|version| version < FIRST_DEBIAN_WITH_NEW_QEMU);
        let backports = old.then(|| format!("{}-backports", self.codename));
        [self.codename.clone()].into_iter().chain(backports).collect()
    }
}

/// A folder with its own apt state and the packages unpacked so far.
#[derive(Clone, Debug)]
pub struct PackageRoot {
    folder: PathBuf,
    suites: Vec<String>,
}

impl PackageRoot {
    /// Makes or refreshes apt's configuration below `folder`. The caller holds the folder's lock.
    pub fn prepare(folder: &Path) -> Result<Self> {
        for program in ["apt-get", "dpkg"] {
            if paths::in_path(program).is_none() {
                bail!("{program} is not on this machine, so the tools cannot be fetched as packages");
            }
        }
        let os_release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
        let release = Release::parse(&os_release).context("/etc/os-release names no VERSION_CODENAME")?;
        let source = sources::of_this_machine()?
            .into_iter()
            .find(|source| source.serves(&release.codename))
            .with_context(|| format!("no apt source of this machine serves {} main", release.codename))?;
        let root = Self {
            folder: folder.to_owned(),
            suites: release.suites(),
        };
        root.write_configuration(&source, release.id == "debian")?;
        Ok(root)
    }

    /// Where the packages are unpacked.
    pub fn files(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Downloads `packages` with all that they depend on, and unpacks what is not unpacked yet.
    pub fn install(&self, packages: &[&str]) -> Result<()> {
        let fresh = self.update_if_never_done()?;
        let first = self.download(packages);
        // Lists of an earlier day may name archives that are gone: look again once.
        match first {
            Err(_) if !fresh => {
                self.update()?;
                self.download(packages)?;
            }
            result => result?,
        }
        self.unpack()
    }

    /// Downloads one package of the release itself, without what it depends on, into `folder`. `package` is a name, or a
    /// name and `=` and a version.
    pub fn fetch(&self, package: &str, folder: &Path) -> Result<Archive> {
        let own = self.suites.first().expect("a release has a suite");
        self.fetch_from(own, package, folder)
    }

    /// Like [`fetch`](Self::fetch), from the last of the suites: the release's backports, where they are used.
    pub fn fetch_newest(&self, package: &str, folder: &Path) -> Result<Archive> {
        let last = self.suites.last().expect("a release has a suite");
        self.fetch_from(last, package, folder)
    }

    fn fetch_from(&self, suite: &str, package: &str, folder: &Path) -> Result<Archive> {
        let package = match package.contains('=') {
            true => package.to_owned(),
            false => format!("{package}/{suite}"),
        };
        let fresh = self.update_if_never_done()?;
        let folder = tempfile::Builder::new().prefix("fetch-").tempdir_in(folder)?;
        let arguments = ["download", &package];
        match self.apt_get_in("downloading packages", &arguments, Some(folder.path())) {
            Err(_) if !fresh => {
                self.update()?;
                self.apt_get_in("downloading packages", &arguments, Some(folder.path()))?;
            }
            result => result?,
        }
        for entry in fs::read_dir(folder.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                return Ok(Archive {
                    path,
                    _folder: folder,
                });
            }
        }
        bail!("apt-get download {package} left no package")
    }

    fn apt(&self) -> PathBuf {
        self.folder.join("apt")
    }

    fn archives(&self) -> PathBuf {
        self.apt().join("cache/archives")
    }

    fn write_configuration(&self, source: &Source, debian: bool) -> Result<()> {
        let apt = self.apt();
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.join(folder))?;
        }
        fs::create_dir_all(self.files())?;
        fs::write(apt.join("status"), "")?;
        let signed_by = match &source.signed_by {
            Some(key) if key.contains("BEGIN PGP") => {
                fs::write(apt.join("key.asc"), key)?;
                Some(quoted(&apt.join("key.asc"))?)
            }
            Some(names) => Some(names.split_whitespace().collect::<Vec<_>>().join(",")),
            None => None,
        };
        let options = [
            signed_by.map(|names| format!("signed-by={names}")),
            source.trusted.then(|| "trusted=yes".into()),
        ];
        let options = options.into_iter().flatten().collect::<Vec<String>>().join(" ");
        let options = if options.is_empty() {
            options
        } else {
            format!("[{options}] ")
        };
        let components = if debian {
            "main".to_owned()
        } else {
            source.components.join(" ")
        };
        let lines = self
            .suites
            .iter()
            .map(|suite| format!("deb {options}{} {suite} {components}\n", source.uri));
        let list = lines.collect::<String>();
        let list_path = apt.join("sources.list");
        if fs::read_to_string(&list_path).ok().as_deref() != Some(&list) {
            fs::write(&list_path, list)?;
            let _ = fs::remove_file(apt.join("updated"));
        }
        fs::write(apt.join("apt.conf"), configuration(&apt)?)?;
        Ok(())
    }

    fn update_if_never_done(&self) -> Result<bool> {
        let done = self.apt().join("updated").exists();
        if !done {
            self.update()?;
        }
        Ok(!done)
    }

    fn update(&self) -> Result<()> {
        self.apt_get("reading the package lists", &["update"])?;
        fs::write(self.apt().join("updated"), "")?;
        Ok(())
    }

    fn download(&self, packages: &[&str]) -> Result<()> {
        let suite = self.suites.last().expect("a release has a suite");
        let mut arguments = vec!["--download-only", "--target-release", suite, "install"];
        arguments.extend(packages);
        self.apt_get("downloading packages", &arguments)
    }

    /// Runs apt-get with our configuration and shows its progress, which it prints as `dlstatus:` lines.
    fn apt_get(&self, title: &str, arguments: &[&str]) -> Result<()> {
        self.apt_get_in(title, arguments, None)
    }

    fn apt_get_in(&self, title: &str, arguments: &[&str], folder: Option<&Path>) -> Result<()> {
        let mut command = process::tied("apt-get");
        if let Some(folder) = folder {
            command.current_dir(folder);
        }
        let mut child = command
            .arg("--config-file")
            .arg(self.apt().join("apt.conf"))
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start apt-get")?;
        let mut stderr = child.stderr.take().context("apt-get has no stderr")?;
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let progress = Progress::percent(title);
        let stdout = child.stdout.take().context("apt-get has no stdout")?;
        for line in BufReader::new(stdout).split(b'\n') {
            if let Some(percent) = download_percent(&String::from_utf8_lossy(&line?)) {
                progress.set(percent);
            }
        }
        let status = child.wait()?;
        let errors = errors
            .join()
            .map_err(|_| anyhow!("the reader of apt-get's errors died"))?;
        if !status.success() {
            bail!("apt-get {} failed:\n{}", arguments.join(" "), errors.trim_end());
        }
        progress.finish();
        Ok(())
    }

    /// Unpacks every downloaded archive that is not marked as unpacked.
    fn unpack(&self) -> Result<()> {
        let marks = self.apt().join("unpacked");
        fs::create_dir_all(&marks)?;
        let mut archives = Vec::new();
        for entry in fs::read_dir(self.archives())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            if path.extension().is_some_and(|extension| extension == "deb") && !marks.join(name).exists() {
                archives.push(path);
            }
        }
        archives.sort();
        let progress = Progress::steps("unpacking packages", archives.len());
        for archive in &archives {
            let output = Command::new("dpkg")
                .arg("-x")
                .arg(archive)
                .arg(self.files())
                .output()?;
            if !output.status.success() {
                bail!(
                    "dpkg -x {} failed:\n{}",
                    archive.display(),
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            fs::write(marks.join(archive.file_name().unwrap_or_default()), "")?;
            progress.step();
        }
        progress.finish();
        Ok(())
    }
}

/// A downloaded package; its file is gone when this is.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Archive {
    /// Unpacks it into `root`.
    pub fn unpack(&self, root: &Path) -> Result<()> {
        self.dpkg("-x", &[root.as_os_str()]).map(drop)
    }

    /// The one package that it depends on with an exact version, as `name=version`: what a package stands for that holds
    /// nothing itself.
    pub fn depends(&self) -> Result<String> {
        let text = self.dpkg("-f", &["Depends".as_ref()])?;
        exact_dependency(&text)
            .with_context(|| format!("{} stands for no package: {}", self.path.display(), text.trim()))
    }

    fn dpkg(&self, action: &str, arguments: &[&std::ffi::OsStr]) -> Result<String> {
        let output = Command::new("dpkg-deb")
            .arg(action)
            .arg(&self.path)
            .args(arguments)
            .env("LC_ALL", "C")
            .output()
            .context("cannot start dpkg-deb")?;
        if !output.status.success() {
            bail!(
                "dpkg-deb {action} {} failed:\n{}",
                self.path.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// `name=version` of a dependency `name (= version)`.
fn exact_dependency(depends: &str) -> Option<String> {
    depends.split(',').find_map(|dependency| {
        let (name, version) = dependency.trim().split_once(" (= ")?;
        Some(format!("{}={}", name, version.strip_suffix(')')?))
    })
}

/// apt's configuration for the private root. The machine's own is read before it (proxies matter), but what the machine
/// hooks to apt's actions is for the system's packages and is cleared.
fn configuration(apt: &Path) -> Result<String> {
    let apt = quoted(apt)?;
    Ok(format!(
        r##"#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::Etc::sourcelist "{apt}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{apt}";
Dir::State::lists "{apt}/lists";
Dir::State::status "{apt}/status";
Dir::State::extended_states "{apt}/extended_states";
Dir::Cache "{apt}/cache";
Dir::Cache::archives "archives/";
Dir::Log "{apt}/log";
Debug::NoLocking "1";
Acquire::Retries "3";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "0";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "0";
APT::Sandbox::User "root";
APT::Install-Recommends "0";
APT::Install-Suggests "0";
APT::Keep-Downloaded-Packages "1";
APT::Get::Assume-Yes "1";
APT::Status-Fd "1";
"##
    ))
}

/// A path that can stand in apt's files, which know no escape.
fn quoted(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    if text.contains(['"', ' ', '[', ']', ',']) {
        bail!(
            "apt cannot work in {text}: the path holds one of \" [ ] , or a space; set PARTITA_TOOLS to another folder"
        );
    }
    Ok(text.to_owned())
}

/// The percentage of a line `dlstatus:<n>:<percent>:<text>`.
fn download_percent(line: &str) -> Option<f64> {
    line.strip_prefix("dlstatus:")?.split(':').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_debian_takes_its_backports_and_a_new_one_its_own_release() {
        let release = |text: &str| Release::parse(text).unwrap();
        let old = release("ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n");
        assert_eq!(old.suites(), ["bookworm", "bookworm-backports"]);
        let new = release("PRETTY_NAME=\"x\"\nID=debian\nVERSION_ID=\"13\"\nVERSION_CODENAME=trixie\n");
        assert_eq!(new.suites(), ["trixie"]);
        let testing = release("ID=debian\nVERSION_CODENAME=forky\n");
        assert_eq!(testing.suites(), ["forky"]);
        let derived = release("ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\nVERSION_CODENAME=noble\n");
        assert_eq!(derived.suites(), ["noble"]);
        assert_eq!(Release::parse("ID=arch\n"), None);
    }

    #[test]
    fn what_a_package_stands_for_is_its_exact_dependency() {
        assert_eq!(
            exact_dependency("linux-base (>= 4), linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)\n")
                .as_deref(),
            Some("linux-image-6.1.0-50-cloud-amd64=6.1.176-1")
        );
        assert_eq!(exact_dependency("kmod"), None);
    }

    #[test]
    fn apts_progress_lines_give_a_percentage() {
        assert_eq!(
            download_percent("dlstatus:3:12.5:Retrieving file 3 of 86"),
            Some(12.5)
        );
        assert_eq!(download_percent("Get:3 archive bookworm/main"), None);
        assert_eq!(download_percent("dlstatus:3"), None);
    }

    #[test]
    fn paths_that_apts_files_cannot_hold_are_refused() {
        assert!(quoted(Path::new("/a/b-c")).is_ok());
        assert!(quoted(Path::new("/a b/c")).is_err());
    }
}
