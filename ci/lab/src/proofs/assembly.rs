//! The machines became a cluster, which whoever asks for proofs has seen already.

use super::Proof;
use crate::cluster::assembly::Assembled;

pub(super) fn proof(machines: &[Assembled]) -> Proof {
    let longest = |times: Vec<f64>| times.into_iter().fold(0.0, f64::max) / 1000.0;
    let pool = longest(machines.iter().map(|machine| machine.pool_ms).collect());
    let workers: Vec<f64> = machines.iter().filter_map(|one| one.listed_ms).collect();
    let count = workers.len();
    let listed = longest(workers);
    Proof {
        claim: "machines behind NATs assemble out of their tickets",
        holds: count > 0,
        seen: format!(
            "from power-on, all in the pool after {pool:.1} s, and {count} workers listed by pbsnodes after \
             {listed:.1} s"
        ),
        seconds: listed,
    }
}
