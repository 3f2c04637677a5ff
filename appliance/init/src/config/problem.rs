//! What can be wrong with a configured value, said so that it can be put right.

use std::fmt;

use super::key::{KEYS, Key};

/// Where a value was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    source: String,
    place: String,
}

impl Origin {
    /// A source, such as a file, and the place in it, such as a line.
    pub fn new(source: impl Into<String>, place: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            place: place.into(),
        }
    }

    /// Whether it is the kernel command line, which everybody on the machine can read.
    pub fn is_kernel_command_line(&self) -> bool {
        self.source == super::cmdline::NAME
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            return f.write_str(&self.source);
        }
        write!(f, "{}, {}", self.source, self.place)
    }
}

/// What is wrong. Never holds a value, since it may be a secret in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A key nobody knows.
    #[error(
        "{origin}: unknown key `{key}`; remove it or correct its spelling; the keys are: {}",
        known()
    )]
    UnknownKey {
        /// Where.
        origin: Origin,
        /// The key, made printable.
        key: String,
    },
    /// A value that cannot be one.
    #[error("{origin}: the value of `{}` {complaint}; it has to be {}", key.name, key.help)]
    Value {
        /// Where.
        origin: Origin,
        /// Its key.
        key: &'static Key,
        /// What is wrong with it.
        complaint: String,
    },
    /// A source that cannot be read, or not understood.
    #[error("{origin}: {complaint}")]
    Source {
        /// Where.
        origin: Origin,
        /// What is wrong and what to do.
        complaint: String,
    },
}

fn known() -> String {
    let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    names.join(", ")
}
