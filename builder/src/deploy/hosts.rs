//! The list of hosts: one a line, `[USER@]HOST[:PORT]`, with `#` before comments.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// More hosts than any slice has had.
pub const HOSTS_MAX: usize = 10_000;
/// Longest name of a host or user.
const NAME_LENGTH_MAX: usize = 253;

/// Where to log in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// As whom, if the list says so.
    pub user: Option<User>,
    /// A name, of DNS or of ssh's configuration, or an address.
    pub host: String,
    /// At which port, if the list says so.
    pub port: Option<u16>,
}

/// A login's name, which no program takes for an option.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct User(String);

/// What is wrong with a list, line by line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct HostsError(Vec<String>);

/// The hosts of a list, in its order.
pub fn parse(text: &str) -> Result<Vec<Target>, HostsError> {
    let mut targets: Vec<Target> = Vec::new();
    let mut lines = BTreeMap::new();
    let mut wrong = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let content = line.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        match content.parse::<Target>() {
            Ok(target) => match lines.insert(target.place(), number) {
                None => targets.push(target),
                Some(first) => {
                    wrong.push(format!(
                        "line {number}: {content} stands in line {first} already"
                    ));
                }
            },
            Err(reason) => wrong.push(format!("line {number}: {reason}")),
        }
    }
    if targets.len() > HOSTS_MAX {
        wrong.push(format!("there are more than {HOSTS_MAX} hosts"));
    } else if targets.is_empty() && wrong.is_empty() {
        wrong.push("there is no host in it".into());
    }
    match wrong.is_empty() {
        true => Ok(targets),
        false => Err(HostsError(wrong)),
    }
}

impl Target {
    /// What two lines must not share: a host has one node a login, and a port leads to one machine.
    fn place(&self) -> (Option<User>, String, Option<u16>) {
        (self.user.clone(), self.host.to_ascii_lowercase(), self.port)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{}@", user.as_str())?;
        }
        match self.port {
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (Some(user.parse()?), place),
            None => (None, text),
        };
        let (host, port) = host_and_port(place)?;
        if !is_host(host) {
            return Err(format!(
                "{host:?} is no host: write [USER@]HOST[:PORT], an IPv6 address with a port in brackets"
            ));
        }
        let port = port.map(|port| match port.parse::<u16>() {
            Ok(number @ 1..) if port.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
            _ => Err(format!("{port:?} is no port: there are 1 to 65535")),
        });
        Ok(Self {
            user,
            host: host.to_owned(),
            port: port.transpose()?,
        })
    }
}

impl User {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        match begins && text.len() <= NAME_LENGTH_MAX && text.chars().all(plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("{text:?} is no user's name")),
        }
    }
}

fn host_and_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest
            .split_once(']')
            .ok_or_else(|| format!("{text:?} has no closing bracket"))?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(format!("{after:?} stands behind the bracket")),
        };
    }
    match text.split_once(':') {
        // Several colons: an IPv6 address.
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

fn is_host(text: &str) -> bool {
    if text.contains(':') {
        let (address, zone) = text.split_once('%').unwrap_or((text, "0"));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        return address.parse::<Ipv6Addr>().is_ok() && zone.chars().all(plain);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    begins && text.len() <= NAME_LENGTH_MAX && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_line_is_read_and_shown_as_it_was() {
        let text =
            "# slice\n\na.example.org\n  u@b:2222  # comment\n2001:db8::1\nu@[fe80::1%eth0]:22\n";
        let shown: Vec<String> = parse(text)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        let expected = [
            "a.example.org",
            "u@b:2222",
            "2001:db8::1",
            "u@[fe80::1%eth0]:22",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn all_bad_lines_are_named_with_their_numbers() {
        let text =
            "good\n-oProxyCommand=x\n-l@host\nhost:0\nhost:+1\nh h\n[::1\n[::1]x\ngood\n@h\nu@\n";
        let error = parse(text).unwrap_err().to_string();
        let numbers: Vec<&str> = error
            .lines()
            .filter_map(|line| line.strip_prefix("line ")?.split(':').next())
            .collect();
        assert_eq!(
            numbers,
            ["2", "3", "4", "5", "6", "7", "8", "9", "10", "11"],
            "{error}"
        );
        assert!(error.contains("good stands in line 1 already"), "{error}");
    }

    #[test]
    fn an_empty_list_and_an_endless_one_are_refused() {
        assert!(parse("# nobody\n").is_err());
        let many: String = (0..=HOSTS_MAX).map(|n| format!("h{n}\n")).collect();
        assert!(parse(&many).is_err());
    }
}
