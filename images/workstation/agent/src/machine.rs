//! This machine: its host name, and whether its clock was moved.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::files::{self, PUBLIC};

/// In memory: it ends with the machine.
const BOOT: &str = "/run/wow-workstation/boot";

/// A clock that is put right by less than this has not jumped.
const JUMP: Duration = Duration::from_secs(30);

/// Gives the machine its name in the pool.
pub fn set_host_name(name: &str) -> Result<()> {
    if rustix::system::uname().nodename().to_bytes() != name.as_bytes() {
        rustix::system::sethostname(name.as_bytes())
            .with_context(|| format!("cannot call this machine {name}"))?;
        tracing::info!(name, "this machine's name in the pool");
    }
    let line = format!("{name}\n");
    files::write(Path::new("/etc/hostname"), line.as_bytes(), PUBLIC).map(drop)
}

/// Whether systemd runs the machine, and not a test.
pub fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// A text that is another after each start of the machine, and the same for all of this program's.
pub fn boot() -> Result<String> {
    let path = Path::new(BOOT);
    let kept = files::text(path)?;
    if !kept.is_empty() {
        return Ok(kept);
    }
    let made = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .context("the kernel makes no random numbers")?;
    let made = made.trim_end();
    files::write(path, made.as_bytes(), PUBLIC)?;
    Ok(made.to_owned())
}

/// Notices that the wall clock was moved against the time that passed, as after a pause.
pub struct ClockWatch {
    last: (Instant, SystemTime),
}

impl ClockWatch {
    /// From now on.
    pub fn new() -> Self {
        Self {
            last: (Instant::now(), SystemTime::now()),
        }
    }

    /// Whether it was moved since the last call.
    pub fn jumped(&mut self) -> bool {
        let now = (Instant::now(), SystemTime::now());
        let (steady, wall) = std::mem::replace(&mut self.last, now);
        jumped(now.0 - steady, now.1.duration_since(wall).ok())
    }
}

/// `wall` is none where the clock went back.
fn jumped(steady: Duration, wall: Option<Duration>) -> bool {
    wall.is_none_or(|wall| wall.abs_diff(steady) > JUMP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_clock_is_told_from_one_that_runs() {
        let seconds = Duration::from_secs;
        assert!(!jumped(seconds(10), Some(seconds(10))));
        assert!(!jumped(seconds(10), Some(seconds(12))));
        assert!(jumped(seconds(10), Some(seconds(4000))));
        assert!(jumped(seconds(100), Some(seconds(1))));
        assert!(jumped(seconds(10), None));
    }
}
