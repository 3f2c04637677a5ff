//! Faults as data: what the network does all along, and what strikes when.
//!
//! Written as `KIND=VALUE[@WHEN][:LASTING]`, separated by commas. WHEN counts from the start of
//! the run; a strike without it comes when the pool has formed its first ring.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::network::Conditions;
use crate::text::{Share, parse_duration, print_duration};

/// Strikes in one schedule, at most.
pub const STRIKES_MAX: usize = 32;
/// How long a fault that lasts does so when nothing is said: longer than peers take to give up
/// on each other.
const LASTING_DEFAULT: Duration = Duration::from_secs(20);

/// The whole schedule of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    /// What the network does from beginning to end.
    pub conditions: Conditions,
    /// What happens at some moment.
    pub strikes: Vec<Strike>,
}

/// One event of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// What happens.
    pub kind: StrikeKind,
    /// To how many.
    pub share: Share,
    /// When, from the start of the run; none for the moment of the first ring.
    pub at: Option<Duration>,
    /// For how long; zero for what happens at once.
    pub lasting: Duration,
}

/// Kinds of [`Strike`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrikeKind {
    /// Nodes die at once, without a word.
    Kill,
    /// Nodes say goodbye and end.
    Stop,
    /// Nodes die and start again with the same identity after the given time.
    Restart,
    /// Each second a share of the nodes dies, and as many of the dead start again.
    Churn,
    /// A share of the domains is cut off from the others.
    Partition,
    /// The loss of datagrams rises to the share.
    Storm,
    /// A share of the translators forgets all its mappings.
    Rebind,
    /// A share of the nodes is stopped for the given time: of every other one the clock stands still
    /// as well, as in a virtual machine, the others see it jump.
    Pause,
    /// A share of the nodes moves to another domain, and so to another address.
    Move,
    /// The memberships of a share of the nodes are ended; these nodes run on.
    Revoke,
}

impl StrikeKind {
    const ALL: [StrikeKind; 10] = [
        StrikeKind::Kill,
        StrikeKind::Stop,
        StrikeKind::Restart,
        StrikeKind::Churn,
        StrikeKind::Partition,
        StrikeKind::Storm,
        StrikeKind::Rebind,
        StrikeKind::Pause,
        StrikeKind::Move,
        StrikeKind::Revoke,
    ];

    /// As written.
    pub const fn name(self) -> &'static str {
        match self {
            StrikeKind::Kill => "kill",
            StrikeKind::Stop => "stop",
            StrikeKind::Restart => "restart",
            StrikeKind::Churn => "churn",
            StrikeKind::Partition => "partition",
            StrikeKind::Storm => "storm",
            StrikeKind::Rebind => "rebind",
            StrikeKind::Pause => "pause",
            StrikeKind::Move => "move",
            StrikeKind::Revoke => "revoke",
        }
    }

    const fn lasts(self) -> bool {
        match self {
            StrikeKind::Kill
            | StrikeKind::Stop
            | StrikeKind::Rebind
            | StrikeKind::Move
            | StrikeKind::Revoke => false,
            StrikeKind::Restart
            | StrikeKind::Churn
            | StrikeKind::Partition
            | StrikeKind::Storm
            | StrikeKind::Pause => true,
        }
    }
}

impl Faults {
    /// A network that delivers everything once and in order, and no strikes.
    pub fn none() -> Self {
        Faults {
            conditions: Conditions {
                loss: Share::NONE,
                duplication: Share::NONE,
                jitter: Duration::ZERO,
            },
            strikes: Vec::new(),
        }
    }

    /// Whether nothing is wrong at all.
    pub fn is_none(&self) -> bool {
        *self == Faults::none()
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut faults = Faults::none();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}`: write KIND=VALUE, as in loss=5%"))?;
            match key {
                "loss" => faults.conditions.loss = below_all(value)?,
                "dup" | "duplicate" => faults.conditions.duplication = Share::parse(value)?,
                "jitter" => faults.conditions.jitter = parse_duration(value)?,
                _ => faults.strikes.push(parse_strike(key, value)?),
            }
        }
        if faults.strikes.len() > STRIKES_MAX {
            return Err(format!("at most {STRIKES_MAX} strikes fit a schedule"));
        }
        Ok(faults)
    }
}

/// A share that leaves something over: with nothing left, nothing can be required.
fn below_all(value: &str) -> Result<Share, String> {
    let share = Share::parse(value)?;
    if share == Share::percent(100) {
        return Err(format!("`{value}` leaves nothing to converge"));
    }
    Ok(share)
}

fn parse_strike(key: &str, value: &str) -> Result<Strike, String> {
    let kind = StrikeKind::ALL
        .into_iter()
        .find(|kind| kind.name() == key)
        .ok_or_else(|| {
            let strikes = StrikeKind::ALL.map(StrikeKind::name).join(", ");
            format!("`{key}` is no fault: there are loss, dup, jitter, {strikes}")
        })?;
    let (value, lasting) = match value.split_once(':') {
        Some(_) if !kind.lasts() => {
            return Err(format!("`{key}={value}`: `{key}` happens at once"));
        }
        Some((value, lasting)) => (value, parse_duration(lasting)?),
        None if kind.lasts() => (value, LASTING_DEFAULT),
        None => (value, Duration::ZERO),
    };
    let (share, at) = match value.split_once('@') {
        Some((share, at)) => (share, Some(parse_duration(at)?)),
        None => (value, None),
    };
    Ok(Strike {
        kind,
        share: below_all(share)?,
        at,
        lasting,
    })
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let Conditions {
            loss,
            duplication,
            jitter,
        } = self.conditions;
        if loss != Share::NONE {
            parts.push(format!("loss={loss}"));
        }
        if duplication != Share::NONE {
            parts.push(format!("dup={duplication}"));
        }
        if jitter != Duration::ZERO {
            parts.push(format!("jitter={}", print_duration(jitter)));
        }
        parts.extend(self.strikes.iter().map(Strike::to_string));
        f.write_str(&parts.join(","))
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind.name(), self.share)?;
        if let Some(at) = self.at {
            write!(f, "@{}", print_duration(at))?;
        }
        if self.kind.lasts() && self.lasting != LASTING_DEFAULT {
            write!(f, ":{}", print_duration(self.lasting))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_round_trip() {
        for text in [
            "",
            "loss=5%",
            "loss=0.5%,dup=1%,jitter=20ms,kill=20%",
            "kill=20%@3s,partition=50%:1m,storm=30%@10s:5s,rebind=10%",
            "restart=10%:500ms,churn=1%,stop=5%",
            "pause=10%:30s,move=20%@1m,revoke=2%",
        ] {
            assert_eq!(text.parse::<Faults>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_strike_without_a_time_waits_for_the_ring() {
        let faults: Faults = "partition=50%,kill=20%@3s".parse().unwrap();
        assert_eq!(faults.strikes[0].at, None);
        assert_eq!(faults.strikes[0].lasting, LASTING_DEFAULT);
        assert_eq!(faults.strikes[1].at, Some(Duration::from_secs(3)));
        assert_eq!(faults.strikes[1].lasting, Duration::ZERO);
    }

    #[test]
    fn duplication_has_a_long_name_too() {
        let faults: Faults = "duplicate=2%".parse().unwrap();
        assert_eq!(faults.to_string(), "dup=2%");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "loss",
            "loss=5",
            "loss=100%",
            "quake=5%",
            "kill=20%:5s",
            "kill=20%@",
            "partition=50%:x",
        ] {
            assert!(text.parse::<Faults>().is_err(), "{text}");
        }
    }
}
