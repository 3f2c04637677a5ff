//! PBS's commands.

pub mod hold;
pub mod pbsnodes;
pub mod qalter;
pub mod qdel;
pub mod qselect;
pub mod qsig;
pub mod qstat;
pub mod qsub;
pub mod queue;

use crate::failure::{Error, Failure};
use crate::job_id::{JobId, Part};
use crate::slurm::queue::{Entry, Queue};

/// Does something to each job that is named, goes on after failures, and ends with the last one's code.
fn each(
    command: &str,
    operands: &[String],
    mut act: impl FnMut(&JobId, &[Entry]) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    if operands.is_empty() {
        return Err(Failure::usage("no job identifier was given"));
    }
    let queue = Queue::load()?;
    let mut code = 0;
    for operand in operands {
        let done = JobId::operand(operand).and_then(|id| {
            let entries = queue.find(&id)?;
            act(&id, &entries).map_err(|failure| name(failure, &id))
        });
        if let Err(failure) = done {
            failure.report(command);
            code = failure.code;
        }
    }
    Ok(code)
}

/// The failure with the job's name behind PBS's words, as PBS has it.
fn name(mut failure: Failure, id: &JobId) -> Failure {
    let full = id.full();
    if !failure.message.contains(&full) {
        failure.message = format!("{} {full}", failure.message);
    }
    failure
}

/// Refuses what is over.
fn unfinished(entry: &Entry) -> Result<(), Failure> {
    if entry.state == crate::slurm::job::State::Finished {
        return Err(Failure::of(Error::Finished));
    }
    Ok(())
}

/// Whether an identifier names elements of an array.
fn names_elements(id: &JobId) -> bool {
    matches!(id.part, Part::Elements(_))
}
