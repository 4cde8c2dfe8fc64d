//! Progress of long work: a bar when stderr is a terminal, else a plain line at the start and the end.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// One piece of work in progress; dropped before [`Progress::finish`], it just disappears.
#[derive(Debug)]
pub struct Progress {
    title: String,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Work whose share done is known in percent.
    pub fn percent(title: &str) -> Self {
        Self::new(title, 100, "{spinner} {msg:28} {bar:40} {percent:>3}%")
    }

    /// Work of that many equal steps.
    pub fn steps(title: &str, steps: usize) -> Self {
        Self::new(title, steps, "{spinner} {msg:28} {bar:40} {pos}/{len}")
    }

    fn new(title: &str, length: usize, template: &str) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(template).expect("the templates above are valid");
            let bar = ProgressBar::new(length as u64)
                .with_style(style)
                .with_message(title.to_owned());
            bar.tick();
            bar
        });
        if bar.is_none() {
            eprintln!("{title} ...");
        }
        Self {
            title: title.to_owned(),
            bar,
        }
    }

    /// Shows that `percent` of 100 are done.
    pub fn set(&self, percent: f64) {
        if let Some(bar) = &self.bar {
            bar.set_position(percent.clamp(0.0, 100.0) as u64);
        }
    }

    /// Shows that one more step is done.
    pub fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Shows that all is done.
    pub fn finish(self) {
        match &self.bar {
            Some(bar) => bar.finish(),
            None => eprintln!("{}: done", self.title),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take().filter(|bar| !bar.is_finished()) {
            bar.abandon();
        }
    }
}
