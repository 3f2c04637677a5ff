//! What this machine's clock is kept by, and what it is worth to others: configured servers, the pool, or the
//! host whose clock it is.
//!
//! A clock that the pool has set is given with [`POOL_STRATUM`] and is no source for others: so no two nodes keep
//! each other's clocks. Left out: slewing, authentication, a choice between configured servers by their quality.
//! Certificates hold for days, so a second is enough.

mod choice;
mod members;
mod question;
mod serve;
mod servers;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use tokio::time::timeout;
use wow_control::{Reading, Standing};
use wow_init::backoff::Backoff;
use wow_init::clock;

use crate::api;
use question::Offset;

pub use members::{Way, follow as follow_pool};
#[cfg(feature = "fuzzing")]
pub use question::fuzzing;
pub use serve::run as serve;
pub use servers::run as follow_servers;

/// The stratum of a clock that was set by members. Servers of the internet are far below; so a member with less than
/// this has its time from outside the pool.
pub const POOL_STRATUM: u8 = 8;
/// The stratum of a host's clock that somebody else keeps: nobody tells how many servers away.
const HOST_STRATUM: u8 = 3;
/// Who has set a host's clock is the host's to know.
const HOST_REFERENCE: [u8; 4] = [127, 0, 0, 1];
/// What a host's clock may be wrong by.
const HOST_ERROR: Duration = Duration::from_millis(100);

/// A clock that was not compared for so long is nothing to go by: it drifts by some seconds a day.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// By how much of the time since a clock drifts, one part of: a bad quartz.
const DRIFT_PART: u32 = 10_000;
/// The clock is left as it is within this.
const TOLERANCE: Duration = Duration::from_millis(100);

/// The pause between two comparisons: public servers ask for no fewer than 15 s, and a machine's clock drifts by
/// some ten milliseconds in this time.
const INTERVAL: Duration = Duration::from_secs(1024);
/// The pauses while nobody answers.
const RETRY: Backoff = Backoff::new(Duration::from_secs(16), INTERVAL);
/// How often it is looked whether the machine stood still.
const LOOK: Duration = Duration::from_secs(1);

/// Who keeps the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// Configured servers tell this process.
    Servers,
    /// Members of the pool tell this process.
    Pool,
    /// The host does.
    Host(GiveTime),
}

/// When a node gives its host's time to the pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum GiveTime {
    /// As the kernel says whether the clock is kept; one that is not is given with an alarm.
    #[default]
    Host,
    /// Always: the operator vouches for the clock.
    Always,
    /// Never: questions get no answer.
    Never,
}

/// What is known of the clock; all clones are one.
#[derive(Debug, Clone)]
pub struct Timekeeping(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    keeping: Keeping,
    last: Option<Comparison>,
    trouble: Option<String>,
}

/// How the clock stood when it was last compared, and was put right.
#[derive(Debug, Clone)]
struct Comparison {
    with: String,
    stratum: u8,
    reference: [u8; 4],
    offset: Offset,
    error: Duration,
    at: Instant,
    /// By the clock itself, after it was put right.
    wall: Duration,
    pauses: u64,
}

impl Timekeeping {
    /// Of a clock that nobody has looked at.
    pub fn new(keeping: Keeping) -> Self {
        Timekeeping(Arc::new(Mutex::new(State {
            keeping,
            last: None,
            trouble: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who keeps the clock now.
    pub fn keeping(&self) -> Keeping {
        self.state().keeping
    }

    /// Somebody else keeps it from now on.
    pub fn keep_by(&self, keeping: Keeping) {
        let mut state = self.state();
        if state.keeping != keeping {
            *state = State {
                keeping,
                last: None,
                trouble: None,
            };
        }
    }

    /// Whether questions of others are answered at all.
    pub fn gives(&self) -> bool {
        self.keeping() != Keeping::Host(GiveTime::Never)
    }

    /// What is wrong.
    pub fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    /// The clock for whoever asks.
    pub fn reading(&self) -> Reading {
        Reading {
            time: now(),
            standing: self.state().standing(),
        }
    }

    /// For people and programs.
    pub fn report(&self) -> api::Clock {
        let state = self.state();
        let last = state.last.as_ref();
        let from = match (state.keeping, last) {
            (_, Some(last)) => last.with.clone(),
            (Keeping::Host(_), None) => "the host".to_owned(),
            (Keeping::Servers | Keeping::Pool, None) => "this machine's own clock".to_owned(),
        };
        api::Clock {
            from,
            stratum: state.standing().map(|standing| standing.stratum),
            offset_ms: last.map(|last| last.offset.milliseconds()),
            age_ms: last
                .map(|last| u64::try_from(last.at.elapsed().as_millis()).unwrap_or(u64::MAX)),
        }
    }

    fn set_trouble(&self, trouble: Option<String>) {
        let mut state = self.state();
        if state.trouble != trouble {
            if let Some(trouble) = &trouble {
                tracing::warn!("{trouble}");
            }
            state.trouble = trouble;
        }
    }

    /// Puts the clock right by what somebody told, and remembers that.
    fn correct(&self, told: Told) {
        let Told {
            with,
            offset,
            stratum,
            reference,
            error,
        } = told;
        let is_right = if offset.size() < TOLERANCE {
            tracing::debug!(%with, %offset, "the clock is right");
            true
        } else {
            match clock::step_to(offset.correct(now())) {
                Ok(true) => {
                    tracing::info!(%with, %offset, "the clock was set");
                    true
                }
                Ok(false) => {
                    tracing::debug!(%with, %offset, "the clock is another's to set");
                    false
                }
                Err(error) => {
                    tracing::warn!(%with, %error, "the clock cannot be set");
                    false
                }
            }
        };
        self.state().last = is_right.then(|| Comparison {
            with,
            stratum,
            reference,
            offset,
            error,
            at: Instant::now(),
            wall: now(),
            pauses: clock::pauses(),
        });
    }
}

/// What somebody who was asked says of this clock.
#[derive(Debug)]
struct Told {
    /// Who, for people.
    with: String,
    offset: Offset,
    /// This clock's own from now on.
    stratum: u8,
    reference: [u8; 4],
    error: Duration,
}

impl State {
    fn standing(&self) -> Option<Standing> {
        let kept = match self.keeping {
            Keeping::Host(GiveTime::Never) => false,
            Keeping::Host(GiveTime::Always) => true,
            Keeping::Host(GiveTime::Host) => clock::is_synchronised(),
            Keeping::Servers | Keeping::Pool => return self.compared(),
        };
        kept.then(|| Standing {
            stratum: HOST_STRATUM,
            reference: HOST_REFERENCE,
            compared: now(),
            error: HOST_ERROR,
        })
    }

    /// By the last comparison, while that is something to go by: the machine has not stood still since.
    fn compared(&self) -> Option<Standing> {
        let last = self.last.as_ref()?;
        let age = last.at.elapsed();
        (age < FRESH && last.pauses == clock::pauses()).then(|| Standing {
            stratum: last.stratum,
            reference: last.reference,
            compared: last.wall,
            error: last.error + age / DRIFT_PART,
        })
    }
}

/// Waits until it is time to compare again: at once after the machine stood still.
async fn rest(pause: Duration, pauses: u64) {
    let stood_still = async {
        while clock::pauses() == pauses {
            tokio::time::sleep(LOOK).await;
        }
    };
    // Whichever comes first.
    let _ = timeout(pause, stood_still).await;
}

/// What an answer names a server by: its IPv4 address, of another the last part.
fn reference(server: IpAddr) -> [u8; 4] {
    match server {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => (v6.to_bits() as u32).to_be_bytes(),
    }
}

fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(stratum: u8) -> Told {
        Told {
            with: "192.0.2.1:123".into(),
            offset: Offset::default(),
            stratum,
            reference: [192, 0, 2, 1],
            error: Duration::from_millis(3),
        }
    }

    #[test]
    fn a_clock_is_worth_nothing_until_it_was_compared() {
        let clock = Timekeeping::new(Keeping::Pool);
        assert_eq!(clock.reading().standing, None);
        assert_eq!(clock.report().stratum, None);
        clock.correct(told(POOL_STRATUM));
        let standing = clock.reading().standing.unwrap();
        assert_eq!((standing.stratum, standing.reference), (8, [192, 0, 2, 1]));
        assert!(standing.error >= Duration::from_millis(3));
        assert_eq!(clock.report().from, "192.0.2.1:123");
        clock.keep_by(Keeping::Pool);
        assert!(clock.reading().standing.is_some());
        clock.keep_by(Keeping::Servers);
        assert_eq!(clock.reading().standing, None);
    }

    #[test]
    fn a_clock_that_cannot_be_put_right_is_worth_nothing() {
        // This process is no machine's init, so the clock is not its to set.
        let clock = Timekeeping::new(Keeping::Servers);
        clock.correct(Told {
            offset: Offset::of(now(), now() + Duration::from_secs(60)),
            ..told(2)
        });
        assert_eq!(clock.reading().standing, None);
    }

    #[test]
    fn a_hosts_clock_is_given_as_its_operator_says() {
        let standing = |give| Timekeeping::new(Keeping::Host(give)).reading().standing;
        assert_eq!(standing(GiveTime::Always).unwrap().stratum, HOST_STRATUM);
        assert_eq!(standing(GiveTime::Never), None);
        assert_eq!(standing(GiveTime::Host).is_some(), clock::is_synchronised());
        assert!(!Timekeeping::new(Keeping::Host(GiveTime::Never)).gives());
    }
}
