//! Reads a bundle back, as far as those who hand it on need to know it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::read::GzDecoder;

use super::{FILES, PROGRAM, SUMS};
use crate::digest::Digest;

/// Larger than any bundle, packed or unpacked.
const BYTES_MAX: u64 = 256 << 20;
/// Longest version.
const VERSION_LENGTH_MAX: usize = 64;

/// A bundle's version: letters, digits, `.`, `-` and `_`, so it is a file's name anywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(String);

/// Text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version: letters, digits, '.', '-' and '_', beginning with a letter or digit")]
pub struct VersionError(String);

impl Version {
    /// Checks `text`.
    pub fn new(text: &str) -> Result<Self, VersionError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        match begins && text.len() <= VERSION_LENGTH_MAX && text.chars().all(plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(VersionError(text.to_owned())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a file is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read, or is no compressed tar.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// It does not hold what a bundle does.
    #[error("it is no bundle of `cargo xtask bundle`: {0}")]
    Content(String),
}

/// A bundle whose checksums are right.
#[derive(Debug, Clone)]
pub struct Bundle {
    version: Version,
    bytes: Arc<[u8]>,
}

impl Bundle {
    /// Reads and checks the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let mut bytes = Vec::new();
        File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
        let version = check(&bytes)?;
        Ok(Self {
            version,
            bytes: bytes.into(),
        })
    }

    /// Its version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The compressed tar.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The version of a bundle that is whole.
fn check(bytes: &[u8]) -> Result<Version, ReadError> {
    let wrong = |text: String| ReadError::Content(text);
    let mut archive = tar::Archive::new(GzDecoder::new(bytes).take(BYTES_MAX));
    let mut top = None;
    let mut digests = BTreeMap::new();
    let mut sums = String::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.display().to_string();
        let (directory, name) = path.split_once('/').unwrap_or((&path, ""));
        if *top.get_or_insert_with(|| directory.to_owned()) != directory {
            return Err(wrong("it has more than one directory".into()));
        }
        match name {
            "" => {}
            SUMS => _ = entry.read_to_string(&mut sums)?,
            _ => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                digests.insert(name.to_owned(), Digest::of(&content).to_string());
            }
        }
    }
    let expected = sums.lines().filter_map(|line| line.split_once("  "));
    let expected: BTreeMap<String, String> = expected
        .map(|(sum, name)| (name.to_owned(), sum.to_owned()))
        .collect();
    for name in FILES.map(|(name, _)| name).into_iter().chain([PROGRAM]) {
        if !digests.contains_key(name) {
            return Err(wrong(format!("{name} is missing")));
        }
    }
    if expected != digests {
        return Err(wrong("its checksums are wrong".into()));
    }
    let top = top.unwrap_or_default();
    let version = top.strip_prefix("wow-").unwrap_or_default();
    Version::new(version).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{self, Entry};

    fn refused(entries: &[Entry<'_>]) -> String {
        let bytes = archive::gzip(&archive::tar(entries).unwrap()).unwrap();
        check(&bytes).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_bundle_is_refused_with_the_reason() {
        let file = |path| Entry::file(path, 0o644, b"content");
        let all = |sums| {
            [
                file("wow-1/wow"),
                file("wow-1/wow-node"),
                file("wow-1/wow.service"),
                Entry::file("wow-1/SHA256SUMS", 0o644, sums),
            ]
        };
        assert!(refused(&[file("wow-1/wow")]).contains("wow-node is missing"));
        assert!(refused(&[file("a/b"), file("c/d")]).contains("more than one directory"));
        assert!(refused(&all(b"00  wow\n")).contains("checksums"));
        assert!(check(b"no gzip").is_err());
        assert!(refused(&[]).contains("missing"));
    }

    #[test]
    fn versions_are_names_of_files() {
        for good in ["0.1.0-0123456789ab", "1", "a_b"] {
            assert!(Version::new(good).is_ok(), "{good}");
        }
        let long = "1".repeat(VERSION_LENGTH_MAX + 1);
        for wrong in ["", ".", "..", "-x", "a/b", "a b", "a'b", "é", &long] {
            assert!(Version::new(wrong).is_err(), "{wrong}");
        }
    }
}
