//! Turns seed addresses into remotes, and keeps at it while names move.

use std::time::Duration;

use tokio::sync::watch;
use wow_overlay::membership::SeedAddr;
use wow_overlay::wire::Remote;

use crate::dns;

/// The pause after a round in which a name was not found; doubles up to the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// How often names are looked up again that were found: seeds seldom move.
const REFRESH: Duration = Duration::from_secs(600);

/// Where the seeds are, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeds {
    /// Their addresses.
    pub remotes: Vec<Remote>,
    /// Why those that are names have none, a sentence each.
    pub unknown: Vec<String>,
}

/// Those seeds that are plain addresses.
pub fn literal(seeds: &[SeedAddr]) -> Seeds {
    Seeds {
        remotes: seeds.iter().filter_map(SeedAddr::remote).collect(),
        unknown: Vec::new(),
    }
}

/// Keeps `found` up to date for as long as somebody listens. Ends at once without any name.
pub async fn follow(seeds: Vec<SeedAddr>, found: watch::Sender<Seeds>) {
    if seeds.iter().all(|seed| seed.remote().is_some()) {
        return;
    }
    let mut names: Vec<(SeedAddr, Vec<Remote>)> = seeds
        .iter()
        .filter(|seed| seed.remote().is_none())
        .map(|seed| (seed.clone(), Vec::new()))
        .collect();
    let mut pause = RETRY_FIRST;
    loop {
        let mut all = literal(&seeds);
        for (seed, addresses) in &mut names {
            match dns::lookup(seed.host()).await {
                Ok(ips) => {
                    *addresses = ips.into_iter().map(|ip| seed.remote_at(ip)).collect();
                }
                Err(error) => {
                    tracing::warn!(%seed, %error, retry_in = ?pause, "cannot look a seed up");
                    all.unknown
                        .push(format!("the seed {seed} cannot be looked up: {error}"));
                }
            }
        }
        let failed = !all.unknown.is_empty();
        let addresses = names.iter().flat_map(|(_, addresses)| addresses);
        all.remotes.extend(addresses);
        found.send_if_modified(|known| {
            let news = *known != all;
            *known = all;
            news
        });
        let rest = if failed {
            let rest = pause;
            pause = (pause * 2).min(RETRY_LONGEST);
            rest
        } else {
            pause = RETRY_FIRST;
            REFRESH
        };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = found.closed() => return,
        }
    }
}
