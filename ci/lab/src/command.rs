//! Runs a program to its end within a limit of time.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use wow_builder::host::Guarded;

use crate::interrupt;

/// How often a wait looks again.
pub const POLL: Duration = Duration::from_millis(20);

/// What a program says is read up to here.
const OUTPUT_MAX_BYTES: u64 = 4 << 20;

/// What a program did.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// The standard output of a program that succeeded.
    pub fn success(self, what: &str) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let said = if self.stderr.trim().is_empty() {
            &self.stdout
        } else {
            &self.stderr
        };
        bail!("{what} failed with {}: {}", self.status, said.trim())
    }
}

/// Runs `command` to its end, at most `limit` and until Ctrl-C; then it is killed and this an error.
pub fn run(command: Command, limit: Duration) -> Result<Outcome> {
    run_with(command, Stdio::null(), limit)
}

/// The same with something to read.
pub fn run_with(mut command: Command, input: Stdio, limit: Duration) -> Result<Outcome> {
    let shown = command.get_program().to_string_lossy().into_owned();
    // Files instead of pipes: nothing can fill up and block, and no thread is needed.
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command
        .stdin(input)
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?);
    let mut child = Guarded::spawn(command).with_context(|| format!("cannot run {shown}"))?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.wait_for(POLL)? {
            break status;
        }
        interrupt::check()?;
        if Instant::now() >= deadline {
            child.kill();
            bail!(
                "{shown} did not end within {} s: {}",
                limit.as_secs(),
                text(&mut err)?.trim()
            );
        }
    };
    Ok(Outcome {
        status,
        stdout: text(&mut out)?,
        stderr: text(&mut err)?,
    })
}

fn text(file: &mut File) -> Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Asks until `ready` gives a value, at most `limit` and until Ctrl-C.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        interrupt::check()?;
        if Instant::now() >= deadline {
            bail!("waited {} s in vain: {what}", limit.as_secs());
        }
        thread::sleep(POLL);
    }
}

/// The outcome of a wait; of one in vain, why the last try failed.
pub fn explained<T>(outcome: Result<T>, last_error: Option<anyhow::Error>) -> Result<T> {
    outcome.map_err(|error| match last_error {
        Some(cause) => cause.context(error.to_string()),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_are_told_apart() {
        let outcome = run(
            shell("echo out; echo err >&2; exit 3"),
            Duration::from_secs(60),
        )
        .unwrap();
        assert_eq!(
            (outcome.stdout.as_str(), outcome.stderr.as_str()),
            ("out\n", "err\n")
        );
        assert_eq!(outcome.status.code(), Some(3));
        let error = outcome.success("the script").unwrap_err().to_string();
        assert!(
            error.contains("the script failed") && error.contains("err"),
            "{error}"
        );
    }

    #[test]
    fn a_program_past_its_limit_is_an_error() {
        let error = run(
            shell("echo why >&2; exec sleep 600"),
            Duration::from_millis(300),
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains("did not end"), "{error}");
    }
}
