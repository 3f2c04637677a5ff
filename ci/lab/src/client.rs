//! Asks a router through the `wow` program and reads its JSON, as far as experiments need it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::command::{self, Outcome};

/// How long one question may take when the router is there at all.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// One router's control socket: a daemon's own, or the one that QEMU joins to a machine's port.
#[derive(Debug, Clone)]
pub struct Client {
    wow: PathBuf,
    socket: PathBuf,
}

/// `wow status --json`, in part.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// Node id, in hexadecimal.
    pub id: String,
    /// Node name.
    pub name: String,
    /// Virtual addresses.
    pub addresses: Addresses,
    /// Whether the node is in its pool.
    pub joined: bool,
    /// From the daemon's start to being joined.
    #[serde(default)]
    pub joined_after_ms: Option<f64>,
    /// From the kernel's start to being joined; machines alone.
    #[serde(default)]
    pub boot_to_joined_ms: Option<f64>,
    /// The process's resident memory.
    #[serde(default)]
    pub rss_bytes: Option<u64>,
    /// What is wrong on its machine.
    #[serde(default)]
    pub trouble: Vec<String>,
}

/// Virtual addresses of a node.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

/// How packets reach a peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerPath {
    /// `udp`, `tcp`, `relay` or `overlay`.
    pub kind: String,
    /// A direct path's far end.
    #[serde(default)]
    pub remote: Option<String>,
    /// The relay, or the first node of the way over the overlay.
    #[serde(default)]
    pub via: Option<String>,
}

impl PeerPath {
    /// Whether nobody else passes the packets on.
    pub fn is_direct(&self) -> bool {
        self.remote.is_some()
    }
}

/// `wow ping --json`, in part.
#[derive(Debug, Clone, Deserialize)]
pub struct Ping {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// Round trips, when there were any.
    #[serde(default)]
    pub rtt_ms: Option<RoundTrips>,
    /// The path in use at the end.
    #[serde(default)]
    pub path: Option<PeerPath>,
}

/// Round trips in milliseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct RoundTrips {
    /// Shortest.
    pub min: f64,
    /// Mean.
    pub avg: f64,
    /// Longest.
    pub max: f64,
}

impl Client {
    /// A client of the router behind `socket`.
    pub fn new(wow: &Path, socket: &Path) -> Self {
        Self {
            wow: wow.to_path_buf(),
            socket: socket.to_path_buf(),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits until the router is in its pool, at most `limit`; its status then.
    pub fn wait_joined(&self, limit: Duration) -> Result<Status> {
        let seconds = format!("{}s", limit.as_secs().max(1));
        self.ask(&["wait", "--timeout", &seconds], limit + ANSWER_LIMIT)
    }

    /// What the router says of itself.
    pub fn status(&self) -> Result<Status> {
        self.ask(&["status"], ANSWER_LIMIT)
    }

    /// The addresses of the node behind a name.
    pub fn resolve(&self, name: &str) -> Result<Addresses> {
        self.ask(&["resolve", name], ANSWER_LIMIT)
    }

    /// Its status as it stands, with every counter, for logs and reports.
    pub fn raw_status(&self) -> Result<Value> {
        self.ask(&["status"], ANSWER_LIMIT)
    }

    /// Its peers as they stand.
    pub fn raw_peers(&self) -> Result<Value> {
        self.ask(&["peers"], ANSWER_LIMIT)
    }

    /// Pings another node's virtual address through the routers' guest interfaces.
    pub fn ping(&self, target: &str, count: u32) -> Result<Ping> {
        let count_text = count.to_string();
        let limit = ANSWER_LIMIT + Duration::from_secs(10) * count;
        // No reply at all is an exit status of 1, with the JSON all the same.
        let words = [
            "ping",
            target,
            "--count",
            &count_text,
            "--interval",
            "200ms",
        ];
        let outcome = self.run(&words, limit)?;
        if outcome.status.code() == Some(1)
            && let Ok(ping) = serde_json::from_str(&outcome.stdout)
        {
            return Ok(ping);
        }
        let text = outcome.success(&format!("wow ping {target}"))?;
        serde_json::from_str(&text).with_context(|| format!("wow ping answers {text:?}"))
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, words: &[&str], limit: Duration) -> Result<T> {
        let text = self
            .run(words, limit)?
            .success(&format!("wow {}", words.join(" ")))?;
        serde_json::from_str(&text)
            .with_context(|| format!("wow {} answers {text:?}", words.join(" ")))
    }

    fn run(&self, words: &[&str], limit: Duration) -> Result<Outcome> {
        let mut command = Command::new(&self.wow);
        command
            .arg("--socket")
            .arg(&self.socket)
            .args(words)
            .arg("--json");
        command::run(command, limit)
    }
}

/// Facts about several nodes, by name.
pub type ByName<T> = BTreeMap<String, T>;

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for `wow` that answers with a fixed text and status.
    fn fake(dir: &Path, answer: &str, status: i32) -> Client {
        use std::os::unix::fs::PermissionsExt;
        let wow = dir.join("wow");
        std::fs::write(
            &wow,
            format!("#!/bin/sh\ncat <<'END'\n{answer}\nEND\nexit {status}\n"),
        )
        .unwrap();
        std::fs::set_permissions(&wow, std::fs::Permissions::from_mode(0o755)).unwrap();
        Client::new(&wow, &dir.join("socket"))
    }

    #[test]
    fn a_ping_without_replies_is_a_result_not_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let answer = r#"{"target":"b","sent":3,"received":0,"rtt_ms":null}"#;
        let ping = fake(dir.path(), answer, 1).ping("b", 3).unwrap();
        assert_eq!((ping.sent, ping.received), (3, 0));
        assert!(ping.rtt_ms.is_none());
    }

    #[test]
    fn a_failing_program_is_an_error_with_what_it_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = fake(dir.path(), "no such node", 2)
            .ping("b", 1)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no such node"), "{error}");
    }

    #[test]
    fn more_fields_than_needed_are_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let answer = r#"{"id":"00","name":"a","addresses":{"v4":"10.128.0.9","v6":"fd00::9"},
            "joined":true,"joined_after_ms":120,"boot_to_joined_ms":null,"later":{}}"#;
        let status = fake(dir.path(), answer, 0).status().unwrap();
        assert!(status.joined);
        assert_eq!(status.joined_after_ms, Some(120.0));
        assert_eq!(status.boot_to_joined_ms, None);
    }
}
