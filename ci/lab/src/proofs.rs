//! What a cluster must stand, shown on a real one: it assembles, computes, and survives that machines are moved
//! and lose their power.

mod assembly;
mod crashes;
mod jobs;
mod migration;
mod science;

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

/// The Debian packages of the programs that are run.
pub fn packages() -> Vec<String> {
    let all = [examl::PACKAGES, glam2::PACKAGES].concat();
    all.into_iter().map(str::to_owned).collect()
}

/// A proof: its claim, and how it is made. It gives what was measured.
type Step = (&'static str, fn(&mut Cluster, &Progress) -> Result<String>);

const MOVE: Step = (
    "a worker moves to another network during a job, a copy and a session",
    migration::a_worker_moves,
);

const ALL: &[Step] = &[
    (
        "an array of 40 tasks of glam2 finds the motifs in its sequences, on all workers",
        science::motifs_are_found,
    ),
    (
        "ExaML by MPI over all workers finds the tree, and the likelihood that one process finds",
        science::likelihoods_are_equal,
    ),
    MOVE,
    (
        "the head loses its power and comes back while jobs run",
        crashes::the_head_dies,
    ),
    (
        "a worker loses its power: its jobs end elsewhere",
        crashes::a_worker_dies,
    ),
];

/// What a short proof has besides that the machines assemble.
const SHORT: &[Step] = &[MOVE];

/// Makes the proofs on an assembled cluster, one after the other, also after one that fails.
pub fn run(
    cluster: &mut Cluster,
    machines: &[Assembled],
    short: bool,
    progress: &Progress,
) -> Vec<Proof> {
    let mut proofs = vec![assembly::proof(machines)];
    for (claim, make) in if short { SHORT } else { ALL } {
        if interrupt::requested() {
            break;
        }
        progress.say(claim);
        let began = Instant::now();
        let outcome = make(cluster, progress);
        let (holds, seen) = match outcome {
            Ok(seen) => (true, seen),
            Err(error) => (false, format!("{error:#}")),
        };
        progress.say(&format!("  {seen}"));
        proofs.push(Proof {
            claim,
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
