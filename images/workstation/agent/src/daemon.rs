//! The daemon `wow` on this machine, by its control socket: JSON, a line each way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ipnet::Ipv4Net;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The pool may have to be asked.
const PATIENCE: Duration = Duration::from_secs(40);

/// Longest reply: that with all peers.
const REPLY_BYTES_MAX: u64 = 1 << 20;

/// The service under which a head is found. It is called like the role, so only heads may claim it.
pub const HEAD_SERVICE: &str = "head";

/// The name of this program for the daemon.
const SELF: &str = "workstation";

/// See the module.
#[derive(Debug, Clone)]
pub struct Daemon {
    socket: PathBuf,
}

/// How the node is.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The pool's name.
    pub pool: String,
    /// The pool's virtual IPv4 range.
    pub range: Ipv4Net,
    /// Its virtual addresses.
    pub addresses: Addresses,
    /// Its certified roles.
    pub roles: Roles,
    /// The workstation's role that it was told.
    pub role: Option<String>,
    /// Whether it has its place in the pool.
    pub joined: bool,
    /// The guest's back end: `tun` with the interface's name.
    guest: String,
}

/// A node's virtual addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Addresses {
    /// Leased.
    pub v4: Ipv4Addr,
    /// Derived from the node's id.
    pub v6: Ipv6Addr,
}

/// Certified roles.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Roles(Vec<String>);

/// A node of the pool.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its certified name.
    pub name: String,
    /// The IPv4 address that it seems to hold.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Its certified roles.
    pub roles: Roles,
}

/// Who holds a key of the pool's table.
#[derive(Debug, Clone, Deserialize)]
pub struct Record {
    /// The holder's id.
    pub owner: String,
}

impl Status {
    /// The pool's interface.
    pub fn interface(&self) -> Option<&str> {
        self.guest.strip_prefix("tun ")
    }
}

impl Roles {
    /// Whether this role is among them.
    pub fn has(&self, role: &str) -> bool {
        self.0.iter().any(|own| own == role)
    }
}

impl From<String> for Roles {
    fn from(text: String) -> Self {
        Self(text.split(',').map(str::to_owned).collect())
    }
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    ok: Option<Value>,
    #[serde(default)]
    error: Option<String>,
}

impl Daemon {
    /// The daemon behind a socket.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// How the node is.
    pub fn status(&self) -> Result<Status> {
        self.ask(json!({"op": "status"}))
    }

    /// Who holds an IPv6 address, by the session with it: nobody else can send from it.
    pub fn whois(&self, address: Ipv6Addr) -> Result<Node> {
        self.ask(json!({"op": "whois", "address": address}))
    }

    /// The node behind an id, a name or an address, as the pool's table tells.
    pub fn resolve(&self, target: &str) -> Result<Node> {
        self.ask(json!({"op": "resolve", "target": target}))
    }

    /// Who holds a key.
    pub fn look_up(&self, key: &str) -> Result<Record> {
        self.ask(json!({"op": "look_up", "key": key}))
    }

    /// Offers a service to the pool.
    pub fn offer(&self, service: &str, value: &str) -> Result<()> {
        self.ask::<bool>(json!({"op": "offer", "service": service, "value": value}))
            .map(drop)
    }

    /// Ceases to offer a service.
    pub fn withdraw(&self, service: &str) -> Result<()> {
        self.ask::<bool>(json!({"op": "withdraw", "service": service}))
            .map(drop)
    }

    /// What is wrong on this machine, for `wow status`.
    pub fn trouble(&self, sentences: &[String]) -> Result<()> {
        self.ask::<bool>(json!({"op": "trouble", "from": SELF, "sentences": sentences}))
            .map(drop)
    }

    fn ask<T: DeserializeOwned>(&self, mut request: Value) -> Result<T> {
        let at = || format!("the daemon wow at {}", self.socket.display());
        request["id"] = 1.into();
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("{} does not answer: is wow.service running?", at()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream
            .write_all(format!("\n{request}\n").as_bytes())
            .with_context(at)?;
        let mut line = String::new();
        BufReader::new(stream.take(REPLY_BYTES_MAX))
            .read_line(&mut line)
            .with_context(at)?;
        let reply: Reply = serde_json::from_str(&line).with_context(at)?;
        let value = match (reply.ok, reply.error) {
            (Some(value), _) => value,
            (None, error) => return Err(anyhow!(error.unwrap_or_else(at))),
        };
        serde_json::from_value(value).with_context(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_whole_words() {
        let roles = Roles::from("head,router".to_owned());
        assert!(roles.has("head") && roles.has("router"));
        assert!(!roles.has("login") && !roles.has("hea") && !roles.has(""));
    }
}
