//! Slurm's complaints in PBS's words.

use crate::failure::{Error, Failure};

/// What Torque says when no node could ever run a job.
const NO_NODES: &str = "cannot locate feasible nodes (nodes file is empty, all systems are busy, or no nodes \
                        have the requested feature)";

/// Parts of Slurm's messages, the more telling ones first, and what they are in PBS.
const MEANINGS: &[(&str, Error)] = &[
    ("Access/permission denied", Error::Permission),
    ("Invalid user id", Error::Permission),
    ("Only the Slurm administrator", Error::Permission),
    ("Invalid job id", Error::UnknownJob),
    ("nvalid partition", Error::UnknownQueue),
    ("Required partition not available", Error::QueueDisabled),
    (
        "group not permitted to use this partition",
        Error::QueueAccess,
    ),
    ("Invalid account", Error::BadAccount),
    ("dependency problem", Error::BadDependency),
    ("Invalid node name", Error::UnknownNode),
    (
        "Requested node configuration is not available",
        Error::ExceedsQueue,
    ),
    (
        "Requested partition configuration not available",
        Error::ExceedsQueue,
    ),
    ("Node count specification invalid", Error::ExceedsQueue),
    (
        "More processors requested than permitted",
        Error::ExceedsQueue,
    ),
    (
        "Memory specification can not be satisfied",
        Error::ExceedsQueue,
    ),
    ("Requested time limit is invalid", Error::ExceedsQueue),
    ("Invalid feature specification", Error::ExceedsQueue),
    ("Invalid generic resource", Error::ExceedsQueue),
    ("Invalid Trackable RESource", Error::ExceedsQueue),
    ("Invalid job array specification", Error::BadValue),
    ("already finished", Error::BadState),
    ("already completing", Error::BadState),
    ("no longer pending", Error::BadState),
    ("Job is not running", Error::BadState),
    (
        "Requested operation is presently disabled",
        Error::NotRerunnable,
    ),
    ("Job is pending execution", Error::BadState),
    ("contact slurm controller", Error::NoServer),
    ("configuration source", Error::NoServer),
    ("Socket timed out", Error::NoServer),
    ("Connection refused", Error::NoServer),
];

/// The failure that Slurm's message means.
pub fn failure(message: &str) -> Failure {
    let meaning = MEANINGS.iter().find(|(part, _)| message.contains(part));
    match meaning.map(|(_, error)| *error) {
        Some(Error::ExceedsQueue) => impossible(),
        Some(Error::UnknownQueue) => {
            Failure::because(Error::UnknownQueue, "requested queue not found")
        }
        Some(error) => Failure::of(error),
        None => {
            let last = message.lines().rev().find(|line| !line.trim().is_empty());
            let last = last.unwrap_or("no message").trim();
            // The program's name in front is not one that users of PBS know.
            let text = last.rsplit_once("error: ").map_or(last, |(_, text)| text);
            Failure::about(Error::System, format_args!("({text})"))
        }
    }
}

/// A request that no node can ever fulfil.
pub fn impossible() -> Failure {
    Failure::because(Error::ExceedsQueue, NO_NODES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slurms_messages_become_pbss() {
        for (slurm, code, text) in [
            (
                "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition name specified",
                170,
                "Unknown queue MSG=requested queue not found",
            ),
            (
                "sbatch: error: Batch job submission failed: Job dependency problem",
                206,
                "Invalid Job Dependency",
            ),
            (
                "scontrol: error: Something new",
                162,
                "System error (Something new)",
            ),
            ("", 162, "System error (no message)"),
        ] {
            let failure = failure(slurm);
            assert_eq!((failure.code, &*failure.message), (code, text));
        }
    }
}
