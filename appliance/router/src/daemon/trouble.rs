//! What keeps the node from its work, in sentences for its operator: what is wrong, and what to do.

use std::time::Duration;

use wow_overlay::id::NodeId;
use wow_overlay::membership::{CertificateError, PoolFacts};
use wow_overlay::node::Node;
use wow_overlay::time::Instant;
use wow_overlay::wire::Remote;

use super::host;
use crate::wall_clock;

/// A node that has not joined says why after this, and again after twice as long, up to the longest.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// See the module.
pub struct Trouble {
    /// Seeds that are names without an address.
    unknown_seeds: Vec<String>,
    clock: Option<String>,
    /// Whose answers came while it took none of ours.
    refused_by: Option<NodeId>,
    overlaps: Vec<String>,
    due: Instant,
    pause: Duration,
}

impl Trouble {
    /// None yet.
    pub fn new(unknown_seeds: Vec<String>) -> Self {
        Trouble {
            unknown_seeds,
            clock: None,
            refused_by: None,
            overlaps: Vec::new(),
            due: Instant::ZERO + FIRST,
            pause: FIRST,
        }
    }

    /// What there is now.
    pub fn list(&self, node: &Node, now: Instant) -> Vec<String> {
        let mut all = Vec::new();
        if !node.is_joined() {
            match (&self.clock, self.refused_by) {
                (Some(clock), _) => all.push(clock.clone()),
                (None, Some(by)) => all.push(refused(by)),
                (None, None) => all.extend(silence(node.silent_seeds(now).collect())),
            }
            all.extend(self.unknown_seeds.iter().cloned());
            if all.is_empty() && !node.has_peers() {
                all.push(
                    "no seed is known: give the address of a node of the pool with --seed, or wait \
                     for others to come"
                        .into(),
                );
            }
        }
        all.extend(self.overlaps.iter().cloned());
        all
    }

    /// When [`Self::tell`] is due.
    pub fn due(&self, node: &Node) -> Option<Instant> {
        (!node.is_joined()).then_some(self.due)
    }

    /// Says in the log why the node has not joined.
    pub fn tell(&mut self, node: &Node, now: Instant) {
        for trouble in self.list(node, now) {
            tracing::warn!("not joined: {trouble}");
        }
        self.pause = (self.pause * 2).min(LONGEST);
        self.due = now + self.pause;
    }

    /// The names of seeds were looked up.
    pub fn seeds_changed(&mut self, unknown: Vec<String>) {
        self.unknown_seeds = unknown;
    }

    /// The node has its place.
    pub fn joined(&mut self) {
        self.clock = None;
        self.refused_by = None;
    }

    /// The node has lost its place.
    pub fn isolated(&mut self, now: Instant) {
        self.pause = FIRST;
        self.due = now + FIRST;
    }

    /// A member's certificate does not hold now.
    pub fn out_of_time(&mut self, from: Option<Remote>, error: &CertificateError) {
        let from = from.map_or("over the overlay".into(), |from| format!("at {from}"));
        let clock = format!(
            "a member {from} was refused: {error}; by this machine's clock it is {}: set the clock of \
             whichever machine is wrong",
            wall_clock::show(wall_clock::now()),
        );
        tracing::warn!("{clock}");
        self.clock = Some(clock);
    }

    /// A peer that had answered a handshake was never heard of again.
    pub fn unreachable(&mut self, peer: NodeId) {
        self.refused_by = Some(peer);
    }

    /// The machine's routes may be others now.
    pub fn routes_changed(&mut self, facts: &PoolFacts, tun: &str) {
        let routes = host::overlapping_routes(facts.range, Some(tun));
        let overlaps = routes.iter().map(|route| overlap(facts, route)).collect();
        if self.overlaps != overlaps {
            self.overlaps = overlaps;
            for overlap in &self.overlaps {
                tracing::warn!("{overlap}");
            }
        }
    }
}

/// A route that the pool's range would take over from the host, or lose to it.
pub fn overlap(facts: &PoolFacts, route: &host::Route) -> String {
    format!(
        "the range {} of the pool {} overlaps this host's route to {} by {}: traffic would go astray; \
         use a pool with another range (`wow pool new --range`), run with `--guest none`, or accept it \
         with `--allow-overlap`",
        facts.range, facts.name, route.destination, route.interface,
    )
}

fn silence(seeds: Vec<Remote>) -> Option<String> {
    let (noun, verb) = match seeds[..] {
        [] => return None,
        [_] => ("the seed", "does"),
        _ => ("the seeds", "do"),
    };
    let names: Vec<_> = seeds.iter().map(ToString::to_string).collect();
    Some(format!(
        "{noun} {} {verb} not answer: is the address right, does a node of this pool run there, and do \
         firewalls let its port through?",
        names.join(", ")
    ))
}

fn refused(by: NodeId) -> String {
    format!(
        "the node {} answers but accepts no session: is this machine's clock right (it says {}), and \
         was this node or its ticket revoked?",
        by.short(),
        wall_clock::show(wall_clock::now()),
    )
}
