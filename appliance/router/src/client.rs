//! The verbs toward a running node: status, peers, ping, wait, resolve, trace, leases, dht, revoke.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::api::{
    Clock, LanGuest, Lease, Op, Path, Peer, PingReport, Record, Resolved, RevocationReport,
    RttSummary, Status, TraceReport,
};
use crate::cli::{
    ClientArgs, DhtVerb, PingArgs, ResolveArgs, RevokeArgs, ServiceVerb, TraceArgs, TroubleVerb,
    WaitArgs, WhoisArgs,
};
use crate::failure::Negative;
use crate::{files, ipc, output, wall_clock};

/// For answers that need no waiting, the pool's lookups included.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Added to what the node was asked to wait.
const MARGIN: Duration = Duration::from_secs(10);

/// The running node, as found by its control socket.
pub struct Socket(PathBuf);

impl Socket {
    /// At `path`, or where a node's socket is unless told otherwise.
    pub fn new(path: Option<&std::path::Path>) -> Self {
        Socket(path.map_or_else(ipc::default_for_clients, Into::into))
    }

    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }

    /// Asks, and waits for the answer for at most `limit`.
    pub fn ask<T: serde::de::DeserializeOwned>(&self, op: Op, limit: Duration) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the event loop")?;
        runtime.block_on(ipc::client::ask(&self.0, op, limit))
    }
}

/// `wow status`.
pub fn status(node: &Socket, args: &ClientArgs) -> Result<()> {
    let status: Status = node.ask(Op::Status, PATIENCE)?;
    if args.json {
        return output::json(&status);
    }
    show_status(&status)
}

fn show_status(status: &Status) -> Result<()> {
    let joined = match (status.joined, status.joined_after_ms) {
        (true, Some(ms)) => format!("yes, after {}", span(ms)),
        (true, None) => "yes".into(),
        (false, _) => "no".into(),
    };
    let tcp = status.tcp_listen.iter().map(|tcp| format!("tcp:{tcp}"));
    let listen = status.listen.iter().map(ToString::to_string);
    let listen: Vec<_> = listen.chain(tcp).collect();
    let neighbours = |ids: &[String]| -> String {
        let short: Vec<_> = ids.iter().map(|id| short(id)).collect();
        short.join(" ")
    };
    let drops: Vec<_> = status
        .counters
        .iter()
        .filter(|(name, count)| name.starts_with("drop") && **count > 0)
        .map(|(name, count)| format!("{} {count}", name.trim_start_matches("drop_")))
        .collect();
    output::facts(&[
        ("name", status.name.clone()),
        ("id", status.id.clone()),
        ("pool", format!("{} ({})", status.pool, status.range)),
        ("roles", status.roles.clone()),
        (
            "addresses",
            format!("{} {}", status.addresses.v4, status.addresses.v6),
        ),
        ("joined", joined),
        ("trouble", status.trouble.join("\n")),
        (
            "since power-on",
            status.boot_to_joined_ms.map(span).unwrap_or_default(),
        ),
        ("up", span(status.uptime_ms)),
        ("peers", status.peers.to_string()),
        ("left", neighbours(&status.neighbours.left)),
        ("right", neighbours(&status.neighbours.right)),
        ("listening on", listen.join(" ")),
        ("guest", status.guest.clone()),
        ("behind it", lan(&status.lan)),
        (
            "certificate until",
            wall_clock::show(wow_overlay::time::UnixTime(status.certificate_until)),
        ),
        ("time", status.clock.as_ref().map(clock).unwrap_or_default()),
        (
            "memory",
            format!("{:.1} MiB", status.rss_bytes as f64 / (1024.0 * 1024.0)),
        ),
        ("dropped", drops.join(", ")),
        ("version", status.version.clone()),
    ])
}

/// What the clock is kept by.
pub fn clock(clock: &Clock) -> String {
    let mut line = format!("from {}", clock.from);
    if let (Some(offset), Some(age)) = (clock.offset_ms, clock.age_ms) {
        let way = if offset < 0.0 { "ahead" } else { "behind" };
        line += &format!(", was {:.1} ms {way} {} ago", offset.abs(), span(age));
    }
    match clock.stratum {
        Some(stratum) => line + &format!(" (stratum {stratum})"),
        None => line + " (not known to be right)",
    }
}

/// A line for each machine of the LAN.
fn lan(guests: &[LanGuest]) -> String {
    let line = |guest: &LanGuest| {
        let address = guest.address.map_or("-".into(), |v4| v4.to_string());
        let name = guest.name.as_deref().unwrap_or("-");
        format!("{} {address} {name} ({})", guest.mac, guest.state)
    };
    guests.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `wow peers`.
pub fn peers(node: &Socket, args: &ClientArgs) -> Result<()> {
    let peers: Vec<Peer> = node.ask(Op::Peers, PATIENCE)?;
    if args.json {
        return output::json(&peers);
    }
    let rows = peers.iter().map(|peer| {
        vec![
            peer.name.clone(),
            short(&peer.id).to_owned(),
            peer.v4.to_string(),
            peer.kind.clone(),
            path(&peer.path),
            peer.rtt_ms.map_or("-".into(), |rtt| format!("{rtt:.2} ms")),
            span(peer.age_ms),
            bytes(peer.sent.bytes),
            bytes(peer.received.bytes),
        ]
    });
    output::rows(
        &[
            "NAME", "ID", "IPV4", "LINK", "PATH", "RTT", "AGE", "SENT", "RECEIVED",
        ],
        rows.collect(),
    )
}

/// `wow ping`. Fails without an answer.
pub fn ping(node: &Socket, args: &PingArgs) -> Result<()> {
    let request = |count: u32| {
        let op = Op::Ping {
            target: args.node.clone(),
            count,
            interval_ms: milliseconds(args.interval),
            timeout_ms: milliseconds(args.timeout),
            overlay: args.overlay,
        };
        let each = args.interval.saturating_add(args.timeout);
        let limit = each.saturating_mul(count).saturating_add(PATIENCE + MARGIN);
        node.ask::<PingReport>(op, limit)
    };
    let received = if args.client.json {
        let report = request(args.count)?;
        output::json(&report)?;
        report.received
    } else {
        // One by one, so that each line appears when its answer does.
        let mut replies = Vec::new();
        for seq in 1..=args.count {
            let begun = std::time::Instant::now();
            let report = request(1)?;
            show_reply(&report, seq)?;
            replies.extend(report.replies);
            if seq < args.count {
                std::thread::sleep(args.interval.saturating_sub(begun.elapsed()));
            }
        }
        show_summary(args.count, &replies)?
    };
    if received == 0 {
        return Err(Negative.into());
    }
    Ok(())
}

fn show_reply(report: &PingReport, seq: u32) -> Result<()> {
    let name = report.name.as_deref().unwrap_or("control address");
    let head = format!("{name} ({}) {} seq={seq}", report.v4, report.method);
    match report.replies.first().and_then(|reply| reply.rtt_ms) {
        Some(rtt) => output::say(&format!("{head} time={rtt:.2} ms {}\n", path(&report.path))),
        None => output::say(&format!("{head} no answer\n")),
    }
}

fn show_summary(sent: u32, replies: &[crate::api::PingReply]) -> Result<u32> {
    let received = replies
        .iter()
        .filter(|reply| reply.rtt_ms.is_some())
        .count();
    let received = u32::try_from(received).unwrap_or(u32::MAX);
    let times = RttSummary::of(replies).map_or(String::new(), |rtt| {
        format!(
            ", min/avg/max {:.2}/{:.2}/{:.2} ms",
            rtt.min, rtt.avg, rtt.max
        )
    });
    output::say(&format!("{sent} sent, {received} received{times}\n"))?;
    Ok(received)
}

/// `wow wait`.
pub fn wait(node: &Socket, args: &WaitArgs) -> Result<()> {
    let op = Op::Wait {
        joined: true,
        timeout_ms: milliseconds(args.timeout),
    };
    let status: Status = node.ask(op, args.timeout.saturating_add(MARGIN))?;
    if args.client.json {
        return output::json(&status);
    }
    show_status(&status)
}

/// `wow leases`.
pub fn leases(node: &Socket, args: &ClientArgs) -> Result<()> {
    let leases: Vec<Lease> = node.ask(Op::Leases, PATIENCE)?;
    if args.json {
        return output::json(&leases);
    }
    let rows = leases.iter().map(|lease| {
        let user = match lease.id {
            0 => "this node".to_owned(),
            id => format!("guest {id}"),
        };
        let held = lease.remaining_ms.map_or("not yet".into(), span);
        vec![lease.address.to_string(), user, held]
    });
    output::rows(&["ADDRESS", "FOR", "HELD FOR"], rows.collect())
}

/// `wow dht`.
pub fn dht(node: &Socket, verb: DhtVerb) -> Result<()> {
    let DhtVerb::Get { key, client } = verb;
    let record: Record = node.ask(Op::LookUp { key }, PATIENCE)?;
    if client.json {
        return output::json(&record);
    }
    let candidates: Vec<_> = record.candidates.iter().map(ToString::to_string).collect();
    output::facts(&[
        ("key", record.key),
        ("value", record.value),
        ("claimed by", format!("{} ({})", record.name, record.roles)),
        ("id", record.owner),
        ("reached at", candidates.join(" ")),
        ("lives for", span(u64::from(record.lifetime_s) * 1000)),
        ("sequence", record.sequence.to_string()),
    ])
}

/// The node that a person calls `target`, as the running node finds it.
pub fn find(node: &Socket, target: &str) -> Result<Resolved> {
    let op = Op::Resolve {
        target: target.to_owned(),
    };
    node.ask(op, PATIENCE)
}

/// Hands a revocation to the running node.
pub fn spread(node: &Socket, revocation: String) -> Result<RevocationReport> {
    node.ask(Op::Revoke { revocation }, PATIENCE)
}

/// `wow revoke`.
pub fn revoke(node: &Socket, args: &RevokeArgs) -> Result<()> {
    let text = files::read_text(&args.revocation, "revocation")?;
    let report = spread(node, text.trim().to_owned())?;
    if args.client.json {
        return output::json(&report);
    }
    output::say(&show_revocation(&report))
}

/// A line for people.
pub fn show_revocation(report: &RevocationReport) -> String {
    let nodes = if report.told == 1 { "node" } else { "nodes" };
    match report.news {
        true => format!(
            "{} is revoked; {} {nodes} told\n",
            report.revoked, report.told
        ),
        false => format!("{} was revoked already\n", report.revoked),
    }
}

/// `wow resolve`.
pub fn resolve(node: &Socket, args: &ResolveArgs) -> Result<()> {
    show_resolved(find(node, &args.node)?, args.client)
}

fn show_resolved(found: Resolved, client: ClientArgs) -> Result<()> {
    if client.json {
        return output::json(&found);
    }
    output::facts(&[
        ("name", found.name),
        ("id", found.id),
        ("addresses", format!("{} {}", found.v4, found.v6)),
        ("roles", found.roles),
    ])
}

/// `wow whois`.
pub fn whois(node: &Socket, args: &WhoisArgs) -> Result<()> {
    let address = args.address;
    let found: Resolved = node.ask(Op::Whois { address }, PATIENCE)?;
    show_resolved(found, args.client)
}

/// `wow service`.
pub fn service(node: &Socket, verb: ServiceVerb) -> Result<()> {
    let op = match verb {
        ServiceVerb::Offer { name, value } => Op::Offer {
            service: name,
            value,
        },
        ServiceVerb::Withdraw { name } => Op::Withdraw { service: name },
    };
    done(node, op)
}

/// `wow trouble`.
pub fn trouble(node: &Socket, verb: TroubleVerb) -> Result<()> {
    let (from, sentences) = match verb {
        TroubleVerb::Set { from, sentences } => (from, sentences),
        TroubleVerb::Clear { from } => (from, Vec::new()),
    };
    done(node, Op::Trouble { from, sentences })
}

/// For what has no other answer.
fn done(node: &Socket, op: Op) -> Result<()> {
    node.ask::<bool>(op, PATIENCE).map(drop)
}

/// `wow trace`. Fails when the way does not end at the node.
pub fn trace(node: &Socket, args: &TraceArgs) -> Result<()> {
    let op = Op::Trace {
        target: args.node.clone(),
    };
    let found: TraceReport = node.ask(op, ipc::TRACE_MAX + PATIENCE)?;
    if args.client.json {
        output::json(&found)?;
    } else {
        let rows = found.hops.iter().map(|hop| match &hop.node {
            Some(node) => vec![
                hop.hop.to_string(),
                node.name.clone(),
                short(&node.id).to_owned(),
                node.address
                    .map_or("-".into(), |address| address.to_string()),
                format!("{:.2} ms", node.rtt_ms),
            ],
            None => vec![hop.hop.to_string(), "no answer".into()],
        });
        output::say(&format!(
            "to {} ({}, {})\n",
            found.name,
            found.v4,
            short(&found.id)
        ))?;
        output::rows(&["HOP", "NAME", "ID", "ADDRESS", "TIME"], rows.collect())?;
    }
    if !found.reached {
        return Err(Negative.into());
    }
    Ok(())
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn path(path: &Path) -> String {
    match (&path.remote, &path.via) {
        (Some(remote), _) => format!("{} {remote}", path.kind),
        (None, Some(via)) => format!("{} via {}", path.kind, short(via)),
        (None, None) => path.kind.clone(),
    }
}

/// Enough of an id to tell nodes apart by eye.
pub fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// Milliseconds below ten seconds, whole seconds above.
fn span(ms: u64) -> String {
    if ms < 10_000 {
        return format!("{:.2} s", ms as f64 / 1e3);
    }
    humantime::format_duration(Duration::from_secs(ms / 1000)).to_string()
}

fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{count} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}
