//! What a cluster must stand, shown on a real one: it assembles, computes, and survives that machines are moved
//! and lose their power.

mod assembly;
mod crashes;
mod health;
mod jobs;
mod migration;
mod science;

use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::cluster::Cluster;
use crate::cluster::assembly::Assembled;
use crate::cluster::shell::Shell;
use crate::interrupt;
use crate::progress::Progress;
use crate::workloads::{examl, glam2};

/// A command that does no more than look.
const LOOK: Duration = Duration::from_secs(120);

/// One claim, and what was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Proof {
    /// The claim.
    pub claim: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// What was measured, or why it does not hold.
    pub seen: String,
    /// How long it took.
    pub seconds: f64,
}

/// How a claim is proved. It gives what was measured.
type Make = fn(&mut Cluster, &Progress) -> Result<String>;

/// A claim about an assembled cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nothing has failed on any workstation, and the head's files are there on the workers.
    Healthy,
    /// An array of tasks finds the motifs in its sequences, on all workers.
    Array,
    /// ExaML by MPI over all workers finds the likelihood that one process finds.
    Mpi,
    /// A worker moves to another network during a job, a copy and a session.
    Move,
    /// The head loses its power and comes back while jobs run.
    HeadDies,
    /// A worker loses its power: its jobs end elsewhere.
    WorkerDies,
}

impl Claim {
    /// All, in the order in which they are proved.
    pub const ALL: [Self; 6] = [
        Self::Healthy,
        Self::Array,
        Self::Mpi,
        Self::Move,
        Self::HeadDies,
        Self::WorkerDies,
    ];
    /// Those of machines without disks, which lose themselves with their power.
    pub const WITHOUT_DISKS: [Self; 4] = [Self::Healthy, Self::Array, Self::Mpi, Self::Move];
    /// What a short proof has.
    pub const SHORT: [Self; 1] = [Self::Move];

    /// What people name it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Array => "array",
            Self::Mpi => "mpi",
            Self::Move => "move",
            Self::HeadDies => "head-dies",
            Self::WorkerDies => "worker-dies",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Healthy => {
                "every unit of every workstation runs, and what the head writes its workers read"
            }
            Self::Array => {
                "an array of 40 tasks of glam2 finds the motifs in its sequences, on all workers"
            }
            Self::Mpi => {
                "ExaML by MPI over all workers finds the tree, and the likelihood that one process finds"
            }
            Self::Move => "a worker moves to another network during a job, a copy and a session",
            Self::HeadDies => "the head loses its power and comes back while jobs run",
            Self::WorkerDies => "a worker loses its power: its jobs end elsewhere",
        }
    }

    fn make(self) -> Make {
        match self {
            Self::Healthy => health::everything_runs,
            Self::Array => science::motifs_are_found,
            Self::Mpi => science::likelihoods_are_equal,
            Self::Move => migration::a_worker_moves,
            Self::HeadDies => crashes::the_head_dies,
            Self::WorkerDies => crashes::a_worker_dies,
        }
    }

    /// The Debian packages of the programs that are run.
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Array => glam2::PACKAGES,
            Self::Mpi => examl::PACKAGES,
            _ => &[],
        }
    }
}

impl FromStr for Claim {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = Self::ALL.into_iter().find(|claim| claim.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{text:?} is no claim; there are {names}")
        })
    }
}

/// Makes the proofs on an assembled cluster, one after the other, also after one that fails.
pub fn run(
    cluster: &mut Cluster,
    machines: &[Assembled],
    claims: &[Claim],
    progress: &Progress,
) -> Vec<Proof> {
    let mut proofs = vec![assembly::proof(machines)];
    for claim in claims {
        if interrupt::requested() {
            break;
        }
        progress.say(claim.words());
        let began = Instant::now();
        let outcome = claim.make()(cluster, progress);
        let (holds, seen) = match outcome {
            Ok(seen) => (true, seen),
            Err(error) => (false, format!("{error:#}")),
        };
        progress.say(&format!("  {seen}"));
        proofs.push(Proof {
            claim: claim.words(),
            holds,
            seen,
            seconds: began.elapsed().as_secs_f64(),
        });
    }
    proofs
}

/// As a table.
pub fn table(proofs: &[Proof]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["claim", "holds", "seen", "took"]);
    for proof in proofs {
        let holds = if proof.holds { "yes" } else { "NO" };
        table.add_row([
            proof.claim,
            holds,
            &proof.seen,
            &format!("{:.0} s", proof.seconds),
        ]);
    }
    table.to_string()
}

fn head(cluster: &Cluster) -> Shell {
    Shell::new(&cluster.record, "head")
}
