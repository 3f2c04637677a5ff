//! Commands on the machines of a cluster, as the user that every workstation has.

use std::io::{Seek, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use wow_builder::host::{Guarded, Tether};

use super::record::Record;
use crate::command::{self, Outcome};
use crate::workloads;
use crate::workloads::shell::Said;

/// How long a login may take on a machine that boots.
const LOGIN_LIMIT: Duration = Duration::from_secs(20);

/// How long a user's command may take.
const WORK_LIMIT: Duration = Duration::from_secs(600);

/// Runs commands on one machine, by one connection as long as that holds: under the translator a login costs more
/// than most commands.
#[derive(Debug, Clone)]
pub struct Shell {
    record: Record,
    name: String,
    connection: Arc<Mutex<Option<Guarded>>>,
}

impl Shell {
    /// On the machine of this name.
    pub fn new(record: &Record, name: &str) -> Self {
        Self {
            record: record.clone(),
            name: name.to_owned(),
            connection: Arc::default(),
        }
    }

    /// The command that runs a line of shell there by a connection of its own; without a line, a shell.
    pub fn command(&self, line: Option<&str>, tether: Tether) -> Result<Command> {
        let mut ssh = self.login(tether)?;
        ssh.arg("--").args(line);
        Ok(ssh)
    }

    /// Runs a line of shell to its end, with this input.
    pub fn run(&self, line: &str, input: &[u8], limit: Duration) -> Result<Outcome> {
        let mut file = tempfile::tempfile()?;
        file.write_all(input)?;
        file.rewind()?;
        self.connect()?;
        let mut ssh = self.login(Tether::Tied)?;
        ssh.arg("-S").arg(self.socket());
        ssh.args(["--", line]);
        command::run_with(ssh, Stdio::from(file), limit)
            .with_context(|| format!("on {}: {line}", self.name))
    }

    /// The same for a line that must succeed: its output without the last newline.
    pub fn ask(&self, line: &str, limit: Duration) -> Result<String> {
        let output = self.run(line, b"", limit)?.success(line);
        let output = output.with_context(|| format!("on {}", self.name))?;
        Ok(output.trim_end().to_owned())
    }

    fn login(&self, tether: Tether) -> Result<Command> {
        let node = self.record.own_client().resolve(&self.name);
        let node = node.with_context(|| format!("{} is not in the pool", self.name))?;
        let address = node.v6.to_string();
        let mut ssh = self.record.access.ssh(tether);
        ssh.arg(address);
        Ok(ssh)
    }

    /// Makes the connection that commands share, unless there is one. Without it each makes its own.
    fn connect(&self) -> Result<()> {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = connection.as_mut()
            && running.try_wait()?.is_none()
        {
            return Ok(());
        }
        let mut ssh = self.login(Tether::Tied)?;
        ssh.args(["-M", "-N", "-S"]).arg(self.socket());
        ssh.stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut running = Guarded::spawn(ssh).context("cannot run ssh")?;
        let there = command::wait_until("a login", LOGIN_LIMIT, || {
            let ended = running.try_wait()?.is_some();
            Ok((ended || self.socket().exists()).then_some(()))
        });
        // Too late or refused: the command's own login says why.
        *connection = there.is_ok().then_some(running);
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        let file = format!("{}.{}.ssh", self.name, std::process::id());
        self.record.inventory.private_dir.join(file)
    }
}

impl workloads::shell::Shell for Shell {
    fn run(&self, text: &str, input: &[u8]) -> Result<Said> {
        let outcome = Shell::run(self, text, input, WORK_LIMIT)?;
        Ok(Said {
            code: outcome.status.code().unwrap_or(i32::MAX),
            output: outcome.stdout.into_bytes(),
            error: outcome.stderr,
        })
    }
}
