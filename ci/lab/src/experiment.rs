//! The first experiment: everyone joins, everyone pings everyone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::client::{Client, Status};
use crate::command::{explained, wait_until};
use crate::interrupt;
use crate::report::{Joined, Pair};

/// One question's patience: short enough that a wait that has become pointless ends soon.
const WAIT_SLICE: Duration = Duration::from_secs(10);

/// Each node's wait ends by its own limit and the last question's; this is more than that.
const AFTER_LIMIT: Duration = Duration::from_secs(30);

/// One router of a testbed, as experiments see it.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// How to ask it.
    pub client: Client,
    /// When its machine or process was started.
    pub started: Instant,
}

/// Waits until all `nodes` are in the pool, at most `limit` each from its start. `seen` hears of each
/// as it comes; `alive` fails when a machine has ended.
pub fn join(
    nodes: &[Node],
    limit: Duration,
    seen: &(dyn Fn(&Joined) + Sync),
    alive: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Joined>> {
    let abandoned = &AtomicBool::new(false);
    thread::scope(|scope| {
        let waits: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(move || wait_joined(node, limit, abandoned, seen)))
            .collect();
        let all = wait_until("all nodes are in the pool", limit + AFTER_LIMIT, || {
            alive()?;
            Ok(waits.iter().all(|wait| wait.is_finished()).then_some(()))
        });
        if let Err(error) = all {
            // Without one machine the others' waits are pointless.
            abandoned.store(true, Ordering::Relaxed);
            return Err(error);
        }
        waits
            .into_iter()
            .map(|wait| {
                wait.join()
                    .map_err(|_| anyhow::anyhow!("a waiting thread panicked"))?
            })
            .collect()
    })
}

fn wait_joined(
    node: &Node,
    limit: Duration,
    abandoned: &AtomicBool,
    seen: &(dyn Fn(&Joined) + Sync),
) -> Result<Joined> {
    let mut last_error = None;
    let outcome = wait_until(&format!("{} is in the pool", node.name), limit, || {
        if abandoned.load(Ordering::Relaxed) {
            bail!("given up");
        }
        match node.client.wait_joined(WAIT_SLICE) {
            Ok(status) => Ok(Some(status)),
            // Not yet in the pool, or its control socket is not there yet.
            Err(error) => {
                last_error = Some(error);
                Ok(None)
            }
        }
    });
    let status = explained(outcome, last_error)?;
    let joined = joined(node, &status);
    seen(&joined);
    Ok(joined)
}

fn joined(node: &Node, status: &Status) -> Joined {
    Joined {
        name: node.name.clone(),
        id: status.id.clone(),
        v4: status.addresses.v4,
        v6: status.addresses.v6,
        power_on_to_pool_ms: node.started.elapsed().as_secs_f64() * 1000.0,
        boot_to_pool_ms: status.boot_to_joined_ms,
        daemon_to_pool_ms: status.joined_after_ms,
        rss_bytes: status.rss_bytes,
    }
}

/// Pings every ordered pair over virtual addresses, `count` times each, one node's targets after the
/// other and all nodes at once.
pub fn ping_all(
    nodes: &[Node],
    joined: &[Joined],
    count: u32,
    seen: &(dyn Fn(&Pair) + Sync),
) -> Result<Vec<Pair>> {
    if nodes.len() != joined.len() {
        bail!("{} nodes, but {} have joined", nodes.len(), joined.len());
    }
    thread::scope(|scope| {
        let pings: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(move || ping_from(node, joined, count, seen)))
            .collect();
        let mut pairs = Vec::new();
        for ping in pings {
            pairs.extend(
                ping.join()
                    .map_err(|_| anyhow::anyhow!("a pinging thread panicked"))??,
            );
        }
        Ok(pairs)
    })
}

fn ping_from(
    node: &Node,
    joined: &[Joined],
    count: u32,
    seen: &(dyn Fn(&Pair) + Sync),
) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for target in joined.iter().filter(|target| target.name != node.name) {
        interrupt::check()?;
        let address = target.v4.to_string();
        let ping = node
            .client
            .ping(&address, count)
            .with_context(|| format!("{} pings {} ({address})", node.name, target.name))?;
        let pair = Pair {
            from: node.name.clone(),
            to: target.name.clone(),
            sent: ping.sent,
            received: ping.received,
            rtt_ms: ping.rtt_ms,
            path: ping.path,
        };
        seen(&pair);
        pairs.push(pair);
    }
    Ok(pairs)
}
