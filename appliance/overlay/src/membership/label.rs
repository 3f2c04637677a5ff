//! Names that people give to pools, nodes and tickets: each one label of a DNS name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name in bytes: one DNS label (RFC 1035, 2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;

/// How much of a refused text an error repeats.
const SHOWN_CHARS_MAX: usize = 80;

/// A text that cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} cannot be the name of a {what}: use 1 to {LABEL_BYTES_MAX} characters of a-z, 0-9 and \
     '-', neither beginning nor ending with '-'"
)]
pub struct LabelError {
    what: &'static str,
    text: String,
}

fn is_label(text: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name, if `text` is one DNS label in lower case.
            pub fn new(text: &str) -> Result<Self, LabelError> {
                if is_label(text) {
                    return Ok($name(text.to_owned()));
                }
                let text = text.chars().take(SHOWN_CHARS_MAX).collect();
                Err(LabelError { what: $what, text })
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = LabelError;

            fn from_str(text: &str) -> Result<Self, LabelError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = LabelError;

            fn try_from(text: String) -> Result<Self, LabelError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

label! {
    /// A pool's name, for people; a pool is told from others by its [`PoolId`](super::PoolId).
    PoolName, "pool"
}
label! {
    /// A node's name, unique in its pool by convention and host name of the machine.
    NodeName, "node"
}
label! {
    /// What a ticket was made for, so that its nodes can be found again.
    TicketLabel, "ticket"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_dns_labels() {
        let longest = "a".repeat(63);
        for text in ["a", "7", "a-b", "node-17", "a--b", longest.as_str()] {
            assert_eq!(NodeName::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn refuses_everything_else_and_says_what_is_allowed() {
        let overlong = "a".repeat(64);
        for text in [
            "",
            "-",
            "-a",
            "a-",
            "A",
            "a.b",
            "a_b",
            "a b",
            "ü",
            "a\n",
            "\0",
            overlong.as_str(),
        ] {
            let error = NodeName::new(text).unwrap_err().to_string();
            assert!(error.contains("name of a node"), "{error}");
            assert!(error.contains("1 to 63 characters of a-z, 0-9"), "{error}");
        }
    }

    #[test]
    fn an_error_repeats_only_so_much() {
        let error = PoolName::new(&"ü".repeat(100_000)).unwrap_err();
        assert!(error.to_string().len() < 400);
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_a_label_or_refused(text in ".{0,70}") {
            if let Ok(name) = NodeName::new(&text) {
                prop_assert!(text.len() <= LABEL_BYTES_MAX && text.is_ascii());
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
