//! What can be counted, in Prometheus' text format: base units, counters that end in `_total`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::documents::{DROP, traffic};
use crate::api::{Lease, Peer, Status};

/// Counters of the status that have families of their own, or are in another one.
const ELSEWHERE: [&str; 9] = [
    "datagrams_in",
    "datagrams_out",
    "bytes_in",
    "bytes_out",
    "guest_in",
    "guest_out",
    "forwarded",
    "udp_lanes",
    "tcp_connections",
];

/// What begins the names of counters of bytes by their purpose.
const BYTES: &str = "bytes_";

/// The text, one family after the other.
struct Text(String);

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail; the same below.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if index == 0 { '{' } else { ',' });
            for letter in text.chars() {
                match letter {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    letter => self.0.push(letter),
                }
            }
            self.0.push('"');
        }
        let _ = writeln!(
            self.0,
            "{} {value}",
            if labels.is_empty() { "" } else { "}" }
        );
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl Iterator<Item = (&'a str, u64)>,
    ) {
        self.family(name, "counter", help);
        for (value, count) in samples {
            self.sample(name, &[(label, value)], count);
        }
    }

    fn of_peers<'a, V: std::fmt::Display>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        peers: &'a [Peer],
        value: impl Fn(&'a Peer) -> Option<V>,
    ) {
        self.family(name, kind, help);
        for peer in peers {
            if let Some(value) = value(peer) {
                self.sample(name, &[("id", &peer.id), ("name", &peer.name)], value);
            }
        }
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

/// The whole document.
pub fn write(status: &Status, peers: &[Peer], leases: &[Lease]) -> String {
    let mut text = Text(String::new());
    of_node(&mut text, status, leases);
    of_traffic(&mut text, status);
    of_peers(&mut text, peers);
    text.0
}

fn of_node(text: &mut Text, status: &Status, leases: &[Lease]) {
    text.family("wow_node_info", "gauge", "Who the node is.");
    let labels = [
        ("version", &*status.version),
        ("pool", &status.pool),
        ("name", &status.name),
        ("id", &status.id),
    ];
    text.sample("wow_node_info", &labels, 1);
    text.gauge(
        "wow_joined",
        "Whether the node has its place in the ring.",
        u8::from(status.joined),
    );
    text.gauge(
        "wow_uptime_seconds",
        "Time since the daemon's start.",
        seconds(status.uptime_ms),
    );
    text.gauge(
        "process_resident_memory_bytes",
        "Resident memory of the process.",
        status.rss_bytes,
    );
    text.gauge(
        "wow_certificate_expiry_timestamp_seconds",
        "When the node's certificate ends, in seconds since 1970.",
        status.certificate_until,
    );
    text.gauge(
        "wow_pool_nodes_estimate",
        "How many nodes the pool seems to have.",
        status.pool_size_estimate,
    );
    text.gauge(
        "wow_troubles",
        "Things that keep the node from its work.",
        status.trouble.len(),
    );
    let name = "wow_lease_remaining_seconds";
    text.family(
        name,
        "gauge",
        "How long an address holds without being renewed.",
    );
    for lease in leases {
        if let Some(remaining_ms) = lease.remaining_ms {
            let address = lease.address.to_string();
            text.sample(name, &[("address", &address)], seconds(remaining_ms));
        }
    }
}

fn of_traffic(text: &mut Text, status: &Status) {
    let told = traffic(status);
    text.counter(
        "wow_datagrams_sent_total",
        "Datagrams handed to the underlay.",
        told.sent.packets,
    );
    text.counter(
        "wow_datagrams_received_total",
        "Datagrams from the underlay.",
        told.received.packets,
    );
    text.counter(
        "wow_sent_bytes_total",
        "Bytes of the datagrams handed to the underlay.",
        told.sent.bytes,
    );
    text.counter(
        "wow_received_bytes_total",
        "Bytes of the datagrams from the underlay.",
        told.received.bytes,
    );
    text.counter(
        "wow_guest_packets_sent_total",
        "Packets of the guest sent to peers.",
        told.guest_sent_packets,
    );
    text.counter(
        "wow_guest_packets_received_total",
        "Packets of peers handed to the guest.",
        told.guest_received_packets,
    );
    text.counter(
        "wow_forwarded_frames_total",
        "Frames passed on for other nodes.",
        told.forwarded_frames,
    );
    let others = || {
        let counters = status.counters.iter();
        let counters = counters.map(|(name, count)| (name.as_str(), *count));
        counters.filter(|(name, _)| !ELSEWHERE.contains(name))
    };
    let purposes = others().filter_map(|(name, count)| Some((name.strip_prefix(BYTES)?, count)));
    text.counters(
        "wow_control_sent_bytes_total",
        "Bytes sent for the overlay's own needs.",
        "purpose",
        purposes,
    );
    let reasons = others().filter_map(|(name, count)| Some((name.strip_prefix(DROP)?, count)));
    text.counters(
        "wow_dropped_total",
        "Packets, datagrams and requests dropped.",
        "reason",
        reasons,
    );
    let rest = others().filter(|(name, _)| !name.starts_with(BYTES) && !name.starts_with(DROP));
    text.counters(
        "wow_events_total",
        "What happened to the node.",
        "event",
        rest,
    );
    for (name, counter, help) in [
        (
            "wow_udp_lanes",
            "udp_lanes",
            "Extra sockets in use against translators.",
        ),
        (
            "wow_tcp_connections",
            "tcp_connections",
            "TCP connections of the underlay.",
        ),
    ] {
        if let Some(count) = status.counters.get(counter) {
            text.gauge(name, help, count);
        }
    }
}

fn of_peers(text: &mut Text, peers: &[Peer]) {
    let name = "wow_peers";
    text.family(name, "gauge", "Nodes that there is a session with.");
    let mut kinds = BTreeMap::<_, usize>::new();
    for peer in peers {
        *kinds.entry((&*peer.kind, &*peer.path.kind)).or_default() += 1;
    }
    for ((link, path), count) in kinds {
        text.sample(name, &[("link", link), ("path", path)], count);
    }
    let family = (
        "wow_peer_round_trip_seconds",
        "gauge",
        "Round trip of the path in use to a peer.",
    );
    text.of_peers(family, peers, |peer| peer.rtt_ms.map(|ms| ms / 1e3));
    let family = (
        "wow_peer_sent_bytes_total",
        "counter",
        "Bytes of the records sent to a peer.",
    );
    text.of_peers(family, peers, |peer| Some(peer.sent.bytes));
    let family = (
        "wow_peer_received_bytes_total",
        "counter",
        "Bytes of the records received from a peer.",
    );
    text.of_peers(family, peers, |peer| Some(peer.received.bytes));
}
