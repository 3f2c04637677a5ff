//! The paper's join experiment: a fresh node starts in a domain behind a NAT, again and again, and
//! what is measured is when it is routable and when it has a direct link with another such node.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::PeerPath;
use crate::control::Control;
use crate::distribution::{Distribution, Summary};
use crate::inside::{self, Pinger};
use crate::interrupt;
use crate::members::Member;
use crate::namespaces::{Launcher, NamespaceTestbed};
use crate::planet;
use crate::progress::Task;

/// A trial that has not come so far by then counts as failed in what is missing.
const TRIAL_LIMIT: Duration = Duration::from_secs(30);

/// Between two echo requests to one node, and so what a time may be too long by.
const PING_INTERVAL: Duration = Duration::from_millis(20);

/// Between two looks at the node's peers, likewise.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A router answers its control socket at once; on a busy machine, soon.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Identifiers of the two targets' echo requests.
const ANYBODY: u16 = 0x5701;
const FELLOW: u16 = 0x5702;

/// One trial, times in milliseconds from the start of the node's process.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// Counted from 1.
    pub number: usize,
    /// The fresh node's domain and its NAT.
    pub domain: String,
    /// See `domain`.
    pub nat: String,
    /// A node anywhere that it pinged.
    pub target: String,
    /// A node in another domain, with which theory allows a direct link; and its NAT.
    pub fellow: String,
    /// See `fellow`.
    pub fellow_nat: String,
    /// The target's first answer.
    pub routable_ms: Option<f64>,
    /// The fellow's first answer, by whatever way.
    pub fellow_ms: Option<f64>,
    /// The direct link with the fellow.
    pub direct_ms: Option<f64>,
    /// When the node itself said that it had joined, from its daemon's start.
    pub joined_ms: Option<f64>,
}

/// All trials.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Every one, by number.
    pub trials: Vec<Trial>,
    /// Of `routable_ms`.
    pub routable: Summary,
    /// Of `direct_ms`.
    pub direct: Summary,
    /// Of `joined_ms`.
    pub joined: Summary,
}

/// How to try.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many trials.
    pub trials: usize,
    /// How many of them at once, in different domains.
    pub parallel: usize,
    /// Of the choice of domains and targets.
    pub seed: u64,
}

/// A place where nodes start.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Its domain.
    pub domain: String,
    /// The domain's NAT.
    pub nat: String,
    /// What starts them.
    pub launcher: Launcher,
}

/// What one trial is to do.
struct Draw {
    number: usize,
    lane: usize,
    target: Member,
    fellow: Member,
}

/// Carries the trials out. `members` are those that run all the time.
pub fn run(plan: &Plan, lanes: &[Lane], members: &[Member], task: &Task) -> Result<Outcome> {
    let draws = Mutex::new(draw(plan, lanes, members)?);
    let done = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let busy = Mutex::new(vec![false; lanes.len()]);
    let trials = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            interrupt::check()?;
            let Some(draw) = next(&draws, &busy) else {
                if draws.lock().expect("no holder panics").is_empty() {
                    break;
                }
                // All that is left is for lanes at work.
                thread::sleep(LOOK_INTERVAL);
                continue;
            };
            let lane = draw.lane;
            let trial =
                try_once(&draw, &lanes[lane]).with_context(|| format!("trial {}", draw.number));
            busy.lock().expect("no holder panics")[lane] = false;
            let trial = trial?;
            let count = done.fetch_add(1, Ordering::Relaxed) + 1;
            task.now(&format!("{count}/{}: {}", plan.trials, trial.in_words()));
            trials.lock().expect("no holder panics").push(trial);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.parallel.clamp(1, lanes.len()))
            .map(|_| {
                scope.spawn(|| {
                    let outcome = work();
                    if outcome.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    outcome
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .map_err(|_| anyhow::anyhow!("a trial panicked"))?
        })
    })?;
    let mut trials = trials.into_inner().expect("no holder panics");
    trials.sort_by_key(|trial| trial.number);
    Ok(Outcome::of(trials))
}

/// Chooses everything beforehand, so that a seed repeats it.
fn draw(plan: &Plan, lanes: &[Lane], members: &[Member]) -> Result<VecDeque<Draw>> {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    (1..=plan.trials)
        .map(|number| {
            let lane = rng.random_range(0..lanes.len());
            let target = members.choose(&mut rng).context("nobody to ping")?;
            let fellows: Vec<&Member> = members
                .iter()
                .filter(|member| member.domain != lanes[lane].domain)
                .filter(|member| {
                    let nat = member.nat.as_deref();
                    nat.is_some_and(|nat| planet::can_meet(nat, &lanes[lane].nat))
                })
                .collect();
            let fellow = fellows.choose(&mut rng).with_context(|| {
                format!(
                    "nobody behind a NAT can be met from domain {}: take more nodes",
                    lanes[lane].domain
                )
            })?;
            Ok(Draw {
                number,
                lane,
                target: target.clone(),
                fellow: (*fellow).clone(),
            })
        })
        .collect()
}

/// The first trial whose lane is free; it is taken.
fn next(draws: &Mutex<VecDeque<Draw>>, busy: &Mutex<Vec<bool>>) -> Option<Draw> {
    let mut draws = draws.lock().expect("no holder panics");
    let mut busy = busy.lock().expect("no holder panics");
    let at = draws.iter().position(|draw| !busy[draw.lane])?;
    let draw = draws.remove(at)?;
    busy[draw.lane] = true;
    Some(draw)
}

fn try_once(draw: &Draw, lane: &Lane) -> Result<Trial> {
    let name = format!("t{}", draw.number);
    let (router, node) = lane.launcher.launch(&name)?;
    let started = node.started;
    let targets = [draw.target.v4, draw.fellow.v4];
    let pings = inside::spawn(&lane.launcher.space, move || ping_both(targets, started))?;
    let watched = watch(node.client.socket(), &draw.fellow.id, started);
    let [routable, fellow] = pings
        .join()
        .map_err(|_| anyhow::anyhow!("a pinging thread panicked"))??;
    let (direct, mut control) = watched?;
    // It may be linked with the fellow before it has its place in the ring.
    let wait = json!({"op": "wait", "timeout_ms": TRIAL_LIMIT.as_millis() as u64});
    let status: Result<OwnStatus> = control.ask(wait, TRIAL_LIMIT + ANSWER_LIMIT);
    interrupt::check()?;
    lane.launcher.retire(router, &name)?;
    Ok(Trial {
        number: draw.number,
        domain: lane.domain.clone(),
        nat: lane.nat.clone(),
        target: draw.target.name.clone(),
        fellow: draw.fellow.name.clone(),
        fellow_nat: draw.fellow.nat.clone().unwrap_or_default(),
        routable_ms: routable.map(milliseconds),
        fellow_ms: fellow.map(milliseconds),
        direct_ms: direct.map(milliseconds),
        joined_ms: status.ok().and_then(|status| status.joined_after_ms),
    })
}

/// Pings the target until it answers and the fellow until it does, from the process's start on: a
/// request before the node is there is lost, as a person's would be.
fn ping_both([target, fellow]: [Ipv4Addr; 2], started: Instant) -> Result<[Option<Duration>; 2]> {
    let pingers = [Pinger::new(ANYBODY)?, Pinger::new(FELLOW)?];
    let mut answered = [None, None];
    let mut sequence = 0u16;
    while answered.iter().any(Option::is_none) && started.elapsed() < TRIAL_LIMIT {
        interrupt::check()?;
        let round = Instant::now();
        sequence = sequence.wrapping_add(1);
        for ((pinger, to), done) in pingers.iter().zip([target, fellow]).zip(&answered) {
            if done.is_none() {
                pinger.send(to, sequence);
            }
        }
        // Half of the interval each, at most.
        for ((pinger, to), done) in pingers.iter().zip([target, fellow]).zip(&mut answered) {
            let until = Instant::now() + PING_INTERVAL / 2;
            while done.is_none() && Instant::now() < until {
                let heard = pinger.receive(until.saturating_duration_since(Instant::now()))?;
                if heard.is_some_and(|(from, _)| from == to) {
                    *done = Some(started.elapsed());
                }
            }
        }
        thread::sleep(PING_INTERVAL.saturating_sub(round.elapsed()));
    }
    Ok(answered)
}

#[derive(Deserialize)]
struct Peer {
    id: String,
    path: PeerPath,
}

#[derive(Deserialize)]
struct OwnStatus {
    joined_after_ms: Option<f64>,
}

/// Looks at the fresh node's peers until the fellow is one by a direct path. When that was, and the
/// connection that was asked.
fn watch(socket: &Path, fellow: &str, started: Instant) -> Result<(Option<Duration>, Control)> {
    let mut control = None;
    let mut direct = None;
    while direct.is_none() && started.elapsed() < TRIAL_LIMIT {
        interrupt::check()?;
        thread::sleep(LOOK_INTERVAL);
        let Some(control) = &mut control else {
            control = Control::connect(socket).ok();
            continue;
        };
        let peers: Vec<Peer> = control.ask(json!({"op": "peers"}), ANSWER_LIMIT)?;
        let is_there = |peer: &Peer| peer.id == fellow && peer.path.is_direct();
        direct = peers.iter().any(is_there).then(|| started.elapsed());
    }
    let control = control.context("the router never opened its control socket")?;
    Ok((direct, control))
}

impl Outcome {
    fn of(trials: Vec<Trial>) -> Self {
        let summary =
            |time: fn(&Trial) -> Option<f64>| Distribution::new(trials.iter().map(time)).summary();
        Self {
            routable: summary(|trial| trial.routable_ms),
            direct: summary(|trial| trial.direct_ms),
            joined: summary(|trial| trial.joined_ms),
            trials,
        }
    }

    /// Comma-separated, with a heading.
    pub fn to_csv(&self) -> String {
        let mut text = String::from(
            "trial,domain,nat,target,fellow,fellow_nat,routable_ms,fellow_ms,direct_ms,joined_ms\n",
        );
        for trial in &self.trials {
            let times = [
                trial.routable_ms,
                trial.fellow_ms,
                trial.direct_ms,
                trial.joined_ms,
            ];
            let times = times.map(|time| time.map_or(String::new(), |ms| format!("{ms:.1}")));
            // Names are letters, digits and hyphens: nothing needs quotes.
            text += &format!(
                "{},{},{},{},{},{},{}\n",
                trial.number,
                trial.domain,
                trial.nat,
                trial.target,
                trial.fellow,
                trial.fellow_nat,
                times.join(",")
            );
        }
        text
    }
}

impl Trial {
    fn in_words(&self) -> String {
        let show = |time: Option<f64>| {
            time.map_or("never".to_owned(), |ms| format!("{:.2} s", ms / 1000.0))
        };
        format!(
            "{} routable {}, direct with {} {}",
            self.nat,
            show(self.routable_ms),
            self.fellow_nat,
            show(self.direct_ms)
        )
    }
}

/// The places for fresh nodes.
pub fn lanes(bed: &NamespaceTestbed) -> Result<Vec<Lane>> {
    let topology = bed.topology();
    let mut lanes = Vec::new();
    for (index, place) in topology.places.iter().enumerate() {
        if !planet::is_fresh(place) {
            continue;
        }
        let domain = topology.domain(place)?;
        let (_, nat) = domain.nat.context("fresh nodes start behind NATs")?;
        lanes.push(Lane {
            domain: domain.name.clone(),
            nat: nat.to_owned(),
            launcher: bed.launcher(index),
        });
    }
    Ok(lanes)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
