//! Through translators that give each far end another port: prediction where ports follow each
//! other, else many sockets on this side and many guesses on the other (the birthday paradox).
//!
//! The side behind such a translator begins, when a race over the ordinary candidates has found
//! nothing. It asks the other over the overlay; one that is not behind such a translator itself
//! agrees and sends paced probes to likely ports, and then the first opens extra sockets (lanes)
//! that each send one probe to the other's known address, so that each has a mapping that lets the
//! other in. Both sides' work is bounded for each peer and altogether.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use rand::RngExt;

use crate::Rng;
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::message::Control;

use super::Node;
use super::candidates::is_global;
use super::peer::{Peer, Via};

/// Extra sockets opened for one attempt where the next port can be told.
const LANES_PREDICTED: u16 = 12;
/// Extra sockets opened for one attempt where it cannot: with [`GUESSES_MAX`] guesses among 64,512
/// ports one of them is hit in 90 of 100 attempts. Home routers hold some thousand mappings, and a
/// whole site shares one.
const LANES_GUESSED: u16 = 96;
/// The time from one such attempt of a node to its next: by then the lanes of the first are closed.
const GUESS_PAUSE: Duration = Duration::from_secs(20);
/// Lanes opened in one burst, and the pause between two: a full queue would lose them.
const LANES_BURST: u16 = 16;
const LANES_PAUSE: Duration = Duration::from_millis(40);
/// Likely ports beyond the last one known.
pub(super) const PREDICTED_PORTS: u16 = 48;
/// Probes to random ports in one attempt.
const GUESSES_MAX: u32 = 1536;
/// Probes to one peer in [`BUDGET_SPAN`]: an attempt and a half.
const BUDGET_PROBES: u32 = 2304;
const BUDGET_SPAN: Duration = Duration::from_secs(3600);
/// Probes sent at once and the pause between two such bursts: 200 a second.
const BURST: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);
/// When likely ports are probed again, counted in bursts: the first may have come too early.
const PREDICTED_ROUNDS: u32 = 4;
/// Peers probed for at once; who asks beyond it is not answered.
const PUNCHING_MAX: usize = 4;
/// How long an attempt of ours may wait for the other side's agreement.
const AGREEMENT_MAX: Duration = Duration::from_secs(3);
/// Ports below are not handed out by translators.
const FIRST_PORT: u16 = 1024;

/// An attempt with one peer, of whichever side.
pub(super) enum Traversal {
    /// We asked the peer to probe for us.
    Asked {
        /// When it is given up.
        until: Instant,
    },
    /// The peer probes; we open lanes toward its outside address.
    Opening {
        to: Remote,
        lanes_left: u16,
        due: Instant,
    },
    /// We probe for the peer.
    Probing {
        ip: IpAddr,
        first: u16,
        count: u16,
        bursts: u32,
        guesses_left: u32,
        due: Instant,
    },
}

/// Probes spent on a peer.
#[derive(Clone, Copy)]
pub(super) struct Spent {
    since: Instant,
    probes: u32,
}

/// What is known of how our own translator hands out ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapping {
    /// One port for all, as far as is known.
    Stable,
    /// Another for each far end; the highest one known, if they follow each other.
    Changing { ip: IpAddr, last: Option<u16> },
}

/// Ports that different peers saw us under, newest first.
#[derive(Default)]
pub(super) struct Sightings {
    seen: VecDeque<Sighting>,
}

struct Sighting {
    by: NodeId,
    remote: Remote,
    at: Instant,
}

/// Sightings remembered.
const SIGHTINGS_MAX: usize = 8;
/// How long one tells something of the present.
const SIGHTING_LIFETIME: Duration = Duration::from_secs(60);
/// Ports at most this far apart follow each other.
const STEP_MAX: u16 = 64;

impl Sightings {
    pub(super) fn clear(&mut self) {
        self.seen.clear();
    }

    /// A peer saw us as `remote`.
    pub(super) fn note(&mut self, now: Instant, by: NodeId, remote: Remote) {
        if !remote.is_udp() || !is_global(remote.ip()) {
            return;
        }
        self.seen.retain(|sighting| sighting.by != by);
        self.seen.push_front(Sighting {
            by,
            remote,
            at: now,
        });
        self.seen.truncate(SIGHTINGS_MAX);
    }

    /// How our translator seems to hand out ports.
    pub(super) fn mapping(&self, now: Instant) -> Mapping {
        let fresh = self.seen.iter();
        let fresh = fresh.filter(|sighting| now - sighting.at < SIGHTING_LIFETIME);
        let remotes: Vec<Remote> = fresh.map(|sighting| sighting.remote).collect();
        let Some(newest) = remotes.first() else {
            return Mapping::Stable;
        };
        let ip = newest.ip();
        let same_ip = remotes.iter().filter(|remote| remote.ip() == ip);
        let mut ports: Vec<u16> = same_ip.map(|remote| remote.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        let [.., last] = ports[..] else {
            return Mapping::Stable;
        };
        if ports.len() < 2 {
            return Mapping::Stable;
        }
        let follow = ports.windows(2).all(|two| two[1] - two[0] <= STEP_MAX);
        Mapping::Changing {
            ip,
            last: follow.then_some(last),
        }
    }
}

impl Traversal {
    pub(super) fn deadline(&self) -> Instant {
        match self {
            Traversal::Asked { until } => *until,
            Traversal::Opening { due, .. } | Traversal::Probing { due, .. } => *due,
        }
    }
}

impl Node {
    /// A race over the ordinary candidates goes on without success: begins a traversal, if it is our
    /// translator that stands in the way.
    pub(super) fn begin_traversal(&mut self, now: Instant, id: NodeId) {
        let Mapping::Changing { ip, last } = self.sightings.mapping(now) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let has_target = peer.candidates.iter().any(is_target);
        // A translator has room for some thousand mappings, and sites share one: what only keeps the ring
        // together goes by a relay.
        if peer.traversal.is_some()
            || peer.active().is_some()
            || !has_target
            || !peer.is_in_use(now)
        {
            return;
        }
        let early = self.guessed.is_some_and(|last| now - last < GUESS_PAUSE);
        if last.is_none() {
            if early {
                return;
            }
            self.guessed = Some(now);
        }
        peer.traversal = Some(Traversal::Asked {
            until: now + AGREEMENT_MAX,
        });
        let (first, count) = match last {
            Some(last) => (last.saturating_add(1), PREDICTED_PORTS),
            None => (0, 0),
        };
        self.counters.traversals += 1;
        self.send_control(now, id, &Control::Punch { ip, first, count });
    }

    /// A peer asks us to probe for it.
    pub(super) fn handle_punch(
        &mut self,
        now: Instant,
        from: NodeId,
        ip: IpAddr,
        first: u16,
        count: u16,
    ) {
        // Where both ends change their ports neither can tell the other where to send.
        let changing = self.sightings.mapping(now) != Mapping::Stable;
        let probing = |peer: &&Peer| matches!(peer.traversal, Some(Traversal::Probing { .. }));
        let busy = self.peers.values().filter(probing).count() >= PUNCHING_MAX;
        let guesses = if count == 0 { GUESSES_MAX } else { 0 };
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if changing || !is_global(ip) || peer.active().is_some() || !ip.is_ipv4() {
            return;
        }
        if busy || peer.traversal.is_some() {
            self.counters.drop_full += 1;
            return;
        }
        peer.traversal = Some(Traversal::Probing {
            ip,
            first: first.max(FIRST_PORT),
            count: count.min(PREDICTED_PORTS),
            bursts: 0,
            guesses_left: guesses,
            due: now,
        });
        self.send_control(now, from, &Control::Punching);
        self.run_traversal(now, from);
    }

    /// The peer that we asked probes for us.
    pub(super) fn handle_punching(&mut self, now: Instant, from: NodeId) {
        let predicted = matches!(
            self.sightings.mapping(now),
            Mapping::Changing { last: Some(_), .. }
        );
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if !matches!(peer.traversal, Some(Traversal::Asked { .. })) {
            return;
        }
        let lanes_left = match predicted {
            true => LANES_PREDICTED,
            false => LANES_GUESSED,
        };
        // The address that was learnt last stands first.
        let Some(to) = peer.candidates.iter().copied().find(is_target) else {
            peer.traversal = None;
            return;
        };
        peer.traversal = Some(Traversal::Opening {
            to,
            lanes_left,
            due: now,
        });
        self.run_traversal(now, from);
    }

    /// Does what is due of the attempt with a peer.
    pub(super) fn run_traversal(&mut self, now: Instant, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.active().is_some() {
            peer.traversal = None;
            return;
        }
        let Some(mut traversal) = peer.traversal.take_if(|t| t.deadline() <= now) else {
            return;
        };
        let goes_on = match &mut traversal {
            Traversal::Asked { .. } => false,
            Traversal::Opening {
                to,
                lanes_left,
                due,
            } => {
                let burst = LANES_BURST.min(*lanes_left);
                *lanes_left -= burst;
                *due = now + LANES_PAUSE;
                if !self.spend(now, id, usize::from(burst)) {
                    return;
                }
                let to = *to;
                for _ in 0..burst {
                    self.next_lane = self.next_lane.checked_add(1).unwrap_or(1);
                    self.probe_blind(now, id, to.on_lane(self.next_lane));
                }
                *lanes_left > 0
            }
            Traversal::Probing { due, .. } => {
                *due = now + PAUSE;
                self.guess(now, id, &mut traversal)
            }
        };
        if goes_on && let Some(peer) = self.peers.get_mut(&id) {
            peer.traversal = Some(traversal);
        }
    }

    /// Sends a burst of probes to likely ports, or to random ones. Returns whether more are to come.
    fn guess(&mut self, now: Instant, id: NodeId, traversal: &mut Traversal) -> bool {
        let Traversal::Probing {
            ip,
            first,
            count,
            bursts,
            guesses_left,
            ..
        } = traversal
        else {
            return false;
        };
        let mut ports = Vec::new();
        if *count > 0 {
            let per_round = u32::from(*count).div_ceil(BURST);
            let start = (*bursts % per_round) * BURST;
            let end = (start + BURST).min(u32::from(*count));
            let likely = (start..end).filter_map(|n| first.checked_add(u16::try_from(n).ok()?));
            ports.extend(likely);
            *bursts += 1;
            if *bursts > per_round * PREDICTED_ROUNDS {
                return false;
            }
        } else {
            let burst = BURST.min(*guesses_left);
            *guesses_left -= burst;
            ports.extend((0..burst).map(|_| random_port(&mut self.rng)));
        }
        if ports.is_empty() || !self.spend(now, id, ports.len()) {
            return false;
        }
        for port in ports {
            self.probe_blind(now, id, Remote::udp((*ip, port).into()));
        }
        true
    }

    /// Takes probes from a peer's budget, if they are in it.
    fn spend(&mut self, now: Instant, id: NodeId, count: usize) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else {
            return false;
        };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let spent = peer.punches.filter(|spent| now - spent.since < BUDGET_SPAN);
        let mut spent = spent.unwrap_or(Spent {
            since: now,
            probes: 0,
        });
        if spent.probes.saturating_add(count) > BUDGET_PROBES {
            return false;
        }
        spent.probes += count;
        peer.punches = Some(spent);
        true
    }

    /// Probes without waiting for an answer: what comes back is taken in as from a new address.
    fn probe_blind(&mut self, now: Instant, id: NodeId, remote: Remote) {
        let token = self.token();
        self.send_control_by(now, id, Via::Direct(remote), &Control::Probe { token });
    }
}

fn random_port(rng: &mut Rng) -> u16 {
    rng.random_range(FIRST_PORT..=u16::MAX)
}

/// Whether a candidate is one that lanes can be opened toward.
fn is_target(remote: &Remote) -> bool {
    remote.is_udp() && remote.ip().is_ipv4() && is_global(remote.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn seen(remotes: &[&str]) -> Mapping {
        let mut sightings = Sightings::default();
        for (n, remote) in remotes.iter().enumerate() {
            let by = NodeId([n as u8; 20]);
            sightings.note(NOW, by, remote.parse().unwrap());
        }
        sightings.mapping(NOW)
    }

    #[test]
    fn ports_that_differ_by_the_observer_tell_the_translator() {
        let ip: IpAddr = "198.51.100.9".parse().unwrap();
        assert_eq!(seen(&[]), Mapping::Stable);
        assert_eq!(seen(&["198.51.100.9:5"]), Mapping::Stable);
        assert_eq!(seen(&["198.51.100.9:5", "198.51.100.9:5"]), Mapping::Stable);
        assert_eq!(
            seen(&["198.51.100.9:2003", "198.51.100.9:2001"]),
            Mapping::Changing {
                ip,
                last: Some(2003)
            }
        );
        assert_eq!(
            seen(&["198.51.100.9:60000", "198.51.100.9:2001"]),
            Mapping::Changing { ip, last: None }
        );
        // Inside the site there is no translator.
        assert_eq!(seen(&["198.51.100.9:5", "192.168.1.2:6"]), Mapping::Stable);
    }

    #[test]
    fn old_sightings_tell_nothing() {
        let mut sightings = Sightings::default();
        sightings.note(NOW, NodeId([1; 20]), "198.51.100.9:5".parse().unwrap());
        let later = NOW + SIGHTING_LIFETIME;
        sightings.note(later, NodeId([2; 20]), "198.51.100.9:6".parse().unwrap());
        assert_eq!(sightings.mapping(later), Mapping::Stable);
    }
}
