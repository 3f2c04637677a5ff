//! Carries out what clients ask, by asking the daemon's loop.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use wow_overlay::id::NodeId;
use wow_overlay::membership::NodeName;
use wow_overlay::node::{ResolveError, Target};

use super::ping;
use crate::api::{
    LINKS_NODES_MAX, NodeLinks, Op, PING_COUNT_MAX, Place, Resolved, Status, TIMEOUT_MS_MAX,
    TraceReport,
};
use crate::configuration::Report;
use crate::daemon::command::Command;
use crate::daemon::report;
use crate::update::Updates;

/// How long the loop and the pool may take for what is not a wait.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How long following a way may take: every node on it may be silent for some seconds.
pub const TRACE_MAX: Duration = Duration::from_secs(75);

const BUSY: &str = "the node is busy or stopping; try again";
const LATE: &str = "no answer in time";

/// A handle on the daemon's loop, and what it needs no loop for.
#[derive(Clone)]
pub struct Operator {
    pub(super) commands: mpsc::Sender<Command>,
    /// The pool's control address, which no node holds, and whether there is a guest interface to
    /// send ICMP by.
    pub(super) control: Option<Ipv4Addr>,
    /// Whether only looking is allowed.
    looks_only: bool,
    /// Where the configuration came from, if from the machine's own sources.
    configuration: Option<Arc<Report>>,
    /// The machine's slots, if the machine is the node's own.
    updates: Option<Updates>,
}

/// Parses what a person calls a node.
pub fn target(text: &str) -> Target {
    if let Ok(id) = text.parse::<NodeId>() {
        return Target::Id(id);
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => Target::V4(ip),
        Ok(IpAddr::V6(ip)) => Target::V6(ip),
        Err(_) => Target::Name(text.to_ascii_lowercase()),
    }
}

impl Operator {
    /// With `control` the pool's control address where this machine is a guest, `None` elsewhere.
    pub fn new(commands: mpsc::Sender<Command>, control: Option<Ipv4Addr>) -> Self {
        Operator {
            commands,
            control,
            looks_only: false,
            configuration: None,
            updates: None,
        }
    }

    /// The same, which also tells where the machine's configuration came from.
    pub fn with_configuration(self, report: Option<Report>) -> Self {
        Self {
            configuration: report.map(Arc::new),
            ..self
        }
    }

    /// The same, which also updates the machine.
    pub fn with_updates(self, updates: Option<Updates>) -> Self {
        Self { updates, ..self }
    }

    fn updates(&self) -> Result<&Updates, String> {
        let updates = self.updates.as_ref();
        updates.ok_or_else(|| {
            "this node is a program of another system, and no appliance: update it there, or by `cargo xtask deploy`"
                .into()
        })
    }

    /// The same for a user of this machine who may look, but change nothing.
    pub fn for_others(&self) -> Self {
        Self {
            looks_only: true,
            ..self.clone()
        }
    }

    /// Does what is asked, within a bounded time.
    pub async fn execute(&self, op: Op) -> Result<Value, String> {
        if self.looks_only && op.changes() {
            return Err("only root may change this node: try sudo".into());
        }
        match op {
            Op::Status => json(&self.status().await?),
            Op::Peers => json(&self.ask(Command::Peers).await?),
            Op::Leases => json(&self.ask(Command::Leases).await?),
            Op::Config => match &self.configuration {
                Some(report) => json(&**report),
                None => Err(
                    "this node was configured by options of `wow run`; what this machine's own sources \
                     say is shown by `wow config show --machine`"
                        .into(),
                ),
            },
            Op::Slots => json(&self.updates()?.report().await?),
            Op::Update(step) => self.updates()?.execute(step).await,
            Op::LookUp { key } => {
                let wanted = report::key(&key);
                let found = self.ask(|asker| Command::LookUp(wanted, asker)).await?;
                json(&found.map_err(|error| match error {
                    ResolveError::Unknown => format!("{key}: no record in the pool's table"),
                    error => format!("{key}: {error}; is this node joined?"),
                })?)
            }
            Op::Revoke { revocation } => {
                let done = self.ask(|asker| Command::Revoke(revocation, asker)).await?;
                json(&done.map_err(|error| error.to_string())?)
            }
            Op::Resolve { target: text } => json(&self.resolve(&text).await?),
            Op::Whois { address } => {
                let found = self.ask(|asker| Command::Whois(address, asker)).await?;
                json(&found.ok_or(format!("{address}: no session with such a node"))?)
            }
            Op::Offer { service, value } => {
                let name = label("the service's name", &service)?;
                let offered = self.ask(|asker| Command::Offer(name, value, asker)).await?;
                nothing(
                    offered,
                    "the value has more than 128 bytes, or there are too many services",
                )
            }
            Op::Withdraw { service } => {
                let name = label("the service's name", &service)?;
                self.ask(|asker| Command::Withdraw(name, asker)).await?;
                Ok(Value::Bool(true))
            }
            Op::Trouble { from, sentences } => {
                let from = label("the program's name", &from)?;
                let told = self
                    .ask(|asker| Command::Trouble(from, sentences, asker))
                    .await?;
                nothing(told, "too many programs have trouble")
            }
            Op::Trace { target: text } => json(&self.trace(&text).await?),
            Op::Links { nodes } => json(&self.links(nodes).await?),
            Op::Wait { joined: false, .. } => Err("only \"joined\": true can be waited for".into()),
            Op::Wait {
                joined: true,
                timeout_ms,
            } => {
                let limit = bounded_ms("timeout_ms", timeout_ms)?;
                let joined = self.ask_within(limit, Command::Joined).await;
                match joined {
                    Some(answer) => json(&answer?),
                    None => Err(self.why_not_joined(limit).await),
                }
            }
            Op::Ping {
                target,
                count,
                interval_ms,
                timeout_ms,
                overlay,
            } => {
                if !(1..=PING_COUNT_MAX).contains(&count) {
                    return Err(format!("count must be from 1 to {PING_COUNT_MAX}"));
                }
                let plan = ping::Plan {
                    target,
                    count,
                    interval: bounded_ms("interval_ms", interval_ms)?,
                    timeout: bounded_ms("timeout_ms", timeout_ms)?,
                    overlay,
                };
                json(&ping::run(self, &plan).await?)
            }
        }
    }

    /// How the node is.
    pub async fn status(&self) -> Result<Status, String> {
        Ok(*self.ask(Command::Status).await?)
    }

    async fn why_not_joined(&self, limit: Duration) -> String {
        let trouble = self.status().await.map(|status| status.trouble);
        let why = trouble.unwrap_or_default().join("; ");
        let colon = if why.is_empty() { "" } else { ": " };
        format!("not joined within {limit:?}{colon}{why}")
    }

    /// The node that a person calls `text`.
    pub async fn resolve(&self, text: &str) -> Result<Resolved, String> {
        let found = self
            .ask(|asker| Command::Resolve(target(text), asker))
            .await?;
        found.map_err(|error| match error {
            ResolveError::Unknown => format!("{text}: {error}"),
            _ => format!("{text}: {error}; is this node joined?"),
        })
    }

    async fn trace(&self, text: &str) -> Result<TraceReport, String> {
        let node = self.resolve(text).await?;
        let id = parse_id(&node.id)?;
        let route = self.ask_within(TRACE_MAX, |asker| Command::Trace(id, asker));
        let route = route.await.unwrap_or_else(|| Err(LATE.into()))?;
        Ok(report::trace(text, node, route))
    }

    async fn links(&self, nodes: Vec<Place>) -> Result<Vec<NodeLinks>, String> {
        if nodes.len() > LINKS_NODES_MAX {
            return Err(format!("at most {LINKS_NODES_MAX} nodes at once"));
        }
        let mut asked = Vec::new();
        for node in nodes {
            let id = parse_id(&node.id)?;
            let via = node.via.as_deref().map(parse_id).transpose()?;
            let (asker, answer) = oneshot::channel();
            let command = Command::Links(id, via, asker);
            let sent = self.commands.send(command).await;
            sent.map_err(|_| "the node is stopping".to_owned())?;
            asked.push(answer);
        }
        let all = async {
            let mut told = Vec::new();
            for answer in asked {
                told.push(answer.await.map_err(|_| BUSY.to_owned())?);
            }
            Ok(told)
        };
        let told = tokio::time::timeout(ANSWER_MAX, all).await;
        told.unwrap_or_else(|_| Err(LATE.into()))
    }

    /// Asks the loop, which answers at once or when the pool has answered it.
    pub async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, String> {
        self.ask_within(ANSWER_MAX, command)
            .await
            .unwrap_or_else(|| Err(LATE.into()))
    }

    async fn ask_within<T>(
        &self,
        limit: Duration,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Option<Result<T, String>> {
        let (asker, answer) = oneshot::channel();
        let asked = async {
            if self.commands.send(command(asker)).await.is_err() {
                return Err("the node is stopping".to_owned());
            }
            answer.await.map_err(|_| BUSY.to_owned())
        };
        tokio::time::timeout(limit, asked).await.ok()
    }
}

fn parse_id(text: &str) -> Result<NodeId, String> {
    text.parse()
        .map_err(|_| format!("{text} is no id of a node"))
}

fn label(what: &str, text: &str) -> Result<NodeName, String> {
    NodeName::new(text).map_err(|error| format!("{what} is refused: {error}"))
}

/// The answer of what has no other, or why it was not done.
fn nothing(done: bool, why_not: &str) -> Result<Value, String> {
    done.then_some(Value::Bool(true)).ok_or(why_not.to_owned())
}

fn bounded_ms(what: &str, value: u64) -> Result<Duration, String> {
    if (1..=TIMEOUT_MS_MAX).contains(&value) {
        Ok(Duration::from_millis(value))
    } else {
        Err(format!("{what} must be from 1 to {TIMEOUT_MS_MAX}"))
    }
}

fn json(value: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart_by_their_form() {
        let check = |text: &str, expected: Target| assert_eq!(target(text), expected);
        check("Web1", Target::Name("web1".into()));
        check("10.128.0.9", Target::V4(Ipv4Addr::new(10, 128, 0, 9)));
        check("fd00::1", Target::V6("fd00::1".parse().unwrap()));
        let id = "00112233445566778899aabbccddeeff00112233";
        check(id, Target::Id(id.parse().unwrap()));
    }
}
