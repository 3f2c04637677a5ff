//! Tar archives and gzip streams without times, names of users or anything else of this machine.

use std::io::Write as _;
use std::path::Path;

use flate2::{Compression, GzBuilder};

use crate::BuildError;

/// One entry of an archive; root's unless said otherwise.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    path: String,
    mode: u32,
    owner: u64,
    /// A directory has none.
    content: Option<&'a [u8]>,
}

impl<'a> Entry<'a> {
    /// A directory that anybody may enter.
    pub fn directory(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            mode: 0o755,
            owner: 0,
            content: None,
        }
    }

    /// A file.
    pub fn file(path: impl Into<String>, mode: u32, content: &'a [u8]) -> Self {
        Self {
            path: path.into(),
            mode,
            owner: 0,
            content: Some(content),
        }
    }

    /// The same, owned by this user and the group of the same number.
    pub fn owned_by(self, owner: u64) -> Self {
        Self { owner, ..self }
    }
}

/// The entries as a tar, in their order.
pub fn tar(entries: &[Entry<'_>]) -> Result<Vec<u8>, BuildError> {
    let mut builder = tar::Builder::new(Vec::new());
    let failed = BuildError::io("write an archive", Path::new("in memory"));
    let write = |builder: &mut tar::Builder<Vec<u8>>| -> std::io::Result<()> {
        for entry in entries {
            let content = entry.content.unwrap_or_default();
            let kind = match entry.content {
                Some(_) => tar::EntryType::Regular,
                None => tar::EntryType::Directory,
            };
            let mut header = header(kind, entry.mode, content.len() as u64);
            header.set_uid(entry.owner);
            header.set_gid(entry.owner);
            builder.append_data(&mut header, &entry.path, content)?;
        }
        builder.finish()
    };
    write(&mut builder)
        .and_then(|()| builder.into_inner())
        .map_err(failed)
}

/// The header of an entry of root's.
pub fn header(kind: tar::EntryType, mode: u32, bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    header
}

/// `bytes` compressed.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>, BuildError> {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .map_err(BuildError::io("compress", Path::new("an archive")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_nothing_of_this_machine() {
        let entries = [
            Entry::directory("d"),
            Entry::file("d/f", 0o755, b"content").owned_by(7),
        ];
        let bytes = tar(&entries).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let read: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let header = entry.unwrap().header().clone();
                let path = header.path().unwrap().display().to_string();
                let owner = (header.uid().unwrap(), header.gid().unwrap());
                (path, header.mode().unwrap(), owner, header.mtime().unwrap())
            })
            .collect();
        let expected = [
            ("d".to_owned(), 0o755, (0, 0), 0),
            ("d/f".to_owned(), 0o755, (7, 7), 0),
        ];
        assert_eq!(read, expected);
    }
}
