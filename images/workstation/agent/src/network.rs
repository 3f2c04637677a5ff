//! The network below the pool, asked for an address anew when nobody of the pool is reached any more.
//!
//! A machine that is moved to another network while it stands still is not always told that its cable was
//! pulled: it would keep its old address until the lease ends.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::command::{self, LOCAL};
use crate::machine;

/// How long the pool finds its ways by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest wait between two questions.
const PATIENCE_MAX: Duration = Duration::from_secs(320);

const CARDS: &str = "/sys/class/net";

/// See the module.
#[derive(Default)]
pub struct Network {
    /// Since when nobody is reached, after somebody was.
    alone: Option<Alone>,
    was_joined: bool,
}

struct Alone {
    since: Instant,
    patience: Duration,
}

impl Network {
    /// Looks whether it is time, and does it then.
    pub fn tend(&mut self, joined: bool) -> Result<()> {
        if self.is_due(joined, Instant::now()) {
            renew()?;
        }
        Ok(())
    }

    fn is_due(&mut self, joined: bool, now: Instant) -> bool {
        if joined {
            self.was_joined = true;
            self.alone = None;
            return false;
        }
        // What was never in the pool is being configured, or somewhere else is wrong.
        if !self.was_joined {
            return false;
        }
        let alone = self.alone.get_or_insert(Alone {
            since: now,
            patience: PATIENCE,
        });
        if now - alone.since < alone.patience {
            return false;
        }
        *alone = Alone {
            since: now,
            patience: (alone.patience * 2).min(PATIENCE_MAX),
        };
        true
    }
}

fn renew() -> Result<()> {
    if !machine::has_systemd() {
        return Ok(());
    }
    let cards = cards(Path::new(CARDS)).context("cannot list network cards")?;
    tracing::info!(
        ?cards,
        "nobody of the pool is reached: asking the network anew"
    );
    let mut words = vec!["reconfigure"];
    words.extend(cards.iter().map(String::as_str));
    command::run("networkctl", &words, LOCAL).map(drop)
}

/// Those with hardware behind them.
fn cards(directory: &Path) -> std::io::Result<Vec<String>> {
    let mut cards = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.path().join("device").exists() {
            cards.extend(entry.file_name().into_string());
        }
    }
    cards.sort_unstable();
    Ok(cards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_asked_when_the_pool_was_lost_and_then_more_rarely() {
        let mut network = Network::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!network.is_due(false, at(1000)), "it was never joined");
        assert!(!network.is_due(true, at(1001)));
        assert!(!network.is_due(false, at(1002)));
        assert!(!network.is_due(false, at(1011)));
        assert!(network.is_due(false, at(1012)));
        assert!(!network.is_due(false, at(1031)));
        assert!(network.is_due(false, at(1032)));
        assert!(!network.is_due(true, at(1040)));
        assert!(!network.is_due(false, at(1041)));
        assert!(network.is_due(false, at(1051)), "a new beginning");
    }

    #[test]
    fn only_cards_with_hardware_are_meant() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["lo", "wow0", "enp0s2/device", "enp0s1/device"] {
            std::fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        assert_eq!(cards(directory.path()).unwrap(), ["enp0s1", "enp0s2"]);
    }
}
