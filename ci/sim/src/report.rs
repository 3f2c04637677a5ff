//! What a run found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::figures::Spread;
use crate::network::Tallies;
use crate::probes::Findings;
use crate::world::{GuestTallies, Violation};

/// The outcome of one run. Two runs of one scenario give equal reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The command that repeats the run.
    pub command: String,
    /// Nodes.
    pub nodes: usize,
    /// Seed.
    pub seed: u64,
    /// Whether no rule was broken.
    pub passed: bool,
    /// The rules that were.
    pub violations: Vec<Violation>,
    /// From the first start to the first consistent ring that lasted, in seconds.
    pub formed_s: Option<f64>,
    /// From the end of the strikes to a consistent ring, in seconds.
    pub healed_s: Option<f64>,
    /// From the end of the strikes until nobody had a session with a dead node, in seconds.
    pub forgotten_s: Option<f64>,
    /// The longest from a revocation until no member had a session with the revoked, in seconds.
    pub cut_off_s: Option<f64>,
    /// The longest that an address had two holders in a ring that was whole again, in seconds.
    pub disputed_s: f64,
    /// From a node's start to its being joined.
    pub join_ms: Spread,
    /// Nodes that forward a frame between a random pair before there is a direct path.
    pub hops: Spread,
    /// Nodes that forwarded a ping between such a pair: none, once the direct path was found.
    pub ping_hops: Spread,
    /// Round trips of those pings.
    pub ping_ms: Spread,
    /// One-way times of guest packets.
    pub guest_ms: Spread,
    /// Guest packets.
    pub guest: GuestTallies,
    /// Lookups and repetitions.
    pub probes: Findings,
    /// Sessions a node has at the end.
    pub peers: Spread,
    /// Datagrams each node sent while joining, until the ring stood.
    pub join_datagrams: Spread,
    /// Bytes each node sent while joining.
    pub join_bytes: Spread,
    /// The same by what it is, a mean over the nodes.
    pub join_kinds: BTreeMap<&'static str, f64>,
    /// What a node sends per second while nothing happens.
    pub idle_bytes_per_s: Spread,
    /// The same by what it is, a mean over the nodes.
    pub idle_kinds: BTreeMap<&'static str, f64>,
    /// Datagrams by their fate.
    pub network: Tallies,
    /// The nodes' own counters, summed.
    pub counters: BTreeMap<&'static str, u64>,
    /// Virtual time simulated, in seconds.
    pub virtual_s: f64,
    /// Events handled.
    pub events: u64,
    /// The hash of the run, in hexadecimal.
    pub trace: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed { "passed" } else { "FAILED" };
        writeln!(f, "{verdict}: {}", self.command)?;
        for violation in &self.violations {
            writeln!(f, "  violated {violation}")?;
        }
        let seconds = |value: Option<f64>| match value {
            Some(value) => format!("{value:.2} s"),
            None => "-".to_owned(),
        };
        writeln!(
            f,
            "  ring formed after {}, healed after {}, the dead forgotten after {}",
            seconds(self.formed_s),
            seconds(self.healed_s),
            seconds(self.forgotten_s)
        )?;
        writeln!(
            f,
            "  the revoked cut off after {}, an address disputed for {:.2} s",
            seconds(self.cut_off_s),
            self.disputed_s
        )?;
        writeln!(
            f,
            "  {:<22} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "", "mean", "p50", "p90", "p99", "max"
        )?;
        for (name, spread) in [
            ("join, ms", self.join_ms),
            ("overlay hops", self.hops),
            ("ping hops", self.ping_hops),
            ("overlay ping, ms", self.ping_ms),
            ("guest one way, ms", self.guest_ms),
            ("peers", self.peers),
            ("join datagrams", self.join_datagrams),
            ("join bytes", self.join_bytes),
            ("idle bytes/s", self.idle_bytes_per_s),
        ] {
            writeln!(
                f,
                "  {name:<22} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
                spread.mean, spread.p50, spread.p90, spread.p99, spread.max
            )?;
        }
        for (what, kinds) in [
            ("join bytes", &self.join_kinds),
            ("idle bytes/s", &self.idle_kinds),
        ] {
            let kinds: Vec<_> = kinds
                .iter()
                .map(|(kind, n)| format!("{kind} {n:.0}"))
                .collect();
            writeln!(f, "  {what} by kind: {}", kinds.join(", "))?;
        }
        writeln!(
            f,
            "  guest packets {} sent, {} delivered, {} twice; repeated: {} lookups, {} pings, {} packets",
            self.guest.sent,
            self.guest.delivered,
            self.guest.duplicates,
            self.probes.lookups_repeated,
            self.probes.pings_repeated,
            self.probes.packets_repeated
        )?;
        let drops: Vec<String> = self
            .counters
            .iter()
            .filter(|(name, count)| name.starts_with("drop_") && **count > 0)
            .map(|(name, count)| format!("{} {count}", &name["drop_".len()..]))
            .collect();
        if !drops.is_empty() {
            writeln!(f, "  dropped by nodes: {}", drops.join(", "))?;
        }
        write!(
            f,
            "  {:.1} virtual s, {} events, trace {}",
            self.virtual_s, self.events, self.trace
        )
    }
}
