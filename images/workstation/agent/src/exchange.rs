//! What a member asks of the head and what the head tells: one line of JSON each way.
//!
//! The overlay seals it and vouches for both ends, see [`crate::service`].

use std::fmt;
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::hosts::{self, Host};
use crate::users::Users;

/// The head listens here, on its IPv6 address in the pool: beside Slurm's ports, for root alone.
pub const PORT: u16 = 816;

/// Longest request.
pub const REQUEST_BYTES_MAX: usize = 4096;

/// Longest answer: thousands of users and hosts.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Bytes of Slurm's key.
pub const KEY_BYTES: usize = 1024;

/// Hosts in one answer.
pub const HOSTS_MAX: usize = 8192;

/// What a member asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Its host name: its name in the pool, or that and the beginning of its id.
    pub host: String,
    /// What it does in the pool.
    pub kind: Kind,
    /// Another text after each start of the machine.
    pub boot: String,
    /// Its SSH host key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
}

/// What a member does in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It stays, and wants to know everything.
    Member,
    /// It leaves: its jobs may start elsewhere.
    Leaving,
}

/// What the head tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// The head's own name and address.
    pub head: Host,
    /// Everybody of whom the head knows.
    pub hosts: Vec<Host>,
    /// Slurm's key.
    pub slurm_key: Secret,
    /// Whether Slurm knows the member as a node, and hears of it.
    pub is_node: bool,
    /// The head's users.
    pub users: Users,
    /// The authority of the pool's SSH hosts, as a public key.
    pub ssh_authority: String,
    /// The member's host certificate.
    pub ssh_certificate: Option<String>,
    /// Whether /home and /shared are exported.
    pub nfs: bool,
}

/// An answer, or why there is none.
pub type Reply = Result<Answer, String>;

/// Bytes that are shown to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Of these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> String {
        BASE64.encode(&secret.0)
    }
}

impl TryFrom<String> for Secret {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = BASE64.decode(text.as_bytes());
        bytes.map(Self).map_err(|_| "the key is malformed")
    }
}

impl Answer {
    /// Leaves out what no honest head tells, since it goes into files that root's programs read.
    pub fn checked(mut self, in_pool: impl Fn(Ipv4Addr) -> bool) -> Result<Self> {
        let usable = |host: &Host| hosts::is_name(&host.name) && in_pool(host.address);
        ensure!(usable(&self.head), "the head's name or address is none");
        ensure!(
            self.slurm_key.bytes().len() == KEY_BYTES,
            "Slurm's key has the wrong length"
        );
        self.hosts.retain(usable);
        self.hosts.truncate(HOSTS_MAX);
        self.users = self.users.checked();
        let one_line = |text: &str| !text.contains(|letter: char| letter.is_control());
        ensure!(
            one_line(&self.ssh_authority),
            "the SSH authority's key is none"
        );
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        let host = |name: &str, address: [u8; 4]| Host {
            name: name.into(),
            address: address.into(),
        };
        Answer {
            head: host("head", [10, 128, 0, 2]),
            hosts: vec![
                host("w1", [10, 128, 0, 3]),
                host("bank.example", [10, 128, 0, 4]),
                host("w2", [192, 0, 2, 1]),
            ],
            slurm_key: Secret::new(vec![7; KEY_BYTES]),
            is_node: false,
            users: Users::default(),
            ssh_authority: "ssh-ed25519 AAAA".into(),
            ssh_certificate: None,
            nfs: true,
        }
    }

    fn in_pool(address: Ipv4Addr) -> bool {
        address.octets()[0] == 10
    }

    #[test]
    fn names_and_addresses_outside_the_pool_are_left_out() {
        let line = serde_json::to_string(&Reply::Ok(answer())).unwrap();
        let told: Reply = serde_json::from_str(&line).unwrap();
        let checked = told.unwrap().checked(in_pool).unwrap();
        let names: Vec<_> = checked.hosts.iter().map(|host| &*host.name).collect();
        assert_eq!(names, ["w1"]);
    }

    #[test]
    fn a_head_without_a_usable_key_or_name_is_refused() {
        let mut short = answer();
        short.slurm_key = Secret::new(vec![7; 3]);
        assert!(short.checked(in_pool).is_err());
        let mut odd = answer();
        odd.head.name = "a b".into();
        assert!(odd.checked(in_pool).is_err());
        let mut lines = answer();
        lines.ssh_authority = "a\nb".into();
        assert!(lines.checked(in_pool).is_err());
    }

    #[test]
    fn the_key_is_not_shown() {
        let shown = format!("{:?}", answer());
        assert!(
            shown.contains("Secret") && !shown.contains("7, 7"),
            "{shown}"
        );
    }
}
