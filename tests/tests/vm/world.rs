//! A machine whose boot archive has the descriptions that these tests want, at its shell's prompt.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tests::{Shell, number};
use xtask::Machine;

/// How long something in a machine may take that is to happen soon.
const LIMIT: Duration = Duration::from_secs(40);

/// How many seconds a guest may take to say something.
const SAID_SECONDS: u32 = 100;
/// Running machines of which facts are told when something fails.
const MOST_FACTS: usize = 4;

/// A shell with virtual machines.
pub(crate) struct World(Shell);

impl Deref for World {
    type Target = Shell;

    fn deref(&self) -> &Shell {
        &self.0
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Shell {
        &mut self.0
    }
}

/// A description of the guest `hello` with one word on its command line, and more keys.
pub(crate) fn hello(processors: u32, word: &str, more: &str) -> String {
    format!(
        "processors = {processors}\nmemory = \"8MiB\"\nkernel = \"kernels/hello\"\ncommand_line = \"{word}\"\n{more}\n"
    )
}

/// Checks that all these lines, or parts of lines, were said.
pub(crate) fn ensure_said(said: &str, lines: &[&str]) -> Result<()> {
    for line in lines {
        ensure!(said.contains(line), "{line:?} is not in\n{said}");
    }
    Ok(())
}

/// What `counter` is in those rows of a listing's table of counters that are `wanted`, in sum.
pub(crate) fn counted(listing: &Value, counter: &str, wanted: impl Fn(&Value) -> bool) -> Result<u64> {
    let rows = listing["counters"].as_array().context("no counters")?;
    let counts = rows.iter().filter(|row| wanted(row)).map(|row| {
        let count = row[counter].as_u64();
        count.with_context(|| format!("no {counter} in {row}"))
    });
    counts.sum()
}

impl Balance {
    /// What is free and can be used by nobody else.
    pub(crate) fn available(self) -> u64 {
        self.free + self.heap + self.pool_free
    }
}

impl World {
    /// Boots `machine` with descriptions: name and text.
    pub(crate) fn boot(machine: Machine, descriptions: &[(&str, String)]) -> Result<Self> {
        let machine = descriptions.iter().fold(machine, |machine, (name, text)| {
            machine.file(format!("vms/{name}.toml"), text.as_bytes())
        });
        Shell::boot(&machine).map(Self)
    }

    /// Makes a machine of the description `description`, called `name`, and starts it.
    pub(crate) fn start_as(&mut self, description: &str, name: &str) -> Result<()> {
        self.text(&format!("vm create {description} --name {name}"))?;
        self.text(&format!("vm start {name}")).map(drop)
    }

    /// Makes a machine of the description `name`, and starts it.
    pub(crate) fn start(&mut self, name: &str) -> Result<()> {
        self.text(&format!("vm create {name}"))?;
        self.text(&format!("vm start {name}")).map(drop)
    }

    /// Makes a machine of the description `name`, has it run to its end, and returns what its console has said.
    pub(crate) fn run_to_its_end(&mut self, name: &str) -> Result<String> {
        self.text(&format!("vm create {name}"))?;
        self.text(&format!("vm start {name} --wait"))?;
        self.console_of(name)
    }

    /// The state of a machine.
    pub(crate) fn state(&mut self, name: &str) -> Result<String> {
        let show = self.json(&format!("vm show {name}"))?;
        Ok(show["state"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until a machine is in `state`.
    pub(crate) fn wait(&mut self, name: &str, state: &str) -> Result<()> {
        self.text(&format!("vm wait {name} --state {state}")).map(drop)
    }

    /// What a machine's console has said.
    pub(crate) fn console_of(&mut self, name: &str) -> Result<String> {
        let dump = self.json(&format!("vm console {name} --dump"))?;
        Ok(dump["text"].as_str().unwrap_or_default().replace('\r', ""))
    }

    /// Waits until a machine's console has said `text`. The root looks for it, so that nobody is kept busy by questions.
    pub(crate) fn wait_said(&mut self, name: &str, text: &str) -> Result<()> {
        let reply = self.run(&format!(
            "vm wait {name} --text '{text}' --timeout {SAID_SECONDS}"
        ))?;
        if reply.status != 0 {
            bail!(
                "{}\nit has said:\n{}\n{}",
                reply.text,
                self.console_of(name)?,
                self.facts()
            );
        }
        Ok(())
    }

    /// Waits until `done`, asked again and again, says so.
    pub(crate) fn until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        while !done(self)? {
            if start.elapsed() > LIMIT {
                bail!("it did not come to pass that {what}\n{}", self.facts());
            }
        }
        Ok(())
    }

    /// What is known of the machine, for whoever looks why something did not come to pass.
    fn facts(&mut self) -> String {
        let running: Vec<String> = self
            .states()
            .unwrap_or_default()
            .into_iter()
            .filter(|(_, state)| state == "running")
            .map(|(name, _)| name)
            .collect();
        let mut commands = vec!["vm list".to_owned(), "hv stats".to_owned()];
        for name in running.iter().take(MOST_FACTS) {
            commands.extend([
                format!("vm log {name}"),
                format!("vm stats {name}"),
                format!("vm regs {name}"),
                format!("bus list {name}"),
            ]);
        }
        commands.push("hv log".to_owned());
        let answer = |command: String| match self.run(&command) {
            Ok(reply) => format!("--- {command} ---\n{}\n", reply.text),
            Err(error) => format!("--- {command} ---\n{error:#}\n"),
        };
        commands.into_iter().map(answer).collect()
    }

    /// The last tick that a `hello forever` has told, 0 before the first.
    pub(crate) fn ticks(&mut self, name: &str) -> Result<u64> {
        let text = self.console_of(name)?;
        let last = text
            .rsplit_once("hello: tick ")
            .and_then(|(_, rest)| rest.split_once('\n').map(|(tick, _)| tick));
        Ok(last.and_then(|tick| tick.trim().parse().ok()).unwrap_or(0))
    }

    /// Checks that a `hello forever` goes on.
    pub(crate) fn goes_on(&mut self, name: &str) -> Result<()> {
        let before = self.ticks(name)?;
        self.until(&format!("'{name}' ticks on after {before}"), |world| {
            Ok(world.ticks(name)? > before)
        })
    }

    /// Time that all VPs of a machine have run, in ns.
    pub(crate) fn run_time(&mut self, name: &str) -> Result<u64> {
        let stats = self.json(&format!("vm stats {name}"))?;
        let vps = stats["vps"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(vps.iter().filter_map(|vp| vp["run_time_ns"].as_u64()).sum())
    }

    /// The events of a machine's log, one a line.
    pub(crate) fn log_of(&mut self, name: &str) -> Result<String> {
        let log = self.json(&format!("vm log {name}"))?;
        let events = log["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        let lines: Vec<&str> = events
            .iter()
            .filter_map(|event| event["event"].as_str())
            .collect();
        Ok(lines.join("\n"))
    }

    /// What a machine's memory holds, as `vm dump` shows it.
    pub(crate) fn dump(&mut self, name: &str, address: u64, length: u64) -> Result<String> {
        self.text(&format!("vm dump {name} {address:#x} {length:#x}"))
    }

    /// Runs a command that must fail, and returns what it printed.
    pub(crate) fn refused(&mut self, line: &str) -> Result<String> {
        let reply = self.run(line)?;
        ensure!(reply.status != 0, "{line} succeeded:\n{}", reply.text);
        Ok(reply.text)
    }

    /// What the root has of memory: frames that are free, and the hypervisor's pool for it.
    pub(crate) fn balance(&mut self) -> Result<Balance> {
        let info = self.json("root info")?;
        Ok(Balance {
            free: number(&info, "/memory_free_bytes"),
            heap: number(&info, "/heap_total_bytes"),
            pool_free: number(&info, "/pool_free_bytes"),
            pool_used: number(&info, "/pool_used_bytes"),
            tasks: number(&info, "/tasks"),
            gpadls: number(&info, "/gpadls"),
        })
    }

    /// The machines' names and states.
    pub(crate) fn states(&mut self) -> Result<Vec<(String, String)>> {
        let list = self.json("vm list")?;
        let machines = list["machines"].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(machines
            .iter()
            .map(|machine| (text(&machine["name"]), text(&machine["state"])))
            .collect())
    }
}

/// Memory of the root, in bytes, its tasks, and the guests' pages that it has mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Balance {
    free: u64,
    heap: u64,
    pool_free: u64,
    pool_used: u64,
    tasks: u64,
    gpadls: u64,
}
