//! What an experiment measured, as tables for people and JSON for programs.

use std::net::{Ipv4Addr, Ipv6Addr};

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::client::{PeerPath, RoundTrips};
use crate::{join, moves};

/// One node that is in the pool.
#[derive(Debug, Clone, Serialize)]
pub struct Joined {
    /// Its name.
    pub name: String,
    /// Its id, in hexadecimal.
    pub id: String,
    /// Its virtual address.
    pub v4: Ipv4Addr,
    /// Its virtual IPv6 address.
    pub v6: Ipv6Addr,
    /// From starting QEMU (or the process) until this host saw the node in the pool.
    pub power_on_to_pool_ms: f64,
    /// From the guest kernel's start to the pool, by the guest's own clock.
    pub boot_to_pool_ms: Option<f64>,
    /// From the daemon's start to the pool, by its own clock.
    pub daemon_to_pool_ms: Option<f64>,
    /// Resident memory of `wow` at that moment.
    pub rss_bytes: Option<u64>,
}

/// One ordered pair of nodes.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// Who pinged.
    pub from: String,
    /// Whom.
    pub to: String,
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// Round trips.
    pub rtt_ms: Option<RoundTrips>,
    /// The path in use at the end.
    pub path: Option<PeerPath>,
}

impl Pair {
    /// Whether any reply came.
    pub fn answered(&self) -> bool {
        self.received > 0
    }

    /// Whether the pair ended on a path of its own.
    pub fn is_direct(&self) -> bool {
        self.path.as_ref().is_some_and(PeerPath::is_direct)
    }
}

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether all joined and every pair was answered.
    pub ok: bool,
    /// What failed, when something did.
    pub error: Option<String>,
    /// The machines' board.
    pub machine: String,
    /// Their firmware.
    pub firmware: String,
    /// What executed them, and why.
    pub accelerator: String,
    /// Memory of each, in MiB.
    pub memory_mib: u32,
    /// Where the logs are.
    pub logs: String,
    /// The nodes, the seed first.
    pub nodes: Vec<Joined>,
    /// All ordered pairs.
    pub pairs: Vec<Pair>,
}

/// The nodes as a table.
pub fn nodes_table(nodes: &[Joined]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "node",
        "address",
        "power-on to pool",
        "kernel to pool",
        "daemon to pool",
        "memory",
    ]);
    for node in nodes {
        table.add_row([
            node.name.clone(),
            node.v4.to_string(),
            seconds(Some(node.power_on_to_pool_ms)),
            seconds(node.boot_to_pool_ms),
            seconds(node.daemon_to_pool_ms),
            node.rss_bytes.map_or_else(
                || "-".into(),
                |bytes| format!("{:.1} MB", bytes as f64 / 1e6),
            ),
        ]);
    }
    table.to_string()
}

/// The pairs as a table.
pub fn pairs_table(pairs: &[Pair]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["ping", "replies", "min ms", "avg ms", "max ms", "path"]);
    for pair in pairs {
        let rtt = |of: fn(&RoundTrips) -> f64| {
            pair.rtt_ms
                .as_ref()
                .map_or_else(|| "-".into(), |rtt| format!("{:.1}", of(rtt)))
        };
        table.add_row([
            format!("{} -> {}", pair.from, pair.to),
            format!("{}/{}", pair.received, pair.sent),
            rtt(|rtt| rtt.min),
            rtt(|rtt| rtt.avg),
            rtt(|rtt| rtt.max),
            shown(pair.path.as_ref()),
        ]);
    }
    table.to_string()
}

/// The join experiment's figures, the paper's beside them.
pub fn join_table(outcome: &join::Outcome) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["", "p50", "p90", "p99", "longest", "failed", "WOW 2006"]);
    let rows = [
        ("routable", outcome.routable, "90% in 10 s"),
        ("direct link behind NATs", outcome.direct, "99% in 200 s"),
        ("joined, by its own clock", outcome.joined, ""),
    ];
    for (what, summary, paper) in rows {
        let [p50, p90, p99, max] = [summary.p50, summary.p90, summary.p99, summary.max];
        table.add_row([
            what.to_owned(),
            seconds(p50),
            seconds(p90),
            seconds(p99),
            seconds(max),
            format!("{} of {}", summary.missing, summary.trials),
            paper.to_owned(),
        ]);
    }
    table.to_string()
}

/// Every move (or cut) and the stalls that it caused.
pub fn moves_table(outcome: &moves::Outcome) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "",
        "from",
        "to",
        "without link",
        "stall there",
        "stall back",
        "5 s before",
        "4 s later",
        "path before",
        "path after",
    ]);
    for event in &outcome.events {
        table.add_row([
            event.number.to_string(),
            event.from.clone(),
            format!("{} ({})", event.to, event.nat),
            seconds(Some(event.without_link_ms)),
            seconds(event.stall_there_ms),
            seconds(event.stall_back_ms),
            seconds(event.calm_ms),
            seconds(event.later_ms),
            shown(event.path_before.as_ref()),
            shown(event.path_after.as_ref()),
        ]);
    }
    let stall = outcome.stall;
    format!(
        "{table}\nstall of {} with {}: p50 {}, p90 {}, longest {}; {} of {} did not go on\n\
         the network's own loss stalled them for {} (p50), {} at most, in the seconds before",
        outcome.node,
        outcome.partner,
        seconds(stall.p50),
        seconds(stall.p90),
        seconds(stall.max),
        stall.missing,
        stall.trials,
        seconds(outcome.calm.p50),
        seconds(outcome.calm.max)
    )
}

fn shown(path: Option<&PeerPath>) -> String {
    path.map_or_else(|| "-".into(), path_text)
}

fn path_text(path: &PeerPath) -> String {
    match (&path.remote, &path.via) {
        (Some(remote), _) => format!("{} {remote}", path.kind),
        (None, Some(via)) => format!("{} via {via}", path.kind),
        (None, None) => path.kind.clone(),
    }
}

pub(crate) fn seconds(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".into(), |ms| format!("{:.2} s", ms / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_show_every_pair_and_what_is_missing() {
        let pair = |received, rtt_ms, path| Pair {
            from: "a".into(),
            to: "b".into(),
            sent: 3,
            received,
            rtt_ms,
            path,
        };
        let direct = PeerPath {
            kind: "udp".into(),
            remote: Some("198.51.100.20:4001".into()),
            via: None,
        };
        let rtt = RoundTrips {
            min: 50.04,
            avg: 51.0,
            max: 60.0,
        };
        let good = pair(3, Some(rtt), Some(direct));
        let bad = pair(0, None, None);
        assert!(good.answered() && !bad.answered());
        let text = pairs_table(&[good, bad]);
        for expected in ["a -> b", "3/3", "0/3", "50.0", "udp 198.51.100.20:4001"] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }
}
