//! Jobs by PBS's commands: submitted, waited for, and what PBS says of them afterwards.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::shell::{Shell, quote};
use crate::interrupt;

/// How often it is asked whether a job has ended: qstat costs an emulated machine about a second.
const LOOK: Duration = Duration::from_secs(1);

/// PBS's exit code for a job that has ended.
const FINISHED: i32 = 35;

/// A job, or an array of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// As qsub printed it.
    pub id: String,
}

/// What PBS knows of a job, or of one element of an array.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Known {
    /// PBS's letter: Q, R, F and others.
    #[serde(rename = "job_state", default)]
    pub state: String,
    /// The script's exit code.
    #[serde(rename = "Exit_status", default)]
    pub exit_status: Option<i32>,
    /// Where it ran: `w1/0*2+w2/0*2`.
    #[serde(default)]
    pub exec_host: Option<String>,
    /// How often it was started.
    #[serde(default)]
    pub run_count: u32,
}

impl Known {
    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.state == "R"
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.state == "F"
    }

    /// The first machine that it was given last.
    pub fn host(&self) -> &str {
        let hosts = self.exec_host.as_deref().unwrap_or_default();
        hosts.split('/').next().unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Listing {
    #[serde(rename = "Jobs")]
    jobs: BTreeMap<String, Known>,
}

impl Job {
    /// Submits a script from a directory.
    pub fn submit(shell: &dyn Shell, directory: &str, script: &str) -> Result<Self> {
        let text = format!("cd {} && qsub", quote(directory));
        let id = shell.ok(&text, script.as_bytes())?.trim().to_owned();
        let number = id
            .chars()
            .next()
            .is_some_and(|first| first.is_ascii_digit());
        if !number || id.contains(char::is_whitespace) {
            bail!("qsub printed no job's id, but {id:?}");
        }
        Ok(Self { id })
    }

    /// Whether all of it has ended.
    pub fn has_ended(&self, shell: &dyn Shell) -> Result<bool> {
        let said = shell.run(&format!("qstat {}", quote(&self.id)), &[])?;
        match said.code {
            0 => Ok(false),
            FINISHED => Ok(true),
            code => bail!(
                "qstat {} failed with {code}: {}",
                self.id,
                said.error.trim()
            ),
        }
    }

    /// Waits until all of it has ended.
    pub fn wait(&self, shell: &dyn Shell, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !self.has_ended(shell)? {
            interrupt::check()?;
            if Instant::now() >= deadline {
                let seen = shell.run(&format!("qstat -ant1 {}", quote(&self.id)), &[])?;
                bail!(
                    "job {} did not end within {} s:\n{}",
                    self.id,
                    limit.as_secs(),
                    String::from_utf8_lossy(&seen.output)
                );
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// What is known of it, also when it has ended, by id; of an array its elements, each by its own.
    pub fn known(&self, shell: &dyn Shell) -> Result<BTreeMap<String, Known>> {
        let text = format!("qstat -x -t -f -F json {}", quote(&self.id));
        let mut listing: Listing = serde_json::from_str(&shell.ok(&text, &[])?)
            .with_context(|| format!("what qstat says of {} is no JSON", self.id))?;
        // The array as a whole is listed beside its elements.
        if self.id.contains("[]") {
            listing.jobs.remove(&self.id);
        }
        Ok(listing.jobs)
    }

    /// An error unless it ended well, in this many elements; what became of them.
    pub fn succeeded(&self, shell: &dyn Shell, elements: usize) -> Result<BTreeMap<String, Known>> {
        let ended = self.known(shell)?;
        if ended.len() != elements {
            bail!(
                "job {} has {} elements instead of {elements}",
                self.id,
                ended.len()
            );
        }
        let mut failed = ended.iter().filter(|(_, job)| job.exit_status != Some(0));
        if let Some((id, job)) = failed.next() {
            bail!(
                "{} of {elements} failed, first {id}: exit status {:?} on {:?}",
                failed.count() + 1,
                job.exit_status,
                job.exec_host
            );
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qstat_says_of_ended_jobs_is_read() {
        let text = r#"{"pbs_server": "head", "Jobs": {
            "7[1].head": {"Exit_status": 0, "exec_host": "w1/0", "run_count": 1, "Priority": 0},
            "7[2].head": {"job_state": "Q"}}}"#;
        let listing: Listing = serde_json::from_str(text).unwrap();
        assert_eq!(listing.jobs["7[1].head"].exit_status, Some(0));
        assert_eq!(listing.jobs["7[1].head"].exec_host.as_deref(), Some("w1/0"));
        assert_eq!(listing.jobs["7[2].head"].exit_status, None);
    }
}
