//! Writes initramfs archives: the `newc` format, sorted, with fixed times and inode numbers.
//!
//! Device nodes are records like any other, so no root is needed. Format: the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst. Hard links, checksums and reading
//! are left out.

use std::collections::BTreeMap;

/// Fields of a `newc` header are 32 bits; a file must be smaller.
const MAX_FILE_BYTES: usize = u32::MAX as usize;
/// The kernel's limit for a path in an archive (PATH_MAX, with its final NUL).
const MAX_PATH_BYTES: usize = 4095;

const MODE_DIRECTORY: u32 = 0o040_000;
const MODE_FILE: u32 = 0o100_000;
const MODE_SYMLINK: u32 = 0o120_000;
const MODE_CHARACTER: u32 = 0o020_000;

/// Why an entry was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpioError {
    /// The path is not absolute, not normal, or too long.
    #[error(
        "{0:?} is no path for an archive: write it absolute, without `.`, `..`, `//`, NUL or a final slash, in at most 4095 bytes"
    )]
    Path(String),
    /// The path was added before.
    #[error("{0} is in the archive twice")]
    Duplicate(String),
    /// The content does not fit the format.
    #[error("{path} has {bytes} bytes, more than the format's 4 GiB")]
    TooLarge {
        /// The file.
        path: String,
        /// Its size.
        bytes: usize,
    },
    /// A permission mask has bits besides 0o7777.
    #[error("{path}: mode {mode:o} has bits besides permissions")]
    Mode {
        /// The file.
        path: String,
        /// The mask.
        mode: u32,
    },
    /// A parent is not a directory.
    #[error("{path}: its parent {parent} is no directory")]
    Parent {
        /// The entry.
        path: String,
        /// Its parent.
        parent: String,
    },
}

#[derive(Debug, Clone)]
struct Entry {
    mode: u32,
    device: (u32, u32),
    content: Vec<u8>,
    /// Stands only because something lies below it.
    implied: bool,
}

/// An archive being collected. Missing parent directories appear with mode 755.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// An archive without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory with the permissions `mode`.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<(), CpioError> {
        self.add(path, MODE_DIRECTORY, mode, (0, 0), Vec::new())
    }

    /// Adds a regular file with the permissions `mode`.
    pub fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) -> Result<(), CpioError> {
        if content.len() > MAX_FILE_BYTES {
            return Err(CpioError::TooLarge {
                path: path.to_owned(),
                bytes: content.len(),
            });
        }
        self.add(path, MODE_FILE, mode, (0, 0), content)
    }

    /// Adds a symbolic link to `target`.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), CpioError> {
        self.add(
            path,
            MODE_SYMLINK,
            0o777,
            (0, 0),
            target.as_bytes().to_vec(),
        )
    }

    /// Adds a character device node.
    pub fn character_device(
        &mut self,
        path: &str,
        mode: u32,
        major: u32,
        minor: u32,
    ) -> Result<(), CpioError> {
        self.add(path, MODE_CHARACTER, mode, (major, minor), Vec::new())
    }

    /// The archive's bytes: parents before children, otherwise by path.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, (path, entry)) in self.entries.iter().enumerate() {
            // Inode numbers count from 1; only hard links, which we do not write, would share one.
            record(&mut out, path, index as u32 + 1, entry);
        }
        let trailer = Entry {
            mode: 0,
            device: (0, 0),
            content: Vec::new(),
            implied: true,
        };
        record(&mut out, "TRAILER!!!", 0, &trailer);
        out
    }

    fn add(
        &mut self,
        path: &str,
        kind: u32,
        mode: u32,
        device: (u32, u32),
        content: Vec<u8>,
    ) -> Result<(), CpioError> {
        let name = normal(path)?;
        if mode & !0o7777 != 0 {
            return Err(CpioError::Mode {
                path: path.to_owned(),
                mode,
            });
        }
        self.add_parents(path, name)?;
        let replaceable = |old: &Entry| old.implied && kind == MODE_DIRECTORY;
        if self.entries.get(name).is_some_and(|old| !replaceable(old)) {
            return Err(CpioError::Duplicate(path.to_owned()));
        }
        let entry = Entry {
            mode: kind | mode,
            device,
            content,
            implied: false,
        };
        self.entries.insert(name.to_owned(), entry);
        Ok(())
    }

    fn add_parents(&mut self, path: &str, name: &str) -> Result<(), CpioError> {
        for (position, _) in name.match_indices('/') {
            let parent = &name[..position];
            let entry = self
                .entries
                .entry(parent.to_owned())
                .or_insert_with(|| Entry {
                    mode: MODE_DIRECTORY | 0o755,
                    device: (0, 0),
                    content: Vec::new(),
                    implied: true,
                });
            if entry.mode & MODE_DIRECTORY != MODE_DIRECTORY {
                return Err(CpioError::Parent {
                    path: path.to_owned(),
                    parent: format!("/{parent}"),
                });
            }
        }
        Ok(())
    }
}

/// The path without its leading slash, if it is in normal form.
fn normal(path: &str) -> Result<&str, CpioError> {
    let name = path.strip_prefix('/').unwrap_or("");
    let fine = name.len() <= MAX_PATH_BYTES
        && name != "TRAILER!!!"
        && !name.contains('\0')
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if fine {
        Ok(name)
    } else {
        Err(CpioError::Path(path.to_owned()))
    }
}

fn record(out: &mut Vec<u8>, name: &str, inode: u32, entry: &Entry) {
    let links = if entry.mode & MODE_DIRECTORY == MODE_DIRECTORY {
        2
    } else {
        1
    };
    let fields: [u32; 13] = [
        inode,
        entry.mode,
        0, // uid
        0, // gid
        links,
        0, // modification time
        entry.content.len() as u32,
        0, // device that holds the file
        0,
        entry.device.0,
        entry.device.1,
        name.len() as u32 + 1,
        0, // checksum, unused by this variant
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(&entry.content);
    pad(out);
}

/// Names and contents end on a multiple of four bytes.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests;
