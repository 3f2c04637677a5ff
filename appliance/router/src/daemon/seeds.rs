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

/// Those seeds that are plain addresses.
pub fn literal(seeds: &[SeedAddr]) -> Vec<Remote> {
    seeds.iter().filter_map(SeedAddr::remote).collect()
}

/// Keeps `found` up to date for as long as somebody listens. Ends at once without any name.
pub async fn follow(seeds: Vec<SeedAddr>, found: watch::Sender<Vec<Remote>>) {
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
        let mut failed = false;
        for (seed, addresses) in &mut names {
            match dns::lookup(seed.host()).await {
                Ok(ips) => {
                    *addresses = ips.into_iter().map(|ip| seed.remote_at(ip)).collect();
                }
                Err(error) => {
                    failed = true;
                    tracing::warn!(%seed, %error, retry_in = ?pause, "cannot look a seed up");
                }
            }
        }
        let mut all = literal(&seeds);
        all.extend(names.iter().flat_map(|(_, addresses)| addresses));
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
