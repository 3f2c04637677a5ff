//! /home and /shared, from the head to its members.
//!
//! Mounts are hard: when the head is away, programs that use them wait and lose nothing. So they are made
//! beside everything else, never at boot, and whether they answer is asked by a program that may hang.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::{self, LOCAL};
use crate::files::{self, PUBLIC};

/// What is shared.
const DIRECTORIES: [&str; 2] = ["/home", "/shared"];

const EXPORTS: &str = "/etc/exports.d/wow.exports";
const SERVER: &str = "/etc/nfs.conf.d/wow.conf";

/// How long a mount may take, and how long the server may take to answer.
const MOUNT_MAX: Duration = Duration::from_secs(30);
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Hard; after 15 s the server counts as away, and is asked again and again.
const OPTIONS: &str = "vers=4.2,hard,timeo=150,retrans=2,nosuid,nodev";

/// Exports the directories to these members, and to nobody else; the server listens at `own` alone.
pub fn export(own: Ipv4Addr, members: &[Ipv4Addr]) -> Result<()> {
    let shared = Path::new("/shared");
    if !shared.exists() {
        std::fs::create_dir_all(shared).context("cannot make /shared")?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        std::fs::set_permissions(shared, mode).context("cannot open /shared to all")?;
    }
    let news = files::write(Path::new(EXPORTS), exports(members).as_bytes(), PUBLIC)?;
    let server = files::write(Path::new(SERVER), server(own).as_bytes(), PUBLIC)?;
    if server || !runs() {
        command::run("systemctl", &["restart", "nfs-server.service"], MOUNT_MAX)?;
    } else if news {
        command::run("exportfs", &["-ra"], LOCAL)?;
    }
    Ok(())
}

/// Without NFS 3 there is nothing else that listens: no port mapper, no mount daemon, no locks.
fn server(own: Ipv4Addr) -> String {
    format!("# Written by wow-workstation.\n[nfsd]\nvers3=n\nhost={own}\n")
}

/// Whether the kernel's file server has threads.
fn runs() -> bool {
    let threads = std::fs::read_to_string("/proc/fs/nfsd/threads").unwrap_or_default();
    threads.trim().parse().is_ok_and(|count: u32| count > 0)
}

fn exports(members: &[Ipv4Addr]) -> String {
    let mut text = String::from("# Written by wow-workstation.\n");
    for directory in DIRECTORIES {
        if members.is_empty() {
            break;
        }
        text.push_str(directory);
        for member in members {
            // From ports of root alone, as is the default.
            let _ = write!(text, " {member}(rw,sync,no_subtree_check)");
        }
        text.push('\n');
    }
    text
}

/// Mounts the directories of the head; what is wrong with it, if something is.
pub fn mount(head: Ipv4Addr) -> Result<()> {
    for directory in DIRECTORIES {
        let wanted = format!("{head}:{directory}");
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot list mounts")?;
        match mounted(&mounts, directory) {
            Some(source) if source == wanted => continue,
            // A head that had another address: what waits for it would wait for ever.
            Some(_) => drop(command::run("umount", &["-l", "-f", directory], LOCAL)?),
            None => std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {directory}"))?,
        }
        let arguments = ["-t", "nfs4", "-o", OPTIONS, &wanted, directory];
        command::run("mount", &arguments, MOUNT_MAX)
            .with_context(|| format!("{directory} of the head cannot be mounted"))?;
        tracing::info!("mounted {wanted}");
    }
    Ok(())
}

/// Whether the mounted directories answer; else what is wrong.
pub fn answers() -> Result<()> {
    for directory in DIRECTORIES {
        command::run("stat", &["--file-system", directory], ANSWER_MAX).with_context(|| {
            format!(
                "the file server does not answer: programs that use {directory} wait until the head \
                 is back"
            )
        })?;
    }
    Ok(())
}

/// The NFS server's directory that is mounted here, uppermost.
fn mounted<'a>(mounts: &'a str, directory: &str) -> Option<&'a str> {
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        Some((fields.next()?, fields.next()?, fields.next()?))
    });
    let mut here = fields.filter(|(_, at, kind)| *at == directory && kind.starts_with("nfs"));
    here.next_back().map(|(source, ..)| source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_exported_to_members_only() {
        let members = [[10, 128, 0, 3].into(), [10, 128, 0, 4].into()];
        let text = exports(&members);
        let home =
            "/home 10.128.0.3(rw,sync,no_subtree_check) 10.128.0.4(rw,sync,no_subtree_check)\n";
        assert!(text.contains(home), "{text}");
        assert!(text.contains("/shared 10.128.0.3("));
        assert!(!exports(&[]).contains("/home"));
    }

    #[test]
    fn mounts_are_found_among_others() {
        let mounts = "/dev/vda2 / ext4 rw 0 0\n\
                      /dev/vdb /home ext4 rw 0 0\n\
                      10.128.0.2:/home /home nfs4 rw,vers=4.2 0 0\n";
        assert_eq!(mounted(mounts, "/home"), Some("10.128.0.2:/home"));
        assert_eq!(mounted(mounts, "/shared"), None);
        assert_eq!(mounted(mounts, "/"), None);
    }
}
