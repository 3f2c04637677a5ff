//! Slurm's jobs, and their states in PBS's letters.

use serde::{Deserialize, Deserializer};

use super::Number;
use super::note::Note;

/// PBS's states of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Waits for its turn.
    Queued,
    /// Held by somebody or by a dependency.
    Held,
    /// Waits for its time.
    Waiting,
    /// An array of which something has started.
    Begun,
    /// Runs.
    Running,
    /// Stopped for now.
    Suspended,
    /// Ends.
    Exiting,
    /// Is over.
    Finished,
}

impl State {
    /// PBS's letter.
    pub fn letter(self) -> char {
        match self {
            Self::Queued => 'Q',
            Self::Held => 'H',
            Self::Waiting => 'W',
            Self::Begun => 'B',
            Self::Running => 'R',
            Self::Suspended => 'S',
            Self::Exiting => 'E',
            Self::Finished => 'F',
        }
    }

    /// Whether it has not started yet.
    pub fn is_pending(self) -> bool {
        matches!(self, Self::Queued | Self::Held | Self::Waiting)
    }
}

/// A job of Slurm's, or what has not started of an array.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Job {
    /// Slurm's number.
    pub job_id: u32,
    /// The array that it is of, if any.
    pub array_job_id: Number,
    /// Its index in the array.
    pub array_task_id: Number,
    /// The indices that have not started: `1,3-4%2`.
    pub array_task_string: String,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub user_name: String,
    /// That one's group.
    pub group_name: String,
    /// Its queue.
    pub partition: String,
    /// `-A`.
    pub account: String,
    /// Slurm's words for its state.
    pub job_state: Vec<String>,
    /// Why it waits.
    pub state_reason: String,
    /// Its nodes, in Slurm's short form.
    pub nodes: String,
    /// How many nodes.
    pub node_count: Number,
    /// How many processors.
    pub cpus: Number,
    /// What it has of each node.
    #[serde(deserialize_with = "nothing_is_default")]
    pub job_resources: Resources,
    /// Minutes.
    pub time_limit: Number,
    /// When it was submitted.
    pub submit_time: Number,
    /// From when on it may start.
    pub eligible_time: Number,
    /// When it started.
    pub start_time: Number,
    /// When it ended or will.
    pub end_time: Number,
    /// Where its output goes, with Slurm's patterns.
    pub standard_output: String,
    /// Where its errors go.
    pub standard_error: String,
    /// Where it starts.
    pub current_working_directory: String,
    /// Our note.
    pub comment: String,
    /// What it waits for.
    pub dependency: String,
    /// How nice it is to others.
    pub nice: i64,
    /// Whether it may run again.
    pub requeue: bool,
    /// Whether somebody holds it.
    pub hold: bool,
    /// Zero when it is held.
    pub priority: Number,
    /// When to write mail.
    pub mail_type: Vec<String>,
    /// To whom.
    pub mail_user: String,
    /// How it ended.
    pub exit_code: ExitCode,
    /// Where qsub ran.
    pub allocating_node: String,
    /// Whether it has a script.
    pub batch_flag: bool,
    /// How often it was started again.
    pub restart_cnt: u32,
    /// Memory of each node in mebibytes.
    pub memory_per_node: Number,
    /// Memory of each processor in mebibytes.
    pub memory_per_cpu: Number,
}

/// What a job has.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Resources {
    nodes: Nodes,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Nodes {
    allocation: Vec<Allocation>,
}

/// What a job has of one node.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Allocation {
    /// The node.
    pub name: String,
    cpus: Cpus,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Cpus {
    count: u32,
}

impl Allocation {
    /// How many processors.
    pub fn cpus(&self) -> u32 {
        self.cpus.count
    }
}

/// How a job ended.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct ExitCode {
    return_code: Number,
    signal: Signal,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Signal {
    id: Number,
}

#[derive(Deserialize)]
struct Answer {
    jobs: Vec<Job>,
}

/// All jobs that Slurm remembers.
pub fn all() -> Result<Vec<Job>, crate::failure::Failure> {
    let answer: Answer = super::ask("squeue", &["--states=all", "--all"])?;
    // A request that Slurm refused leaves a job that never was.
    let refused = |job: &Job| job.state_reason == "BadConstraints" && job.is("FAILED");
    Ok(answer
        .jobs
        .into_iter()
        .filter(|job| !refused(job))
        .collect())
}

impl Job {
    /// Its state. `now` is in seconds since 1970.
    pub fn state(&self, now: u64) -> State {
        if self.is("COMPLETING") {
            return State::Exiting;
        }
        if self.is("PENDING") {
            let held = self.hold
                || self.priority.get() == Some(0)
                || self.state_reason.starts_with("JobHeld");
            return if held || !self.dependency.is_empty() {
                State::Held
            } else if self.eligible_time.get().is_some_and(|time| time > now) {
                State::Waiting
            } else {
                State::Queued
            };
        }
        if self.is("RUNNING") || self.is("CONFIGURING") {
            State::Running
        } else if self.is("SUSPENDED") || self.is("STOPPED") {
            State::Suspended
        } else {
            State::Finished
        }
    }

    /// The array that it belongs to.
    pub fn array(&self) -> Option<u32> {
        self.array_job_id
            .positive()
            .and_then(|id| id.try_into().ok())
    }

    /// Its index in the array, once it has one.
    pub fn index(&self) -> Option<u32> {
        self.array_task_id
            .get()
            .and_then(|index| index.try_into().ok())
    }

    /// What it has of each node.
    pub fn allocations(&self) -> &[Allocation] {
        &self.job_resources.nodes.allocation
    }

    /// Our note on it.
    pub fn note(&self) -> Note {
        Note::read(&self.comment)
    }

    /// Seconds that it has run.
    pub fn ran_seconds(&self, now: u64) -> u64 {
        let Some(start) = self.start_time.positive().filter(|start| *start <= now) else {
            return 0;
        };
        let end = match self.state(now) {
            State::Finished | State::Exiting => self.end_time.positive().unwrap_or(now),
            state if state.is_pending() => start,
            _ => now,
        };
        end.saturating_sub(start)
    }

    /// PBS's exit status: the script's, or 256 and the signal that ended it.
    pub fn exit_status(&self) -> u64 {
        // What Slurm ends it ends by SIGTERM first.
        let ended = ["CANCELLED", "TIMEOUT", "PREEMPTED", "DEADLINE"];
        if ended.iter().any(|state| self.is(state)) {
            return 256 + 15;
        }
        match self.exit_code.signal.id.positive() {
            Some(signal) => 256 + signal,
            None => self.exit_code.return_code.get().unwrap_or(0),
        }
    }

    fn is(&self, state: &str) -> bool {
        self.job_state.iter().any(|one| one == state)
    }
}

fn nothing_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn job(id: u32, state: &str) -> Job {
        Job {
            job_id: id,
            job_state: state.split(' ').map(str::to_owned).collect(),
            priority: Number::of(1),
            ..Job::default()
        }
    }

    #[test]
    fn states_are_pbss_letters() {
        for (state, letter) in [
            ("PENDING", 'Q'),
            ("RUNNING", 'R'),
            ("CONFIGURING RUNNING", 'R'),
            ("COMPLETED COMPLETING", 'E'),
            ("SUSPENDED", 'S'),
            ("COMPLETED", 'F'),
            ("CANCELLED", 'F'),
            ("NODE_FAIL", 'F'),
        ] {
            assert_eq!(job(1, state).state(100).letter(), letter, "{state}");
        }
        let held = Job {
            hold: true,
            ..job(1, "PENDING")
        };
        let dependent = Job {
            dependency: "afterok:1".into(),
            ..job(1, "PENDING")
        };
        let later = Job {
            eligible_time: Number::of(200),
            ..job(1, "PENDING")
        };
        let letters = [held, dependent, later].map(|job| job.state(100).letter());
        assert_eq!(letters, ['H', 'H', 'W']);
    }

    #[test]
    fn a_job_that_was_ended_has_pbss_exit_status() {
        assert_eq!(job(1, "TIMEOUT").exit_status(), 271);
        let mut failed = job(1, "FAILED");
        failed.exit_code.return_code = Number::of(3);
        assert_eq!(failed.exit_status(), 3);
    }

    #[test]
    fn json_with_nothing_and_with_more_than_known_is_read() {
        let job: Job =
            serde_json::from_str(r#"{"job_id": 5, "job_resources": null, "new": [1]}"#).unwrap();
        assert_eq!((job.job_id, job.allocations().len()), (5, 0));
    }
}
