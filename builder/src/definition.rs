//! Image definitions: `images/NAME.toml`, parsed strictly, checked once, passed on whole.
//!
//! The file as written rejects unknown keys; [`Definition`] is what the builder works with. Every
//! error carries the file and the line. Which packages and tools the host needs to make the image
//! is not the definition's business.

mod appliance;
mod checker;
mod debian;
mod machine;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

pub use appliance::{Appliance, Disk, Initramfs, Kernel, Limits};
use checker::Checker;
pub use debian::{Binary, Debian, DebianDisk, Package, Unit};
pub use machine::{Property, VirtualMachine};

/// What is wrong with a definition, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}", file = file.display())]
pub struct DefinitionError {
    /// The definition's file.
    pub file: PathBuf,
    /// The line, from 1; 0 if the file cannot be read at all.
    pub line: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

/// An image, validated.
#[derive(Debug, Clone)]
pub enum Definition {
    /// One program as process 1 of our own kernel.
    Appliance(Appliance),
    /// Debian with its own kernel, and with programs of ours.
    Debian(Debian),
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it lies in the image.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// What it holds.
    pub content: Vec<u8>,
}

/// A symbolic link of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where it lies in the image.
    pub path: String,
    /// Where it leads.
    pub target: String,
}

/// What tells the kinds apart: a file with a table `debian` is Debian's.
#[derive(Deserialize)]
struct Kind {
    debian: Option<IgnoredAny>,
}

impl Definition {
    /// Reads and checks `images/NAME.toml` of the repository at `root`.
    pub fn load(root: &Path, name: &str) -> Result<Self, DefinitionError> {
        let file = Path::new("images").join(format!("{name}.toml"));
        let unreadable = |source: std::io::Error| DefinitionError {
            file: file.clone(),
            line: 0,
            message: format!("cannot read it: {source}; {}", known_images(root)),
        };
        let text = std::fs::read_to_string(root.join(&file)).map_err(unreadable)?;
        Self::parse(root, &file, &text)
    }

    /// Checks `text`, the content of `file` (relative to `root`, under which the fragments and
    /// the initramfs's files lie).
    pub fn parse(root: &Path, file: &Path, text: &str) -> Result<Self, DefinitionError> {
        let checker = Checker { root, file, text };
        let malformed = |error: toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start);
            checker.error(at, error.message().to_owned())
        };
        let kind: Kind = toml::from_str(text).map_err(malformed)?;
        Ok(match kind.debian {
            None => Self::Appliance(checker.appliance(toml::from_str(text).map_err(malformed)?)?),
            Some(_) => Self::Debian(checker.debian(toml::from_str(text).map_err(malformed)?)?),
        })
    }

    /// The image's name, equal to the file's.
    pub fn name(&self) -> &str {
        match self {
            Self::Appliance(appliance) => &appliance.name,
            Self::Debian(debian) => &debian.name,
        }
    }
}

/// Names the images there are, for a person who mistyped one.
fn known_images(root: &Path) -> String {
    let mut names: Vec<String> = std::fs::read_dir(root.join("images"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".toml").map(str::to_owned)
        })
        .collect();
    names.sort();
    format!("the images are: {}", names.join(", "))
}

#[cfg(test)]
mod tests;
