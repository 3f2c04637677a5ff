//! The names of the pool in /etc/hosts: NAME, NAME.POOL.wow, and `head`.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::block;
use crate::files::{self, PUBLIC};

const FILE: &str = "/etc/hosts";

/// The name that the head has besides its own.
pub const HEAD: &str = "head";

/// A machine of the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its host name.
    pub name: String,
    /// Where it is in the pool.
    pub address: Ipv4Addr,
}

/// The domain of a pool's names.
pub fn domain(pool: &str) -> String {
    format!("{pool}.wow")
}

/// Whether a text can be a host's name: a label, in lower case.
pub fn is_name(text: &str) -> bool {
    let letters = |letter: u8| matches!(letter, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=63).contains(&text.len())
        && text.bytes().all(letters)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Makes these names known on this machine, and no others of the pool.
pub fn write(pool: &str, head: &Host, others: &[Host]) -> Result<()> {
    let path = Path::new(FILE);
    let cleared = without_own_loopback(&files::text(path)?);
    if let Some(text) = cleared {
        files::write(path, text.as_bytes(), PUBLIC)?;
    }
    block::write(path, &lines(pool, head, others)).map(drop)
}

fn lines(pool: &str, head: &Host, others: &[Host]) -> String {
    let domain = domain(pool);
    let mut lines = String::new();
    let names = |name: &str| format!("{name} {name}.{domain}");
    let others = others.iter().filter(|host| host.name != head.name);
    let others = others.map(|host| (host.address, names(&host.name)));
    let mut also = names(&head.name);
    if head.name != HEAD {
        also = format!("{also} {}", names(HEAD));
    }
    for (address, names) in std::iter::once((head.address, also)).chain(others) {
        lines.push_str(&format!("{address} {names}\n"));
    }
    lines
}

/// Debian's line that leads the machine's own name to itself, where nobody else would find it.
fn without_own_loopback(text: &str) -> Option<String> {
    let own = |line: &&str| line.split_whitespace().next() == Some("127.0.1.1");
    text.lines().any(|line| own(&line)).then(|| {
        let kept = text.lines().filter(|line| !own(line));
        kept.flat_map(|line| [line, "\n"]).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, last: u8) -> Host {
        Host {
            name: name.into(),
            address: Ipv4Addr::new(10, 128, 0, last),
        }
    }

    #[test]
    fn each_host_has_its_names_and_the_head_is_called_so_too() {
        let others = [host("w1", 3), host("boss", 9)];
        assert_eq!(
            lines("lab", &host("boss", 2), &others),
            "10.128.0.2 boss boss.lab.wow head head.lab.wow\n10.128.0.3 w1 w1.lab.wow\n"
        );
        assert_eq!(
            lines("lab", &host("head", 2), &[]),
            "10.128.0.2 head head.lab.wow\n"
        );
    }

    #[test]
    fn the_machines_own_name_does_not_lead_to_its_loopback() {
        let text = "127.0.0.1 localhost\n127.0.1.1 w1\n";
        assert_eq!(
            without_own_loopback(text).as_deref(),
            Some("127.0.0.1 localhost\n")
        );
        assert_eq!(without_own_loopback("127.0.0.1 localhost\n"), None);
    }

    #[test]
    fn names_are_labels() {
        for good in ["w1", "a", "n-0af3"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a b", "a\n", &"x".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
