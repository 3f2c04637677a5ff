//! Slurm's programs: what they are asked in JSON, what they are told to do, and what their errors are in PBS.

pub mod errors;
pub mod job;
pub mod node;
pub mod note;
pub mod partition;
pub mod queue;

use std::process::{Command, Output, Stdio};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// The version of Slurm's JSON that the structures here describe. Debian 13's Slurm speaks it.
const JSON: &str = "--json=v0.0.41";

/// A number of Slurm's JSON, which may be absent or infinite.
#[derive(Debug, Default, Clone, Copy, PartialEq, Deserialize)]
#[serde(default)]
pub struct Number {
    set: bool,
    infinite: bool,
    number: f64,
}

impl Number {
    /// The number, if there is a finite one.
    pub fn get(&self) -> Option<u64> {
        // All that is asked for here are counts and times, far below 2^53.
        (self.set && !self.infinite).then_some(self.number as u64)
    }

    /// The number, if there is one other than zero.
    pub fn positive(&self) -> Option<u64> {
        self.get().filter(|number| *number > 0)
    }

    #[cfg(test)]
    pub(crate) fn of(number: u32) -> Self {
        Self {
            set: true,
            infinite: false,
            number: f64::from(number),
        }
    }
}

/// A command for one of Slurm's programs, without what another job or the user's habits left in the
/// environment.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy();
        let inherited = [
            "SLURM", "SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SCANCEL_",
        ];
        if inherited.iter().any(|prefix| text.starts_with(prefix)) && text != "SLURM_CONF" {
            command.env_remove(&variable);
        }
    }
    // Else long lists of array indices are cut.
    command.env("SLURM_BITSTR_LEN", "0").env("LC_ALL", "C");
    command
}

/// Asks a program for JSON.
pub fn ask<T: DeserializeOwned>(name: &str, arguments: &[&str]) -> Result<T, Failure> {
    let output = run(program(name).args(arguments).arg(JSON))?;
    let complaint = || String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(errors::failure(&complaint()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| {
        Failure::system(format!(
            "cannot understand {name}: {error} {}",
            complaint().trim()
        ))
    })
}

/// What Slurm 24.11 answers to about every other change of a waiting job's partition, though nothing is
/// wrong: an errno that an earlier call left behind. The job is unchanged, and the next try may succeed.
const LEFT_OVER: &[&str] = &[
    "Resource temporarily unavailable",
    "Operation not supported",
    "Interrupted system call",
];

/// How often such a request is made.
const TRIES: u32 = 30;

/// The pause in between.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Has a program do something; what it says.
pub fn act<S: AsRef<std::ffi::OsStr>>(name: &str, arguments: &[S]) -> Result<String, Failure> {
    let mut tries = 1;
    let (output, complaint) = loop {
        let output = run(program(name).args(arguments))?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        if tries == TRIES || !LEFT_OVER.iter().any(|text| complaint.contains(text)) {
            break (output, complaint);
        }
        tries += 1;
        std::thread::sleep(PAUSE);
    };
    // scontrol says some errors and ends well.
    if !output.status.success() || complaint.contains("error:") || complaint.contains("denied") {
        return Err(errors::failure(&complaint));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(command: &mut Command) -> Result<Output, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::system(format!("cannot run {name}: {error}")))
}
