//! Which members the head knows, by the host names that they have.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::daemon::Node;
use crate::exchange::HOSTS_MAX;
use crate::files::{self, PRIVATE};
use crate::hosts::{self, Host};

/// Kept over restarts, so that names hold meanwhile.
const FILE: &str = "/var/lib/wow-workstation/members.json";

/// A name is its member's for so long after it was last heard of.
const NAME_HELD: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Default)]
pub struct Roster {
    members: BTreeMap<String, Member>,
}

/// A member.
pub struct Member {
    /// The node's id.
    pub id: String,
    /// The address that the pool's table confirmed.
    pub address: Option<Ipv4Addr>,
    /// Tells its machine's starts apart.
    pub boot: String,
    /// It has said that it ends, and not come back.
    pub left: bool,
    /// When it was last heard of.
    pub seen: Instant,
    /// Its SSH certificate.
    pub certificate: Option<Signed>,
}

/// A certificate, and for what it was made.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The host's key.
    pub key: String,
    /// The address in it.
    pub address: Option<Ipv4Addr>,
    /// When it was made.
    pub made: Instant,
    /// The certificate.
    pub text: String,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    id: String,
    address: Option<Ipv4Addr>,
    #[serde(default)]
    boot: String,
}

impl Member {
    /// One of whom nothing is known yet.
    fn new(id: String, seen: Instant) -> Self {
        Self {
            id,
            address: None,
            boot: String::new(),
            left: false,
            seen,
            certificate: None,
        }
    }
}

impl Roster {
    /// As it was kept. One that cannot be read is forgotten: members tell of themselves again.
    pub fn load() -> Self {
        let text = std::fs::read(FILE).unwrap_or_default();
        let kept: BTreeMap<String, Kept> = serde_json::from_slice(&text).unwrap_or_default();
        let members = kept.into_iter().map(|(name, kept)| {
            let member = Member {
                address: kept.address,
                boot: kept.boot,
                ..Member::new(kept.id, Instant::now())
            };
            (name, member)
        });
        Self {
            members: members.collect(),
        }
    }

    /// Keeps it.
    pub fn save(&self) -> Result<()> {
        let kept = self.members.iter().map(|(name, member)| {
            let kept = Kept {
                id: member.id.clone(),
                address: member.address,
                boot: member.boot.clone(),
            };
            (name, kept)
        });
        let text = serde_json::to_vec(&kept.collect::<BTreeMap<_, _>>())?;
        files::write(Path::new(FILE), &text, PRIVATE).map(drop)
    }

    /// A member is heard of under a host name; `own` is the head's. Its entry, or why it may not be
    /// called so.
    pub fn admit(
        &mut self,
        node: &Node,
        host: &str,
        own: &str,
        now: Instant,
    ) -> Result<&mut Member, String> {
        if !names(&node.name, &node.id).contains(&host.to_owned()) {
            return Err(format!("a node called {} has no host {host}", node.name));
        }
        let known = self.members.get(host);
        let taken = known.is_some_and(|known| {
            known.id != node.id && now.saturating_duration_since(known.seen) < NAME_HELD
        });
        if taken || host == own || host == hosts::HEAD || host == "localhost" {
            return Err(format!(
                "the name {host} is another machine's; give this one its own (`name` in its \
                 configuration)"
            ));
        }
        if known.is_none() && self.members.len() >= HOSTS_MAX {
            return Err(format!("the head has {HOSTS_MAX} members already"));
        }
        // Under any other name it is no more, and nobody else is under this one.
        self.members
            .retain(|name, member| (name == host) == (member.id == node.id));
        let members = self.members.entry(host.to_owned());
        let member = members.or_insert_with(|| Member::new(node.id.clone(), now));
        member.seen = now;
        member.left = false;
        Ok(member)
    }

    /// Forgets members that were not heard of for so long.
    pub fn forget(&mut self, now: Instant, after: Duration) {
        let away = |member: &Member| now.saturating_duration_since(member.seen);
        self.members.retain(|_, member| away(member) < after);
    }

    /// A member.
    pub fn get(&self, host: &str) -> Option<&Member> {
        self.members.get(host)
    }

    /// A member ends; whether it is that of this name.
    pub fn leave(&mut self, host: &str, id: &str) -> bool {
        let own = self.members.get_mut(host).filter(|member| member.id == id);
        if let Some(member) = own {
            member.left = true;
            return true;
        }
        false
    }

    /// All whose address is certain.
    pub fn hosts(&self) -> Vec<Host> {
        let hosts = self.members.iter().filter_map(|(name, member)| {
            Some(Host {
                name: name.clone(),
                address: member.address?,
            })
        });
        hosts.collect()
    }
}

/// What a node may be called: its name, or where that is another's, its name with the beginning of its id.
pub fn names(name: &str, id: &str) -> [String; 2] {
    [
        name.to_owned(),
        format!("{name}-{}", id.get(..6).unwrap_or(id)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, id: &str) -> Node {
        serde_json::from_value(serde_json::json!({
            "id": id, "name": name, "v4": "10.128.0.3", "v6": "fd00::3", "roles": "worker",
        }))
        .unwrap()
    }

    #[test]
    fn a_name_is_one_members_until_that_is_long_gone() {
        let mut roster = Roster::default();
        let now = Instant::now();
        let first = node("w1", "aaaaaaaa");
        let second = node("w1", "bbbbbbbb");
        roster.admit(&first, "w1", "head", now).unwrap().address = Some([10, 128, 0, 3].into());
        let refused = roster.admit(&second, "w1", "head", now).err().unwrap();
        assert!(refused.contains("w1"), "{refused}");
        roster.admit(&second, "w1-bbbbbb", "head", now).unwrap();
        assert_eq!(roster.hosts().len(), 1, "only those with an address");
        let later = now + NAME_HELD;
        assert!(roster.admit(&second, "w1", "head", later).is_ok());
        assert!(roster.get("w1-bbbbbb").is_none(), "it has one name");
        assert!(
            roster.hosts().is_empty(),
            "an address does not go to the next"
        );
    }

    #[test]
    fn nobody_is_called_as_another_node_or_as_the_head() {
        let mut roster = Roster::default();
        let now = Instant::now();
        let mut refused = |name: &str, host: &str| {
            roster
                .admit(&node(name, "aaaaaaaa"), host, "boss", now)
                .is_err()
        };
        assert!(refused("w1", "w2"));
        assert!(refused("head", "head"));
        assert!(refused("boss", "boss"));
        assert!(refused("w1", "w1-bbbbbb"));
        assert!(!refused("w1", "w1-aaaaaa"));
    }

    #[test]
    fn members_that_are_away_are_forgotten() {
        let mut roster = Roster::default();
        let now = Instant::now();
        roster
            .admit(&node("w1", "aaaaaaaa"), "w1", "head", now)
            .unwrap();
        roster.forget(now + Duration::from_secs(10), Duration::from_secs(20));
        assert!(roster.get("w1").is_some());
        roster.forget(now + Duration::from_secs(20), Duration::from_secs(20));
        assert!(roster.get("w1").is_none());
    }
}
