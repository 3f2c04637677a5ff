//! PBS jobs, as a user of the head handles them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::LOOK;
use crate::cluster::shell::Shell;
use crate::command::wait_until;

/// How often the queue is looked at: each look is a login.
const ASK: Duration = Duration::from_secs(5);

/// A job, as `qstat` has it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Job {
    #[serde(rename = "job_state")]
    pub state: String,
    #[serde(rename = "Exit_status")]
    pub exit_status: Option<i64>,
    #[serde(rename = "exec_host")]
    pub hosts: Option<String>,
}

impl Job {
    pub fn runs(&self) -> bool {
        self.state == "R"
    }

    pub fn ended(&self) -> bool {
        self.state == "F"
    }

    /// The name of the machine that it was given last.
    pub fn host(&self) -> &str {
        let hosts = self.hosts.as_deref().unwrap_or_default();
        hosts.split('/').next().unwrap_or_default()
    }
}

/// Submits a script from a directory; its id.
pub(super) fn submit(head: &Shell, directory: &str, options: &str, script: &str) -> Result<String> {
    let line = format!("cd {directory} && qsub {options}");
    let outcome = head.run(&line, script.as_bytes(), LOOK)?;
    let id = outcome.success("qsub")?.trim().to_owned();
    ensure!(!id.is_empty(), "qsub gave no id");
    Ok(id)
}

/// What the server knows of these jobs, ended ones too.
pub(super) fn look(head: &Shell, ids: &[String]) -> Result<BTreeMap<String, Job>> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "Jobs", default)]
        jobs: BTreeMap<String, Job>,
    }
    let text = head.ask(&format!("qstat -x -f -F json {}", ids.join(" ")), LOOK)?;
    let answer: Answer = serde_json::from_str(&text).context("qstat's JSON")?;
    Ok(answer.jobs)
}

/// Waits until the jobs are as `wanted`, at most `limit`.
pub(super) fn wait(
    head: &Shell,
    what: &str,
    ids: &[String],
    limit: Duration,
    mut wanted: impl FnMut(&BTreeMap<String, Job>) -> bool,
) -> Result<BTreeMap<String, Job>> {
    let mut next = Instant::now();
    let mut last = Ok(BTreeMap::new());
    let outcome = wait_until(what, limit, || {
        if Instant::now() < next {
            return Ok(None);
        }
        next = Instant::now() + ASK;
        // The head may be away meanwhile.
        last = look(head, ids);
        Ok(last.as_ref().ok().filter(|jobs| wanted(jobs)).cloned())
    });
    outcome.map_err(|error| match last {
        Ok(jobs) => error.context(format!("the queue at last: {jobs:?}")),
        Err(cause) => cause.context(error.to_string()),
    })
}

/// Waits until all have ended well.
pub(super) fn wait_done(
    head: &Shell,
    ids: &[String],
    limit: Duration,
) -> Result<BTreeMap<String, Job>> {
    let all = |jobs: &BTreeMap<String, Job>| jobs.len() == ids.len();
    let jobs = wait(head, "the jobs end", ids, limit, |jobs| {
        all(jobs) && jobs.values().all(Job::ended)
    })?;
    let bad: Vec<_> = jobs
        .iter()
        .filter(|(_, job)| job.exit_status != Some(0))
        .collect();
    if !bad.is_empty() {
        bail!("jobs failed: {bad:?}");
    }
    Ok(jobs)
}
