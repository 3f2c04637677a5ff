//! Hosts, the network between them and virtual time: the loop that everything runs in.

mod members;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use serde::Serialize;
use wow_overlay::Rng;
use wow_overlay::id::NodeId;
use wow_overlay::time::Instant;
use wow_overlay::wire::Remote;

use crate::guests::{Arrival, Book};
use crate::machine::{Machine, Notice, Population, Sought, Start};
use crate::network::{Flight, HostId, Network};
use crate::queue::Queue;
use crate::trace::Trace;

/// Deadlines a machine may let pass within one instant before it counts as stuck.
const DEADLINES_PER_INSTANT_MAX: u32 = 1000;
/// The longest UDP payload that an Ethernet's 1500 bytes carry over IPv4.
const DATAGRAM_MAX: usize = 1472;
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

/// What a host has sent and received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    /// Datagrams handed to the network.
    pub datagrams: u64,
    /// Their bytes, without UDP and IP headers.
    pub bytes: u64,
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

#[derive(Clone, Copy)]
struct Pause {
    since: Instant,
    freezes_clock: bool,
}

struct Host<M> {
    machine: Option<M>,
    /// How often it was started: timers of earlier lives are void.
    life: u32,
    /// When the machine's timer goes off.
    armed: Option<Instant>,
    /// What the machine last asked for, which may be later.
    due: Option<(Instant, &'static str)>,
    fired: (Instant, u32),
    /// Stopped until then, and whether its clock stands still with it.
    paused: Option<Pause>,
    /// How far the host's clock is behind.
    lag: Duration,
    /// When it was last started, or went on after a pause.
    woke: Instant,
    /// When its membership was ended.
    revoked: Option<Instant>,
    started: Option<Instant>,
    join_took: Option<Duration>,
    meter: Meter,
}

enum Event {
    Start(HostId),
    Arrive { flight: Flight, datagram: Box<[u8]> },
    Timer { host: HostId, life: u32 },
}

/// A whole simulated pool.
pub struct World<P: Population> {
    now: Instant,
    rng: Rng,
    queue: Queue<Event>,
    network: Network,
    population: P,
    hosts: Vec<Host<P::Machine>>,
    by_id: BTreeMap<NodeId, HostId>,
    seeds: Vec<HostId>,
    book: Book,
    guest: GuestTallies,
    guest_delays: Vec<f64>,
    notices: Vec<(HostId, Notice)>,
    trace: Trace,
    events: u64,
    violations: Vec<Violation>,
}

impl<P: Population> World<P> {
    /// `hosts` hosts, none started; the first `seeds` of them are where the others join.
    pub fn new(mut rng: Rng, network: Network, population: P, hosts: usize, seeds: usize) -> Self {
        let ids = (0..hosts).map(|n| HostId(n as u32));
        World {
            now: Instant::ZERO,
            rng: rng.fork(),
            queue: Queue::new(),
            network,
            by_id: ids
                .clone()
                .map(|host| (population.id(host), host))
                .collect(),
            population,
            hosts: ids
                .map(|_| Host {
                    machine: None,
                    life: 0,
                    armed: None,
                    due: None,
                    fired: (Instant::ZERO, 0),
                    paused: None,
                    lag: Duration::ZERO,
                    woke: Instant::ZERO,
                    revoked: None,
                    started: None,
                    join_took: None,
                    meter: Meter::default(),
                })
                .collect(),
            seeds: (0..seeds).map(|n| HostId(n as u32)).collect(),
            book: Book::default(),
            guest: GuestTallies::default(),
            guest_delays: Vec::new(),
            notices: Vec::new(),
            trace: Trace::new(),
            events: 0,
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
        self.queue.push(at, Event::Start(host));
    }

    /// Lets everything happen that is due until `until`, and makes that the time.
    pub fn run_until(&mut self, until: Instant) {
        while let Some((at, event)) = self.queue.pop_until(until) {
            self.now = at;
            self.events += 1;
            match event {
                Event::Start(host) => self.start(host),
                Event::Arrive { flight, datagram } => self.arrive(flight, datagram),
                Event::Timer { host, life } => self.fire(host, life),
            }
            if self.violations.len() >= VIOLATIONS_MAX {
                break;
            }
        }
        self.now = until;
    }

    /// Stops `host`'s node: it neither hears nor does anything. With `freezes_clock` its clock stops
    /// too, so that it will not know.
    pub fn pause(&mut self, host: HostId, freezes_clock: bool) {
        let target = &mut self.hosts[host.index()];
        target.paused = target.machine.as_ref().map(|_| Pause {
            since: self.now,
            freezes_clock,
        });
        target.armed = None;
        self.trace.word(0x70);
        self.trace.word(u64::from(host.0));
    }

    /// Lets `host`'s node go on, if it was stopped and still is.
    pub fn resume(&mut self, host: HostId) {
        let target = &mut self.hosts[host.index()];
        let Some(pause) = target.paused.take() else {
            return;
        };
        target.woke = self.now;
        if pause.freezes_clock {
            target.lag += self.now - pause.since;
        }
        // It may have been moved meanwhile, as a virtual machine is.
        let local = self.network.local_remotes(host);
        if let Some((machine, now)) = self.awake(host) {
            machine.handle_move(now, local);
            self.drain(host);
        }
    }

    /// Takes `host` to another domain.
    pub fn move_host(&mut self, host: HostId) {
        self.network.move_host(&mut self.rng, host);
        let local = self.network.local_remotes(host);
        self.trace.word(0x6d);
        self.trace.word(u64::from(host.0));
        if let Some((machine, now)) = self.awake(host) {
            machine.handle_move(now, local);
            self.drain(host);
        }
    }

    /// The node of `host` and the time on its clock, if it runs and is not stopped.
    fn awake(&mut self, host: HostId) -> Option<(&mut P::Machine, Instant)> {
        let now = self.now;
        let target = &mut self.hosts[host.index()];
        if target.paused.is_some() {
            return None;
        }
        Some((target.machine.as_mut()?, local_time(now, target.lag)))
    }

    /// The node of `host` is gone, without a word.
    pub fn kill(&mut self, host: HostId) {
        let target = &mut self.hosts[host.index()];
        target.machine = None;
        target.paused = None;
        target.armed = None;
        self.network.close(host);
        self.trace.word(0x6b);
        self.trace.word(u64::from(host.0));
    }

    /// The node of `host` says goodbye, and is gone.
    pub fn stop(&mut self, host: HostId) {
        if let Some((machine, now)) = self.awake(host) {
            machine.leave(now);
            self.drain(host);
        }
        self.kill(host);
    }

    /// Hands a guest packet to `from`'s node, for `to`. Returns its number in the book, if there
    /// is such a node.
    pub fn send_guest(&mut self, from: HostId, to: HostId, v6: bool, length: usize) -> Option<u64> {
        self.awake(from)?;
        let source = self.machine(from)?.addresses();
        let target = (to, self.machine(to)?.addresses());
        let (number, packet) = self.book.write(self.now, source, target, v6, length);
        self.guest.sent += 1;
        let (machine, now) = self.awake(from)?;
        machine.handle_guest_packet(now, &packet);
        self.drain(from);
        Some(number)
    }

    /// Whether guest packet `number` has arrived.
    pub fn has_arrived(&self, number: u64) -> bool {
        self.book.has_arrived(number)
    }

    /// Lets `from`'s node look up an address or a name.
    pub fn lookup(&mut self, from: HostId, sought: Sought) -> Option<u64> {
        let (machine, now) = self.awake(from)?;
        let token = machine.lookup(now, sought);
        self.drain(from);
        Some(token)
    }

    /// Lets `from`'s node ping another.
    pub fn ping(&mut self, from: HostId, to: HostId) -> Option<u64> {
        let target = self.population.id(to);
        let (machine, now) = self.awake(from)?;
        let token = machine.ping(now, target);
        self.drain(from);
        Some(token)
    }

    /// Everything nodes have told since the last call.
    pub fn take_notices(&mut self) -> Vec<(HostId, Notice)> {
        std::mem::take(&mut self.notices)
    }

    /// Records that a rule was broken.
    pub fn violate(&mut self, rule: &'static str, detail: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation {
                at_s: self.now.as_micros() as f64 / 1e6,
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
        (0..self.hosts.len()).map(|n| HostId(n as u32))
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
        let took = self.hosts.iter().filter_map(|host| host.join_took);
        took.map(|took| took.as_secs_f64() * 1e3).collect()
    }

    /// What each host has sent.
    pub fn meters(&self) -> impl Iterator<Item = Meter> + '_ {
        self.hosts.iter().map(|host| host.meter)
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
        self.trace.value()
    }

    /// Events handled so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    fn start(&mut self, host: HostId) {
        let mut rng_seed = [0; 32];
        self.rng.fill(&mut rng_seed[..]);
        let others = self.seeds.iter().filter(|seed| **seed != host);
        let seeds: Vec<Remote> = others
            .flat_map(|seed| self.network.local_remotes(*seed))
            .collect();
        let machine = self.population.start(Start {
            host,
            local: self.network.local_remotes(host),
            seeds,
            rng_seed,
            now: local_time(self.now, self.hosts[host.index()].lag),
        });
        let target = &mut self.hosts[host.index()];
        target.machine = Some(machine);
        target.woke = self.now;
        target.life += 1;
        target.armed = None;
        target.started.get_or_insert(self.now);
        self.trace.word(0x73);
        self.trace.word(u64::from(host.0));
        self.drain(host);
    }

    fn arrive(&mut self, flight: Flight, mut datagram: Box<[u8]>) {
        let Some((host, lane)) = self.network.receive_on(self.now, &flight) else {
            return;
        };
        self.trace.time(self.now);
        self.trace.word(u64::from(host.0));
        self.trace.bytes(&datagram);
        let Some((machine, now)) = self.awake(host) else {
            return;
        };
        machine.handle_datagram(now, flight.source().on_lane(lane), &mut datagram);
        self.drain(host);
    }

    fn fire(&mut self, host: HostId, life: u32) {
        let now = self.now;
        let target = &mut self.hosts[host.index()];
        let Some(machine) = &mut target.machine else {
            return;
        };
        if target.life != life || target.armed != Some(now) {
            return;
        }
        target.armed = None;
        let Some((deadline, reason)) = target.due else {
            return;
        };
        if deadline > now {
            self.arm(host, deadline);
            return;
        }
        let (instant, count) = target.fired;
        target.fired = (now, if instant == now { count + 1 } else { 1 });
        if target.fired.1 > DEADLINES_PER_INSTANT_MAX {
            let detail = format!("node {host:?}: deadline `{reason}` never moves on");
            self.kill(host);
            self.violate("deadlines progress", detail);
            return;
        }
        machine.handle_deadline(local_time(now, target.lag));
        self.drain(host);
    }

    /// Takes everything out of a machine after it was touched, and arms its timer.
    fn drain(&mut self, host: HostId) {
        let target = &mut self.hosts[host.index()];
        let Some(machine) = &mut target.machine else {
            return;
        };
        let mut longest = 0;
        while let Some(outgoing) = machine.poll_transmit() {
            longest = longest.max(outgoing.datagram.len());
            if outgoing.datagram.len() > DATAGRAM_MAX {
                machine.recycle(outgoing.datagram);
                continue;
            }
            target.meter.datagrams += 1;
            target.meter.bytes += outgoing.datagram.len() as u64;
            let Some((flight, times)) = self.network.send(self.now, host, outgoing.to) else {
                machine.recycle(outgoing.datagram);
                continue;
            };
            // What is under way is kept in its true size; the node's larger buffers go back to it.
            for at in times.into_iter().flatten() {
                let datagram = outgoing.datagram.as_slice().into();
                self.queue.push(at, Event::Arrive { flight, datagram });
            }
            machine.recycle(outgoing.datagram);
        }
        let mut packets = Vec::new();
        while let Some(packet) = machine.poll_guest_packet() {
            packets.push(packet);
        }
        while let Some(notice) = machine.poll_notice() {
            self.notices.push((host, notice));
        }
        if target.join_took.is_none()
            && let (Some(started), Some(joined)) = (target.started, machine.joined_at())
        {
            target.join_took = Some(joined + target.lag - started);
        }
        let due = machine.next_deadline();
        target.due = due.map(|(deadline, reason)| (deadline + target.lag, reason));
        if let Some((deadline, _)) = target.due {
            self.arm(host, deadline);
        }
        for packet in packets {
            self.judge(host, &packet);
        }
        if longest > DATAGRAM_MAX {
            let detail = format!("{host:?} sent one of {longest} bytes, limit {DATAGRAM_MAX}");
            self.violate("datagrams fit the network", detail);
        }
    }

    /// Sets a machine's timer. One that is set too early finds out when it goes off.
    fn arm(&mut self, host: HostId, deadline: Instant) {
        let deadline = deadline.max(self.now);
        let target = &mut self.hosts[host.index()];
        if target.armed.is_none_or(|armed| deadline < armed) {
            target.armed = Some(deadline);
            let life = target.life;
            self.queue.push(deadline, Event::Timer { host, life });
        }
    }

    fn judge(&mut self, host: HostId, packet: &[u8]) {
        match self.book.read(self.now, host, packet) {
            Arrival::Delivered(delay) => {
                self.guest.delivered += 1;
                self.guest_delays.push(delay.as_secs_f64() * 1e3);
            }
            Arrival::Again => self.guest.duplicates += 1,
            // It was for whoever holds the address, and that changes.
            Arrival::Misdelivered { .. } if self.holds_target(host, packet) => {}
            Arrival::Misdelivered { meant_for } => self.violate(
                "guest packets reach their destination only",
                format!("{host:?} got one meant for {meant_for:?}"),
            ),
            Arrival::Altered => self.violate(
                "guest packets arrive as sent",
                format!("{host:?} got one that was altered"),
            ),
            Arrival::Unknown => self.violate(
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

/// What a clock shows that is behind by `lag`.
fn local_time(now: Instant, lag: Duration) -> Instant {
    Instant::ZERO + (now - (Instant::ZERO + lag))
}
