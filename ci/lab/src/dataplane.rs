//! How fast packets pass: WOW and other overlays in turn between the same network namespaces.
//!
//! The other overlays are Debian's, unpacked in a tree of their own: nothing is installed on the machine
//! that measures.

mod bed;
mod goals;
mod measure;
mod peers;
mod plot;
mod report;
mod rounds;
mod wow;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::Tools;
use crate::interrupt;
use crate::progress::Task;

pub use goals::{Goal, goals};
pub use measure::{Figures, Flow, Lossy};
pub use plot::draw;
pub use report::table;

use bed::{Bed, Between};

/// The suite and the packages that the measuring programs and the other overlays come from.
pub const TREE: (&str, &[&str]) = (
    "trixie",
    &[
        "iperf3",
        "iputils-ping",
        "wireguard-go",
        "wireguard-tools",
        "nebula",
        "tinc",
        "openvpn",
        "openssl",
        "yggdrasil",
        "n2n",
        "socat",
    ],
);

/// What packets pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// The pair of virtual Ethernet devices alone.
    Veth,
    /// This project's router.
    Wow,
    /// The same over TCP, where UDP is blocked.
    WowTcp,
    /// The same, by a third node that both reach.
    WowRelay,
    /// The same with all offloads off: packets and datagrams go one by one.
    WowPlain,
    /// The same over an underlay that loses packets, beside a flow without any tunnel.
    WowLossy,
    /// WireGuard in user space, by its authors.
    WireguardGo,
    /// Defined Networking's overlay.
    Nebula,
    /// tinc 1.0.
    Tinc,
    /// OpenVPN between two ends with certificates.
    Openvpn,
    /// The overlay with addresses from keys.
    Yggdrasil,
    /// ntop's overlay, by a supernode in the first namespace.
    N2n,
    /// No overlay: socat carries packets between a TUN device and a UDP socket, one by one and as they are.
    Socat,
}

impl Contender {
    /// All, in the order they are measured.
    pub const ALL: [Self; 13] = [
        Self::Veth,
        Self::Socat,
        Self::Wow,
        Self::WireguardGo,
        Self::WowRelay,
        Self::WowTcp,
        Self::Nebula,
        Self::WowPlain,
        Self::WowLossy,
        Self::Tinc,
        Self::Openvpn,
        Self::Yggdrasil,
        Self::N2n,
    ];

    /// Its name in tables and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Wow => "wow",
            Self::WowTcp => "wow-tcp",
            Self::WowRelay => "wow-relay",
            Self::WowPlain => "wow-plain",
            Self::WowLossy => "wow-lossy",
            Self::WireguardGo => "wireguard-go",
            Self::Nebula => "nebula",
            Self::Tinc => "tinc",
            Self::Openvpn => "openvpn",
            Self::Yggdrasil => "yggdrasil",
            Self::N2n => "n2n",
            Self::Socat => "socat",
        }
    }
}

/// What to measure, and with what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In this order.
    pub contenders: Vec<Contender>,
    /// How often each is measured, in turn with all others.
    pub rounds: usize,
    /// How long each flow runs.
    pub span: Duration,
    /// TCP's congestion control in the namespaces, of those that [`congestion_controls`] names.
    pub congestion: String,
    /// The router and the WAN emulator.
    pub tools: Tools,
    /// The tree of [`TREE`].
    pub tree: PathBuf,
    /// Where the contenders' logs go.
    pub logs: PathBuf,
}

/// The kernel's kinds of congestion control for TCP; the first is what this machine uses.
pub fn congestion_controls() -> Result<Vec<String>> {
    let read = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/{name}");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    let own = read("tcp_congestion_control")?;
    let others = read("tcp_available_congestion_control")?;
    let others = others.split_whitespace().filter(|name| *name != own.trim());
    Ok([own.trim()]
        .into_iter()
        .chain(others)
        .map(str::to_owned)
        .collect())
}

/// What became of one contender.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Who.
    pub contender: Contender,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// See [`Row`].
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All figures.
    Measured(Figures),
    /// Those of [`Contender::WowLossy`].
    Lossy(Lossy),
    /// Why there are none.
    Failed(String),
}

impl Outcome {
    /// All figures, where they were measured.
    pub fn figures(&self) -> Option<&Figures> {
        match self {
            Outcome::Measured(figures) => Some(figures),
            _ => None,
        }
    }

    /// Those of [`Contender::WowLossy`], where they were measured.
    pub fn lossy(&self) -> Option<&Lossy> {
        match self {
            Outcome::Lossy(lossy) => Some(lossy),
            _ => None,
        }
    }
}

impl Row {
    /// All figures, where they were measured.
    pub fn figures(&self) -> Option<&Figures> {
        self.outcome.figures()
    }
}

/// Measures all contenders in turn, as often as is planned. One that fails does not stop the others.
pub fn run(plan: &Plan, task: &Task) -> Result<Vec<Row>> {
    let mut outcomes = vec![Vec::new(); plan.contenders.len()];
    for round in 1..=plan.rounds {
        for (&contender, outcomes) in plan.contenders.iter().zip(&mut outcomes) {
            interrupt::check()?;
            let name = format!("{round}/{} {}", plan.rounds, contender.name());
            let say = |what: &str| task.now(&format!("{name}: {what}"));
            let measured = measure_one(plan, contender, &say);
            interrupt::check()?;
            let failed = |error| Outcome::Failed(format!("{error:#}"));
            outcomes.push(measured.unwrap_or_else(failed));
        }
    }
    let rows = plan.contenders.iter().zip(outcomes);
    let rows = rows.map(|(&contender, outcomes)| Row {
        contender,
        outcome: rounds::together(&outcomes),
    });
    Ok(rows.collect())
}

fn measure_one(plan: &Plan, contender: Contender, say: &dyn Fn(&str)) -> Result<Outcome> {
    let logs = plan.logs.join(contender.name());
    say("starts");
    let between = match contender {
        Contender::WowRelay => Between::Middle,
        Contender::WowLossy => Between::Lossy,
        _ => Between::Wire,
    };
    let bed = Bed::new(&plan.tree, &logs, between, &plan.tools.wan)?;
    bed.set_congestion(&plan.congestion)?;
    let tunnel = start(&bed, contender, &plan.tools.wow)?;
    Ok(match contender {
        Contender::WowLossy => Outcome::Lossy(measure::lossy(&bed, &tunnel, plan.span, say)?),
        _ => Outcome::Measured(measure::all(&bed, &tunnel, plan.span, say)?),
    })
}

fn start(bed: &Bed, contender: Contender, wow: &Path) -> Result<bed::Tunnel> {
    match contender {
        Contender::Veth => Ok(bed.bare()),
        Contender::Wow | Contender::WowLossy => wow::start(bed, wow, wow::Way::Direct),
        Contender::WowTcp => wow::start(bed, wow, wow::Way::Tcp),
        Contender::WowRelay => wow::start(bed, wow, wow::Way::Relay),
        Contender::WowPlain => wow::start(bed, wow, wow::Way::OneByOne),
        Contender::WireguardGo => peers::wireguard(bed),
        Contender::Nebula => peers::nebula(bed),
        Contender::Tinc => peers::tinc(bed),
        Contender::Openvpn => peers::openvpn(bed),
        Contender::Yggdrasil => peers::yggdrasil(bed),
        Contender::N2n => peers::n2n(bed),
        Contender::Socat => peers::socat(bed),
    }
}
