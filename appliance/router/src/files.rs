//! Files with secrets: written atomically with mode 0600, refused when others may read them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use zeroize::Zeroizing;

/// Above any ticket, pool file, identity or certificate.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Above any list of revocations.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;

/// What to do when the file is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Replace it.
    Replace,
    /// Leave it and fail with [`io::ErrorKind::AlreadyExists`].
    Keep,
}

/// Writes a file that only its owner may read. It appears whole or not at all.
pub fn write_private(path: &Path, content: &[u8], existing: Existing) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = directory.join(temporary);

    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        match existing {
            Existing::Replace => std::fs::rename(&temporary, path)?,
            Existing::Keep => {
                renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE)?;
            }
        }
        // On FAT the new directory entry learns the file's length only with this.
        file.sync_all()?;
        // Only after this does a crash not bring the old directory entry back.
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        // It may never have been made; the error that counts is the one above.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Reads a file that nobody but its owner may read; `-` is standard input.
pub fn read_private(path: &Path, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    read_secret(path, what, SECRET_BYTES_MAX)
}

/// Reads a file of a node's state: secrets like [`read_private`], and lists that are longer.
pub fn read_kept(path: &Path, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    read_secret(path, what, TEXT_BYTES_MAX)
}

fn read_secret(path: &Path, what: &str, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::new());
    let length = if path == Path::new("-") {
        io::stdin()
            .lock()
            .take(bytes_max + 1)
            .read_to_end(&mut content)
            .with_context(|| format!("cannot read the {what} from standard input"))?
    } else {
        let mut file = File::open(path)
            .with_context(|| format!("cannot open the {what} {}", path.display()))?;
        let metadata = file
            .metadata()
            .with_context(|| format!("cannot look at the {what} {}", path.display()))?;
        if metadata.is_dir() {
            bail!("the {what} {} is a directory, not a file", path.display());
        }
        let mode = metadata.mode() & 0o777;
        if metadata.is_file() && mode & 0o077 != 0 {
            bail!(
                "the {what} {path} is open to others (mode {mode:04o}) and holds a secret; \
                 consider it leaked if anybody had access, then close it with: chmod 600 {path}",
                path = path.display()
            );
        }
        Read::by_ref(&mut file)
            .take(bytes_max + 1)
            .read_to_end(&mut content)
            .with_context(|| format!("cannot read the {what} {}", path.display()))?
    };
    if length as u64 > bytes_max {
        bail!(
            "{} is no {what}: it has more than {bytes_max} bytes",
            path.display()
        );
    }
    Ok(content)
}

/// Reads a text that is no secret; `-` is standard input.
pub fn read_text(path: &Path, what: &str) -> Result<String> {
    let mut text = String::new();
    let source: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(
            File::open(path)
                .with_context(|| format!("cannot open the {what} {}", path.display()))?,
        ),
    };
    source
        .take(TEXT_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read the {what} {}", path.display()))?;
    if text.len() as u64 > TEXT_BYTES_MAX {
        bail!(
            "{} is no {what}: it has more than {TEXT_BYTES_MAX} bytes",
            path.display()
        );
    }
    Ok(text)
}

/// Like [`read_private`], for text.
pub fn read_private_text(path: &Path, what: &str) -> Result<Zeroizing<String>> {
    let bytes = read_private(path, what)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => bail!("{} is no {what}: it is not text", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secrets_are_written_for_the_owner_alone_and_never_in_halves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_private(&path, b"one", Existing::Keep).unwrap();
        let mode = std::fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let refused = write_private(&path, b"two", Existing::Keep).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(&read_private(&path, "secret").unwrap()[..], b"one");
        write_private(&path, b"two", Existing::Replace).unwrap();
        assert_eq!(&read_private(&path, "secret").unwrap()[..], b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_open_to_others_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_private(&path, b"one", Existing::Keep).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = read_private(&path, "ticket").unwrap_err().to_string();
            assert!(error.contains("chmod 600"), "{error}");
            assert!(error.contains(&format!("{mode:04o}")), "{error}");
        }
    }

    #[test]
    fn endless_and_binary_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        let long = vec![b'a'; SECRET_BYTES_MAX as usize + 1];
        write_private(&path, &long, Existing::Keep).unwrap();
        assert!(read_private(&path, "ticket").is_err());
        write_private(&path, &[0xff, 0xfe], Existing::Replace).unwrap();
        let error = read_private_text(&path, "ticket").unwrap_err().to_string();
        assert!(error.contains("not text"), "{error}");
        assert!(read_private(dir.path(), "ticket").is_err());
    }
}
