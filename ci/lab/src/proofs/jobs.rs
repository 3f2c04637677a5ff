//! Several PBS jobs at once, on a head that may be away for a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::cluster::shell::Shell;
use crate::command::wait_until;
use crate::workloads::job::{Job, Known};

/// How often the queue is looked at.
const ASK: Duration = Duration::from_secs(5);

/// Waits until the jobs are as `wanted`, at most `limit`.
pub(super) fn wait(
    head: &Shell,
    what: &str,
    jobs: &[Job],
    limit: Duration,
    mut wanted: impl FnMut(&BTreeMap<String, Known>) -> bool,
) -> Result<BTreeMap<String, Known>> {
    let mut next = Instant::now();
    let mut last = Ok(BTreeMap::new());
    let outcome = wait_until(what, limit, || {
        if Instant::now() < next {
            return Ok(None);
        }
        next = Instant::now() + ASK;
        last = look(head, jobs);
        Ok(last.as_ref().ok().filter(|known| wanted(known)).cloned())
    });
    outcome.map_err(|error| match last {
        Ok(known) => error.context(format!("the queue at last: {known:?}")),
        Err(cause) => cause.context(error.to_string()),
    })
}

/// Waits until all have ended well.
pub(super) fn wait_done(
    head: &Shell,
    jobs: &[Job],
    limit: Duration,
) -> Result<BTreeMap<String, Known>> {
    let known = wait(head, "the jobs end", jobs, limit, |known| {
        known.len() == jobs.len() && known.values().all(Known::has_ended)
    })?;
    let mut bad = known.iter().filter(|(_, job)| job.exit_status != Some(0));
    if let Some((id, job)) = bad.next() {
        bail!("job {id} failed: {job:?}");
    }
    Ok(known)
}

fn look(head: &Shell, jobs: &[Job]) -> Result<BTreeMap<String, Known>> {
    let mut all = BTreeMap::new();
    for job in jobs {
        all.extend(job.known(head)?);
    }
    Ok(all)
}
