//! A run from the first start to the verdict: faults on the way, then healing, then proof.
//!
//! Safety is checked throughout; liveness is required once the schedule has nothing more to do.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::SeedableRng;
use wow_overlay::Rng;
use wow_overlay::time::Instant;

use crate::checks::{self, RingFault};
use crate::faults::{Strike, StrikeKind};
use crate::figures::Spread;
use crate::machine::{Machine, Population};
use crate::network::{Conditions, HostId, Network};
use crate::probes::{Findings, probe, probe_revoked};
use crate::queue::Queue;
use crate::report::Report;
use crate::scenario::{DELAY, Scenario};
use crate::watch::{CUT_OFF, LEASES_SETTLE, Watch};
use crate::world::World;

/// Public nodes that the others know from the start.
pub const SEEDS: usize = 3;
/// How often the ring is looked at: the resolution of the times to converge.
const SAMPLE: Duration = Duration::from_millis(250);
/// How long a ring must stay consistent to count.
const SETTLE: Duration = Duration::from_secs(3);
/// How long after a strike its consequences may first show: peers take that long to give up on each
/// other.
const NOTICE: Duration = Duration::from_secs(10);
/// How long after the ring has formed links are still made and dropped.
const CALM: Duration = Duration::from_secs(40);
/// How long after a node's death a session with it may linger.
const LINGER_MAX: Duration = Duration::from_secs(60);
/// Random pairs that are probed.
const PAIRS_MAX: usize = 100;
/// Guest packets between random pairs while faults strike, in this interval.
const TRAFFIC: Duration = Duration::from_millis(100);
/// How often it is looked whether the revoked are cut off: what is measured to tens of milliseconds.
const LOOK: Duration = Duration::from_millis(50);
/// How often churn strikes.
const CHURN: Duration = Duration::from_secs(1);

/// Runs `scenario` with the nodes of a population made by `populate`, which gets a generator of
/// its own, on `threads` threads: their number changes nothing in the report.
pub fn run<P: Population>(
    scenario: &Scenario,
    threads: usize,
    populate: impl FnOnce(Rng) -> P,
) -> Report {
    let mut rng = Rng::seed_from_u64(scenario.seed);
    let seeds = SEEDS.min(scenario.nodes);
    let network = Network::new(
        rng.fork(),
        scenario.nodes,
        seeds,
        &scenario.nat,
        DELAY,
        scenario.faults.conditions,
    );
    let population = populate(rng.fork());
    let nodes = scenario.nodes;
    let world = World::new(rng.fork(), network, population, nodes, seeds, threads);
    let mut run = Run {
        scenario,
        world,
        agenda: Queue::new(),
        quiet: Instant::ZERO,
        struck: None,
        samples: 0,
        consistent_since: None,
        watch: Watch::default(),
        fault: None,
        findings: Findings::default(),
        report: Report::default(),
    };
    run.play();
    run.conclude()
}

enum Step {
    Strike(Strike),
    Churn(Strike, Instant),
    EndPartition,
    EndStorm(Conditions),
    Start(HostId),
    Resume(HostId),
    Traffic,
    /// Until when.
    Look(Instant),
}

struct Run<'a, P: Population> {
    scenario: &'a Scenario,
    world: World<P>,
    agenda: Queue<Step>,
    /// When the schedule has nothing more to do.
    quiet: Instant,
    /// When the last strike ended.
    struck: Option<Instant>,
    samples: u32,
    consistent_since: Option<Instant>,
    watch: Watch,
    fault: Option<RingFault>,
    findings: Findings,
    report: Report,
}

impl<P: Population> Run<'_, P> {
    fn play(&mut self) {
        self.schedule_starts();
        for strike in self.scenario.faults.strikes.clone() {
            if let Some(at) = strike.at {
                self.schedule(Instant::ZERO + at, strike);
            }
        }
        let Some(formed) = self.converge() else {
            return;
        };
        self.report.formed_s = Some(seconds(formed - Instant::ZERO));
        self.measure_joins();
        self.measure_idle();
        self.probe(false);

        let later = self.scenario.faults.strikes.iter();
        let later: Vec<Strike> = later.filter(|s| s.at.is_none()).copied().collect();
        if !later.is_empty() && self.world.violations().is_empty() {
            let now = self.world.now();
            for strike in later {
                self.schedule(now, strike);
            }
            let Some(healed) = self.converge() else {
                return;
            };
            self.report.healed_s = Some(seconds(healed - self.quiet));
            self.probe(false);
        }
        if let Some(struck) = self.struck {
            self.forget_the_dead(struck);
        }
        if self.struck.is_some() || !self.scenario.idle.is_zero() {
            self.settle();
            self.probe(true);
        }
        probe_revoked(&mut self.world);
    }

    fn schedule_starts(&mut self) {
        for host in self.world.hosts() {
            let at = match self.world.seeds().contains(&host) {
                true => Instant::ZERO,
                false => self.world.draw_moment(self.scenario.join_window),
            };
            self.world.start_at(at, host);
            self.quiet = self.quiet.max(at);
        }
    }

    fn schedule(&mut self, at: Instant, strike: Strike) {
        self.agenda.push(at, Step::Strike(strike));
        let end = at + strike.lasting;
        self.quiet = self.quiet.max(end);
        self.struck = self.struck.max(Some(end));
        let mut traffic = at + TRAFFIC;
        while traffic < end {
            self.agenda.push(traffic, Step::Traffic);
            traffic = traffic + TRAFFIC;
        }
    }

    /// Lets time pass until the schedule is done and the ring has been consistent for a while.
    /// Returns since when it has been.
    fn converge(&mut self) -> Option<Instant> {
        self.consistent_since = None;
        let deadline = self.quiet.max(self.world.now()) + self.scenario.limit;
        while self.world.violations().is_empty() {
            let now = self.world.now();
            if now > self.quiet
                && let Some(since) = self.consistent_since
                && now - since >= SETTLE
                && self.struck.is_none_or(|struck| now - struck >= NOTICE)
            {
                return Some(since);
            }
            if now >= deadline {
                let fault = self.fault.take().map(|fault| fault.to_string());
                let detail = fault.unwrap_or_else(|| "it never stays".to_owned());
                self.world.violate("one consistent ring forms", detail);
                break;
            }
            self.advance(now + SAMPLE);
        }
        None
    }

    /// Lets time pass, and looks at everything meanwhile.
    fn advance(&mut self, until: Instant) {
        while self.world.now() < until {
            let next = until.min(self.world.now() + SAMPLE);
            while let Some((at, step)) = self.agenda.pop_until(next) {
                self.world.run_until(at);
                self.step(step);
            }
            self.world.run_until(next);
            self.sample();
        }
    }

    fn sample(&mut self) {
        match checks::ring(&self.world) {
            Ok(()) => {
                self.consistent_since.get_or_insert(self.world.now());
            }
            Err(fault) => {
                self.consistent_since = None;
                self.fault = Some(fault);
            }
        }
        self.watch.look(&mut self.world, self.consistent_since);
        self.samples += 1;
        if self.samples.is_multiple_of(4)
            && let Err(detail) = checks::tables(&self.world)
        {
            self.world.violate("tables are bounded", detail);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Strike(strike) => self.strike(strike),
            Step::Churn(strike, end) => self.churn(strike, end),
            Step::EndPartition => self.world.network_mut().set_partition(Default::default()),
            Step::EndStorm(before) => self.world.network_mut().set_conditions(before),
            Step::Start(host) => {
                let now = self.world.now();
                self.world.start_at(now, host);
            }
            Step::Resume(host) => self.world.resume(host),
            Step::Traffic => {
                for (from, to) in self.world.draw_pairs(1) {
                    self.world.send_guest(from, to, false, 64);
                }
            }
            Step::Look(end) => {
                self.watch.look(&mut self.world, self.consistent_since);
                let next = self.world.now() + LOOK;
                if self.watch.awaits_cut_off() && next <= end {
                    self.agenda.push(next, Step::Look(end));
                }
            }
        }
    }

    fn strike(&mut self, strike: Strike) {
        let now = self.world.now();
        let end = now + strike.lasting;
        let live = strike.share.of(self.world.live().count());
        if strike.kind != StrikeKind::Revoke {
            self.watch.disturb(end);
        }
        match strike.kind {
            StrikeKind::Revoke => self.revoke(live),
            StrikeKind::Kill => {
                for host in self.world.draw_live(live) {
                    self.world.kill(host);
                }
            }
            StrikeKind::Stop => {
                for host in self.world.draw_live(live) {
                    self.world.stop(host);
                }
            }
            StrikeKind::Restart => {
                for host in self.world.draw_live(live) {
                    self.world.kill(host);
                    self.agenda.push(end, Step::Start(host));
                }
            }
            StrikeKind::Churn => self.churn(strike, end),
            StrikeKind::Partition => {
                let domains = strike.share.of(self.world.network().domains());
                let domains = self.world.draw_domains(domains);
                self.world.network_mut().set_partition(domains);
                self.agenda.push(end, Step::EndPartition);
            }
            StrikeKind::Storm => {
                let before = self.world.network().conditions();
                let mut storm = before;
                storm.loss = strike.share;
                self.world.network_mut().set_conditions(storm);
                self.agenda.push(end, Step::EndStorm(before));
            }
            StrikeKind::Pause => {
                for (n, host) in self.world.draw_live(live).into_iter().enumerate() {
                    self.world.pause(host, n % 2 == 0);
                    self.agenda.push(end, Step::Resume(host));
                }
            }
            StrikeKind::Move => {
                for host in self.world.draw_live(live) {
                    // Seeds are known by their addresses.
                    if !self.world.seeds().contains(&host) {
                        self.world.move_host(host);
                    }
                }
            }
            StrikeKind::Rebind => {
                let domains = strike.share.of(self.world.network().domains());
                for domain in self.world.draw_domains(domains) {
                    self.world.network_mut().reset_nat(domain);
                }
            }
        }
    }

    fn revoke(&mut self, count: usize) {
        let now = self.world.now();
        // The one drawn last tells of it.
        let mut drawn = self.world.draw_live(usize::MAX);
        let able = |host: &HostId| !self.world.is_paused(*host);
        let Some(by) = drawn.iter().rposition(able).map(|n| drawn.remove(n)) else {
            return;
        };
        drawn.truncate(count);
        self.world.revoke(by, &drawn);
        self.watch.revoke(now);
        self.agenda.push(now + LOOK, Step::Look(now + CUT_OFF));
    }

    fn churn(&mut self, strike: Strike, end: Instant) {
        let now = self.world.now();
        let count = strike.share.of(self.world.hosts().count());
        let dead: Vec<HostId> = self
            .world
            .hosts()
            .filter(|host| !self.world.is_live(*host))
            .filter(|host| self.world.revoked_at(*host).is_none())
            .take(count)
            .collect();
        for host in dead {
            self.world.start_at(now, host);
        }
        for host in self.world.draw_live(count) {
            self.world.kill(host);
        }
        if now + CHURN < end {
            self.agenda.push(now + CHURN, Step::Churn(strike, end));
        }
    }

    fn measure_joins(&mut self) {
        let meters: Vec<_> = self.world.meters().collect();
        let datagrams = meters.iter().map(|meter| meter.datagrams as f64);
        self.report.join_datagrams = Spread::of(datagrams.collect());
        let bytes = meters.iter().map(|meter| meter.bytes as f64);
        self.report.join_bytes = Spread::of(bytes.collect());
        self.report.join_kinds = rates(&BTreeMap::new(), &self.counters(), meters.len() as f64);
    }

    /// Waits until the bustle of joining is over, then meters what a node sends for nothing.
    fn measure_idle(&mut self) {
        let idle = self.scenario.idle;
        if idle.is_zero() {
            return;
        }
        self.advance(self.world.now() + CALM);
        let before: Vec<u64> = self.world.meters().map(|meter| meter.bytes).collect();
        let kinds_before = self.counters();
        self.advance(self.world.now() + idle);
        let span = idle.as_secs_f64() * before.len() as f64;
        self.report.idle_kinds = rates(&kinds_before, &self.counters(), span);
        let after = self.world.meters().map(|meter| meter.bytes);
        let spent = after.zip(before).map(|(after, before)| after - before);
        let rates = spent.map(|bytes| bytes as f64 / idle.as_secs_f64());
        self.report.idle_bytes_per_s = Spread::of(rates.collect());
    }

    fn probe(&mut self, settled: bool) {
        let count = PAIRS_MAX.min(self.world.live().count());
        let pairs = self.world.draw_pairs(count);
        // Before the probes link the pairs directly.
        let mut hops = Vec::with_capacity(count);
        for (from, to) in &pairs {
            match checks::greedy_hops(&self.world, *from, *to) {
                Some(forwarders) => hops.push(forwarders as f64),
                None => {
                    let detail = format!("from host {} to host {}", from.0, to.0);
                    self.world.violate("greedy routes arrive", detail);
                }
            }
        }
        self.report.hops = Spread::of(hops);
        probe(&mut self.world, &pairs, settled, &mut self.findings);
        // Nothing has happened since the ring was found consistent, so it must still be.
        if let Err(fault) = checks::ring(&self.world) {
            self.world
                .violate("a consistent ring stays", fault.to_string());
        }
    }

    fn forget_the_dead(&mut self, struck: Instant) {
        let deadline = self.world.now().max(struck + LINGER_MAX);
        while let Err(detail) = checks::sessions(&self.world) {
            if self.world.now() >= deadline {
                self.world.violate("sessions end with their nodes", detail);
                return;
            }
            self.advance(self.world.now() + SAMPLE);
        }
        self.report.forgotten_s = Some(seconds(self.world.now() - struck));
    }

    /// Lets the leases come to rest, and sees that they do.
    fn settle(&mut self) {
        let now = self.world.now();
        if let Some(since) = self.consistent_since {
            let settled = since.max(self.struck.unwrap_or(now)) + LEASES_SETTLE + 2 * SAMPLE;
            self.advance(now.max(settled));
        }
    }

    /// The nodes' own counters, summed.
    fn counters(&self) -> BTreeMap<&'static str, u64> {
        let mut counters: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (_, machine) in self.world.machines() {
            for (name, count) in machine.counts() {
                *counters.entry(name).or_default() += count;
            }
        }
        counters
    }

    fn conclude(mut self) -> Report {
        let counters = self.counters();
        let world = &self.world;
        let mut peers = Vec::new();
        for (_, machine) in world.machines() {
            peers.push(machine.peers().len() as f64);
        }
        Report {
            command: self.scenario.command(),
            nodes: self.scenario.nodes,
            seed: self.scenario.seed,
            passed: world.violations().is_empty(),
            violations: world.violations().to_vec(),
            join_ms: Spread::of(world.join_times_ms()),
            ping_hops: Spread::of(std::mem::take(&mut self.findings.hops)),
            ping_ms: Spread::of(std::mem::take(&mut self.findings.rtt_ms)),
            guest_ms: Spread::of(world.guest_delays_ms().to_vec()),
            guest: world.guest_tallies(),
            probes: self.findings,
            peers: Spread::of(peers),
            network: world.network().tallies(),
            cut_off_s: self.watch.longest_cut_off().map(seconds),
            disputed_s: seconds(self.watch.longest_dispute()),
            counters,
            virtual_s: seconds(world.now() - Instant::ZERO),
            events: world.events(),
            trace: format!("{:016x}", world.trace()),
            ..self.report
        }
    }
}

/// Bytes out by kind, from one reading of the counters to another, over `span`.
fn rates(
    before: &BTreeMap<&'static str, u64>,
    after: &BTreeMap<&'static str, u64>,
    span: f64,
) -> BTreeMap<&'static str, f64> {
    let mut rates = BTreeMap::new();
    for (name, count) in after {
        let kind = name.strip_prefix("bytes_");
        let Some(kind) = kind.filter(|kind| !["in", "out"].contains(kind)) else {
            continue;
        };
        let spent = count.saturating_sub(before.get(name).copied().unwrap_or(0));
        if spent > 0 {
            rates.insert(kind, spent as f64 / span);
        }
    }
    rates
}

fn seconds(span: Duration) -> f64 {
    span.as_secs_f64()
}

#[cfg(test)]
mod tests;
