//! Testbeds that were left running by `--keep`: written down, found again, ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wow_builder::host::process::ProcessId;

use crate::run_dir::PREFIX;

/// How long a killed process may take to go.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// What a kept testbed consists of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Inventory {
    /// What runs besides the machines: the emulator, and what may be with it.
    #[serde(default)]
    pub helpers: Vec<ProcessId>,
    /// The machines, the seed first.
    pub machines: Vec<Machine>,
    /// The directory of sockets and secrets.
    pub private_dir: PathBuf,
    /// The directory of the logs.
    pub logs: PathBuf,
}

/// One machine of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// QEMU's process, if it ran when this was written.
    pub process: Option<ProcessId>,
    /// The Unix socket of its console.
    pub console: PathBuf,
    /// The Unix socket of its control port.
    pub control: PathBuf,
}

impl Inventory {
    /// Writes it down, whole or not at all.
    pub fn save(&self, file: &Path) -> Result<()> {
        Self::save_as(self, file)
    }

    /// The same for what holds more than an inventory.
    pub fn save_as(kept: &impl Serialize, file: &Path) -> Result<()> {
        let dir = file.parent().context("a file has a directory")?;
        std::fs::create_dir_all(dir)?;
        let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer_pretty(&mut temporary, kept)?;
        temporary
            .persist(file)
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(())
    }

    /// The testbed written down in `file`, if any.
    pub fn load(file: &Path) -> Result<Option<Self>> {
        Self::load_as(file)
    }

    /// The same for what holds more than an inventory.
    pub fn load_as<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        serde_json::from_str(&text).map(Some).with_context(|| {
            format!(
                "{} is damaged: end its machines by hand, then remove it",
                file.display()
            )
        })
    }

    /// Ends everything in it that still runs, and forgets it. The number of processes ended.
    pub fn end(&self, file: &Path) -> Result<usize> {
        let processes = self
            .machines
            .iter()
            .filter_map(|machine| machine.process.as_ref());
        let mut ended = 0;
        for process in processes.chain(&self.helpers) {
            if process.is_alive() {
                if !process.kill(KILL_LIMIT) {
                    bail!(
                        "process {} does not end; kill it as its owner or root",
                        process.pid
                    );
                }
                ended += 1;
            }
        }
        // Ours by its name, whatever the file says.
        if self
            .private_dir
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
        {
            match std::fs::remove_dir_all(&self.private_dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("cannot remove {}", self.private_dir.display()));
                }
                _ => {}
            }
        }
        std::fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use wow_builder::host::{Guarded, Tether, guarded_command};

    #[test]
    fn a_kept_testbed_is_found_and_ended() {
        let base = tempfile::tempdir().unwrap();
        let private = tempfile::Builder::new()
            .prefix("wow-lab-")
            .tempdir()
            .unwrap()
            .keep();
        let mut sleep: Command = guarded_command("sleep", Tether::Tied);
        sleep.arg("600");
        let mut child = Guarded::spawn(sleep).unwrap();
        let file = base.path().join("sub/kept.json");
        let inventory = Inventory {
            helpers: ProcessId::of(child.pid()).into_iter().collect(),
            machines: Vec::new(),
            private_dir: private.clone(),
            logs: base.path().to_path_buf(),
        };
        assert!(Inventory::load(&file).unwrap().is_none());
        inventory.save(&file).unwrap();
        let found = Inventory::load(&file).unwrap().unwrap();
        assert_eq!(found.helpers, inventory.helpers);
        assert_eq!(found.end(&file).unwrap(), 1);
        assert!(child.wait_for(Duration::from_secs(10)).unwrap().is_some());
        assert!(!private.exists() && !file.exists());
    }
}
