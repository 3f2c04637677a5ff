//! The head's users on every member, with the same ids.
//!
//! The head tells those of its own files. Members keep them in the files of libnss-extrausers, which hold
//! nobody else: a user who is gone on the head is gone on the members, and their own users stay as they
//! are. Passwords do not travel.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::files::{self, Access, PUBLIC};

/// Ids of people, by Debian's rules.
const IDS: std::ops::RangeInclusive<u32> = 1000..=59_999;

/// Users, and groups, that are told.
const COUNT_MAX: usize = 4096;

const SWITCH: &str = "/etc/nsswitch.conf";
const EXTRA: &str = "/var/lib/extrausers";

/// Users and their groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    users: Vec<User>,
    groups: Vec<Group>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct User {
    name: String,
    id: u32,
    group: u32,
    about: String,
    home: String,
    shell: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    name: String,
    id: u32,
    members: Vec<String>,
}

impl Users {
    /// This machine's.
    pub fn read() -> Result<Self> {
        let users = files::text(Path::new("/etc/passwd"))?;
        let groups = files::text(Path::new("/etc/group"))?;
        Ok(parse(&users, &groups))
    }

    /// Without what cannot stand in the files.
    pub fn checked(mut self) -> Self {
        let mut names = BTreeSet::new();
        self.users.retain(|user| {
            IDS.contains(&user.id)
                && is_user_name(&user.name)
                && [&user.about, &user.home, &user.shell]
                    .iter()
                    .all(|field| is_field(field))
                && names.insert(user.name.clone())
        });
        let mut names = BTreeSet::new();
        self.groups.retain_mut(|group| {
            group.members.retain(|member| is_user_name(member));
            IDS.contains(&group.id) && is_user_name(&group.name) && names.insert(group.name.clone())
        });
        self.users.truncate(COUNT_MAX);
        self.groups.truncate(COUNT_MAX);
        self
    }

    /// Makes them this machine's too. What is wrong is what its own files have under the same name or id.
    pub fn apply(&self) -> Result<Option<String>> {
        let own = Self::read_all()?;
        let (lines, conflict) = self.lines(&own);
        let directory = Path::new(EXTRA);
        files::write(&directory.join("group"), lines.groups.as_bytes(), PUBLIC)?;
        files::write(
            &directory.join("shadow"),
            lines.shadow.as_bytes(),
            Access {
                mode: 0o640,
                owner: None,
            },
        )?;
        files::write(&directory.join("passwd"), lines.users.as_bytes(), PUBLIC)?;
        let path = Path::new(SWITCH);
        let switch = switched(&files::text(path)?);
        files::write(path, switch.as_bytes(), PUBLIC)?;
        Ok(conflict)
    }

    /// All of this machine's files, without limits on ids.
    fn read_all() -> Result<Vec<(String, u32)>> {
        let text = files::text(Path::new("/etc/passwd"))?;
        let named = text.lines().filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            Some(((*fields.first()?).to_owned(), fields.get(2)?.parse().ok()?))
        });
        Ok(named.collect())
    }

    fn lines(&self, own: &[(String, u32)]) -> (Lines, Option<String>) {
        let mut lines = Lines::default();
        let mut conflict = None;
        for user in &self.users {
            let same = own
                .iter()
                .find(|(name, id)| *name == user.name || *id == user.id);
            match same {
                Some((name, id)) if (name, id) == (&user.name, &user.id) => continue,
                Some((name, id)) => {
                    conflict = Some(format!(
                        "the head's user {} ({}) is not known here, since this machine has its own \
                         {name} ({id}): remove that one",
                        user.name, user.id
                    ));
                    continue;
                }
                None => {}
            }
            let User {
                name,
                id,
                group,
                about,
                home,
                shell,
            } = user;
            lines
                .users
                .push_str(&format!("{name}:x:{id}:{group}:{about}:{home}:{shell}\n"));
            // Without a password that could match, but not locked: they come by key.
            lines
                .shadow
                .push_str(&format!("{name}:*:20000:0:99999:7:::\n"));
        }
        for group in &self.groups {
            let Group { name, id, members } = group;
            let members = members.join(",");
            lines.groups.push_str(&format!("{name}:x:{id}:{members}\n"));
        }
        (lines, conflict)
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Lines {
    users: String,
    groups: String,
    shadow: String,
}

/// The user and group that Slurm's controller runs as.
pub fn slurm() -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let [name, _, id, group, ..] = fields[..] else {
            return None;
        };
        (name == "slurm").then_some((id.parse().ok()?, group.parse().ok()?))
    })
}

fn parse(users: &str, groups: &str) -> Users {
    let user = |line: &str| {
        let fields: Vec<_> = line.split(':').collect();
        let [name, _, id, group, about, home, shell] = fields[..] else {
            return None;
        };
        Some(User {
            name: name.to_owned(),
            id: id.parse().ok()?,
            group: group.parse().ok()?,
            about: about.to_owned(),
            home: home.to_owned(),
            shell: shell.to_owned(),
        })
    };
    let group = |line: &str| {
        let fields: Vec<_> = line.split(':').collect();
        let [name, _, id, members] = fields[..] else {
            return None;
        };
        Some(Group {
            name: name.to_owned(),
            id: id.parse().ok()?,
            members: members
                .split(',')
                .filter(|member| !member.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    };
    let read = Users {
        users: users.lines().filter_map(user).collect(),
        groups: groups.lines().filter_map(group).collect(),
    };
    read.checked()
}

fn is_user_name(text: &str) -> bool {
    let mut letters = text.bytes();
    let first = letters.next();
    first.is_some_and(|letter| letter.is_ascii_lowercase() || letter == b'_')
        && text.len() <= 32
        && letters.all(|letter| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || b"_-.".contains(&letter)
        })
}

fn is_field(text: &str) -> bool {
    text.len() <= 256 && !text.contains(|letter: char| letter == ':' || letter.is_control())
}

/// nsswitch.conf with our files behind the machine's own.
fn switched(text: &str) -> String {
    let mut switched = String::new();
    for line in text.lines() {
        let database = line.split(':').next().unwrap_or_default();
        let ours = matches!(database, "passwd" | "group" | "shadow");
        match ours && !line.contains("extrausers") {
            true => switched.push_str(&line.replacen("files", "files extrausers", 1)),
            false => switched.push_str(line),
        }
        switched.push('\n');
    }
    switched
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
                          alice:x:1000:1000:Alice,,,:/home/alice:/bin/bash\n\
                          bob:x:1001:1001::/home/bob:/bin/sh\n\
                          nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
                          broken\n";
    const GROUP: &str = "root:x:0:\nalice:x:1000:\nteam:x:2000:alice,bob\n";

    #[test]
    fn people_are_told_and_others_are_not() {
        let users = parse(PASSWD, GROUP);
        let (lines, conflict) = users.lines(&[("root".into(), 0)]);
        assert_eq!(
            lines.users,
            "alice:x:1000:1000:Alice,,,:/home/alice:/bin/bash\nbob:x:1001:1001::/home/bob:/bin/sh\n"
        );
        assert_eq!(lines.groups, "alice:x:1000:\nteam:x:2000:alice,bob\n");
        assert!(lines.shadow.starts_with("alice:*:"));
        assert_eq!(conflict, None);
    }

    #[test]
    fn a_users_own_namesake_stays_and_a_strangers_is_told() {
        let users = parse(PASSWD, GROUP);
        let (lines, conflict) = users.lines(&[("alice".into(), 1000)]);
        assert!(!lines.users.contains("alice") && lines.users.contains("bob"));
        assert_eq!(conflict, None);
        let (lines, conflict) = users.lines(&[("carol".into(), 1001)]);
        assert!(lines.users.contains("alice") && !lines.users.contains("bob"));
        let conflict = conflict.unwrap();
        assert!(
            conflict.contains("bob") && conflict.contains("carol"),
            "{conflict}"
        );
    }

    #[test]
    fn a_head_cannot_write_other_lines_into_the_files() {
        let hostile = |change: fn(&mut User)| {
            let mut users = parse(PASSWD, GROUP);
            change(&mut users.users[0]);
            users.checked().users.len()
        };
        assert_eq!(hostile(|_| {}), 2);
        assert_eq!(hostile(|user| user.id = 0), 1);
        assert_eq!(hostile(|user| user.name = "a\nroot2:x:0".into()), 1);
        assert_eq!(hostile(|user| user.shell = "/bin/sh\nx".into()), 1);
        assert_eq!(hostile(|user| user.about = "a:b".into()), 1);
        assert_eq!(hostile(|user| user.name = "bob".into()), 1);
    }

    #[test]
    fn the_switch_asks_our_files_last_and_once() {
        let text =
            "passwd:         files systemd\ngroup: files\nshadow:\tfiles\nhosts: files dns\n";
        let once = switched(text);
        assert_eq!(
            once,
            "passwd:         files extrausers systemd\ngroup: files extrausers\n\
             shadow:\tfiles extrausers\nhosts: files dns\n"
        );
        assert_eq!(switched(&once), once);
    }
}
