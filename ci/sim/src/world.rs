//! Hosts, the network between them and virtual time, as whoever plays a scenario sees them.
//!
//! Time passes in [`World::run_until`]: every domain's [`site`] by itself, in [`windows`] so short that
//! what one does cannot reach another within them, and so on as many threads as one likes. Everything
//! else here happens between, at one moment.

mod members;
mod site;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use serde::Serialize;
use wow_overlay::Rng;
use wow_overlay::id::NodeId;
use wow_overlay::time::Instant;

use self::site::{Host, Seen, Site, Surroundings};
use crate::guests::{Arrival, Book};
use crate::machine::{Machine, Notice, Population, Sought};
use crate::network::{HostId, Network};
use crate::trace::Trace;

pub use self::site::Meter;

/// Violations kept; a run that has this many needs no more.
const VIOLATIONS_MAX: usize = 20;

/// Something that must never happen, and did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Violation {
    /// When, in seconds of virtual time.
    pub at_s: f64,
    /// Which rule.
    pub rule: &'static str,
    /// The particulars.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.3} s: {}: {}", self.at_s, self.rule, self.detail)
    }
}

/// Guest packets by their fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GuestTallies {
    /// Handed to a node.
    pub sent: u64,
    /// Delivered intact.
    pub delivered: u64,
    /// Delivered more than once.
    pub duplicates: u64,
}

/// A whole simulated pool.
pub struct World<P: Population> {
    now: Instant,
    rng: Rng,
    network: Network,
    /// The hosts of each domain.
    sites: Vec<Site<P::Machine>>,
    population: P,
    threads: usize,
    count: usize,
    by_id: BTreeMap<NodeId, HostId>,
    seeds: Vec<HostId>,
    book: Book,
    guest: GuestTallies,
    guest_delays: Vec<f64>,
    notices: Vec<(HostId, Notice)>,
    trace: Trace,
    violations: Vec<Violation>,
}

impl<P: Population> World<P> {
    /// `hosts` hosts, none started; the first `seeds` of them are where the others join. Time passes
    /// on `threads` threads, whose number changes nothing but how fast.
    pub fn new(
        mut rng: Rng,
        network: Network,
        population: P,
        hosts: usize,
        seeds: usize,
        threads: usize,
    ) -> Self {
        let ids = (0..hosts).map(|n| HostId(n as u32));
        let mut sites: Vec<_> = (0..network.domains()).map(|_| Site::default()).collect();
        for host in ids.clone() {
            sites[network.map().domain_of(host)].admit(Host::new(host));
        }
        World {
            now: Instant::ZERO,
            rng: rng.fork(),
            network,
            sites,
            by_id: ids.map(|host| (population.id(host), host)).collect(),
            population,
            threads: threads.max(1),
            count: hosts,
            seeds: (0..seeds).map(|n| HostId(n as u32)).collect(),
            book: Book::default(),
            guest: GuestTallies::default(),
            guest_delays: Vec::new(),
            notices: Vec::new(),
            trace: Trace::new(),
            violations: Vec::new(),
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The network, to change its conditions.
    pub fn network_mut(&mut self) -> &mut Network {
        &mut self.network
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Boots `host`'s node at `at`.
    pub fn start_at(&mut self, at: Instant, host: HostId) {
        let mut rng_seed = [0; 32];
        self.rng.fill(&mut rng_seed[..]);
        self.site_mut(host).start_at(at, host, rng_seed);
    }

    /// Lets everything happen that is due until `until`, and makes that the time.
    pub fn run_until(&mut self, until: Instant) {
        let (map, edges) = self.network.parts_mut();
        let around = Surroundings {
            map,
            population: &self.population,
            seeds: &self.seeds,
        };
        windows::run(self.threads, &around, edges, &mut self.sites, until);
        self.now = until;
        let seen = self.sites.iter_mut().flat_map(|site| site.take_seen());
        let mut seen: Vec<_> = seen.collect();
        // Stable: what one host shows at one moment stays in its order.
        seen.sort_by_key(|(at, host, _)| (*at, *host));
        for (at, host, seen) in seen {
            self.take_in(at, host, seen);
        }
    }

    /// Stops `host`'s node: it neither hears nor does anything. With `freezes_clock` its clock stops
    /// too, so that it will not know.
    pub fn pause(&mut self, host: HostId, freezes_clock: bool) {
        let now = self.now;
        self.host_mut(host).pause(now, freezes_clock);
        self.trace.word(0x70);
        self.trace.word(u64::from(host.0));
    }

    /// Lets `host`'s node go on, if it was stopped and still is.
    pub fn resume(&mut self, host: HostId) {
        let now = self.now;
        if self.host_mut(host).resume(now) {
            // It may have been moved meanwhile, as a virtual machine is.
            let local = self.network.local_remotes(host);
            self.touch(host, |machine, now| machine.handle_move(now, local));
        }
    }

    /// Takes `host` to another domain.
    pub fn move_host(&mut self, host: HostId) {
        let moving = self.site_mut(host).dismiss(host);
        self.network.move_host(&mut self.rng, host);
        self.site_mut(host).admit(moving);
        let local = self.network.local_remotes(host);
        self.trace.word(0x6d);
        self.trace.word(u64::from(host.0));
        self.touch(host, |machine, now| machine.handle_move(now, local));
    }

    /// Does something to the node of `host`, if it runs and is not stopped, and takes out of it what
    /// comes of that.
    fn touch<T>(
        &mut self,
        host: HostId,
        act: impl FnOnce(&mut P::Machine, Instant) -> T,
    ) -> Option<T> {
        let domain = self.network.map().domain_of(host);
        let (map, edges) = self.network.parts_mut();
        let around = Surroundings {
            map,
            population: &self.population,
            seeds: &self.seeds,
        };
        let (site, edge) = (&mut self.sites[domain], &mut edges[domain]);
        let mut letters = Vec::new();
        let result = site.touch(&around, edge, self.now, host, &mut letters, act)?;
        let seen: Vec<_> = site.take_seen().collect();
        for letter in letters {
            self.sites[letter.domain].take(letter);
        }
        for (at, host, seen) in seen {
            self.take_in(at, host, seen);
        }
        Some(result)
    }

    /// The node of `host` is gone, without a word.
    pub fn kill(&mut self, host: HostId) {
        self.host_mut(host).kill();
        self.network.close(host);
        self.trace.word(0x6b);
        self.trace.word(u64::from(host.0));
    }

    /// The node of `host` says goodbye, and is gone.
    pub fn stop(&mut self, host: HostId) {
        self.touch(host, |machine, now| machine.leave(now));
        self.kill(host);
    }

    /// Hands a guest packet to `from`'s node, for `to`. Returns its number in the book, if there
    /// is such a node.
    pub fn send_guest(&mut self, from: HostId, to: HostId, v6: bool, length: usize) -> Option<u64> {
        if !self.host(from).is_awake() {
            return None;
        }
        let source = self.machine(from)?.addresses();
        let target = (to, self.machine(to)?.addresses());
        let (number, packet) = self.book.write(self.now, source, target, v6, length);
        self.guest.sent += 1;
        self.touch(from, |machine, now| {
            machine.handle_guest_packet(now, &packet);
        })?;
        Some(number)
    }

    /// Whether guest packet `number` has arrived.
    pub fn has_arrived(&self, number: u64) -> bool {
        self.book.has_arrived(number)
    }

    /// Lets `from`'s node look up an address or a name.
    pub fn lookup(&mut self, from: HostId, sought: Sought) -> Option<u64> {
        self.touch(from, |machine, now| machine.lookup(now, sought))
    }

    /// Lets `from`'s node ping another.
    pub fn ping(&mut self, from: HostId, to: HostId) -> Option<u64> {
        let target = self.population.id(to);
        self.touch(from, |machine, now| machine.ping(now, target))
    }

    /// Everything nodes have told since the last call.
    pub fn take_notices(&mut self) -> Vec<(HostId, Notice)> {
        std::mem::take(&mut self.notices)
    }

    /// Records that a rule was broken.
    pub fn violate(&mut self, rule: &'static str, detail: String) {
        self.violate_at(self.now, rule, detail);
    }

    fn violate_at(&mut self, at: Instant, rule: &'static str, detail: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation {
                at_s: at.as_micros() as f64 / 1e6,
                rule,
                detail,
            });
        }
    }

    /// The rules broken so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Every host.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> + use<P> {
        (0..self.count).map(|n| HostId(n as u32))
    }

    fn host(&self, host: HostId) -> &Host<P::Machine> {
        let site = &self.sites[self.network.map().domain_of(host)];
        site.host(host).expect("the map says where a host is")
    }

    fn host_mut(&mut self, host: HostId) -> &mut Host<P::Machine> {
        let site = self.site_mut(host);
        site.host_mut(host).expect("the map says where a host is")
    }

    fn site_mut(&mut self, host: HostId) -> &mut Site<P::Machine> {
        &mut self.sites[self.network.map().domain_of(host)]
    }

    /// The hosts where others join.
    pub fn seeds(&self) -> &[HostId] {
        &self.seeds
    }

    /// The position of `host`'s node.
    pub fn id(&self, host: HostId) -> NodeId {
        self.population.id(host)
    }

    /// Whose node has position `id`.
    pub fn host_of(&self, id: NodeId) -> Option<HostId> {
        self.by_id.get(&id).copied()
    }

    /// How long each first join took, in milliseconds.
    pub fn join_times_ms(&self) -> Vec<f64> {
        let took = self.hosts().filter_map(|host| self.host(host).join_took);
        took.map(|took| took.as_secs_f64() * 1e3).collect()
    }

    /// What each host has sent.
    pub fn meters(&self) -> impl Iterator<Item = Meter> + '_ {
        self.hosts().map(|host| self.host(host).meter)
    }

    /// Guest packets by their fate.
    pub fn guest_tallies(&self) -> GuestTallies {
        self.guest
    }

    /// How long each delivered guest packet took, in milliseconds.
    pub fn guest_delays_ms(&self) -> &[f64] {
        &self.guest_delays
    }

    /// The hash of everything so far.
    pub fn trace(&self) -> u64 {
        let mut trace = self.trace;
        for site in &self.sites {
            trace.word(site.trace());
        }
        trace.value()
    }

    /// Events handled so far.
    pub fn events(&self) -> u64 {
        self.sites.iter().map(Site::events).sum()
    }

    /// Takes in what a host's node has shown.
    fn take_in(&mut self, at: Instant, host: HostId, seen: Seen) {
        match seen {
            Seen::Notice(notice) => self.notices.push((host, notice)),
            Seen::Packet { packet, leases } => self.judge(at, host, &packet, &leases),
            Seen::Violation(rule, detail) => self.violate_at(at, rule, detail),
            Seen::Stuck(reason) => {
                self.kill(host);
                let detail = format!("node {host:?}: deadline `{reason}` never moves on");
                self.violate_at(at, "deadlines progress", detail);
            }
        }
    }

    fn judge(&mut self, at: Instant, host: HostId, packet: &[u8], leases: &[Ipv4Addr]) {
        match self.book.read(at, host, packet) {
            Arrival::Delivered(delay) => {
                self.guest.delivered += 1;
                self.guest_delays.push(delay.as_secs_f64() * 1e3);
            }
            Arrival::Again => self.guest.duplicates += 1,
            // It was for whoever holds the address, and that changes.
            Arrival::Misdelivered { .. } if members::is_for(packet, leases) => {}
            Arrival::Misdelivered { meant_for } => self.violate_at(
                at,
                "guest packets reach their destination only",
                format!("{host:?} got one meant for {meant_for:?}"),
            ),
            Arrival::Altered => self.violate_at(
                at,
                "guest packets arrive as sent",
                format!("{host:?} got one that was altered"),
            ),
            Arrival::Unknown => self.violate_at(
                at,
                "guest packets arrive as sent",
                format!("{host:?} got one that nobody sent"),
            ),
        }
    }

    /// `count` different hosts out of those that run, at random, but never the last seed that
    /// does: without one nobody could come back.
    pub fn draw_live(&mut self, count: usize) -> Vec<HostId> {
        let mut live: Vec<HostId> = self.live().collect();
        let live_seeds = self.seeds.iter().filter(|seed| self.is_live(**seed));
        let mut seeds_left = live_seeds.count();
        let mut drawn = Vec::new();
        while drawn.len() < count && !live.is_empty() {
            let host = live.swap_remove(self.rng.random_range(0..live.len()));
            if self.seeds.contains(&host) {
                if seeds_left <= 1 {
                    continue;
                }
                seeds_left -= 1;
            }
            drawn.push(host);
        }
        drawn
    }

    /// `count` pairs of different hosts that run.
    pub fn draw_pairs(&mut self, count: usize) -> Vec<(HostId, HostId)> {
        let live: Vec<HostId> = self.live().collect();
        if live.len() < 2 {
            return Vec::new();
        }
        let mut pairs = Vec::with_capacity(count);
        while pairs.len() < count {
            let from = live[self.rng.random_range(0..live.len())];
            let to = live[self.rng.random_range(0..live.len())];
            if from != to {
                pairs.push((from, to));
            }
        }
        pairs
    }

    /// `count` different domains at random.
    pub fn draw_domains(&mut self, count: usize) -> BTreeSet<usize> {
        let mut domains: Vec<usize> = (0..self.network.domains()).collect();
        let mut drawn = BTreeSet::new();
        while drawn.len() < count && !domains.is_empty() {
            drawn.insert(domains.swap_remove(self.rng.random_range(0..domains.len())));
        }
        drawn
    }

    /// A moment between now and `window` from now.
    pub fn draw_moment(&mut self, window: Duration) -> Instant {
        let micros = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        self.now + Duration::from_micros(self.rng.random_range(0..=micros))
    }
}
