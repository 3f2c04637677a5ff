//! Commands on the machines of a cluster, as the user that every workstation has.

use std::io::{Seek, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use wow_builder::host::Tether;

use super::record::Record;
use crate::command::{self, Outcome};

/// Runs commands on one machine.
#[derive(Debug, Clone)]
pub struct Shell {
    record: Record,
    name: String,
}

impl Shell {
    /// On the machine of this name.
    pub fn new(record: &Record, name: &str) -> Self {
        Self {
            record: record.clone(),
            name: name.to_owned(),
        }
    }

    /// The command that runs a line of shell there; without one, a shell.
    pub fn command(&self, line: Option<&str>, tether: Tether) -> Result<Command> {
        let node = self.record.own_client().resolve(&self.name);
        let node = node.with_context(|| format!("{} is not in the pool", self.name))?;
        let words: Vec<String> = line.map(str::to_owned).into_iter().collect();
        let address = node.v6.to_string();
        Ok(self.record.access.ssh(&address, &words, tether))
    }

    /// Runs a line of shell to its end, with this input.
    pub fn run(&self, line: &str, input: &[u8], limit: Duration) -> Result<Outcome> {
        let mut file = tempfile::tempfile()?;
        file.write_all(input)?;
        file.rewind()?;
        let command = self.command(Some(line), Tether::Tied)?;
        command::run_with(command, Stdio::from(file), limit)
            .with_context(|| format!("on {}: {line}", self.name))
    }

    /// The same for a line that must succeed: its output without the last newline.
    pub fn ask(&self, line: &str, limit: Duration) -> Result<String> {
        let output = self.run(line, b"", limit)?.success(line);
        let output = output.with_context(|| format!("on {}", self.name))?;
        Ok(output.trim_end().to_owned())
    }
}
