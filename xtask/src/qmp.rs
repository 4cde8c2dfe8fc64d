//! QEMU's machine protocol: starts the machine, says why it ended, and looks into one that hangs.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

const REPLY_LIMIT: Duration = Duration::from_secs(60);

/// A connection to one machine's monitor.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    replies: Receiver<Value>,
    reader: JoinHandle<Option<String>>,
}

impl Qmp {
    /// Connects to the socket that QEMU makes at `path`; `alive` says whether QEMU still runs.
    pub fn connect(path: &Path, mut alive: impl FnMut() -> bool) -> Result<Self> {
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(_) if alive() => thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(error).context("QEMU ended before it made its monitor"),
            }
        };
        let (sender, replies) = mpsc::channel();
        let lines = BufReader::new(stream.try_clone()?).lines();
        let reader = thread::spawn(move || {
            let mut reason = None;
            for line in lines.map_while(Result::ok) {
                let Ok(message) = serde_json::from_str::<Value>(&line) else {
                    continue;
                };
                if message["event"] == "SHUTDOWN" {
                    reason = message["data"]["reason"].as_str().map(str::to_owned);
                } else if message.get("event").is_none() {
                    // Nobody waits for a reply that comes too late.
                    let _ = sender.send(message);
                }
            }
            reason
        });
        let mut qmp = Self {
            stream,
            replies,
            reader,
        };
        qmp.reply().context("QEMU's monitor does not greet")?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns what it returns.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream, "{line}").with_context(|| format!("QEMU's monitor takes no {command}"))?;
        let reply = self.reply()?;
        match reply.get("return") {
            Some(value) => Ok(value.clone()),
            None => bail!("QEMU's monitor refuses {command}: {reply}"),
        }
    }

    /// Runs one command of the monitor for people, such as `info registers -a`.
    pub fn monitor(&mut self, line: &str) -> Result<String> {
        let text = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(text.as_str().unwrap_or_default().replace('\r', ""))
    }

    /// Why the machine ended, in QEMU's words: `guest-shutdown`, `guest-reset`, … To be asked when QEMU has ended.
    pub fn shutdown_reason(self) -> Option<String> {
        self.reader.join().unwrap_or_default()
    }

    fn reply(&self) -> Result<Value> {
        self.replies
            .recv_timeout(REPLY_LIMIT)
            .context("QEMU's monitor does not answer")
    }
}
