//! What the data plane is to reach, and whether it does.

use std::fmt;

use serde::Serialize;

use super::{Contender, Figures, Row};

/// One figure and what it is to be.
#[derive(Debug, Clone, Serialize)]
pub struct Goal {
    /// What it is of.
    pub what: &'static str,
    /// What it is to be.
    pub bound: Bound,
    /// What it is.
    pub measured: f64,
}

/// See [`Goal`].
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
}

impl Goal {
    /// Whether it is reached.
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.measured >= bound,
            Bound::AtMost(bound) => self.measured <= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtLeast(bound) => write!(out, "\u{2265} {bound}"),
            Bound::AtMost(bound) => write!(out, "\u{2264} {bound}"),
        }
    }
}

/// The goals of which everything that they compare was measured.
pub fn goals(rows: &[Row]) -> Vec<Goal> {
    use Bound::{AtLeast, AtMost};
    use Contender::{Nebula, Veth, WireguardGo, Wow, WowPlain, WowRelay};

    let of = |contender, figure: fn(&Figures) -> f64| {
        let mut found = rows.iter().filter(|row| row.contender == contender);
        found.find_map(Row::figures).map(figure)
    };
    let ratio = |ours, theirs, figure| Some(of(ours, figure)? / of(theirs, figure)?);
    let one = |figures: &Figures| figures.one.mbit_per_s;
    let four = |figures: &Figures| figures.four.mbit_per_s;
    let cpu = |figures: &Figures| figures.one.cpu_s_per_gb;
    let lossy = rows.iter().find_map(|row| row.outcome.lossy());
    let lossy = lossy.map(|lossy| lossy.one.mbit_per_s / lossy.bare.mbit_per_s);
    let added = |figure| Some(of(Wow, figure)? - of(Veth, figure)?);
    let retransmits = |figures: &Figures| figures.retransmits() as f64;
    let all = [
        (
            "1 TCP flow, of wireguard-go's",
            AtLeast(2.5),
            ratio(Wow, WireguardGo, one),
        ),
        (
            "4 TCP flows, of wireguard-go's",
            AtLeast(2.5),
            ratio(Wow, WireguardGo, four),
        ),
        (
            "processor time for a GB, of wireguard-go's",
            AtMost(0.4),
            ratio(Wow, WireguardGo, cpu),
        ),
        (
            "added round trip, ms",
            AtMost(0.12),
            added(|figures| figures.rtt_ms),
        ),
        (
            "added round trip, 10 ms apart, ms",
            AtMost(0.12),
            added(|figures| figures.lone_rtt_ms),
        ),
        (
            "1 TCP flow without offloads, of nebula's",
            AtLeast(1.5),
            ratio(WowPlain, Nebula, one),
        ),
        (
            "1 TCP flow by a relay, of the direct path's",
            AtLeast(0.45),
            ratio(WowRelay, Wow, one),
        ),
        (
            "1 TCP flow at 1% loss, of the same without tunnel",
            AtLeast(0.9),
            lossy,
        ),
        ("segments sent again", AtMost(0.0), of(Wow, retransmits)),
        (
            "resident memory, MB",
            AtMost(24.0),
            of(Wow, |figures| figures.rss_mb),
        ),
    ];
    let measured = all.into_iter().filter_map(|(what, bound, measured)| {
        Some(Goal {
            what,
            bound,
            measured: measured?,
        })
    });
    measured.collect()
}
