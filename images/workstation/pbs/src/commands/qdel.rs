//! qdel: ends jobs.

use std::ffi::OsString;

use crate::arguments;
use crate::array::Indices;
use crate::failure::Failure;
use crate::job_id::{JobId, Part};
use crate::site;
use crate::slurm;
use crate::slurm::job::State;
use crate::slurm::queue::{Entry, Queue};

/// `qdel [-W force|SECONDS] [-x] [-p] [-m TEXT] [-t INDICES] JOB...|all`
pub fn run(arguments: Vec<OsString>) -> Result<u8, Failure> {
    let parsed = arguments::parse("W:xpm:t:ab:s:", arguments)?;
    let mut operands = parsed.operands.clone();
    if let Some(indices) = parsed.value('t') {
        // Torque: the array's elements by an option of their own.
        let indices = Indices::parse(indices).ok_or(Failure::illegal('t'))?;
        for operand in &mut operands {
            let mut id = JobId::operand(operand)?;
            id.part = Part::Elements(indices.clone());
            *operand = id.full();
        }
    }
    if operands
        .iter()
        .any(|operand| operand.eq_ignore_ascii_case("all"))
    {
        return all();
    }
    let history = parsed.has('x');
    super::each("qdel", &operands, |_, entries| {
        for entry in entries {
            // Slurm forgets by itself what is over, and of several elements some may be.
            let several = super::names_elements(&entry.id) && entries.len() > 1;
            if entry.state == State::Finished && (history || several) {
                continue;
            }
            super::unfinished(entry)?;
            end(entry)?;
        }
        Ok(())
    })
}

/// All jobs of the user; those of all users when root asks.
fn all() -> Result<u8, Failure> {
    let queue = Queue::load()?;
    let user = site::user();
    let root = rustix::process::geteuid().is_root();
    for entry in queue.entries(false) {
        if entry.state != State::Finished && (root || entry.job.user_name == user) {
            end(&entry)?;
        }
    }
    Ok(0)
}

fn end(entry: &Entry) -> Result<(), Failure> {
    slurm::act("scancel", &[entry.slurm_id()]).map(drop)
}
