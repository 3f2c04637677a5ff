//! Where one run keeps what it makes: sockets and secrets in a short private directory, logs where
//! people look for them.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;
use wow_builder::host::Tether;
use wow_builder::host::process::ProcessId;

use crate::topology::Attachment;

/// Names of private directories: this, the run's process id, a hyphen and random characters.
pub(crate) const PREFIX: &str = "wow-lab-";

/// A private directory with this file in it belongs to machines that outlive their run.
const KEPT: &str = "kept";

/// The directories of one run.
#[derive(Debug)]
pub struct RunDir {
    /// Private, below the system's temporary directory: a checkout's path may be longer than a
    /// Unix socket's may be.
    private: TempDir,
    logs: PathBuf,
}

impl RunDir {
    /// Makes a private directory, and `logs` empty. Private directories of runs that were killed
    /// go, unless their machines were to stay: so must this one's if `tether` is free.
    pub fn new(logs: &Path, tether: Tether) -> Result<Self> {
        sweep(&std::env::temp_dir());
        match std::fs::remove_dir_all(logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot empty {}", logs.display()));
            }
            _ => {}
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(logs)
            .with_context(|| format!("cannot make {}", logs.display()))?;
        let private = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .context("cannot make a temporary directory")?;
        if tether == Tether::Free {
            std::fs::write(private.path().join(KEPT), "")
                .context("cannot write to the temporary directory")?;
        }
        let logs = logs
            .canonicalize()
            .with_context(|| format!("cannot find {}", logs.display()))?;
        Ok(Self { private, logs })
    }

    /// A path in the private directory.
    pub fn private(&self, name: &str) -> PathBuf {
        self.private.path().join(name)
    }

    /// The private directory.
    pub fn private_dir(&self) -> &Path {
        self.private.path()
    }

    /// Where the emulator looks for the network card of the machine of this name.
    pub fn cable(&self, name: &str) -> Result<Attachment> {
        let socket = self.private(&format!("{name}.net"));
        let path = socket.into_os_string().into_string();
        path.map(Attachment::Unix)
            .map_err(|_| anyhow!("the temporary directory's path is no UTF-8: set TMPDIR"))
    }

    /// A log's path.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(name)
    }

    /// The directory of the logs.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Leaves the private directory where it is.
    pub fn keep(self) -> PathBuf {
        self.private.keep()
    }
}

/// Removes the private directories in `base` whose runs are dead. What cannot be removed is another
/// user's, and stays.
fn sweep(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let dead = owner(&name.to_string_lossy()).is_some_and(|pid| ProcessId::of(pid).is_none());
        let path = entry.path();
        if dead && path.is_dir() && !path.is_symlink() && !path.join(KEPT).exists() {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// The process that a private directory's name tells.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_private_and_logs_start_empty() {
        let base = tempfile::tempdir().unwrap();
        let logs = base.path().join("deep/logs");
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::write(logs.join("old"), "x").unwrap();
        let dir = RunDir::new(&logs, Tether::Tied).unwrap();
        assert_eq!(std::fs::read_dir(dir.logs()).unwrap().count(), 0);
        let mode = std::fs::metadata(dir.private_dir())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        let private = dir.private_dir().to_path_buf();
        drop(dir);
        assert!(!private.exists());
        assert!(logs.exists());
    }

    #[test]
    fn only_dead_runs_that_were_not_kept_are_swept() {
        let base = tempfile::tempdir().unwrap();
        // No process has this number: the kernel's largest is 2^22.
        let dead = 4_194_305;
        let make = |name: String| {
            let path = base.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let gone = make(format!("{PREFIX}{dead}-x"));
        let kept = make(format!("{PREFIX}{dead}-y"));
        std::fs::write(kept.join(KEPT), "").unwrap();
        let alive = make(format!("{PREFIX}{}-x", std::process::id()));
        let other = make(format!("other-{dead}-x"));
        sweep(base.path());
        assert!(!gone.exists());
        assert!(kept.exists() && alive.exists() && other.exists());
    }
}
