//! The standing members of a big testbed: started in order, waited for, known by id and address.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use crate::client::Status;
use crate::control::Control;
use crate::interrupt;
use crate::namespaces::NamespaceTestbed;
use crate::planet;
use crate::progress::Task;

/// Everybody is in the pool by then, or something is wrong.
const JOIN_LIMIT: Duration = Duration::from_secs(120);

/// After the last one has joined, its neighbours still rearrange their links.
const SETTLE: Duration = Duration::from_secs(5);

/// Between two starts: a pool grows, it does not appear at once.
const START_INTERVAL: Duration = Duration::from_millis(50);

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(50);

/// A member.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its place in the topology.
    pub place: usize,
    /// Its name.
    pub name: String,
    /// Its domain.
    pub domain: String,
    /// The domain's NAT, if it has one.
    pub nat: Option<String>,
    /// Its id.
    pub id: String,
    /// Its virtual address.
    pub v4: Ipv4Addr,
}

/// Starts a router in each place but those for fresh nodes, and waits until all are in the pool.
pub fn start(bed: &mut NamespaceTestbed, task: &Task) -> Result<Vec<Member>> {
    let places = bed.topology().places.iter().enumerate();
    let standing = places.filter(|(_, place)| !planet::is_fresh(place));
    let places: Vec<usize> = standing.map(|(index, _)| index).collect();
    for (count, place) in places.iter().enumerate() {
        interrupt::check()?;
        task.now(&format!("starts router {} of {}", count + 1, places.len()));
        bed.start_router(*place)?;
        thread::sleep(START_INTERVAL);
    }
    let first = bed.nodes().len() - places.len();
    let nodes = bed.nodes()[first..].to_vec();
    let deadline = Instant::now() + JOIN_LIMIT;
    let mut members = Vec::new();
    for (node, place) in nodes.iter().zip(&places) {
        task.now(&format!("{} of {} have joined", members.len(), nodes.len()));
        bed.check_running()?;
        let status = wait_joined(node.client.socket(), deadline)
            .with_context(|| format!("{} does not join", node.name))?;
        let domain = bed.topology().domain(&bed.topology().places[*place])?;
        members.push(Member {
            place: *place,
            name: node.name.clone(),
            domain: domain.name.clone(),
            nat: domain.nat.map(|(_, kind)| kind.to_owned()),
            id: status.id,
            v4: status.addresses.v4,
        });
    }
    task.now("all have joined; lets them settle");
    let settled = Instant::now() + SETTLE;
    while Instant::now() < settled {
        interrupt::check()?;
        thread::sleep(POLL);
    }
    Ok(members)
}

fn wait_joined(socket: &std::path::Path, deadline: Instant) -> Result<Status> {
    loop {
        interrupt::check()?;
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = json!({"op": "wait", "timeout_ms": left.as_millis().max(1) as u64});
        let asked = Control::connect(socket).and_then(|mut it| it.ask(wait, left + POLL));
        match asked {
            Ok(status) => return Ok(status),
            // The socket may not be there yet.
            Err(error) if left.is_zero() => return Err(error),
            Err(_) => thread::sleep(POLL),
        }
    }
}
