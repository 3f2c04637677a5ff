//! The clock: that of the head for machines that reach no other, and put right at once after a pause.
//!
//! Slurm's key proves who asks for a minute only, so the clocks of a pool must agree. A virtual machine that was
//! paused, or moved, goes on as if no time had passed; only its hardware clock tells.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::command::{self, LOCAL};
use crate::files::{self, PUBLIC};

const SERVER: &str = "/etc/chrony/conf.d/wow.conf";
const SOURCE: &str = "/etc/chrony/sources.d/wow.sources";

/// Seconds since 1970 by the hardware clock, which Linux keeps in UTC.
const HARDWARE: &str = "/sys/class/rtc/rtc0/since_epoch";

/// A clock that is put right by less than this was not moved.
const MOVED: Duration = Duration::from_secs(30);

/// A pause that is shorter is not told from the hardware clock's whole seconds.
const PAUSE: Duration = Duration::from_secs(3);

/// The pool may ask this machine for the time. Without a better source it goes by its own clock.
pub fn serve(range: Ipv4Net) -> Result<()> {
    let text = format!("# Written by wow-workstation.\nallow {range}\nlocal stratum 10\n");
    files::remove(Path::new(SOURCE))?;
    if files::write(Path::new(SERVER), text.as_bytes(), PUBLIC)? {
        restart()?;
    }
    Ok(())
}

/// This machine asks the head, besides whom it asks already.
pub fn follow(head: Ipv4Addr) -> Result<()> {
    let text = format!("server {head} iburst minpoll 4 maxpoll 6\n");
    let was_server = files::remove(Path::new(SERVER))?;
    if files::write(Path::new(SOURCE), text.as_bytes(), PUBLIC)? || was_server {
        restart()?;
    }
    Ok(())
}

fn restart() -> Result<()> {
    if !crate::machine::has_systemd() {
        return Ok(());
    }
    let words = ["try-restart", "chrony.service"];
    command::run("systemctl", &words, LOCAL).map(drop)
}

/// What became of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Somebody has set it.
    Moved,
    /// The machine stood still for so long, and the clock with it.
    Paused(Duration),
}

/// Notices what becomes of the clock.
pub struct Watch {
    last: Reading,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    steady: Instant,
    wall: SystemTime,
    hardware: Option<SystemTime>,
}

impl Watch {
    /// From now on.
    pub fn new() -> Self {
        Self {
            last: Reading::take(),
        }
    }

    /// What has become of it since the last call.
    pub fn look(&mut self) -> Option<Change> {
        let now = Reading::take();
        let last = std::mem::replace(&mut self.last, now);
        now.since(&last)
    }

    /// Sets the clock by that of the hardware, as after a pause.
    pub fn put_right(&mut self) -> Result<()> {
        let hardware = self.last.hardware.context("there is no hardware clock")?;
        let since = hardware.duration_since(SystemTime::UNIX_EPOCH)?;
        let time = Timespec {
            tv_sec: since.as_secs().try_into()?,
            tv_nsec: 0,
        };
        clock_settime(ClockId::Realtime, time).context("cannot set the clock")?;
        self.last = Reading::take();
        Ok(())
    }
}

impl Reading {
    fn take() -> Self {
        let text = std::fs::read_to_string(HARDWARE).ok();
        let seconds = text.and_then(|text| text.trim().parse().ok());
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
            hardware: seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
        }
    }

    fn since(&self, last: &Self) -> Option<Change> {
        let steady = self.steady - last.steady;
        let wall = self.wall.duration_since(last.wall).ok();
        if wall.is_none_or(|wall| wall.abs_diff(steady) > MOVED) {
            return Some(Change::Moved);
        }
        // Ahead of the clock, and by its own: not because it was written to, nor because it is always off.
        let (before, hardware) = (last.hardware?, self.hardware?);
        let ahead = hardware.duration_since(self.wall).ok()?;
        let stood = hardware.duration_since(before).ok()?.checked_sub(steady)?;
        (ahead > PAUSE && stood > PAUSE).then_some(Change::Paused(stood))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is seen after `steady` seconds in which the clocks went on by so many, the hardware clock being
    /// `off` ahead at first.
    fn seen(steady: u64, wall: i64, hardware: u64, off: u64) -> Option<Change> {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let last = Reading {
            steady: Instant::now(),
            wall: start,
            hardware: Some(start + Duration::from_secs(off)),
        };
        let wall = match u64::try_from(wall) {
            Ok(on) => start + Duration::from_secs(on),
            Err(_) => start - Duration::from_secs(wall.unsigned_abs()),
        };
        let now = Reading {
            steady: last.steady + Duration::from_secs(steady),
            wall,
            hardware: Some(start + Duration::from_secs(off + hardware)),
        };
        now.since(&last)
    }

    #[test]
    fn a_moved_clock_is_told_from_one_that_runs() {
        assert_eq!(seen(10, 10, 10, 0), None);
        assert_eq!(seen(10, 12, 10, 0), None);
        assert_eq!(seen(10, 4000, 10, 0), Some(Change::Moved));
        assert_eq!(seen(10, -50, 10, 0), Some(Change::Moved));
    }

    #[test]
    fn a_pause_is_told_by_the_hardware_clock() {
        let hour = Duration::from_secs(3600);
        assert_eq!(seen(10, 10, 3610, 0), Some(Change::Paused(hour)));
        assert_eq!(seen(10, 10, 12, 0), None, "whole seconds");
        assert_eq!(seen(10, 10, 10, 7200), None, "it is always off");
        assert_eq!(seen(60, 61, 62, 0), None);
    }

    #[test]
    fn a_machine_without_a_hardware_clock_is_never_paused() {
        let last = Reading {
            hardware: None,
            ..Reading::take()
        };
        let now = Reading {
            hardware: None,
            ..Reading::take()
        };
        assert_eq!(now.since(&last), None);
    }
}
