//! Partitions, which are PBS's queues.

use serde::Deserialize;

use super::Number;
use crate::failure::{Error, Failure};

/// A partition, as far as it matters here.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// Its limits.
    pub maximums: Maximums,
    /// Its state.
    pub partition: State,
}

/// A partition's limits.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Maximums {
    /// Minutes.
    pub time: Number,
    /// Nodes of a job.
    pub nodes: Number,
}

/// A partition's state.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct State {
    /// Slurm's words.
    pub state: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    partitions: Vec<Partition>,
}

impl Partition {
    /// Whether it takes jobs.
    pub fn enabled(&self) -> bool {
        self.is("UP") || self.is("DOWN")
    }

    /// Whether its jobs are run.
    pub fn started(&self) -> bool {
        self.is("UP") || self.is("DRAIN")
    }

    /// The longest a job may run.
    pub fn max_seconds(&self) -> Option<u64> {
        self.maximums.time.positive().map(|minutes| minutes * 60)
    }

    fn is(&self, state: &str) -> bool {
        self.partition.state.iter().any(|one| one == state)
    }
}

/// All partitions.
pub fn all() -> Result<Vec<Partition>, Failure> {
    super::ask::<Answer>("scontrol", &["show", "partitions"]).map(|answer| answer.partitions)
}

/// The queue of this name that takes jobs.
pub fn open(partitions: &[Partition], name: &str) -> Result<Partition, Failure> {
    let partition = partitions
        .iter()
        .find(|partition| partition.name == name)
        .ok_or_else(|| Failure::because(Error::UnknownQueue, "requested queue not found"))?;
    if !partition.enabled() {
        return Err(Failure::because(
            Error::QueueDisabled,
            format_args!("queue is disabled: {name}"),
        ));
    }
    Ok(partition.clone())
}
