//! Addresses, names and services: who holds them, and what becomes of them when nodes come and go.

mod copies;
mod guests;
mod leases;
mod names;

use super::*;
use crate::wire::record::Key;

/// The addresses held by living members, one entry for each lease.
fn held(net: &Net) -> Vec<Ipv4Addr> {
    let alive = net.members.iter().filter(|member| member.alive);
    let leases = alive.flat_map(|member| member.node.leases(net.now));
    let held = leases.filter(|lease| lease.remaining.is_some());
    held.map(|lease| lease.address).collect()
}

fn are_distinct(addresses: &[Ipv4Addr]) -> bool {
    let distinct: BTreeSet<_> = addresses.iter().collect();
    distinct.len() == addresses.len()
}

/// The source of an IPv4 packet.
fn source_of(packet: &[u8]) -> Ipv4Addr {
    let octets: [u8; 4] = packet[12..16].try_into().unwrap();
    octets.into()
}

/// Who is said to hold a key, by a given member.
fn look_up(net: &mut Net, asker: usize, key: Key) -> Result<RecordInfo, ResolveError> {
    let now = net.now;
    let asked = net.members[asker].node.look_up(now, key);
    let mut found = None;
    net.run_until("the answer", |net| {
        let events = net.members[asker].events.drain(..);
        let answers = events.filter_map(|event| match event {
            Event::Record { query, result } if query == asked => Some(result),
            _ => None,
        });
        found = answers.reduce(|_, last| last).or(found.take());
        found.is_some()
    });
    found.unwrap()
}
