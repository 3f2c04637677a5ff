//! What a TCP connection through the overlay feels when its node moves to another domain, or when the
//! direct path under it is cut.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::PeerPath;
use crate::control::Control;
use crate::distribution::{Distribution, Summary};
use crate::interrupt;
use crate::members::Member;
use crate::namespaces::NamespaceTestbed;
use crate::planet;
use crate::progress::Task;
use crate::streams::{Arrivals, End, Streams};

/// The transfers run so long before anything happens; what they stall in it by themselves is told too.
const BEFORE: Duration = Duration::from_secs(5);

/// A stall that begins so soon after it is its doing; a later one is like those before it.
const DOING: Duration = Duration::from_secs(1);

/// They are watched so long after it.
const AFTER: Duration = Duration::from_secs(5);

/// A transfer that does not go on by then has failed.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// How long two nodes may take to have a direct path.
const DIRECT_LIMIT: Duration = Duration::from_secs(60);

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(50);

/// A router answers its control socket at once; on a busy machine, soon.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What happens to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trouble {
    /// It moves to another domain.
    Move,
    /// Its domain and the other node's are cut off from each other.
    Cut,
}

/// How often, and which.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many times.
    pub count: usize,
    /// What happens.
    pub trouble: Trouble,
    /// Of the choice of domains.
    pub seed: u64,
}

/// One time.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// Counted from 1.
    pub number: usize,
    /// The node's domain before and after.
    pub from: String,
    /// See `from`.
    pub to: String,
    /// The NAT after it.
    pub nat: String,
    /// From the loss of the old link to the new link being up, in milliseconds; zero for a cut.
    pub without_link_ms: f64,
    /// Longest time without bytes that began within a second of the new link (or the cut), toward the
    /// other node.
    pub stall_there_ms: Option<f64>,
    /// The same toward the node.
    pub stall_back_ms: Option<f64>,
    /// Longest time without bytes, either way, in the five seconds before: what the network's loss does
    /// to TCP anyway.
    pub calm_ms: Option<f64>,
    /// The same in the seconds after the first.
    pub later_ms: Option<f64>,
    /// The path between the two before it and at the end.
    pub path_before: Option<PeerPath>,
    /// See `path_before`.
    pub path_after: Option<PeerPath>,
}

/// All of them.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What happened.
    pub trouble: Trouble,
    /// The node that had the trouble, and the one it spoke with.
    pub node: String,
    /// See `node`.
    pub partner: String,
    /// Each time.
    pub events: Vec<Event>,
    /// Of the longer stall of each time.
    pub stall: Summary,
    /// Of what the transfers stalled before each time.
    pub calm: Summary,
}

/// Carries the plan out between two members behind different NATs that can meet.
pub fn run(
    plan: &Plan,
    bed: &mut NamespaceTestbed,
    members: &[Member],
    task: &Task,
) -> Result<Outcome> {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let (node, partner) = choose(members)?;
    let ends = [node, partner].map(|member| End {
        space: bed.space(member.place).to_owned(),
        v4: member.v4,
    });
    task.now(&format!("{} speaks with {}", node.name, partner.name));
    let mut streams = Streams::start(&ends[0], &ends[1])?;
    let mut events = Vec::new();
    for number in 1..=plan.count {
        wait_direct(bed, node, partner, &mut streams)?;
        let begin = Instant::now();
        sleep(BEFORE, &mut streams)?;
        let path_before = path(bed, node, partner)?;
        let from = bed.topology().places[node.place].domain.clone();
        let (to, gone, up) = match plan.trouble {
            Trouble::Move => {
                let to = next_domain(bed, node, partner, &mut rng)?;
                let address = guest_address(bed, &to)?;
                let (gone, up) = bed.move_place(node.place, &to, address)?;
                (to, gone, up)
            }
            Trouble::Cut => {
                bed.wan().cut(&from, &partner.domain)?;
                let now = Instant::now();
                (from.clone(), now, now)
            }
        };
        let flows = |arrivals: &Arrivals| arrivals.any_after(up);
        let deadline = up + STALL_LIMIT;
        while !(flows(&streams.there) && flows(&streams.back)) && Instant::now() < deadline {
            sleep(POLL, &mut streams)?;
        }
        sleep(AFTER, &mut streams)?;
        let end = Instant::now();
        let longest = |arrivals: &Arrivals, from: Instant, until: Instant, end: Instant| {
            arrivals.longest_gap(from..=until, end).map(milliseconds)
        };
        let stall = |arrivals: &Arrivals| longest(arrivals, up, up + DOING, end);
        let either = |from: Instant, end: Instant| {
            let both = [&streams.there, &streams.back];
            let gaps = both.map(|arrivals| longest(arrivals, from, end, end));
            gaps.into_iter().flatten().reduce(f64::max)
        };
        let event = Event {
            number,
            nat: nat_of(bed, &to)?.unwrap_or_default().to_owned(),
            from: from.clone(),
            without_link_ms: milliseconds(up - gone),
            stall_there_ms: stall(&streams.there),
            stall_back_ms: stall(&streams.back),
            calm_ms: either(begin, gone),
            later_ms: either(up + DOING, end),
            path_before,
            path_after: path(bed, node, partner)?,
            to,
        };
        task.now(&format!("{number}/{}: {}", plan.count, event.in_words()));
        events.push(event);
        if plan.trouble == Trouble::Cut {
            bed.wan().heal(&from, &partner.domain)?;
        }
    }
    let longer = |event: &Event| Some(event.stall_there_ms?.max(event.stall_back_ms?));
    Ok(Outcome {
        trouble: plan.trouble,
        node: node.name.clone(),
        partner: partner.name.clone(),
        stall: Distribution::new(events.iter().map(longer)).summary(),
        calm: Distribution::new(events.iter().map(|event| event.calm_ms)).summary(),
        events,
    })
}

/// Two members behind different NATs whose owners can meet from most domains: the partner's is the
/// most permitting one.
fn choose(members: &[Member]) -> Result<(&Member, &Member)> {
    let behind = |nat: &str| {
        members
            .iter()
            .find(|member| member.nat.as_deref() == Some(nat))
    };
    let partner = behind("restricted").or_else(|| behind("full-cone"));
    let partner =
        partner.context("no node behind a restricted or full-cone NAT: take more nodes")?;
    let node = members
        .iter()
        .find(|member| member.nat.is_some() && member.domain != partner.domain)
        .context("no second domain with a node: take more nodes")?;
    Ok((node, partner))
}

/// Another domain behind a NAT, from which the partner can be met.
fn next_domain(
    bed: &NamespaceTestbed,
    node: &Member,
    partner: &Member,
    rng: &mut StdRng,
) -> Result<String> {
    let topology = bed.topology();
    let present = &topology.places[node.place].domain;
    let partners = nat_of(bed, &partner.domain)?.unwrap_or_default();
    let names: Vec<&String> = topology
        .domains
        .iter()
        .filter(|domain| domain.name != *present && domain.name != partner.domain)
        .filter(|domain| {
            domain
                .nat
                .is_some_and(|(_, kind)| planet::can_meet(kind, partners))
        })
        .map(|domain| &domain.name)
        .collect();
    let name = names.choose(rng).context("no domain to move to")?;
    Ok((*name).clone())
}

/// An address in a domain that no place has: the last but one.
fn guest_address(bed: &NamespaceTestbed, domain: &str) -> Result<Ipv4Addr> {
    let subnet = bed.topology().domain_called(domain)?.subnet;
    Ok(Ipv4Addr::from(u32::from(subnet.broadcast()) - 1))
}

fn nat_of<'a>(bed: &'a NamespaceTestbed, domain: &str) -> Result<Option<&'a str>> {
    let domain = bed.topology().domain_called(domain)?;
    Ok(domain.nat.map(|(_, kind)| kind))
}

fn wait_direct(
    bed: &NamespaceTestbed,
    node: &Member,
    partner: &Member,
    streams: &mut Streams,
) -> Result<()> {
    let deadline = Instant::now() + DIRECT_LIMIT;
    while !path(bed, node, partner)?.is_some_and(|path| path.is_direct()) {
        anyhow::ensure!(
            Instant::now() < deadline,
            "{} and {} have no direct path within {} s",
            node.name,
            partner.name,
            DIRECT_LIMIT.as_secs()
        );
        sleep(POLL, streams)?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Peer {
    id: String,
    path: PeerPath,
}

/// The node's path to the partner, as it says; none without a session.
fn path(bed: &NamespaceTestbed, node: &Member, partner: &Member) -> Result<Option<PeerPath>> {
    let router = bed
        .nodes()
        .iter()
        .find(|router| router.name == node.name)
        .with_context(|| format!("{} does not run", node.name))?;
    let peers: Vec<Peer> =
        Control::connect(router.client.socket())?.ask(json!({"op": "peers"}), ANSWER_LIMIT)?;
    let peer = peers.into_iter().find(|peer| peer.id == partner.id);
    Ok(peer.map(|peer| peer.path))
}

fn sleep(time: Duration, streams: &mut Streams) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        interrupt::check()?;
        streams.check()?;
        thread::sleep(POLL.min(time));
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Event {
    fn in_words(&self) -> String {
        let show = |time: Option<f64>| {
            time.map_or("for ever".to_owned(), |ms| format!("{:.2} s", ms / 1000.0))
        };
        format!(
            "{} to {} ({}): stalls of {} there and {} back; {} before it",
            self.from,
            self.to,
            self.nat,
            show(self.stall_there_ms),
            show(self.stall_back_ms),
            show(self.calm_ms)
        )
    }
}
