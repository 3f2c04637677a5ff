//! What can go wrong while an image is built, worded for the person who ran the build.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::definition::DefinitionError;
use crate::kernel::fragment::{FragmentError, LostOptions};

/// Why an image was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The image's definition is malformed.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// A kernel fragment is malformed, or two contradict each other.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// Kconfig did not keep what the fragments ask for.
    #[error(transparent)]
    Lost(#[from] LostOptions),
    /// A file operation failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The operation, as a verb.
        what: &'static str,
        /// The file or directory it was for.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A program could not be started.
    #[error(
        "cannot run `{program}`: {source}; install the host packages of this build ({packages})"
    )]
    Spawn {
        /// The program's name.
        program: String,
        /// Packages that hold it and its companions.
        packages: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A program ran and failed.
    #[error("{what} failed ({status}){}", tail_of_log(log, tail))]
    Command {
        /// What the program was to do.
        what: String,
        /// How it ended.
        status: ExitStatus,
        /// Its whole output.
        log: PathBuf,
        /// The last lines of it.
        tail: Vec<String>,
    },
    /// The kernel source cannot be had.
    #[error("cannot fetch the kernel source: {0}")]
    Source(String),
    /// An artefact is larger than the definition allows.
    #[error(
        "{what} has {bytes} bytes, the limit in {definition} is {limit}: make it smaller, or raise `{key}` there"
    )]
    TooLarge {
        /// The artefact.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// What it may have.
        limit: u64,
        /// The key that sets the limit.
        key: &'static str,
        /// The definition's file.
        definition: PathBuf,
    },
    /// Something found in the image's inputs cannot be used.
    #[error("{0}")]
    Input(String),
}

impl BuildError {
    /// Wraps an I/O error with its operation and path; made for `map_err`.
    pub fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

fn tail_of_log(log: &Path, tail: &[String]) -> String {
    let mut text = format!("; its output is in {}", log.display());
    if !tail.is_empty() {
        text.push_str(", and ends with:");
        for line in tail {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n    {line}");
        }
    }
    text
}
