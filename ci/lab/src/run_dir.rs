//! Where one run keeps what it makes: sockets and secrets in a short private directory, logs where
//! people look for them.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// The directories of one run.
#[derive(Debug)]
pub struct RunDir {
    /// Private, below the system's temporary directory: a checkout's path may be longer than a
    /// Unix socket's may be.
    private: TempDir,
    logs: PathBuf,
}

impl RunDir {
    /// Makes a private directory, and `logs` empty.
    pub fn new(logs: &Path) -> Result<Self> {
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
            .prefix("wow-lab-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .context("cannot make a temporary directory")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_private_and_logs_start_empty() {
        let base = tempfile::tempdir().unwrap();
        let logs = base.path().join("deep/logs");
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::write(logs.join("old"), "x").unwrap();
        let dir = RunDir::new(&logs).unwrap();
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
}
