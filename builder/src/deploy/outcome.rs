//! How it ended on a host.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::hosts::Target;

/// How a host's part ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// The node is new there.
    Installed,
    /// It had another version before.
    Upgraded,
    /// The same version with another ticket or other options, or it did not run.
    Restarted,
    /// All was as it should be.
    Unchanged,
    /// The version before this one runs again.
    RolledBack,
    /// Everything is gone.
    Removed,
    /// Asked: it is in its pool.
    Joined,
    /// Asked: it does not run.
    Stopped,
    /// There is nothing there.
    Absent,
    /// It failed.
    Failed,
    /// Its turn did not come.
    NotTried,
}

/// How it ended on a host, with what is known of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// As the list has it.
    pub host: String,
    /// How it ended.
    pub ended: Ended,
    /// What failed.
    pub error: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// What runs the node: `systemd` or `script`.
    pub manager: Option<String>,
    /// What starts it at boot: `systemd`, `cron` or `none`.
    pub boot: Option<String>,
    /// The version that the host is set to.
    pub version: Option<String>,
    /// The one that `--rollback` leads to.
    pub previous: Option<String>,
    /// The node's name.
    pub name: Option<String>,
    /// The node's id, in hexadecimal.
    pub id: Option<String>,
    /// The node's virtual address.
    pub address: Option<std::net::Ipv4Addr>,
    /// The log's last lines, of a node that does not run.
    pub log: Option<String>,
    /// How long it took.
    pub took_ms: u64,
}

impl Ended {
    /// What a host calls it.
    pub(super) fn of_host(word: &str) -> Option<Self> {
        Some(match word {
            "installed" => Self::Installed,
            "upgraded" => Self::Upgraded,
            "restarted" => Self::Restarted,
            "unchanged" => Self::Unchanged,
            "rolled-back" => Self::RolledBack,
            "removed" => Self::Removed,
            "joined" => Self::Joined,
            "stopped" => Self::Stopped,
            "absent" => Self::Absent,
            _ => return None,
        })
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Installed => "installed",
            Self::Upgraded => "upgraded",
            Self::Restarted => "restarted",
            Self::Unchanged => "unchanged",
            Self::RolledBack => "rolled back",
            Self::Removed => "removed",
            Self::Joined => "joined",
            Self::Stopped => "stopped",
            Self::Absent => "absent",
            Self::Failed => "FAILED",
            Self::NotTried => "not tried",
        })
    }
}

impl Outcome {
    /// One about which nothing else is known.
    pub(super) fn new(target: &Target, ended: Ended) -> Self {
        Self {
            host: target.to_string(),
            ended,
            error: None,
            remedy: None,
            manager: None,
            boot: None,
            version: None,
            previous: None,
            name: None,
            id: None,
            address: None,
            log: None,
            took_ms: 0,
        }
    }

    /// The same as a failure.
    pub(super) fn fail(&mut self, error: String, remedy: Option<&str>) {
        self.ended = Ended::Failed;
        self.error = Some(error);
        self.remedy = remedy.map(str::to_owned);
    }

    /// With the time that it took.
    pub(super) fn after(mut self, took: Duration) -> Self {
        self.took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Whether the host is as it was wished to be. Nothing to remove is as good as removed; nothing to ask is
    /// not as good as joined.
    pub fn is_good(&self, removing: bool) -> bool {
        match self.ended {
            Ended::Failed | Ended::NotTried | Ended::Stopped => false,
            Ended::Absent => removing,
            _ => true,
        }
    }
}
