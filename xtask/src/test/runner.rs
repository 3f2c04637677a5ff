//! Runs the steps: says what runs now, keeps each one's output in a log, shows why one
//! failed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use wow_lab::progress::Progress;

use super::count::Count;
use super::{excerpt, shown};

/// How often a plain log says that a step still runs.
const STILL_EVERY: Duration = Duration::from_secs(60);

/// How often a step is looked at.
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Done {
    name: String,
    count: Count,
    took: Duration,
    note: Option<String>,
}

/// Runs steps and remembers their outcomes.
pub struct Runner {
    logs: PathBuf,
    progress: Progress,
    done: Vec<Done>,
}

impl Runner {
    /// A runner with its logs in `logs`.
    pub fn new(logs: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&logs)
            .with_context(|| format!("cannot make {}", logs.display()))?;
        Ok(Self {
            logs,
            progress: Progress::to_stderr(),
            done: Vec::new(),
        })
    }

    /// The directory of the logs.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Something that is no test; its failure counts as one.
    pub fn preparation(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        if let Err(error) = work() {
            self.progress.say(&format!("{name}: FAILED: {error:#}"));
            self.end(
                name,
                Count::one(false),
                Instant::now(),
                Some(format!("{error:#}")),
            );
        }
    }

    /// One test done in this process.
    pub fn test(&mut self, name: &str, what: &str, work: impl FnOnce() -> Result<()>) {
        let started = Instant::now();
        self.progress.say(&format!("{name}: {what} ..."));
        let result = work();
        let note = result.as_ref().err().map(|error| format!("{error:#}"));
        if let Some(note) = &note {
            self.progress.say(note);
        }
        self.end(name, Count::one(result.is_ok()), started, note);
    }

    /// One test that is a command.
    pub fn command(&mut self, name: &str, what: &str, command: &mut Command) {
        self.run(name, what, command, |_, succeeded| Count::one(succeeded));
    }

    /// A `cargo test` whose tests are counted.
    pub fn counted(&mut self, name: &str, what: &str, command: &mut Command) {
        self.run(name, what, command, Count::of_cargo_test);
    }

    /// One test that cannot run here.
    pub fn skip(&mut self, name: &str, why: &str) {
        let count = Count {
            skipped: 1,
            ..Count::default()
        };
        self.progress.say(&format!("{name}: skipped: {why}"));
        self.end(name, count, Instant::now(), Some(why.to_owned()));
    }

    fn run(
        &mut self,
        name: &str,
        what: &str,
        command: &mut Command,
        count: fn(&str, bool) -> Count,
    ) {
        let started = Instant::now();
        let log = self.logs.join(format!("{name}.log"));
        let (succeeded, text, note) = match self.run_logged(name, what, command, &log) {
            Ok(succeeded) => {
                let text = std::fs::read(&log).unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                let note = (!succeeded).then(|| format!("see {}", shown(&log).display()));
                (succeeded, text, note)
            }
            Err(error) => (false, String::new(), Some(format!("{error:#}"))),
        };
        if !succeeded {
            for line in excerpt::of(&text) {
                self.progress.say(&format!("  {line}"));
            }
        }
        self.end(name, count(&text, succeeded), started, note);
    }

    fn run_logged(
        &self,
        name: &str,
        what: &str,
        command: &mut Command,
        log: &Path,
    ) -> Result<bool> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let task = self.progress.start(name);
        task.now(what);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {name}"))?;
        let started = Instant::now();
        let mut said = started;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            }
            std::thread::sleep(POLL);
            if said.elapsed() >= STILL_EVERY {
                said = Instant::now();
                task.now(&format!(
                    "{what} (still at it after {} s)",
                    started.elapsed().as_secs()
                ));
            }
        }
    }

    fn end(&mut self, name: &str, count: Count, started: Instant, note: Option<String>) {
        let took = started.elapsed();
        self.progress
            .say(&format!("{name}: {count} ({:.1} s)", took.as_secs_f64()));
        self.done.push(Done {
            name: name.to_owned(),
            count,
            took,
            note,
        });
    }

    /// Prints a line a step, and where the logs are; the sum of all.
    pub fn summary(&self, took: Duration) -> Count {
        println!();
        for done in &self.done {
            let note = done
                .note
                .as_deref()
                .map(|note| format!("  {note}"))
                .unwrap_or_default();
            println!(
                "{:<12} {:>7.1} s  {}{}",
                done.name,
                done.took.as_secs_f64(),
                done.count,
                note.lines()
                    .next()
                    .map(|line| format!(" {line}"))
                    .unwrap_or_default(),
            );
        }
        println!(
            "{:<12} {:>7.1} s  logs in {}",
            "all",
            took.as_secs_f64(),
            shown(&self.logs).display()
        );
        self.done
            .iter()
            .fold(Count::default(), |sum, done| sum.plus(done.count))
    }
}
