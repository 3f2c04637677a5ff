//! SSH among members without prompts: hosts certified by the head, and hosts that vouch for their users.
//!
//! Each member's host key is certified for its names and address. Clients trust the authority for the
//! pool's names, so nobody keeps known hosts. Users are let in because the machine they come from is a
//! member that says who they are (host-based authentication): no keys of users exist that could be lost.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use rustix::process::{Pid, Signal, kill_process};

use crate::block;
use crate::command::{self, LOCAL};
use crate::files::{self, PUBLIC};
use crate::hosts::{self, Host};
use crate::machine;

const AUTHORITY: &str = "/var/lib/wow-workstation/ssh_authority";
const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";
const CERTIFICATE: &str = "/etc/ssh/ssh_host_ed25519_key-cert.pub";

/// How long certificates hold, and since when: clocks differ.
const VALIDITY: &str = "-1d:+14d";

/// When a certificate is made anew.
pub const RENEW: Duration = Duration::from_secs(4 * 24 * 3600);

const KEY_TYPE: &str = "ssh-ed25519";

/// The authority of the pool's hosts, as a public key; made on the head when there is none.
pub fn own_authority() -> Result<String> {
    make_key(AUTHORITY, "authority of the pool's hosts")?;
    public_key(AUTHORITY)
}

/// This machine's host key, made when there is none.
pub fn own_host_key() -> Result<String> {
    make_key(HOST_KEY, "")?;
    public_key(HOST_KEY)
}

/// Whether a text is a public key that is certified here.
pub fn is_key(text: &str) -> bool {
    let mut words = text.split(' ');
    let (kind, key) = (words.next(), words.next());
    let letters = |key: &str| {
        key.bytes()
            .all(|letter| letter.is_ascii_alphanumeric() || b"+/=".contains(&letter))
    };
    kind == Some(KEY_TYPE)
        && key.is_some_and(|key| key.len() <= 100 && letters(key))
        && words.next().is_none()
}

/// A certificate for a host's key, under its names, the first of which is shown, and its address.
pub fn certify(
    host_key: &str,
    names: &[&str],
    pool: &str,
    address: Option<Ipv4Addr>,
) -> Result<String> {
    let name = names.first().copied().unwrap_or_default();
    ensure!(is_key(host_key), "the SSH host key of {name} is none");
    let directory = tempfile::tempdir().context("cannot make a directory")?;
    let file = directory.path().join("key.pub");
    std::fs::write(&file, format!("{host_key}\n")).context("cannot write the host key")?;
    let file = file.to_string_lossy();
    let principals = principals(names, pool, address);
    command::run(
        "ssh-keygen",
        &[
            "-q",
            "-s",
            AUTHORITY,
            "-h",
            "-I",
            name,
            "-n",
            &principals,
            "-V",
            VALIDITY,
            &file,
        ],
        LOCAL,
    )?;
    let made = directory.path().join("key-cert.pub");
    let made = std::fs::read_to_string(made).context("ssh-keygen wrote no certificate")?;
    Ok(made.trim_end().to_owned())
}

fn principals(names: &[&str], pool: &str, address: Option<Ipv4Addr>) -> String {
    let domain = hosts::domain(pool);
    let both = |name: &&str| [(*name).to_owned(), format!("{name}.{domain}")];
    let mut all: Vec<String> = names.iter().flat_map(both).collect();
    all.sort_unstable();
    all.dedup();
    all.extend(address.map(|address| address.to_string()));
    all.join(",")
}

/// Makes this machine's SSH trust the pool's hosts, of which these are known, and shows its own certificate
/// to others.
pub fn apply(
    pool: &str,
    range: Ipv4Net,
    known: &[Host],
    authority: &str,
    certificate: Option<&str>,
    server: &mut Server,
) -> Result<()> {
    ensure!(is_key(authority), "the pool's SSH authority is no key");
    let mut names: BTreeSet<&str> = known.iter().map(|host| &*host.name).collect();
    names.insert(hosts::HEAD);
    // ssh compares with what was typed: it would look a whole name up with a dot behind, which /etc/hosts
    // cannot answer, to make it of a short one.
    let mut patterns = vec![format!("*.{}", hosts::domain(pool))];
    patterns.extend(address_patterns(range));
    patterns.extend(names.into_iter().map(str::to_owned));
    let patterns = patterns.join(",");
    block::write(
        Path::new("/etc/ssh/ssh_known_hosts"),
        &format!("@cert-authority {patterns} {authority}\n"),
    )?;
    // They prove who they are by certificates under these addresses.
    let equal: String = known
        .iter()
        .map(|host| format!("{}\n", host.address))
        .collect();
    files::write(Path::new("/etc/ssh/shosts.equiv"), equal.as_bytes(), PUBLIC)?;
    files::write(
        Path::new("/etc/ssh/ssh_config.d/wow.conf"),
        client(&patterns).as_bytes(),
        PUBLIC,
    )?;
    server.stale |= files::write(
        Path::new("/etc/ssh/sshd_config.d/wow.conf"),
        SERVER.as_bytes(),
        PUBLIC,
    )?;
    if let Some(certificate) = certificate {
        let line = format!("{certificate}\n");
        server.stale |= files::write(Path::new(CERTIFICATE), line.as_bytes(), PUBLIC)?;
    }
    server.refresh()
}

/// This machine's SSH server.
#[derive(Debug, Default)]
pub struct Server {
    /// It has not read its files since they changed.
    stale: bool,
}

const SERVER: &str = "# Written by wow-workstation.\n\
                      HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub\n\
                      HostbasedAuthentication yes\n\
                      # The users' own lists do not count for that.\n\
                      IgnoreRhosts yes\n\
                      IgnoreUserKnownHosts yes\n";

fn client(patterns: &str) -> String {
    format!(
        "# Written by wow-workstation.\n\
         EnableSSHKeysign yes\n\
         Match host \"{patterns}\"\n    \
         HostbasedAuthentication yes\n    \
         # Hosts have certificates: their keys need no keeping.\n    \
         UpdateHostKeys no\n"
    )
}

/// The addresses of a range, as ssh writes patterns.
fn address_patterns(range: Ipv4Net) -> Vec<String> {
    let octets = range.network().octets();
    let whole = usize::from(range.prefix_len() / 8);
    let rest = range.prefix_len() % 8;
    let fixed: Vec<String> = octets[..whole].iter().map(u8::to_string).collect();
    if whole == 4 {
        return vec![fixed.join(".")];
    }
    let pattern = |next: Option<u8>| {
        let mut parts = fixed.clone();
        parts.extend(next.map(|next| next.to_string()));
        if parts.len() < 4 {
            parts.push("*".into());
        }
        parts.join(".")
    };
    if rest == 0 {
        return vec![pattern(None)];
    }
    let count = 1_u16 << (8 - rest);
    let first = u16::from(octets[whole]);
    (first..first + count)
        .filter_map(|next| u8::try_from(next).ok())
        .map(|next| pattern(Some(next)))
        .collect()
}

fn make_key(path: &str, comment: &str) -> Result<()> {
    if Path::new(path).exists() {
        return Ok(());
    }
    if let Some(parent) = Path::new(path).parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let arguments = ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path];
    command::run("ssh-keygen", &arguments, LOCAL).map(drop)
}

/// Without its comment.
fn public_key(path: &str) -> Result<String> {
    let path = format!("{path}.pub");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let words: Vec<_> = text.split_whitespace().take(2).collect();
    let key = words.join(" ");
    ensure!(is_key(&key), "{path} holds no {KEY_TYPE} key");
    Ok(key)
}

impl Server {
    /// Makes it read its files again if they have changed, as soon as it is up. One that had no key at boot is
    /// started.
    fn refresh(&mut self) -> Result<()> {
        if !self.stale {
            return Ok(());
        }
        let pid = std::fs::read_to_string("/run/sshd.pid").ok();
        let pid = pid.and_then(|text| text.trim().parse::<i32>().ok());
        let is_server = |pid: &i32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.trim_end() == "sshd")
        };
        match pid.filter(is_server).and_then(Pid::from_raw) {
            Some(pid) => kill_process(pid, Signal::HUP).context("sshd takes no signal")?,
            None if machine::has_systemd() => {
                command::run("systemctl", &["restart", "ssh.service"], LOCAL)?;
            }
            None => return Ok(()),
        }
        self.stale = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_a_range_and_no_more() {
        let check = |range: &str, first: &str, count: usize| {
            let patterns = address_patterns(range.parse().unwrap());
            assert_eq!((&*patterns[0], patterns.len()), (first, count), "{range}");
        };
        check("10.128.0.0/9", "10.128.*", 128);
        check("10.0.0.0/8", "10.*", 1);
        check("172.16.0.0/12", "172.16.*", 16);
        check("192.0.2.0/24", "192.0.2.*", 1);
        check("192.0.2.128/26", "192.0.2.128", 64);
        check("192.0.2.9/32", "192.0.2.9", 1);
    }

    #[test]
    fn only_plain_keys_of_one_type_are_certified() {
        assert!(is_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAbc+/=="));
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-rsa AAAA",
            "ssh-ed25519 AA\nssh-ed25519 BB",
            "ssh-ed25519 AA comment",
            "ssh-ed25519 A,B",
        ] {
            assert!(!is_key(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_certificate_names_the_host_in_each_way() {
        let address = Some(Ipv4Addr::new(10, 128, 0, 3));
        let check = |names: &[&str], address, expected: &str| {
            assert_eq!(principals(names, "lab", address), expected);
        };
        check(&["w1"], address, "w1,w1.lab.wow,10.128.0.3");
        check(&["w1"], None, "w1,w1.lab.wow");
        check(
            &["boss", "head"],
            None,
            "boss,boss.lab.wow,head,head.lab.wow",
        );
    }
}
