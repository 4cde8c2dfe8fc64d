//! Follows `vsc/README.md` word by word: writes its files, runs its commands, and looks for what it says is printed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tests::outside::{fetch, free_port};
use xtask::{images, paths};

/// Between two tries to fetch.
const RETRY: Duration = Duration::from_millis(300);

/// Something to do.
#[derive(Debug)]
enum Step {
    /// Write a file.
    Write { path: String, text: String },
    /// Run commands.
    Run(String),
    /// Find lines in what the last commands printed.
    Expect(String),
}

/// The steps of a page: a fenced block that follows the line `` `PATH`: `` is a file, one of `sh` is commands, one of `text` is output.
fn steps(page: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut named: Option<String> = None;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            if !line.is_empty() {
                let path = line.strip_prefix('`').and_then(|rest| rest.strip_suffix("`:"));
                named = path.map(str::to_owned);
            }
            continue;
        };
        let text: String = lines
            .by_ref()
            .take_while(|line| !line.starts_with("```"))
            .map(|line| format!("{line}\n"))
            .collect();
        steps.push(match (named.take(), language) {
            (Some(path), _) => Step::Write { path, text },
            (None, "sh") => Step::Run(text),
            (None, "text") => Step::Expect(text),
            (None, other) => bail!("a block of {other:?} without a file's name:\n{text}"),
        });
    }
    Ok(steps)
}

/// The page's commands, but that the repository's own tool is started from where it is, so that it is not built anew.
fn here(commands: &str) -> String {
    let manifest = paths::workspace().join("Cargo.toml");
    commands.replace("partita/Cargo.toml", &manifest.to_string_lossy())
}

fn run(commands: &str, folder: &Path, images: &Path) -> Result<String> {
    let output = Command::new("sh")
        .args(["-e", "-c", commands])
        .current_dir(folder)
        // The machine's images are built already, and the guest's crates are not of this workspace.
        .env(images::READY, images)
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null())
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    ensure!(
        output.status.success(),
        "{commands}\nhas failed:\n{printed}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(printed)
}

/// Commands that are given in another terminal while those before them run.
const FETCH: &str = "curl http://127.0.0.1:8080/";

/// Runs commands that end once their port has been fetched from; returns what they have printed, and what was fetched.
fn run_and_fetch(commands: &str, folder: &Path, images: &Path) -> Result<(String, String)> {
    let port = free_port()?;
    let commands = commands.replace("tcp:8080:8080", &format!("tcp:{port}:8080"));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&here(&commands), folder, images));
        let fetched = loop {
            // Nobody answers before the guest has begun to listen.
            match fetch(port, "/") {
                Ok(fetched) => break String::from_utf8(fetched)?,
                Err(error) if running.is_finished() => return Err(error),
                Err(_) => std::thread::sleep(RETRY),
            }
        };
        let printed = running
            .join()
            .map_err(|_| anyhow::anyhow!("running the commands panicked"))??;
        Ok((printed, fetched))
    })
}

#[test]
fn the_tutorial_leads_to_guests_that_read_a_disk_and_answer_requests() -> Result<()> {
    let images = images::built()?;
    let folder = tempfile::tempdir()?;
    // What the guest's crates are built into is kept, so that the next time is short.
    let kept = paths::work()?.join("tutorial");
    fs::create_dir_all(&kept)?;
    symlink(paths::workspace(), folder.path().join("partita"))?;
    let page = fs::read_to_string(paths::workspace().join("vsc/README.md"))?;
    let steps = steps(&page)?;
    let mut printed = String::new();
    let (mut runs, mut expected) = (0, 0);
    let mut steps = steps.into_iter().peekable();
    while let Some(step) = steps.next() {
        match step {
            Step::Write { path, text } => {
                fs::write(folder.path().join(&path), text).with_context(|| path)?;
            }
            Step::Run(commands) => {
                let fetches = |step: &Step| matches!(step, Step::Run(next) if next.trim() == FETCH);
                printed = if steps.next_if(fetches).is_some() {
                    runs += 1;
                    let (printed, fetched) = run_and_fetch(&commands, folder.path(), images.folder())?;
                    printed + &fetched
                } else {
                    run(&here(&commands), folder.path(), images.folder())?
                };
                if runs == 0 {
                    symlink(&kept, folder.path().join("first-guest/target"))?;
                }
                runs += 1;
            }
            Step::Expect(lines) => {
                for line in lines.lines() {
                    ensure!(
                        printed.lines().any(|said| said == line),
                        "{line:?} is not in\n{printed}"
                    );
                    expected += 1;
                }
            }
        }
    }
    ensure!(
        runs == 8 && expected == 6,
        "{runs} runs, {expected} lines: the page has been read wrongly"
    );
    Ok(())
}
