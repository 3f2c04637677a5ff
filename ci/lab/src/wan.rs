//! The WAN emulator as a child process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use wow_builder::host::Guarded;

/// A running emulator.
#[derive(Debug)]
pub struct Wan {
    process: Guarded,
    log: PathBuf,
}

impl Wan {
    /// Writes the configuration and runs the emulator on it. `command` is the program, wrapped as it
    /// has to be.
    pub fn start(mut command: Command, config: &Path, text: &str, log: &Path) -> Result<Self> {
        std::fs::write(config, text)
            .with_context(|| format!("cannot write {}", config.display()))?;
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command
            .arg("run")
            .arg(config)
            .stdin(std::process::Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let process = Guarded::spawn(command).context("cannot run the WAN emulator")?;
        Ok(Self {
            process,
            log: log.to_path_buf(),
        })
    }

    /// An error when the emulator has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let last = text
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty())
                .unwrap_or_default();
            bail!(
                "the WAN emulator ended with {status}: {last} (see {})",
                self.log.display()
            );
        }
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Gives up ownership of an untied emulator; its process id.
    pub fn release(self) -> u32 {
        self.process.release()
    }
}
