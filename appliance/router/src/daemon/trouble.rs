//! What keeps the node from its work, in sentences for its operator: what is wrong, and what to do.

use std::collections::BTreeMap;
use std::time::Duration;

use wow_overlay::id::NodeId;
use wow_overlay::membership::{CertificateError, NodeName, PoolFacts, Roles};
use wow_overlay::node::Node;
use wow_overlay::time::Instant;
use wow_overlay::wire::Remote;

use super::host;
use crate::wall_clock;

/// A node that has not joined says why after this, and again after twice as long, up to the longest.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// Other programs that may tell trouble, their sentences, and the letters of one; the rest is cut off.
const PROGRAMS_MAX: usize = 8;
const SENTENCES_MAX: usize = 8;
const SENTENCE_LETTERS_MAX: usize = 400;

/// See the module.
pub struct Trouble {
    /// Seeds that are names without an address.
    unknown_seeds: Vec<String>,
    clock: Option<String>,
    /// Whose answers came while it took none of ours.
    refused_by: Option<NodeId>,
    overlaps: Vec<String>,
    /// A role that was asked for and is not the node's to take.
    role: Option<String>,
    /// What other programs of this machine told.
    others: BTreeMap<NodeName, Vec<String>>,
    due: Instant,
    pause: Duration,
}

impl Trouble {
    /// None yet, unless the ticket does not allow the role that the workstation shall take.
    pub fn new(unknown_seeds: Vec<String>, allowed: Roles, role: Option<Roles>) -> Self {
        let role = role.filter(|role| !allowed.contains(*role));
        let role = role.map(|role| {
            format!(
                "the role {role} is refused: the ticket allows {allowed}; give this machine another \
                 role, or a ticket made with `wow pool ticket --roles {role}`"
            )
        });
        if let Some(refused) = &role {
            tracing::error!("{refused}");
        }
        Trouble {
            role,
            others: BTreeMap::new(),
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
        let mut all = self.keeping(node, now);
        all.extend(self.overlaps.iter().cloned());
        all.extend(self.role.iter().cloned());
        all.extend(self.others.values().flatten().cloned());
        all
    }

    /// What keeps the node from joining.
    fn keeping(&self, node: &Node, now: Instant) -> Vec<String> {
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
        all
    }

    /// When [`Self::tell`] is due.
    pub fn due(&self, node: &Node) -> Option<Instant> {
        (!node.is_joined()).then_some(self.due)
    }

    /// Says in the log why the node has not joined.
    pub fn tell(&mut self, node: &Node, now: Instant) {
        for trouble in self.keeping(node, now) {
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
    pub fn unheard(&mut self, peer: NodeId) {
        self.refused_by = Some(peer);
    }

    /// Another program tells its trouble, instead of what it told before; whether there is room.
    pub fn told(&mut self, from: NodeName, mut sentences: Vec<String>) -> bool {
        sentences.truncate(SENTENCES_MAX);
        for sentence in &mut sentences {
            let printable = sentence.chars().filter(|letter| !letter.is_control());
            *sentence = printable.take(SENTENCE_LETTERS_MAX).collect();
        }
        sentences.retain(|sentence| !sentence.is_empty());
        if sentences.is_empty() {
            self.others.remove(&from);
            return true;
        }
        let room = self.others.len() < PROGRAMS_MAX || self.others.contains_key(&from);
        if room {
            self.others.insert(from, sentences);
        }
        room
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

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble() -> Trouble {
        Trouble::new(Vec::new(), Roles::ROUTER | Roles::WORKER, None)
    }

    fn all(trouble: &Trouble) -> Vec<&str> {
        let others = trouble.others.values().flatten();
        trouble
            .role
            .iter()
            .chain(others)
            .map(|text| &**text)
            .collect()
    }

    #[test]
    fn a_role_outside_the_ticket_is_told_with_what_it_allows() {
        let told = |role| Trouble::new(Vec::new(), Roles::WORKER, Some(role)).role;
        let refused = told(Roles::HEAD).expect("refused");
        for part in ["the role head is refused", "allows worker", "--roles head"] {
            assert!(refused.contains(part), "{refused}");
        }
        assert_eq!(told(Roles::WORKER), None);
    }

    #[test]
    fn other_programs_tell_trouble_within_bounds_until_it_is_over() {
        let mut trouble = trouble();
        let name = |text: &str| NodeName::new(text).unwrap();
        assert!(trouble.told(name("a"), vec!["one\n\x1b[2J".into(), "two".into()]));
        assert!(trouble.told(name("b"), vec!["three".into()]));
        assert!(trouble.told(name("a"), vec!["x".repeat(9000), String::new()]));
        assert_eq!(all(&trouble), [&*"x".repeat(SENTENCE_LETTERS_MAX), "three"]);
        assert!(trouble.told(name("a"), Vec::new()));
        assert_eq!(all(&trouble), ["three"]);
        for number in 1..PROGRAMS_MAX {
            assert!(trouble.told(name(&format!("p{number}")), vec!["x".into()]));
        }
        assert!(!trouble.told(name("one-more"), vec!["x".into()]));
        assert!(trouble.told(name("b"), vec!["still".into(); 100]));
        assert_eq!(all(&trouble).len(), PROGRAMS_MAX - 1 + SENTENCES_MAX);
    }
}
