//! This host's own node of the pool, by which people and tests reach the machines.
//!
//! It lives with the WAN emulator in a user and network namespace, which needs no root: the emulator's TAP
//! device there is its network card. A program that is run inside sees the pool and nothing else.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use wow_builder::host::process::ProcessId;
use wow_builder::host::{Guarded, Tether, guarded_command};

use super::plan::ACCESS;
use crate::command::{self, wait_until};
use crate::topology::{Domain, Place};
use crate::wan::Wan;

/// The emulator's TAP device, this node's network card.
pub const CARD: &str = "lab0";

/// A device appears at once; on a busy machine, soon.
const CARD_LIMIT: Duration = Duration::from_secs(60);

/// Who logs in on workstations. Every workstation image has this user.
const USER: &str = "wow";

/// A way into the pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Access {
    /// The process that lives in the namespaces from their beginning to their end.
    pub anchor: ProcessId,
    /// The key that opens the machines.
    pub key: PathBuf,
    /// The socket of the node here.
    pub control: PathBuf,
}

/// A command for `program` in new namespaces of its own.
pub fn alone(program: &Path, tether: Tether) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--"]);
    then(command, program, tether)
}

impl Access {
    /// A command for `program` inside.
    pub fn inside(&self, program: &Path, tether: Tether) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.anchor.pid.to_string()]);
        command.args(["--user", "--net", "--preserve-credentials", "--"]);
        then(command, program, tether)
    }

    /// Gives the card its address, once the emulator has made it.
    pub fn plug(&self, wan: &mut Wan, domain: &Domain, place: &Place) -> Result<()> {
        let ip = |words: &str| -> Result<String> {
            let mut command = self.inside(Path::new("ip"), Tether::Tied);
            command.args(words.split(' '));
            command::run(command, CARD_LIMIT)?.success(&format!("ip {words}"))
        };
        wait_until("the WAN emulator makes its TAP device", CARD_LIMIT, || {
            wan.check_running()?;
            Ok(ip(&format!("link show {CARD}")).ok())
        })?;
        ip("link set lo up")?;
        for words in domain.configure(place.address, CARD)? {
            ip(&words)?;
        }
        Ok(())
    }

    /// Starts the node.
    pub fn start_node(
        &self,
        wow: &Path,
        ticket: &Path,
        state: &Path,
        log: &Path,
        tether: Tether,
    ) -> Result<Guarded> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = self.inside(wow, tether);
        command
            .args(["run", "--name", ACCESS, "--ticket"])
            .arg(ticket);
        command.arg("--state").arg(state);
        command.arg("--socket").arg(&self.control);
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        Guarded::spawn(command).context("cannot start this host's node")
    }

    /// A command that logs in by SSH; its last words, the machine's virtual address and what to run, are to be added.
    ///
    /// The address is the proof of who answers, because it follows from the node's key; SSH's own host keys
    /// prove nothing more, and are not looked at.
    pub fn ssh(&self, tether: Tether) -> Command {
        let mut command = self.inside(Path::new("ssh"), tether);
        command.args(["-F", "none", "-q", "-l", USER]);
        command.arg("-i").arg(&self.key);
        for option in [
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "ConnectTimeout=20",
            // A machine that was killed is noticed in half a minute; one that moves is not away for so long.
            "ServerAliveInterval=5",
            "ServerAliveCountMax=6",
        ] {
            command.args(["-o", option]);
        }
        command
    }
}

/// What leads into the namespaces drops the tie to the parent, so it is tied behind that.
fn then(mut command: Command, program: &Path, tether: Tether) -> Command {
    let inner = guarded_command(program, tether);
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

/// Makes a key to log in with: the private part's path, and the public line.
pub fn make_key(path: &Path) -> Result<String> {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", ACCESS, "-f"]);
    keygen.arg(path);
    command::run(keygen, CARD_LIMIT)?.success("ssh-keygen")?;
    let public = path.with_extension("pub");
    let line = std::fs::read_to_string(&public)
        .with_context(|| format!("cannot read {}", public.display()))?;
    Ok(line.trim_end().to_owned())
}

/// What systemd in the guest, told so by a credential, writes before anybody can log in: the user's key.
pub fn key_as_tmpfiles(public: &str) -> String {
    format!(
        "d /etc/ssh/authorized_keys.d 0755 root root\n\
         f /etc/ssh/authorized_keys.d/{USER} 0644 root root - {public}\n"
    )
}
