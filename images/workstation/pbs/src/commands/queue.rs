//! qmove and qrerun: jobs into another queue, and back into their own.

use std::ffi::OsString;

use crate::arguments;
use crate::failure::{Error, Failure};
use crate::slurm;
use crate::slurm::job::State;
use crate::slurm::partition;

/// `qmove QUEUE JOB...`
pub fn qmove(arguments: Vec<OsString>) -> Result<u8, Failure> {
    let parsed = arguments::parse("", arguments)?;
    let [queue, jobs @ ..] = parsed.operands.as_slice() else {
        return Err(Failure::usage("usage: qmove QUEUE JOB..."));
    };
    let queue = queue.split('@').next().unwrap_or(queue);
    partition::open(&partition::all()?, queue)?;
    super::each("qmove", jobs, |_, entries| {
        for entry in entries {
            super::unfinished(entry)?;
            if !entry.state.is_pending() {
                return Err(Failure::of(Error::BadState));
            }
            let (id, queue) = (
                format!("JobId={}", entry.slurm_id()),
                format!("Partition={queue}"),
            );
            slurm::act("scontrol", &["update", &id, &queue])?;
        }
        Ok(())
    })
}

/// `qrerun [-W force] JOB...`
pub fn qrerun(arguments: Vec<OsString>) -> Result<u8, Failure> {
    let parsed = arguments::parse("W:f", arguments)?;
    super::each("qrerun", &parsed.operands, |_, entries| {
        for entry in entries {
            super::unfinished(entry)?;
            if !matches!(
                entry.state,
                State::Running | State::Suspended | State::Begun
            ) {
                return Err(Failure::of(Error::BadState));
            }
            if !entry.job.requeue {
                return Err(Failure::of(Error::NotRerunnable));
            }
            slurm::act("scontrol", &["requeue", &entry.slurm_id()])?;
        }
        Ok(())
    })
}
