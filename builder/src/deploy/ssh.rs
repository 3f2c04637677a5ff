//! The command line of the system's `ssh`, and what its complaints mean. Pure.
//!
//! The user's own configuration counts (keys, jump hosts, names of hosts); what must be so for a program
//! without a terminal is said on the command line, which goes before it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::hosts::{Target, User};
use crate::host::{Tether, guarded_command};

/// How `ssh` connects.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// As whom where the list of hosts does not say.
    pub user: Option<User>,
    /// Instead of the user's configuration.
    pub config: Option<PathBuf>,
    /// Whether a host whose key is unknown is believed, and its key kept. One whose key has changed never is.
    pub accept_new: bool,
}

/// Exit status of `ssh` itself, as opposed to the command's on the host.
pub(super) const OWN_FAILURE: i32 = 255;

impl Login {
    /// The command that runs `remote` on a host.
    pub(super) fn command(&self, target: &Target, limit: Duration, remote: &str) -> Command {
        let mut command = guarded_command("ssh", Tether::Tied);
        if let Some(config) = &self.config {
            command.arg("-F").arg(config);
        }
        let host_keys = match self.accept_new {
            true => "StrictHostKeyChecking=accept-new",
            false => "StrictHostKeyChecking=yes",
        };
        let connect = format!("ConnectTimeout={}", limit.as_secs().max(1));
        for option in [
            "BatchMode=yes",
            host_keys,
            &connect,
            "ServerAliveInterval=10",
            "ServerAliveCountMax=3",
            "ClearAllForwardings=yes",
            "ForwardAgent=no",
            "ForwardX11=no",
            "PermitLocalCommand=no",
            "RemoteCommand=none",
            "RequestTTY=no",
            "EscapeChar=none",
            // A master that stays behind would keep our pipes open.
            "ControlMaster=no",
            "ControlPath=none",
            // That the host fell silent is said at this level only.
            "LogLevel=INFO",
        ] {
            command.args(["-o", option]);
        }
        if let Some(user) = target.user.as_ref().or(self.user.as_ref()) {
            command.args(["-l", user.as_str()]);
        }
        if let Some(port) = target.port {
            command.args(["-p", &port.to_string()]);
        }
        command.args(["--", &target.host, remote]);
        command
    }
}

/// What to do about a complaint of ssh's.
pub(super) fn remedy(complaint: &str) -> Option<&'static str> {
    const REMEDIES: [(&str, &str); 13] = [
        (
            "HOST IDENTIFICATION HAS CHANGED",
            "its key is not the one in known_hosts: ask its owner why; if that is right, ssh-keygen -R HOST",
        ),
        (
            "Host key verification failed",
            "its key is not in known_hosts: compare it with its owner's, or believe it with --accept-new",
        ),
        (
            "host key is known for",
            "its key is not in known_hosts: compare it with its owner's, or believe it with --accept-new",
        ),
        (
            "Permission denied",
            "give the right --user, and a key that needs no passphrase or is in ssh-agent",
        ),
        (
            "Too many authentication failures",
            "name the key for this host in ssh's configuration, with IdentitiesOnly yes",
        ),
        ("Could not resolve", "correct its name in the list"),
        (
            "Connection refused",
            "start sshd there, or correct the port in the list",
        ),
        (
            "No route to host",
            "it is down or cut off; run this again later",
        ),
        ("Network is unreachable", "this machine has no way there"),
        (
            "not responding",
            "its sshd hangs: look at that host, and run this again later",
        ),
        ("timed out", "it is down or cut off; run this again later"),
        (
            "account is currently not available",
            "give the login a shell on that host",
        ),
        ("Connection closed", "look at sshd's log on that host"),
    ];
    let found = REMEDIES.iter().find(|(words, _)| complaint.contains(words));
    found.map(|(_, remedy)| *remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_list_says_goes_before_what_holds_for_all() {
        let login = Login {
            user: Some("all".parse().unwrap()),
            ..Login::default()
        };
        let words = |target: &str| {
            let target = target.parse().unwrap();
            let command = login.command(&target, Duration::from_secs(3), "run");
            let words = command
                .get_args()
                .map(|word| word.to_string_lossy().into_owned());
            words.collect::<Vec<_>>().join(" ")
        };
        assert!(words("own@h:7").ends_with("-l own -p 7 -- h run"));
        assert!(words("h").ends_with("-l all -- h run"));
        assert!(words("h").contains("ConnectTimeout=3 "));
        assert!(words("h").contains("StrictHostKeyChecking=yes "));
    }
}
