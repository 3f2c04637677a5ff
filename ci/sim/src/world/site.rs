//! One domain: its hosts, and what is due there.
//!
//! Nothing that happens here reads or changes anything of another domain: datagrams leave as letters.

use std::net::Ipv4Addr;
use std::time::Duration;

use wow_overlay::time::Instant;
use wow_overlay::wire::Remote;

use crate::machine::{Machine, Notice, Population, Start};
use crate::network::{Edge, Flight, HostId, Map};
use crate::queue::{Queue, Rank};
use crate::trace::Trace;

/// Deadlines a machine may let pass within one instant before it counts as stuck.
const DEADLINES_PER_INSTANT_MAX: u32 = 1000;
/// The longest UDP payload that an Ethernet's 1500 bytes carry over IPv4.
const DATAGRAM_MAX: usize = 1472;

/// What a host has sent and received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    /// Datagrams handed to the network.
    pub datagrams: u64,
    /// Their bytes, without UDP and IP headers.
    pub bytes: u64,
}

/// What all sites see and none changes.
pub(super) struct Surroundings<'a, P> {
    pub map: &'a Map,
    pub population: &'a P,
    pub seeds: &'a [HostId],
}

/// What a host's node shows the world.
pub(super) enum Seen {
    Notice(Notice),
    /// An IP packet for the guest, and the addresses that the node takes for its own.
    Packet {
        packet: Vec<u8>,
        leases: Vec<Ipv4Addr>,
    },
    /// A rule, and how it was broken.
    Violation(&'static str, String),
    /// Nothing more: it is gone, as this deadline never moved on.
    Stuck(&'static str),
}

/// An event for another site.
pub(super) struct Letter {
    pub at: Instant,
    pub domain: usize,
    rank: Rank,
    event: Event,
}

enum Event {
    Start {
        host: HostId,
        rng_seed: Box<[u8; 32]>,
    },
    Arrive {
        flight: Flight,
        datagram: Box<[u8]>,
    },
    Timer {
        host: HostId,
        life: u32,
    },
}

#[derive(Clone, Copy)]
struct Pause {
    since: Instant,
    freezes_clock: bool,
}

/// A host and the node on it.
pub(super) struct Host<M> {
    id: HostId,
    pub machine: Option<M>,
    /// How often it was started: timers of earlier lives are void.
    life: u32,
    /// Events it has caused, by which those of one instant are ordered.
    caused: u64,
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
    pub woke: Instant,
    /// When its membership was ended.
    pub revoked: Option<Instant>,
    started: Option<Instant>,
    pub join_took: Option<Duration>,
    pub meter: Meter,
}

impl<M> Host<M> {
    pub(super) fn new(id: HostId) -> Self {
        Host {
            id,
            machine: None,
            life: 0,
            caused: 0,
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
        }
    }

    pub(super) fn pause(&mut self, now: Instant, freezes_clock: bool) {
        self.paused = self.machine.as_ref().map(|_| Pause {
            since: now,
            freezes_clock,
        });
        self.armed = None;
    }

    /// Returns whether it was stopped.
    pub(super) fn resume(&mut self, now: Instant) -> bool {
        let Some(pause) = self.paused.take() else {
            return false;
        };
        self.woke = now;
        if pause.freezes_clock {
            self.lag += now - pause.since;
        }
        true
    }

    pub(super) fn kill(&mut self) {
        self.machine = None;
        self.paused = None;
        self.armed = None;
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    pub(super) fn is_awake(&self) -> bool {
        self.machine.is_some() && self.paused.is_none()
    }

    /// The node and the time on its clock, if it runs and is not stopped.
    fn awake(&mut self, now: Instant) -> Option<(&mut M, Instant)> {
        if self.paused.is_some() {
            return None;
        }
        Some((self.machine.as_mut()?, local_time(now, self.lag)))
    }

    fn next_rank(&mut self) -> Rank {
        self.caused += 1;
        (self.id.0, self.caused)
    }
}

/// The hosts of a domain and their events.
pub(super) struct Site<M> {
    hosts: Vec<Host<M>>,
    queue: Queue<Event>,
    seen: Vec<(Instant, HostId, Seen)>,
    trace: Trace,
    events: u64,
}

impl<M> Default for Site<M> {
    fn default() -> Self {
        Site {
            hosts: Vec::new(),
            queue: Queue::new(),
            seen: Vec::new(),
            trace: Trace::new(),
            events: 0,
        }
    }
}

impl<M: Machine> Site<M> {
    pub(super) fn host(&self, host: HostId) -> Option<&Host<M>> {
        self.hosts.iter().find(|here| here.id == host)
    }

    pub(super) fn host_mut(&mut self, host: HostId) -> Option<&mut Host<M>> {
        self.hosts.iter_mut().find(|here| here.id == host)
    }

    /// Takes a host in, with its timer.
    pub(super) fn admit(&mut self, mut host: Host<M>) {
        if let (Some(at), true) = (host.armed, host.is_awake()) {
            let (id, life, rank) = (host.id, host.life, host.next_rank());
            self.queue
                .push_ranked(at, rank, Event::Timer { host: id, life });
        }
        self.hosts.push(host);
    }

    /// Lets a host go elsewhere.
    pub(super) fn dismiss(&mut self, host: HostId) -> Host<M> {
        let here = self.hosts.iter().position(|here| here.id == host);
        self.hosts
            .remove(here.expect("the map says where a host is"))
    }

    pub(super) fn start_at(&mut self, at: Instant, host: HostId, rng_seed: [u8; 32]) {
        let starting = self.host_mut(host).expect("the map says where a host is");
        let rank = starting.next_rank();
        let rng_seed = Box::new(rng_seed);
        self.queue
            .push_ranked(at, rank, Event::Start { host, rng_seed });
    }

    pub(super) fn take(&mut self, letter: Letter) {
        self.queue.push_ranked(letter.at, letter.rank, letter.event);
    }

    /// When the next event is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.queue.next_due()
    }

    /// What nodes have shown since the last call.
    pub(super) fn take_seen(&mut self) -> impl Iterator<Item = (Instant, HostId, Seen)> + use<M> {
        std::mem::take(&mut self.seen).into_iter()
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace.value()
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// Lets everything happen here that is due until `last`.
    pub(super) fn run_until<P: Population<Machine = M>>(
        &mut self,
        around: &Surroundings<'_, P>,
        edge: &mut Edge,
        last: Instant,
        letters: &mut Vec<Letter>,
    ) {
        while let Some((now, event)) = self.queue.pop_until(last) {
            self.events += 1;
            match event {
                Event::Start { host, rng_seed } => {
                    self.start(around, now, host, *rng_seed);
                    self.drain(around, edge, now, host, letters);
                }
                Event::Arrive {
                    flight,
                    mut datagram,
                } => {
                    let Some((host, lane)) = edge.receive(around.map, now, &flight) else {
                        continue;
                    };
                    self.trace.time(now);
                    self.trace.word(u64::from(host.0));
                    self.trace.bytes(&datagram);
                    let from = flight.source().on_lane(lane);
                    self.touch(around, edge, now, host, letters, |machine, now| {
                        machine.handle_datagram(now, from, &mut datagram);
                    });
                }
                Event::Timer { host, life } => {
                    if self.fire(now, host, life) {
                        self.drain(around, edge, now, host, letters);
                    }
                }
            }
        }
    }

    /// Does something to the node of `host`, if it runs and is not stopped, and takes out of it what
    /// comes of that.
    pub(super) fn touch<P: Population<Machine = M>, T>(
        &mut self,
        around: &Surroundings<'_, P>,
        edge: &mut Edge,
        now: Instant,
        host: HostId,
        letters: &mut Vec<Letter>,
        act: impl FnOnce(&mut M, Instant) -> T,
    ) -> Option<T> {
        let (machine, local) = self.host_mut(host)?.awake(now)?;
        let result = act(machine, local);
        self.drain(around, edge, now, host, letters);
        Some(result)
    }

    fn start<P: Population<Machine = M>>(
        &mut self,
        around: &Surroundings<'_, P>,
        now: Instant,
        host: HostId,
        rng_seed: [u8; 32],
    ) {
        self.trace.word(0x73);
        self.trace.word(u64::from(host.0));
        let target = self.host_mut(host).expect("only nodes that run move");
        let others = around.seeds.iter().filter(|seed| **seed != host);
        let seeds: Vec<Remote> = others
            .flat_map(|seed| around.map.local_remotes(*seed))
            .collect();
        target.machine = Some(around.population.start(Start {
            host,
            local: around.map.local_remotes(host),
            seeds,
            rng_seed,
            now: local_time(now, target.lag),
        }));
        target.woke = now;
        target.life += 1;
        target.armed = None;
        target.started.get_or_insert(now);
    }

    /// Returns whether the machine did something.
    fn fire(&mut self, now: Instant, host: HostId, life: u32) -> bool {
        // It may have moved away meanwhile.
        let Some(target) = self.host_mut(host) else {
            return false;
        };
        let Some(machine) = &mut target.machine else {
            return false;
        };
        if target.life != life || target.armed != Some(now) {
            return false;
        }
        target.armed = None;
        let Some((deadline, reason)) = target.due else {
            return false;
        };
        if deadline > now {
            self.arm(now, host, deadline);
            return false;
        }
        let (instant, count) = target.fired;
        target.fired = (now, if instant == now { count + 1 } else { 1 });
        if target.fired.1 > DEADLINES_PER_INSTANT_MAX {
            target.kill();
            self.seen.push((now, host, Seen::Stuck(reason)));
            return false;
        }
        machine.handle_deadline(local_time(now, target.lag));
        true
    }

    /// Takes everything out of a machine after it was touched, and arms its timer.
    fn drain<P: Population<Machine = M>>(
        &mut self,
        around: &Surroundings<'_, P>,
        edge: &mut Edge,
        now: Instant,
        id: HostId,
        letters: &mut Vec<Letter>,
    ) {
        let Some(host) = self.hosts.iter_mut().find(|here| here.id == id) else {
            return;
        };
        let Some(machine) = &mut host.machine else {
            return;
        };
        let mut longest = 0;
        while let Some(outgoing) = machine.poll_transmit() {
            longest = longest.max(outgoing.datagram.len());
            if outgoing.datagram.len() > DATAGRAM_MAX {
                machine.recycle(outgoing.datagram);
                continue;
            }
            host.meter.datagrams += 1;
            host.meter.bytes += outgoing.datagram.len() as u64;
            let Some(sent) = edge.send(around.map, now, id, outgoing.to) else {
                machine.recycle(outgoing.datagram);
                continue;
            };
            // What is under way is kept in its true size; the node's larger buffers go back to it.
            for at in sent.arrivals.into_iter().flatten() {
                host.caused += 1;
                let rank = (id.0, host.caused);
                let event = Event::Arrive {
                    flight: sent.flight,
                    datagram: outgoing.datagram.as_slice().into(),
                };
                if sent.domain == edge.domain() {
                    self.queue.push_ranked(at, rank, event);
                    continue;
                }
                letters.push(Letter {
                    at,
                    domain: sent.domain,
                    rank,
                    event,
                });
            }
            machine.recycle(outgoing.datagram);
        }
        while let Some(packet) = machine.poll_guest_packet() {
            let leases = machine.leases();
            self.seen.push((now, id, Seen::Packet { packet, leases }));
        }
        while let Some(notice) = machine.poll_notice() {
            self.seen.push((now, id, Seen::Notice(notice)));
        }
        if host.join_took.is_none()
            && let (Some(started), Some(joined)) = (host.started, machine.joined_at())
        {
            host.join_took = Some(joined + host.lag - started);
        }
        let due = machine.next_deadline();
        host.due = due.map(|(deadline, reason)| (deadline + host.lag, reason));
        if longest > DATAGRAM_MAX {
            let detail = format!("{id:?} sent one of {longest} bytes, limit {DATAGRAM_MAX}");
            let rule = "datagrams fit the network";
            self.seen.push((now, id, Seen::Violation(rule, detail)));
        }
        if let Some((deadline, _)) = host.due {
            self.arm(now, id, deadline);
        }
    }

    /// Sets a machine's timer. One that is set too early finds out when it goes off.
    fn arm(&mut self, now: Instant, host: HostId, deadline: Instant) {
        let deadline = deadline.max(now);
        let Some(target) = self.host_mut(host) else {
            return;
        };
        if target.armed.is_none_or(|armed| deadline < armed) {
            target.armed = Some(deadline);
            let (life, rank) = (target.life, target.next_rank());
            self.queue
                .push_ranked(deadline, rank, Event::Timer { host, life });
        }
    }
}

/// What a clock shows that is behind by `lag`.
fn local_time(now: Instant, lag: Duration) -> Instant {
    Instant::ZERO + (now - (Instant::ZERO + lag))
}
