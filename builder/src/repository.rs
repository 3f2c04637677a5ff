//! Where the repository, cargo's target directory and the build cache are.

use std::path::{Path, PathBuf};

use crate::BuildError;

/// Directories that every verb works with.
#[derive(Debug, Clone)]
pub struct Directories {
    /// The repository's root: it holds `images/` and `kernel-config/`.
    pub root: PathBuf,
    /// Cargo's target directory; artefacts go to `images/NAME` below it.
    pub target: PathBuf,
    /// The build cache. Checkouts may share one.
    pub cache: PathBuf,
}

impl Directories {
    /// Finds the repository from the working directory upwards. `CARGO_TARGET_DIR` and
    /// `WOW_CACHE_DIR` move the other two.
    pub fn find() -> Result<Self, BuildError> {
        let here = std::env::current_dir()
            .map_err(BuildError::io("find the working directory", Path::new(".")))?;
        let root = here
            .ancestors()
            .find(|directory| is_root(directory))
            .ok_or_else(|| {
                BuildError::Input(format!(
                    "{} is in no WOW repository: no directory above it has images/ and kernel-config/",
                    here.display()
                ))
            })?;
        Ok(Self::of_root(root))
    }

    /// The directories of the repository at `root`.
    pub fn of_root(root: &Path) -> Self {
        let from_environment = |name| std::env::var_os(name).map(|value| root.join(value));
        let target = from_environment("CARGO_TARGET_DIR").unwrap_or_else(|| root.join("target"));
        let cache = from_environment("WOW_CACHE_DIR").unwrap_or_else(|| target.join("cache"));
        Self {
            root: root.to_owned(),
            target,
            cache,
        }
    }

    /// Where the artefacts of image `name` go.
    pub fn image(&self, name: &str) -> PathBuf {
        self.target.join("images").join(name)
    }
}

fn is_root(directory: &Path) -> bool {
    ["Cargo.toml", "images", "kernel-config"]
        .iter()
        .all(|entry| directory.join(entry).exists())
}
