//! qsig: signals for running jobs.

use std::ffi::OsString;

use crate::arguments;
use crate::failure::{Error, Failure};
use crate::slurm;
use crate::slurm::job::State;

/// The signals that scancel knows by name.
const SIGNALS: &[&str] = &[
    "HUP", "INT", "QUIT", "ABRT", "KILL", "ALRM", "TERM", "USR1", "USR2", "URG", "CONT", "STOP",
    "TSTP", "TTIN", "TTOU", "XCPU",
];

/// Linux's highest signal.
const MAX_SIGNAL: u32 = 64;

/// `qsig [-s SIGNAL] JOB...`; without one SIGTERM.
pub fn run(arguments: Vec<OsString>) -> Result<u8, Failure> {
    let parsed = arguments::parse("s:", arguments)?;
    let wanted = parsed.value('s').unwrap_or("TERM");
    let action = action(wanted)?;
    super::each("qsig", &parsed.operands, |_, entries| {
        for entry in entries {
            super::unfinished(entry)?;
            let state = entry.state;
            match &action {
                Action::Suspend | Action::Resume => {
                    let (verb, fits) = match action {
                        Action::Suspend => ("suspend", state == State::Running),
                        _ => ("resume", state == State::Suspended),
                    };
                    if !fits {
                        return Err(Failure::of(Error::BadState));
                    }
                    slurm::act("scontrol", &[verb, &entry.slurm_id()])?;
                }
                Action::Signal(signal) => {
                    if !matches!(state, State::Running | State::Suspended | State::Begun) {
                        return Err(Failure::of(Error::BadState));
                    }
                    // To the script and to all that it has started.
                    let signal = format!("--signal={signal}");
                    slurm::act("scancel", &["--full", &signal, &entry.slurm_id()])?;
                }
            }
        }
        Ok(())
    })
}

enum Action {
    Suspend,
    Resume,
    Signal(String),
}

fn action(wanted: &str) -> Result<Action, Failure> {
    match wanted {
        "suspend" | "admin-suspend" => return Ok(Action::Suspend),
        "resume" | "admin-resume" => return Ok(Action::Resume),
        _ => {}
    }
    let number = wanted
        .parse::<u32>()
        .is_ok_and(|number| (1..=MAX_SIGNAL).contains(&number));
    let bare = wanted.strip_prefix("SIG").unwrap_or(wanted);
    if number || SIGNALS.contains(&bare) {
        return Ok(Action::Signal(bare.to_owned()));
    }
    Err(Failure::about(Error::UnknownSignal, wanted))
}
