//! One peer: the session with it and every path that its packets may take.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use crate::id::NodeId;
use crate::membership::{Addresses, Certificate};
use crate::session::Session;
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::message::{CANDIDATES_MAX, Contact, RELAYS_MAX};

use super::budget::Budgets;
use super::candidates::is_global;
use super::guest::ON_DEMAND_IDLE;
use super::holders::Holdings;
use super::liveness::Liveness;
use super::parts::Parts;
use super::path_mtu::PathMtu;
use super::report::Table;
use super::together::Together;
use super::traversal::{Spent, Traversal};

/// Sessions with one peer that may be open at once: the current one, its successor, and the one
/// before, for records still in flight.
pub(super) const SESSIONS_MAX: usize = 3;
/// Direct paths kept with one peer.
pub(super) const PATHS_MAX: usize = 3;
/// Unanswered race probes remembered per peer.
const RACE_PROBES_MAX: usize = 64;
/// Candidates passed on in a contact: enough to meet, few enough for a list of contacts to fit.
pub(super) const CONTACT_CANDIDATES_MAX: usize = 4;

/// When a race probes all candidates, counted from its start.
const RACE_ROUNDS: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(60),
    Duration::from_millis(180),
    Duration::from_millis(400),
    Duration::from_millis(900),
    Duration::from_millis(1800),
    Duration::from_millis(3500),
];
/// First and longest pause between races for a peer whose traffic has no direct path.
const RACE_AGAIN_FIRST: Duration = Duration::from_secs(5);
const RACE_AGAIN_LONGEST: Duration = Duration::from_secs(80);
/// The round of a race from which TCP is tried too, unless something has answered: connections are
/// dearer than datagrams.
const TCP_FROM_ROUND: usize = 3;
/// The round after which the ordinary candidates have had their chance.
const RACE_FAILING_ROUND: usize = 5;
/// What a round trip over TCP counts for beside one over UDP: what is lost stops all that follows.
const TCP_HANDICAP: f64 = 1.5;
/// What a round trip between a site's own addresses counts for: the same by way of a translator's
/// outside address is the translator's work and ends with its mapping.
const SITE_BONUS: f64 = 0.75;
/// A path is changed for one whose round trip is below this share of the present one's.
const SWITCH_BELOW: f64 = 0.8;
/// Between two frames that are kept to be sent again: one is as good as all of them.
const TAIL_EVERY: Duration = Duration::from_millis(5);

/// How a record reaches a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Via {
    /// By its own datagram or in a connection to this remote.
    Direct(Remote),
    /// Over the overlay, hop by hop.
    Overlay,
}

pub(super) struct LiveSession {
    pub session: Session,
    /// The peer has shown that it holds the session's keys.
    pub confirmed: bool,
    /// The handshake's last message, of ours; sent again until a record shows that it arrived.
    pub last_message: Option<Vec<u8>>,
    pub created: Instant,
}

impl LiveSession {
    /// Whether the peer is known to have the session too: our last message of the handshake, where
    /// there is one, may be lost.
    fn is_shared(&self) -> bool {
        self.confirmed && (self.last_message.is_none() || self.session.opener.highest().is_some())
    }
}

/// A UDP 4-tuple or a TCP connection that has carried authentic records.
pub(super) struct DirectPath {
    pub remote: Remote,
    pub liveness: Liveness,
    /// None over TCP, which carries any length.
    pub mtu: Option<PathMtu>,
    pub together: Together,
}

impl DirectPath {
    /// Its round trip, once measured, weighed by its protocol and its scope.
    fn cost(&self) -> Option<Duration> {
        let rtt = self.liveness.rtt()?;
        let protocol = if self.remote.is_tcp() {
            TCP_HANDICAP
        } else {
            1.0
        };
        let site = if is_global(self.remote.ip()) {
            1.0
        } else {
            SITE_BONUS
        };
        Some(rtt.mul_f64(protocol * site))
    }
}

struct RaceProbe {
    token: u64,
    to: Remote,
    sent: Instant,
}

/// Repeated probing of all candidates, until a direct path is found or the rounds are over.
struct Race {
    started: Instant,
    round: usize,
}

/// Bytes and packets of records, headers and tags included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Traffic {
    /// Records.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Traffic {
    pub(super) fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// A frame of traffic that was sent of late, to be sent again by another way if its path falls silent:
/// from what arrives a transport learns what did not, long before its own timers tell it.
#[derive(Default)]
struct Tail {
    frame: Vec<u8>,
    sent: Option<Instant>,
}

pub(super) struct Peer {
    pub certificate: Certificate,
    pub holdings: Holdings,
    /// The peer was told which addresses we hold.
    pub told_addresses: bool,
    /// Oldest first.
    pub sessions: Vec<LiveSession>,
    pub paths: Vec<DirectPath>,
    active: Option<Remote>,
    /// The health of the way over the overlay, used while no direct path works.
    pub overlay: Liveness,
    /// The node to visit first on the way over the overlay.
    pub agent: Option<NodeId>,
    /// Nodes that the peer last said have a direct path to it.
    pub relays: Vec<Contact>,
    pub candidates: Vec<Remote>,
    race: Option<Race>,
    race_probes: VecDeque<RaceProbe>,
    /// When to race again for want of a direct path, and the pause before it.
    race_again: Option<(Instant, Duration)>,
    /// An attempt to get through a translator that changes ports.
    pub traversal: Option<Traversal>,
    /// Probes spent on such attempts.
    pub punches: Option<Spent>,
    /// The peer keeps the link for its own ends.
    pub remote_wants: bool,
    /// What the peer was last told about our own need of the link.
    pub told_wanted: Option<bool>,
    pub budgets: Budgets,
    /// The digests of the neighbour lists last told to it and heard from it; 0 for none.
    pub told_list: u64,
    pub heard_list: u64,
    pub since: Instant,
    /// The table's note of when the peer needs attention; none while that is to be found out.
    pub due: Option<Instant>,
    pub last_guest: Option<Instant>,
    /// What came of frames that were too long for a path.
    pub parts: Parts,
    /// The longest datagram that there is a use for.
    longest_datagram: usize,
    tail: Tail,
    pub sent: Traffic,
    pub received: Traffic,
}

impl Peer {
    pub(super) fn new(
        certificate: Certificate,
        certified: Addresses,
        longest_datagram: usize,
        now: Instant,
    ) -> Self {
        Peer {
            certificate,
            holdings: Holdings::new(certified),
            told_addresses: false,
            sessions: Vec::new(),
            paths: Vec::new(),
            active: None,
            overlay: Liveness::new(now),
            agent: None,
            relays: Vec::new(),
            candidates: Vec::new(),
            race: None,
            race_probes: VecDeque::new(),
            race_again: None,
            traversal: None,
            punches: None,
            remote_wants: true,
            told_wanted: None,
            budgets: Budgets::default(),
            told_list: 0,
            heard_list: 0,
            since: now,
            due: None,
            last_guest: None,
            parts: Parts::default(),
            longest_datagram,
            tail: Tail::default(),
            sent: Traffic::default(),
            received: Traffic::default(),
        }
    }

    /// The virtual addresses of the peer's guest.
    pub(super) fn addresses(&self) -> Addresses {
        self.holdings.own()
    }

    pub(super) fn tables(&self) -> Vec<Table> {
        let table = |name, entries, limit| Table {
            name,
            entries,
            limit,
        };
        vec![
            table("sessions of a peer", self.sessions.len(), SESSIONS_MAX),
            table("paths to a peer", self.paths.len(), PATHS_MAX),
            table(
                "candidates of a peer",
                self.candidates.len(),
                2 * CANDIDATES_MAX,
            ),
            table("probes to a peer", self.race_probes.len(), RACE_PROBES_MAX),
            table("relays to a peer", self.relays.len(), RELAYS_MAX),
        ]
    }

    /// Traffic goes out that deserves some answer. One frame of it, as `write` appends it, is kept each few
    /// milliseconds.
    pub(super) fn on_traffic_sent(
        &mut self,
        via: Via,
        now: Instant,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if let Some(liveness) = self.liveness_mut(via) {
            liveness.on_sent(now);
        }
        if self.tail.sent.is_some_and(|sent| now - sent < TAIL_EVERY) {
            return;
        }
        self.tail.frame.clear();
        write(&mut self.tail.frame);
        self.tail.sent = Some(now);
    }

    /// The frame of traffic that was kept last, if it may be lost: it left within a round trip of the
    /// last that was heard, or later.
    pub(super) fn tail(&self) -> Option<&[u8]> {
        let liveness = self.liveness();
        let from = liveness.last_heard();
        let within = liveness.rtt().unwrap_or_default();
        let sent = self.tail.sent?;
        (sent + within >= from).then_some(&self.tail.frame)
    }

    /// Whether the peer has proven itself in some session that is still open.
    pub(super) fn is_established(&self) -> bool {
        self.sessions.iter().any(|live| live.confirmed)
    }

    /// The session whose records name us by this index.
    pub(super) fn session_mut(&mut self, index: u32) -> Option<&mut LiveSession> {
        let mut sessions = self.sessions.iter_mut();
        sessions.find(|live| live.session.local_index() == index)
    }

    /// Whether anything came in a session with it.
    pub fn was_heard(&self) -> bool {
        let heard = |live: &LiveSession| live.session.opener.highest().is_some();
        self.sessions.iter().any(heard)
    }

    /// The session to send in: the newest that both sides are known to have, else the newest
    /// confirmed one, else the newest.
    pub(super) fn sending(&self) -> Option<&LiveSession> {
        let newest_shared = self.sessions.iter().rev().find(|live| live.is_shared());
        let newest_confirmed = || self.sessions.iter().rev().find(|live| live.confirmed);
        newest_shared
            .or_else(newest_confirmed)
            .or(self.sessions.last())
    }

    /// The last handshake message of the session to send in, while nothing shows its arrival.
    pub(super) fn unanswered_handshake(&self) -> Option<&Vec<u8>> {
        let live = self.sending()?;
        live.last_message
            .as_ref()
            .filter(|_| live.session.opener.highest().is_none())
    }

    /// The direct path in use.
    pub(super) fn active(&self) -> Option<&DirectPath> {
        let remote = self.active?;
        self.paths.iter().find(|path| path.remote == remote)
    }

    /// The best way to the peer now.
    pub(super) fn via(&self) -> Via {
        self.active.map_or(Via::Overlay, Via::Direct)
    }

    /// Whether routed frames may be sent through this peer: it has a direct path.
    pub(super) fn is_hop(&self) -> bool {
        self.is_established() && self.active.is_some()
    }

    /// Whether the peer shares our site.
    pub(super) fn is_beside(&self) -> bool {
        self.active()
            .is_some_and(|path| !is_global(path.remote.ip()))
    }

    /// Whether the peer seems to have no translator before it: it offers no address but global ones.
    pub(super) fn is_public(&self) -> bool {
        let mut ips = self.candidates.iter().map(|candidate| candidate.ip());
        !self.candidates.is_empty() && ips.all(is_global)
    }

    /// Whether guests exchange packets with the peer, or did lately.
    pub(super) fn is_in_use(&self, now: Instant) -> bool {
        self.last_guest
            .is_some_and(|last| now - last < ON_DEMAND_IDLE)
    }

    /// Whether the direct path in use had better not be relied on.
    pub(super) fn is_doubtful(&self) -> bool {
        self.active()
            .is_some_and(|path| path.liveness.is_doubtful())
    }

    /// The health of the way in use.
    pub(super) fn liveness(&self) -> &Liveness {
        match self.active() {
            Some(path) => &path.liveness,
            None => &self.overlay,
        }
    }

    pub(super) fn liveness_mut(&mut self, via: Via) -> Option<&mut Liveness> {
        match via {
            Via::Overlay => Some(&mut self.overlay),
            Via::Direct(remote) => self.path_mut(remote).map(|path| &mut path.liveness),
        }
    }

    pub(super) fn path_mut(&mut self, remote: Remote) -> Option<&mut DirectPath> {
        self.paths.iter_mut().find(|path| path.remote == remote)
    }

    /// When anything authentic last came from the peer, by any path.
    pub(super) fn last_heard(&self) -> Instant {
        let paths = self.paths.iter().map(|path| path.liveness.last_heard());
        paths.fold(self.overlay.last_heard(), Instant::max)
    }

    /// An authentic record came by `via`. Returns an address that is worth a probe: the peer was
    /// never seen there, and it is not being probed.
    pub(super) fn on_heard(&mut self, via: Via, now: Instant) -> Option<Remote> {
        if let Some(liveness) = self.liveness_mut(via) {
            liveness.on_heard(now);
            return None;
        }
        let Via::Direct(remote) = via else {
            return None;
        };
        // The record was fresh and authentic, so the peer is there: follow it at once when there
        // is no better path, as after a move.
        if self.active.is_none() || self.is_doubtful() {
            self.adopt(remote, now);
            self.active = Some(remote);
        }
        let probed = self.race_probes.iter().any(|probe| probe.to == remote);
        (!probed).then_some(remote)
    }

    /// Takes `remote` as a working direct path.
    pub(super) fn adopt(&mut self, remote: Remote, now: Instant) -> &mut Liveness {
        if let Some(known) = self.paths.iter().position(|path| path.remote == remote) {
            self.active.get_or_insert(remote);
            return &mut self.paths[known].liveness;
        }
        if self.paths.len() >= PATHS_MAX {
            let active = self.active;
            let idlest = (0..self.paths.len())
                .filter(|i| Some(self.paths[*i].remote) != active)
                .min_by_key(|i| self.paths[*i].liveness.last_heard());
            self.paths.remove(idlest.unwrap_or(0));
        }
        self.active.get_or_insert(remote);
        let longest = self.longest_datagram;
        self.paths.push(DirectPath {
            remote,
            liveness: Liveness::new(now),
            mtu: remote.is_udp().then(|| PathMtu::new(remote, longest, now)),
            together: Together::new(now),
        });
        let newest = self.paths.len() - 1;
        &mut self.paths[newest].liveness
    }

    /// A probe's answer came by `via`. Returns whether the probe was ours.
    pub(super) fn on_ack(&mut self, token: u64, now: Instant) -> bool {
        let race = self.race_probes.iter().find(|probe| probe.token == token);
        if let Some((to, sent)) = race.map(|probe| (probe.to, probe.sent)) {
            self.race_probes.retain(|probe| probe.token != token);
            let liveness = self.adopt(to, now);
            liveness.on_heard(now);
            liveness.sample(now - sent);
            self.race_again = None;
            self.choose();
            return true;
        }
        let mut ours = self.overlay.on_ack(token, now);
        for path in &mut self.paths {
            ours |= path.liveness.on_ack(token, now);
            let mtu = path.mtu.as_mut();
            ours |= mtu.is_some_and(|mtu| mtu.on_ack(token, now));
            ours |= path.together.on_ack(token, now);
        }
        self.choose();
        ours
    }

    /// Moves to the path with the shortest round trip, if it is clearly better.
    fn choose(&mut self) {
        let measured = |path: &DirectPath| path.cost().map(|cost| (cost, path.remote));
        let reliable = self
            .paths
            .iter()
            .filter(|path| !path.liveness.is_doubtful());
        let Some((best, remote)) = reliable.filter_map(measured).min() else {
            return;
        };
        let reliable = self.active().filter(|path| !path.liveness.is_doubtful());
        let present = reliable.and_then(DirectPath::cost);
        if present.is_none_or(|present| best < present.mul_f64(SWITCH_BELOW)) {
            self.active = Some(remote);
        }
        if self.active.is_some_and(Remote::is_udp) {
            // Connections are kept for want of something better; unused they are closed.
            self.paths.retain(|path| path.remote.is_udp());
        }
    }

    /// Gives a dead direct path up and turns to the best of the others, or to the overlay.
    pub(super) fn drop_path(&mut self, remote: Remote) {
        self.paths.retain(|path| path.remote != remote);
        if self.active == Some(remote) {
            let cost = |path: &&DirectPath| path.cost().unwrap_or(Duration::MAX);
            self.active = self.paths.iter().min_by_key(cost).map(|path| path.remote);
            if self.active.is_none() {
                self.overlay.suspect();
            }
        }
    }

    /// The peer says that it is elsewhere now. Its old paths are doubted; where the word itself came
    /// from is followed at once.
    pub(super) fn moved(&mut self, via: Via, now: Instant) {
        for path in &mut self.paths {
            path.liveness.suspect();
            if let Some(mtu) = &mut path.mtu {
                mtu.question(now);
            }
        }
        if let Via::Direct(remote) = via {
            self.adopt(remote, now).on_heard(now);
            self.active = Some(remote);
        }
    }

    /// Whether addresses that the peer offers, by `via`, have nothing in common with those it had.
    pub(super) fn is_elsewhere(&self, candidates: &[Remote], via: Via) -> bool {
        if self.active.map(Via::Direct) == Some(via) || candidates.is_empty() {
            return false;
        }
        // Where the offer itself came from was noted a moment ago.
        let mut known = self
            .candidates
            .iter()
            .filter(|known| Via::Direct(**known) != via)
            .peekable();
        known.peek().is_some() && known.all(|known| !candidates.contains(known))
    }

    /// Takes in the addresses that the peer offers. Returns whether any was new.
    pub(super) fn offer(&mut self, candidates: &[Remote]) -> bool {
        let mut news = false;
        for candidate in candidates {
            if !self.candidates.contains(candidate) {
                self.candidates.insert(0, *candidate);
                news = true;
            }
        }
        self.candidates.truncate(2 * CANDIDATES_MAX);
        news
    }

    /// Whether the peer is, or says that it is, at an IP address; of a site's outside all there are.
    pub(super) fn is_known_at(&self, ip: IpAddr) -> bool {
        let mut known = self.active.iter().chain(&self.candidates);
        known.any(|remote| remote.ip() == ip)
    }

    /// Whether it is time to look for a direct path again: there is none, packets go the long way
    /// round, and the last race ended in vain some time ago.
    pub(super) fn wants_race(&self, now: Instant) -> bool {
        let used = |at: Instant| now - at < RACE_AGAIN_FIRST;
        self.active.is_none()
            && self.race.is_none()
            && self.last_guest.is_some_and(used)
            && self.race_again.is_none_or(|(due, _)| due <= now)
    }

    /// Notes a race of [`Peer::wants_race`]; the next one comes later.
    pub(super) fn put_off_race(&mut self, now: Instant) {
        let pause = self.race_again.map_or(RACE_AGAIN_FIRST, |(_, pause)| {
            (pause * 2).min(RACE_AGAIN_LONGEST)
        });
        self.race_again = Some((now + pause, pause));
    }

    /// Begins (or begins again) to probe all candidates.
    pub(super) fn start_race(&mut self, now: Instant) {
        self.race = Some(Race {
            started: now,
            round: 0,
        });
    }

    pub(super) fn race_deadline(&self) -> Option<Instant> {
        let race = self.race.as_ref()?;
        Some(race.started + RACE_ROUNDS[race.round])
    }

    /// The candidates to probe now, when a round of the race is due.
    pub(super) fn race_round(&mut self, now: Instant) -> Vec<Remote> {
        if self.race_deadline().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let Some(race) = self.race.as_mut() else {
            return Vec::new();
        };
        let with_tcp = race.round >= TCP_FROM_ROUND;
        race.round += 1;
        // One more round after a path was found, for a better one to answer.
        let found = self
            .paths
            .iter()
            .any(|path| path.liveness.rtt().is_some() && !path.liveness.is_suspect());
        if race.round == RACE_ROUNDS.len() || found {
            self.race = None;
        }
        let untried = |candidate: &&Remote| {
            let known = self.paths.iter().find(|path| path.remote == **candidate);
            known.is_none_or(|path| path.liveness.rtt().is_none() || path.liveness.is_doubtful())
        };
        let allowed = |candidate: &&Remote| candidate.is_udp() || (with_tcp && !found);
        let due = self.candidates.iter().filter(untried).filter(allowed);
        due.copied().collect()
    }

    /// Whether the round that was just run had the ordinary candidates' last good chance.
    pub(super) fn race_is_failing(&self) -> bool {
        let round = self.race.as_ref().map(|race| race.round);
        round == Some(RACE_FAILING_ROUND) && self.paths.is_empty()
    }

    pub(super) fn on_race_probe_sent(&mut self, token: u64, to: Remote, now: Instant) {
        if self.race_probes.len() == RACE_PROBES_MAX {
            self.race_probes.pop_front();
        }
        self.race_probes.push_back(RaceProbe {
            token,
            to,
            sent: now,
        });
    }

    /// What others need to reach this peer.
    pub(super) fn contact(&self) -> Contact {
        // The far port of an accepted connection leads to the peer for us alone.
        let seen = self.active.filter(|remote| remote.is_udp());
        let seen = seen.map(|remote| remote.on_lane(0));
        let mut candidates: Vec<Remote> = seen.into_iter().collect();
        for candidate in &self.candidates {
            if !candidates.contains(candidate) {
                candidates.push(*candidate);
            }
        }
        // Whoever cannot use UDP needs the one that is reached over TCP.
        if let Some(tcp) = candidates.iter().position(|remote| remote.is_tcp()) {
            candidates.swap(tcp, tcp.min(CONTACT_CANDIDATES_MAX - 1));
        }
        candidates.truncate(CONTACT_CANDIDATES_MAX);
        Contact {
            id: self.certificate.node_id(),
            static_key: self.certificate.static_key(),
            candidates,
        }
    }
}
