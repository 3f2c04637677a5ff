//! Files of the system, written whole or not at all, and only when they change.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Gid, IFlags, Uid};
use rustix::io::Errno;

/// Who may do what with a file.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// Its mode.
    pub mode: u32,
    /// Its owner and group, unless root's.
    pub owner: Option<(u32, u32)>,
}

/// Anybody reads it.
pub const PUBLIC: Access = Access {
    mode: 0o644,
    owner: None,
};

/// Only root reads it.
pub const PRIVATE: Access = Access {
    mode: 0o600,
    owner: None,
};

/// Writes a file unless it is so already; whether it was not. Its directory is made if need be.
pub fn write(path: &Path, content: &[u8], access: Access) -> Result<bool> {
    let what = || format!("cannot write {}", path.display());
    if fs::read(path).is_ok_and(|found| found == content) && has(path, access) {
        return Ok(false);
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).with_context(what)?;
    let mut made = fs::OpenOptions::new();
    made.write(true).create_new(true).mode(0o600);
    // Opened here, since an error of the library's names the file, which would be news each time.
    let file = tempfile::Builder::new().make_in(parent, |path| made.open(path));
    let mut file = file.with_context(what)?;
    file.write_all(content).with_context(what)?;
    if let Some((user, group)) = access.owner {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        rustix::fs::fchown(file.as_file(), Some(user), Some(group)).with_context(what)?;
    }
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(access.mode))
        .with_context(what)?;
    file.as_file().sync_all().with_context(what)?;
    file.persist(path).with_context(what)?;
    Ok(true)
}

/// What is written in this directory, and in those made in it from now on, is on the disk before the write
/// ends. File systems that cannot promise it stay as they are.
pub fn write_through(directory: &Path) -> Result<()> {
    let what = || format!("cannot make writes to {} durable", directory.display());
    let handle = fs::File::open(directory).with_context(what)?;
    let set = rustix::fs::ioctl_getflags(&handle).and_then(|flags| {
        if flags.contains(IFlags::SYNC) {
            return Ok(());
        }
        rustix::fs::ioctl_setflags(&handle, flags | IFlags::SYNC)
    });
    match set {
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            tracing::debug!("{}: not on this file system", what());
            Ok(())
        }
        set => set.with_context(what),
    }
}

/// Removes a file; whether there was one.
pub fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// A file as text; empty if there is none.
pub fn text(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("cannot read {}", path.display())),
    }
}

fn has(path: &Path, access: Access) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = fs::metadata(path) else {
        return false;
    };
    let owner = access.owner.unwrap_or((metadata.uid(), metadata.gid()));
    metadata.mode() & 0o7777 == access.mode && owner == (metadata.uid(), metadata.gid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_when_it_changes_and_has_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/file");
        assert!(write(&path, b"one", PRIVATE).unwrap());
        assert!(!write(&path, b"one", PRIVATE).unwrap());
        assert!(write(&path, b"one", PUBLIC).unwrap(), "the mode counts too");
        assert!(write(&path, b"two", PUBLIC).unwrap());
        assert_eq!(text(&path).unwrap(), "two");
        assert_eq!(text(&directory.path().join("none")).unwrap(), "");
    }

    #[test]
    fn what_cannot_be_written_is_told_in_the_same_words_each_time() {
        let path = Path::new("/proc/no-file-of-the-kernels");
        let told = [(), ()].map(|()| format!("{:#}", write(path, b"x", PUBLIC).unwrap_err()));
        assert_eq!(told[0], told[1]);
        assert!(
            told[0].starts_with("cannot write /proc/no-file"),
            "{}",
            told[0]
        );
    }

    #[test]
    fn what_is_made_in_a_durable_directory_is_durable() {
        let directory = tempfile::tempdir().unwrap();
        write_through(directory.path()).unwrap();
        let is_durable = |path: &Path| {
            let handle = fs::File::open(path).unwrap();
            rustix::fs::ioctl_getflags(handle).is_ok_and(|flags| flags.contains(IFlags::SYNC))
        };
        if !is_durable(directory.path()) {
            eprintln!("left out: this file system has no synchronous directories");
            return;
        }
        let (inner, file) = (directory.path().join("inner"), "inner/file");
        fs::create_dir(&inner).unwrap();
        fs::write(directory.path().join(file), "x").unwrap();
        assert!(is_durable(&inner) && is_durable(&directory.path().join(file)));
        write_through(directory.path()).unwrap();
    }
}
