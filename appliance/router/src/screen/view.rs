//! The status screen as text: pure, from what is known to lines of plain ASCII. The same lines are drawn on a
//! screen and printed into a log.

use std::time::Duration;

use wow_init::network;

use super::keys::Page;
use crate::api::{Path, Peer, Status};
use crate::client::{clock, short};
use crate::logging::LogLine;
use crate::wall_clock;

/// Neighbours listed; the rest is a number.
const NEIGHBOURS_MAX: usize = 8;
/// Where values begin.
const INDENT: usize = 12;

/// What the machine does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for a configuration: for what, and where it is looked for.
    Waiting(String),
    /// The node runs.
    Running,
    /// The node stopped, and is started again.
    Stopped(String),
}

/// What is known.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What the machine does.
    pub phase: Phase,
    /// How the node is, where it runs.
    pub status: Option<Status>,
    /// Its sessions.
    pub peers: Vec<Peer>,
    /// The underlay.
    pub network: network::Status,
    /// What is wrong with the configuration and the machine, a sentence each.
    pub problems: Vec<String>,
    /// The last warning or error.
    pub last_trouble: Option<LogLine>,
    /// Since the kernel's start.
    pub uptime: Duration,
    /// Whether the image was built with a shell.
    pub shell: bool,
}

/// A page as lines of at most `columns` letters, at most `rows` of them.
pub fn page(
    facts: &Facts,
    page: Page,
    logs: &[LogLine],
    columns: usize,
    rows: usize,
) -> Vec<String> {
    let title = format!("WOW {}", env!("CARGO_PKG_VERSION"));
    let up = format!("up {}", span(facts.uptime));
    let gap = columns.saturating_sub(title.len() + up.len());
    let mut lines = vec![format!("{title}{}{up}", " ".repeat(gap)), String::new()];
    let keys = keys(page, facts.shell);
    let room = rows.saturating_sub(lines.len() + 2);
    let mut body = match page {
        Page::Status => status(facts, columns),
        Page::Network => network(facts, columns),
        Page::Restart => vec!["Restart this machine?".to_owned()],
        Page::Logs => log_lines(logs, columns),
    };
    if page == Page::Logs && body.len() > room {
        body.drain(..body.len() - room);
    }
    body.truncate(room);
    body.resize(room, String::new());
    lines.extend(body);
    lines.extend([String::new(), keys]);
    lines
        .into_iter()
        .map(|line| plain(&line, columns))
        .collect()
}

/// A page for a line terminal: as long as it is, and no longer.
pub fn printed(facts: &Facts, page: Page, logs: &[LogLine]) -> Vec<String> {
    const COLUMNS: usize = 100;
    let mut lines = match page {
        Page::Status => status(facts, COLUMNS),
        Page::Network => network(facts, COLUMNS),
        Page::Restart => vec!["Restart this machine?".to_owned()],
        Page::Logs => log_lines(logs, COLUMNS),
    };
    lines.push(keys(page, facts.shell));
    lines.iter().map(|line| plain(line, COLUMNS)).collect()
}

/// What is worth a line in a log when it changes: no times, no round trips.
pub fn summary(facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    match (&facts.phase, &facts.status) {
        (Phase::Waiting(_), _) => lines.push("waiting for a configuration".to_owned()),
        (Phase::Stopped(why), _) => lines.push(format!("the node stopped: {why}")),
        (Phase::Running, None) => lines.push("the node starts".to_owned()),
        (Phase::Running, Some(status)) => {
            let joined = match status.joined {
                true => "joined",
                false => "not joined",
            };
            lines.push(format!(
                "{} of the pool {}: {joined}, {} {}",
                status.name, status.pool, status.addresses.v4, status.addresses.v6
            ));
            let mut names: Vec<_> = neighbours(facts)
                .map(|peer| format!("{} ({})", peer.name, peer.path.kind))
                .collect();
            names.sort();
            lines.push(match names.len() {
                0 => "no neighbours".to_owned(),
                _ => format!("neighbours: {}", names.join(", ")),
            });
            lines.extend(status.trouble.iter().map(|it| format!("trouble: {it}")));
        }
    }
    lines.push(underlay(facts));
    lines.extend(untold(facts).map(|it| format!("problem: {it}")));
    lines.iter().map(|line| plain(line, usize::MAX)).collect()
}

/// Problems that the node does not tell itself.
fn untold(facts: &Facts) -> impl Iterator<Item = &String> {
    let told = facts.status.as_ref().map(|status| &status.trouble);
    let problems = facts.problems.iter();
    problems.filter(move |problem| told.is_none_or(|told| !told.contains(problem)))
}

fn keys(page: Page, shell: bool) -> String {
    let pages = match page {
        Page::Restart => return "y restarts, any other key goes back".to_owned(),
        Page::Status => "keys:  l logs   n network   r restart",
        Page::Logs | Page::Network => "keys:  s status   l logs   n network   r restart",
    };
    match shell {
        true => format!("{pages}   x shell (this image has one)"),
        false => pages.to_owned(),
    }
}

fn status(facts: &Facts, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut fact = |name: &str, value: &str| lines.extend(named(name, value, columns));
    match (&facts.phase, &facts.status) {
        (Phase::Waiting(what), _) => {
            fact("state", "waiting for a configuration");
            fact("underlay", &underlay(facts));
            fact("", "");
            for line in what.lines() {
                lines.extend(wrapped(line, columns, 4));
            }
        }
        (Phase::Stopped(why), _) => {
            fact("state", "the node stopped and is started again");
            fact("because", why);
            fact("underlay", &underlay(facts));
        }
        (Phase::Running, None) => {
            fact("state", "the node starts");
            fact("underlay", &underlay(facts));
        }
        (Phase::Running, Some(status)) => {
            fact("pool", &format!("{} ({})", status.pool, status.range));
            fact("name", &format!("{} ({})", status.name, short(&status.id)));
            fact("state", &joined(status));
            let addresses = &status.addresses;
            fact("addresses", &format!("{} {}", addresses.v4, addresses.v6));
            fact("underlay", &underlay(facts));
            if let Some(told) = &status.clock {
                fact("time", &clock(told));
            }
            let estimate = status.pool_size_estimate.round();
            fact(
                "peers",
                &format!("{}; the pool has about {estimate} nodes", status.peers),
            );
            lines.push(String::new());
            lines.extend(neighbour_table(facts));
            lines.push(String::new());
            for trouble in &status.trouble {
                lines.extend(named("trouble", trouble, columns));
            }
        }
    }
    for problem in untold(facts) {
        lines.extend(named("problem", problem, columns));
    }
    if let Some(line) = &facts.last_trouble {
        let text = format!("{} {}", time_of_day(line), line.text);
        lines.extend(named("last error", &text, columns));
    }
    lines
}

fn joined(status: &Status) -> String {
    let since_power_on = status.boot_to_joined_ms.map(Duration::from_millis);
    match (status.joined, since_power_on) {
        (true, Some(after)) => format!("joined, {:.2} s after power-on", after.as_secs_f64()),
        (true, None) => "joined".to_owned(),
        (false, _) => "joining".to_owned(),
    }
}

/// The nearest nodes of the ring, those that there is a session with.
fn neighbours(facts: &Facts) -> impl Iterator<Item = &Peer> {
    let near = facts.status.iter().flat_map(|status| {
        let near = &status.neighbours;
        near.left.iter().chain(&near.right)
    });
    let near: Vec<&String> = near.collect();
    facts
        .peers
        .iter()
        .filter(move |peer| near.contains(&&peer.id))
}

fn neighbour_table(facts: &Facts) -> Vec<String> {
    let all: Vec<&Peer> = neighbours(facts).collect();
    if all.is_empty() {
        return vec!["no neighbours".to_owned()];
    }
    let row = |name: &str, address: &str, path: &str, rtt: &str| {
        format!("{name:<20} {address:<15} {path:<30} {rtt:>10}")
    };
    let mut lines = vec![row("NEIGHBOUR", "ADDRESS", "PATH", "RTT")];
    for peer in all.iter().take(NEIGHBOURS_MAX) {
        let rtt = peer
            .rtt_ms
            .map_or("-".to_owned(), |ms| format!("{ms:.2} ms"));
        let address = peer.v4.to_string();
        lines.push(row(&peer.name, &address, &path(&peer.path), &rtt));
    }
    if all.len() > NEIGHBOURS_MAX {
        lines.push(format!("and {} more", all.len() - NEIGHBOURS_MAX));
    }
    lines
}

fn path(path: &Path) -> String {
    match (path.remote, &path.via) {
        (Some(remote), _) => format!("{} {remote}", path.kind),
        (None, Some(via)) => format!("{} via {}", path.kind, short(via)),
        (None, None) => path.kind.clone(),
    }
}

fn underlay(facts: &Facts) -> String {
    let network = &facts.network;
    match &network.underlay {
        Some(underlay) => format!(
            "{}/{} on {}",
            underlay.address, underlay.prefix, underlay.interface
        ),
        None if network.interfaces.is_empty() => "no network card".to_owned(),
        None => format!("no address yet on {}", network.interfaces.join(" ")),
    }
}

fn network(facts: &Facts, columns: usize) -> Vec<String> {
    let network = &facts.network;
    let mut lines = Vec::new();
    let mut fact = |name: &str, value: &str| lines.extend(named(name, value, columns));
    fact("interfaces", &network.interfaces.join(" "));
    fact("underlay", &underlay(facts));
    if let Some(underlay) = &network.underlay {
        let gateway = underlay.gateway.map(|gateway| gateway.to_string());
        fact("gateway", gateway.as_deref().unwrap_or("none"));
        let dns: Vec<_> = underlay.dns.iter().map(ToString::to_string).collect();
        fact("dns", &dns.join(" "));
        match underlay.lease {
            Some((server, time)) => fact("lease", &format!("{} from {server}", span(time))),
            None => fact("lease", "none: the address is fixed"),
        }
    }
    fact("announced", &format!("{} times", network.announcements));
    if let Some(status) = &facts.status {
        let tcp = status.tcp_listen.iter().map(|tcp| format!("tcp:{tcp}"));
        let udp = status.listen.iter().map(ToString::to_string);
        let listen: Vec<_> = udp.chain(tcp).collect();
        fact("listens on", &listen.join(" "));
        fact("guest", &status.guest);
        for (name, count) in &status.counters {
            if name.starts_with("drop") && *count > 0 {
                fact("dropped", &format!("{count} {name}"));
            }
        }
    }
    lines
}

fn log_lines(logs: &[LogLine], columns: usize) -> Vec<String> {
    logs.iter()
        .flat_map(|line| {
            let text = format!("{} {:<5} {}", time_of_day(line), line.level, line.text);
            wrapped(&text, columns, INDENT + 3)
        })
        .collect()
}

fn time_of_day(line: &LogLine) -> String {
    let time = wall_clock::show(line.time());
    time.get(11..19).unwrap_or("--:--:--").to_owned()
}

/// A name and its value, which goes on below its beginning.
fn named(name: &str, value: &str, columns: usize) -> Vec<String> {
    wrapped(&format!("{name:<INDENT$}{value}"), columns, INDENT)
}

/// Breaks a line at blanks, and indents what follows.
fn wrapped(text: &str, columns: usize, indent: usize) -> Vec<String> {
    let columns = columns.max(indent + 10);
    let mut lines = Vec::new();
    // Before its length counts.
    let mut rest: Vec<char> = ascii(text).chars().collect();
    while rest.len() > columns {
        let blank = rest[..=columns].iter().rposition(|c| *c == ' ');
        let at = blank.filter(|at| *at > indent).unwrap_or(columns);
        let following = rest.split_off(at);
        lines.push(rest.into_iter().collect());
        let following = following.into_iter().skip_while(|c| *c == ' ');
        rest = std::iter::repeat_n(' ', indent).chain(following).collect();
    }
    lines.push(rest.into_iter().collect());
    lines
}

/// Text for any terminal: ASCII, nothing that moves a cursor, no blanks at its end.
fn plain(text: &str, columns: usize) -> String {
    let mut plain = ascii(text);
    plain.truncate(columns);
    plain.trim_end().to_owned()
}

fn ascii(text: &str) -> String {
    let mut plain = String::new();
    for letter in text.chars() {
        match letter {
            '…' => plain.push_str("..."),
            '–' | '—' => plain.push('-'),
            ' '..='~' => plain.push(letter),
            _ => plain.push('?'),
        }
    }
    plain
}

fn span(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

#[cfg(test)]
#[path = "view/tests.rs"]
mod tests;
