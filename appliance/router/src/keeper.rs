//! The few small files that a node keeps over restarts, and where: nowhere, in a directory that is there for as long
//! as the node runs, or on a machine's own disk, which may fill up, fail, be pulled, and come back.
//!
//! Of what belongs on such a disk the newest content stays in memory as well, so that it is written when the disk
//! can take it again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use zeroize::Zeroizing;

use crate::files::{self, Existing};

/// Whom an identity belongs to; written before it.
pub const POOL: &str = "pool";
/// The node's keys.
pub const IDENTITY: &str = "identity";

/// Where a node's files are.
#[derive(Debug, Clone)]
pub enum Files {
    /// They end with the process.
    Nowhere,
    /// In a directory. What cannot be written there is an error.
    In(PathBuf),
    /// On a machine's own disk.
    OnDisk(Keeper),
}

impl Files {
    /// A file's content, if there is such a file.
    pub fn read(&self, name: &'static str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        match self {
            Files::Nowhere => Ok(None),
            Files::In(directory) => read(directory, name),
            Files::OnDisk(keeper) => keeper.read(name),
        }
    }

    /// Writes a file, or replaces it.
    pub fn write(&self, name: &'static str, content: &[u8]) -> Result<()> {
        match self {
            Files::Nowhere => Ok(()),
            Files::In(directory) => write(directory, name, content),
            Files::OnDisk(keeper) => {
                keeper.write(name, content);
                Ok(())
            }
        }
    }

    /// What is not kept that should be, and why.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Files::Nowhere | Files::In(_) => None,
            Files::OnDisk(keeper) => keeper.trouble(),
        }
    }
}

/// A machine's disk for its node's files, as far as there is one.
#[derive(Debug, Clone, Default)]
pub struct Keeper(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// Where the disk is mounted.
    directory: Option<PathBuf>,
    files: BTreeMap<&'static str, File>,
    /// Why there is no directory though there is a disk.
    refused: Option<String>,
}

struct File {
    content: Zeroizing<Vec<u8>>,
    /// Whether it is on the disk.
    written: bool,
    /// Why it is not.
    error: Option<String>,
}

// Contents are secrets.
impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("directory", &self.directory)
            .field("files", &self.files.keys())
            .field("refused", &self.refused)
            .finish()
    }
}

impl Keeper {
    /// A new node begins: nothing of the one before is kept but what is on the disk.
    pub fn begin(&self) {
        self.lock().files.clear();
    }

    /// What is on the disk cannot be used by the node that begins.
    pub fn refuse(&self, why: String) {
        tracing::error!("this machine's state is not kept: {why}");
        *self.lock() = Kept {
            refused: Some(why),
            ..Kept::default()
        };
    }

    /// A disk was mounted. Before a node runs it is the next one's. A running node takes it into use if it holds
    /// nothing, or what this very node kept on it; then the node's files are brought up to date there.
    ///
    /// # Errors
    /// It is another node's, or cannot be read: why, and what to do. Nothing on it was changed.
    pub fn attach(&self, directory: &Path) -> Result<()> {
        let mut kept = self.lock();
        if !kept.files.is_empty() {
            kept.check(directory)?;
        }
        kept.refused = None;
        kept.directory = Some(directory.to_owned());
        for file in kept.files.values_mut() {
            file.written = false;
        }
        kept.write_all();
        Ok(())
    }

    /// Whether there is a disk that what is kept goes to.
    pub fn is_attached(&self) -> bool {
        self.lock().directory.is_some()
    }

    /// The disk is gone; the node goes on.
    pub fn detach(&self) {
        let mut kept = self.lock();
        kept.directory = None;
        kept.refused = None;
        for file in kept.files.values_mut() {
            file.error = None;
        }
    }

    /// Writes what could not be written before.
    pub fn retry(&self) {
        self.lock().write_all();
    }

    /// See [`Files::trouble`].
    pub fn trouble(&self) -> Option<String> {
        let kept = self.lock();
        let unwritten = kept.files.values().find_map(|file| file.error.clone());
        let why = kept.refused.clone().or(unwritten)?;
        Some(format!("this machine's state is not kept: {why}"))
    }

    fn read(&self, name: &'static str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let mut kept = self.lock();
        if let Some(file) = kept.files.get(name) {
            return Ok(Some(file.content.clone()));
        }
        let Some(directory) = &kept.directory else {
            return Ok(None);
        };
        let content = read(directory, name)?;
        if let Some(content) = &content {
            let file = File {
                content: content.clone(),
                written: true,
                error: None,
            };
            kept.files.insert(name, file);
        }
        Ok(content)
    }

    fn write(&self, name: &'static str, content: &[u8]) {
        let mut kept = self.lock();
        let error = kept.files.remove(name).and_then(|file| file.error);
        let file = File {
            content: Zeroizing::new(content.to_vec()),
            written: false,
            error,
        };
        kept.files.insert(name, file);
        kept.write_all();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Whether a disk may be taken into use.
    fn check(&self, directory: &Path) -> Result<()> {
        let own = |name| self.files.get(name).map(|file| &file.content);
        if let Some(found) = read(directory, POOL)?
            && Some(&found) != own(POOL)
        {
            let found = String::from_utf8_lossy(&found).into_owned();
            let name = found.split_whitespace().nth(1).unwrap_or("?").to_owned();
            bail!(
                "it holds the state of a node of another pool, {name}: attach this node's own, or an empty one"
            );
        }
        if let Some(found) = read(directory, IDENTITY)?
            && Some(&found) != own(IDENTITY)
        {
            bail!(
                "it holds the identity of another node of this pool: restart this machine to go on as that node, or \
                 attach an empty disk"
            );
        }
        Ok(())
    }

    /// Brings what is on the disk up to date, as far as it can be. An identity never stands there without its pool.
    fn write_all(&mut self) {
        let Some(directory) = self.directory.clone() else {
            return;
        };
        let first = [POOL, IDENTITY];
        let others = self.files.keys().copied();
        let others = others.filter(|name| !first.contains(name));
        let names: Vec<_> = first.into_iter().chain(others).collect();
        for name in names {
            let Some(file) = self.files.get_mut(name) else {
                continue;
            };
            if file.written {
                continue;
            }
            let error = write(&directory, name, &file.content).err();
            let error = error.map(|error| format!("{error:#}"));
            file.written = error.is_none();
            match &error {
                Some(error) if file.error.as_ref() != Some(error) => {
                    tracing::error!("this machine's state is not kept: {error}");
                }
                None if file.error.is_some() => tracing::info!(file = name, "kept again"),
                _ => {}
            }
            file.error = error;
            if !file.written {
                return;
            }
        }
    }
}

fn read(directory: &Path, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let path = directory.join(name);
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot look at {}", path.display()));
        }
        Ok(_) => {}
    }
    let content = files::read_kept(&path, name)?;
    // What a disk has that lost its power while the file was made.
    Ok(Some(content).filter(|content| !content.is_empty()))
}

fn write(directory: &Path, name: &str, content: &[u8]) -> Result<()> {
    let path = directory.join(name);
    files::write_private(&path, content, Existing::Replace)
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(keeper: &Keeper, identity: &[u8]) {
        keeper.write(POOL, b"7 lab\n");
        keeper.write(IDENTITY, identity);
        keeper.write("peers", b"192.0.2.1:4001\n");
    }

    /// Makes writing to a directory fail, and no longer.
    fn obstruct(directory: &Path, name: &str) -> PathBuf {
        let obstacle = directory.join(format!(".{name}.{}.new", std::process::id()));
        std::fs::create_dir(&obstacle).unwrap();
        obstacle
    }

    #[test]
    fn an_empty_disk_that_comes_later_gets_everything() {
        let disk = tempfile::tempdir().unwrap();
        let keeper = Keeper::default();
        node(&keeper, b"me");
        assert_eq!(
            keeper.trouble(),
            None,
            "without a disk nothing is to be kept"
        );
        keeper.attach(disk.path()).unwrap();
        let read = |name| std::fs::read(disk.path().join(name)).unwrap();
        assert_eq!(read(POOL), b"7 lab\n");
        assert_eq!(read(IDENTITY), b"me");
        keeper.detach();
        keeper.write("peers", b"192.0.2.2:4001\n");
        assert_eq!(read("peers"), b"192.0.2.1:4001\n");
        keeper.attach(disk.path()).unwrap();
        assert_eq!(read("peers"), b"192.0.2.2:4001\n", "its own disk came back");
    }

    #[test]
    fn a_disk_of_another_node_or_pool_is_named_and_left_as_it_is() {
        let check = |pool: &[u8], identity: &[u8], named: &str| {
            let disk = tempfile::tempdir().unwrap();
            files::write_private(&disk.path().join(POOL), pool, Existing::Keep).unwrap();
            files::write_private(&disk.path().join(IDENTITY), identity, Existing::Keep).unwrap();
            let keeper = Keeper::default();
            node(&keeper, b"me");
            let error = keeper.attach(disk.path()).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
            keeper.write("peers", b"192.0.2.2:4001\n");
            assert_eq!(std::fs::read(disk.path().join(IDENTITY)).unwrap(), identity);
            assert!(!disk.path().join("peers").exists());
        };
        check(b"7 lab\n", b"somebody", "another node");
        check(b"8 home\n", b"me", "another pool, home");
    }

    #[test]
    fn what_a_full_disk_did_not_take_is_told_and_written_later() {
        let disk = tempfile::tempdir().unwrap();
        let keeper = Keeper::default();
        keeper.attach(disk.path()).unwrap();
        node(&keeper, b"me");
        assert_eq!(keeper.trouble(), None);
        let obstacle = obstruct(disk.path(), "peers");
        keeper.write("peers", b"192.0.2.2:4001\n");
        let trouble = keeper.trouble().unwrap();
        assert!(
            trouble.contains("cannot write") && trouble.contains("peers"),
            "{trouble}"
        );
        std::fs::remove_dir(obstacle).unwrap();
        keeper.retry();
        assert_eq!(keeper.trouble(), None);
        let peers = std::fs::read(disk.path().join("peers")).unwrap();
        assert_eq!(peers, b"192.0.2.2:4001\n");
    }

    #[test]
    fn files_that_are_empty_are_not_there() {
        let disk = tempfile::tempdir().unwrap();
        for name in [POOL, IDENTITY] {
            files::write_private(&disk.path().join(name), b"", Existing::Keep).unwrap();
        }
        let keeper = Keeper::default();
        node(&keeper, b"me");
        keeper.attach(disk.path()).unwrap();
        assert_eq!(std::fs::read(disk.path().join(IDENTITY)).unwrap(), b"me");
    }

    #[test]
    fn an_identity_is_never_kept_without_its_pool() {
        let disk = tempfile::tempdir().unwrap();
        let obstacle = obstruct(disk.path(), POOL);
        let keeper = Keeper::default();
        node(&keeper, b"me");
        keeper.attach(disk.path()).unwrap();
        assert!(keeper.trouble().unwrap().contains(POOL));
        assert!(!disk.path().join(IDENTITY).exists());
        std::fs::remove_dir(obstacle).unwrap();
        keeper.retry();
        assert!(disk.path().join(IDENTITY).exists());
    }
}
