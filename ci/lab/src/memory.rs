//! What the standing routers of a testbed take: resident memory, beside how many peers each has.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::control::Control;
use crate::namespaces::NamespaceTestbed;

/// A router answers at once; on a busy machine, soon.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

const MIB: f64 = 1024.0 * 1024.0;

/// All routers' resident memory.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// How many routers.
    pub routers: usize,
    /// Half of them take at most this.
    pub p50_mib: f64,
    /// All take at most this.
    pub max_mib: f64,
    /// The most peers that one has.
    pub peers_max: usize,
    /// What that one takes.
    pub with_peers_max_mib: f64,
}

/// `wow status --json`, in part.
#[derive(Deserialize)]
struct Status {
    rss_bytes: u64,
    peers: usize,
}

/// Asks every router.
pub fn ask(bed: &NamespaceTestbed) -> Result<Memory> {
    let mut routers = Vec::new();
    for node in bed.nodes() {
        let status = Control::connect(node.client.socket())
            .and_then(|mut control| control.ask(json!({"op": "status"}), ANSWER_LIMIT));
        let status: Status = status.with_context(|| format!("{} has no status", node.name))?;
        routers.push((status.peers, status.rss_bytes as f64 / MIB));
    }
    of(&routers).context("there is no router")
}

fn of(routers: &[(usize, f64)]) -> Option<Memory> {
    let mut sorted: Vec<f64> = routers.iter().map(|(_, mib)| *mib).collect();
    sorted.sort_by(f64::total_cmp);
    let by_peers = |a: &&(usize, f64), b: &&(usize, f64)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
    let (peers_max, with_peers_max_mib) = *routers.iter().max_by(by_peers)?;
    Some(Memory {
        routers: routers.len(),
        p50_mib: sorted[(routers.len() - 1) / 2],
        max_mib: *sorted.last()?,
        peers_max,
        with_peers_max_mib,
    })
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} routers take {:.1} MiB (p50), {:.1} MiB (most); the one with most peers, {}, takes {:.1} \
             MiB",
            self.routers, self.p50_mib, self.max_mib, self.peers_max, self.with_peers_max_mib,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_with_most_peers_is_told_beside_the_percentiles() {
        let memory = of(&[(3, 7.0), (40, 8.5), (40, 8.25), (5, 9.0)]);
        assert!(of(&[]).is_none());
        let text = memory.unwrap().to_string();
        assert_eq!(
            text,
            "4 routers take 8.2 MiB (p50), 9.0 MiB (most); the one with most peers, 40, takes 8.5 MiB"
        );
    }
}
