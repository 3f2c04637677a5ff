//! The cache of step results: `CACHE/STEP/KEY/`, each sealed by a file that is renamed into place
//! last.
//!
//! An entry without its seal is the remains of an interrupted build: it is removed and made
//! again. One lock covers the cache; programs that a build starts inherit it, so that a build
//! whose parent was killed keeps the next one waiting until it has really ended.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};

use crate::BuildError;
use crate::digest::Digest;
use crate::disk::sparse;
use crate::progress::Progress;

const SEAL: &str = "sealed.json";

/// What a step left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Names the result by content: what later steps' keys are made of.
    pub digest: Digest,
    /// The result's file within the entry, verified on every use; `None` for a tree.
    pub file: Option<String>,
    /// What to say about it in the manifest.
    pub facts: Vec<Fact>,
}

/// An input that a step used, for the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// Its version, where it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Its content's digest; a tool is known by its version alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Where the world knows it from, if it is part of the image: for the bill of materials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// What the person who builds should know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A package of the world's, in the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its package URL (<https://github.com/package-url/purl-spec>).
    pub purl: String,
    /// Under what it may be used, as an SPDX expression, where its makers say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

impl Package {
    /// A binary package of Debian's for amd64.
    pub fn debian(name: &str, version: &str) -> Self {
        let (name, version) = (escape(name), escape(version));
        Self {
            purl: format!("pkg:deb/debian/{name}@{version}?arch=amd64"),
            licence: None,
        }
    }

    /// A crate of crates.io.
    pub fn of_cargo(name: &str, version: &str, licence: &str) -> Self {
        let (name, version) = (escape(name), escape(version));
        // Before there were expressions, a slash was an "or".
        let licence = licence.replace('/', " OR ");
        Self {
            purl: format!("pkg:cargo/{name}@{version}"),
            licence: Some(licence).filter(|text| !text.is_empty()),
        }
    }
}

/// What a package URL may hold between its separators.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// The cache, locked until this is dropped.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    _lock: File,
}

impl Cache {
    /// Opens the cache at `directory`, waiting for another build to end if there is one.
    pub fn open(directory: &Path, progress: &Progress) -> Result<Self, BuildError> {
        create(directory)?;
        let path = directory.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(BuildError::io("open", &path))?;
        let failed = |error: rustix::io::Errno| BuildError::io("lock", &path)(error.into());
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let running = progress.start("waiting for another build to release the cache");
                rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(failed)?;
                running.finish("the other build has ended");
            }
            Err(error) => return Err(failed(error)),
        }
        // Inherited by every program started from here on; see the module's text.
        rustix::io::fcntl_setfd(&lock, FdFlags::empty()).map_err(failed)?;
        // Absolute, because programs are started in other directories.
        let directory = directory
            .canonicalize()
            .map_err(BuildError::io("resolve", directory))?;
        Ok(Self {
            directory,
            _lock: lock,
        })
    }

    /// A directory of the cache for what is no step's result.
    pub fn aside(&self, name: &str) -> Result<PathBuf, BuildError> {
        let path = self.directory.join(name);
        create(&path)?;
        Ok(path)
    }

    /// Where the entry of `step` with `key` is or would be.
    pub fn path(&self, step: &str, key: Digest) -> PathBuf {
        self.directory.join(step).join(key.short())
    }

    /// The sealed result of `step` under `key`, if it is there and whole.
    pub fn find(&self, step: &str, key: Digest) -> Option<Seal> {
        let entry = self.path(step, key);
        let seal: Seal = serde_json::from_slice(&fs::read(entry.join(SEAL)).ok()?).ok()?;
        if let Some(file) = &seal.file
            && Digest::of_file(&entry.join(file)).ok()? != seal.digest
        {
            return None;
        }
        // The time of last use decides what `prune` removes; failing to note it costs a rebuild.
        if let Ok(file) = File::options().write(true).open(entry.join(SEAL)) {
            let _ = file.set_modified(std::time::SystemTime::now());
        }
        Some(seal)
    }

    /// An empty directory for the result of `step` under `key`.
    pub fn begin(&self, step: &str, key: Digest) -> Result<PathBuf, BuildError> {
        let entry = self.path(step, key);
        // The seal first: a removal that is interrupted must not leave a sealed remnant.
        remove(&entry.join(SEAL))?;
        remove(&entry)?;
        create(&entry)?;
        Ok(entry)
    }

    /// Declares the entry complete.
    pub fn seal(&self, step: &str, key: Digest, seal: &Seal) -> Result<(), BuildError> {
        let entry = self.path(step, key);
        let text = serde_json::to_vec_pretty(seal).map_err(|error| {
            BuildError::Input(format!("cannot describe {}: {error}", entry.display()))
        })?;
        publish(&entry.join(SEAL), &text)
    }

    /// Keeps the `keep` most recently used entries of `step`.
    pub fn prune(&self, step: &str, keep: usize) -> Result<(), BuildError> {
        let directory = self.directory.join(step);
        let Ok(listing) = fs::read_dir(&directory) else {
            return Ok(());
        };
        let mut entries: Vec<_> = listing
            .flatten()
            .map(|entry| {
                let used = fs::metadata(entry.path().join(SEAL)).and_then(|seal| seal.modified());
                // An unsealed entry is older than any.
                (used.ok(), entry.path())
            })
            .collect();
        entries.sort();
        let surplus = entries.len().saturating_sub(keep);
        for (_, path) in entries.into_iter().take(surplus) {
            remove(&path.join(SEAL))?;
            remove(&path)?;
        }
        Ok(())
    }
}

/// Writes `bytes` to `path` so that at any moment the old or the new content stands there whole.
pub fn publish(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    let temporary = temporary_beside(path);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(BuildError::io("write", path))
}

/// Copies `from` to `to` so that at any moment the old or the new content stands there whole.
pub fn publish_copy(from: &Path, to: &Path) -> Result<(), BuildError> {
    let temporary = temporary_beside(to);
    let copy = || {
        sparse::copy_file(from, &temporary, 0)?;
        File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, to)
    };
    copy().map_err(BuildError::io("write", to))
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Creates a directory and its parents.
pub fn create(path: &Path) -> Result<(), BuildError> {
    fs::create_dir_all(path).map_err(BuildError::io("create", path))
}

/// Removes a file or a tree; it may be missing.
pub fn remove(path: &Path) -> Result<(), BuildError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(BuildError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), &Progress::hidden()).unwrap();
        (directory, cache)
    }

    fn add(cache: &Cache, name: &str) -> Seal {
        let entry = cache.begin("step", key(name)).unwrap();
        fs::write(entry.join("out"), name).unwrap();
        let seal = Seal {
            digest: key(name),
            file: Some("out".into()),
            facts: Vec::new(),
        };
        cache.seal("step", key(name), &seal).unwrap();
        seal
    }

    #[test]
    fn a_sealed_entry_is_found_again() {
        let (_directory, cache) = cache();
        assert_eq!(cache.find("step", key("a")), None);
        let seal = add(&cache, "a");
        assert_eq!(cache.find("step", key("a")), Some(seal));
        assert_eq!(cache.find("other", key("a")), None);
    }

    #[test]
    fn an_interrupted_entry_does_not_count_and_begins_empty_again() {
        let (_directory, cache) = cache();
        let entry = cache.begin("step", key("a")).unwrap();
        fs::write(entry.join("half"), "x").unwrap();
        assert_eq!(cache.find("step", key("a")), None);
        let entry = cache.begin("step", key("a")).unwrap();
        assert_eq!(fs::read_dir(entry).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_result_is_not_used() {
        let (_directory, cache) = cache();
        add(&cache, "a");
        fs::write(cache.path("step", key("a")).join("out"), "b").unwrap();
        assert_eq!(cache.find("step", key("a")), None);
        fs::write(cache.path("step", key("a")).join(SEAL), "{").unwrap();
        assert_eq!(cache.find("step", key("a")), None);
    }

    #[test]
    fn pruning_keeps_what_was_used_last() {
        let (_directory, cache) = cache();
        for (age, name) in ["a", "b", "c"].into_iter().enumerate() {
            add(&cache, name);
            let seal = File::options()
                .write(true)
                .open(cache.path("step", key(name)).join(SEAL))
                .unwrap();
            let then =
                std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age as u64);
            seal.set_modified(then).unwrap();
        }
        cache.begin("step", key("interrupted")).unwrap();
        assert!(cache.find("step", key("a")).is_some());
        cache.prune("step", 2).unwrap();
        let there = |name| cache.path("step", key(name)).exists();
        assert!(there("a") && there("c") && !there("b") && !there("interrupted"));
    }

    #[test]
    fn a_second_build_waits_for_the_first() {
        let (directory, cache) = cache();
        let path = directory.path().to_owned();
        let (sender, receiver) = std::sync::mpsc::channel();
        let second = std::thread::spawn(move || {
            let cache = Cache::open(&path, &Progress::hidden()).unwrap();
            sender.send(()).unwrap();
            drop(cache);
        });
        // It cannot have the lock while the first lives.
        assert!(
            receiver
                .recv_timeout(std::time::Duration::from_millis(100))
                .is_err()
        );
        drop(cache);
        second.join().unwrap();
        receiver.recv().unwrap();
    }
}
