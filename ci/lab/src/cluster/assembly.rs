//! How machines become a cluster: each joins the pool, then the head's Slurm lists every worker.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use serde::Serialize;
use wow_builder::host::{Guarded, Tether};

use super::Cluster;
use super::record::Record;
use super::shell::Shell;
use crate::command::{explained, wait_until};
use crate::experiment::{self, Node};
use crate::progress::{Progress, Task};
use crate::report::{Joined, seconds};

/// How soon a login is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// One login with a short command.
const LOGIN_LIMIT: Duration = Duration::from_secs(90);

/// One machine of an assembled cluster.
#[derive(Debug, Clone, Serialize)]
pub struct Assembled {
    /// Its name.
    pub name: String,
    /// A workstation's role.
    pub role: Option<String>,
    /// Where it stands.
    pub domain: String,
    /// Its virtual address.
    pub address: std::net::Ipv4Addr,
    /// From its power-on to the pool.
    pub pool_ms: f64,
    /// From the first machine's power-on until the head listed it as free; workers alone.
    pub listed_ms: Option<f64>,
}

/// Waits until every machine is in the pool and every worker listed, at most `limit`.
pub fn wait(cluster: &mut Cluster, limit: Duration, progress: &Progress) -> Result<Vec<Assembled>> {
    let record = cluster.record.clone();
    let tasks: BTreeMap<String, Task> = record
        .members
        .iter()
        .map(|member| {
            let task = progress.start(&member.name);
            task.now(&format!("boots in domain {}", member.domain));
            (member.name.clone(), task)
        })
        .collect();
    let seen = |joined: &Joined| {
        if let Some(task) = tasks.get(&joined.name) {
            let seconds = joined.power_on_to_pool_ms / 1000.0;
            task.now(&format!(
                "in the pool as {} after {seconds:.1} s",
                joined.v4
            ));
        }
    };
    let nodes: Vec<Node> = (0..record.members.len())
        .map(|index| Node {
            name: record.members[index].name.clone(),
            client: record.client(index),
            started: cluster.vms[index].started(),
        })
        .collect();
    let joined = experiment::join(&nodes, limit, &seen, &mut || cluster.check_running())?;
    let listed = wait_listed(cluster, limit, &tasks)?;
    let all = record.members.iter().zip(&joined);
    Ok(all
        .map(|(member, joined)| Assembled {
            name: member.name.clone(),
            role: member.role.clone(),
            domain: member.domain.clone(),
            address: joined.v4,
            pool_ms: joined.power_on_to_pool_ms,
            listed_ms: listed.get(&member.name).copied(),
        })
        .collect())
}

fn wait_listed(
    cluster: &mut Cluster,
    limit: Duration,
    tasks: &BTreeMap<String, Task>,
) -> Result<BTreeMap<String, f64>> {
    let record = cluster.record.clone();
    let head = Shell::new(&record, "head");
    let workers = workers(&record);
    let mut listed = BTreeMap::new();
    let mut telling: Option<Telling> = None;
    let mut next_try = Instant::now();
    let mut last_error = None;
    let started = cluster.started();
    let outcome = wait_until("the head lists all workers", limit, || {
        cluster.check_running()?;
        let Some(running) = &telling else {
            if Instant::now() >= next_try {
                next_try = Instant::now() + AGAIN;
                match Telling::start(&head) {
                    Ok(started) => telling = Some(started),
                    Err(error) => last_error = Some(error),
                }
            }
            return Ok(None);
        };
        let line = match running.lines.try_recv() {
            Ok(line) => line,
            Err(TryRecvError::Empty) => return Ok(None),
            // Its SSH server is not there yet.
            Err(TryRecvError::Disconnected) => {
                telling = None;
                return Ok(None);
            }
        };
        for (name, _) in parse_states(&line)
            .iter()
            .filter(|(_, state)| *state == "free")
        {
            let ms = started.elapsed().as_secs_f64() * 1000.0;
            if workers.contains(name) && !listed.contains_key(name) {
                listed.insert(name.clone(), ms);
                if let Some(task) = tasks.get(name) {
                    task.now(&format!("takes jobs after {:.1} s", ms / 1000.0));
                }
            }
        }
        let all = workers.iter().all(|name| listed.contains_key(name));
        Ok(all.then_some(()))
    });
    explained(outcome, last_error)?;
    Ok(listed)
}

/// One login in which the head's `pbsnodes` is asked again and again: a login each time would cost a machine
/// under the translator more than the answer.
struct Telling {
    lines: Receiver<String>,
    _ssh: Guarded,
}

impl Telling {
    fn start(head: &Shell) -> Result<Self> {
        let line = "while sleep 2; do pbsnodes -l all 2>/dev/null; done";
        let mut command = head.command(Some(line), Tether::Tied)?;
        let (reader, writer) = std::io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::null());
        let ssh = Guarded::spawn(command).context("cannot run ssh")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { lines, _ssh: ssh })
    }
}

/// The names of the workers.
pub fn workers(record: &Record) -> Vec<String> {
    let is_worker = |role: &Option<String>| role.as_deref() == Some("worker");
    record
        .members
        .iter()
        .filter(|member| is_worker(&member.role))
        .map(|member| member.name.clone())
        .collect()
}

/// The state of every node that the head's `pbsnodes` lists.
pub fn states(head: &Shell) -> Result<BTreeMap<String, String>> {
    let text = head
        .ask("pbsnodes -l all", LOGIN_LIMIT)
        .context("the head cannot be asked for its nodes")?;
    Ok(parse_states(&text))
}

fn parse_states(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    });
    lines.collect()
}

/// The machines as a table.
pub fn table(machines: &[Assembled]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "machine",
        "role",
        "domain",
        "address",
        "power-on to pool",
        "to listed",
    ]);
    for machine in machines {
        table.add_row([
            machine.name.clone(),
            machine.role.clone().unwrap_or_else(|| "router".into()),
            machine.domain.clone(),
            machine.address.to_string(),
            seconds(Some(machine.pool_ms)),
            seconds(machine.listed_ms),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_from_pbsnodes() {
        let text =
            "w1                   free\nw2                   down,offline           broken\n\n";
        let states = parse_states(text);
        assert_eq!(states["w1"], "free");
        assert_eq!(states["w2"], "down,offline");
        assert_eq!(states.len(), 2);
    }
}
