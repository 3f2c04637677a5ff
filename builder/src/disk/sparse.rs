//! Copies files without filling their holes: most of a disk is empty.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::path::Path;

/// A piece that is either copied or left as a hole.
const PIECE: usize = 64 << 10;

/// Copies `from` to offset `at` of `to`, which holds nothing there yet. Runs of zeros become holes.
pub fn copy(from: &mut File, to: &mut File, at: u64) -> io::Result<()> {
    let zeros = vec![0; PIECE];
    let mut piece = Vec::with_capacity(PIECE);
    let mut place = at;
    loop {
        piece.clear();
        let length = Read::by_ref(from)
            .take(PIECE as u64)
            .read_to_end(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        if piece[..] != zeros[..length] {
            to.seek(SeekFrom::Start(place))?;
            to.write_all(&piece)?;
        }
        place += length as u64;
    }
}

/// Makes `to` a copy of `from`, at least `bytes` long.
pub fn copy_file(from: &Path, to: &Path, bytes: u64) -> io::Result<()> {
    let mut from = File::open(from)?;
    let mut to = File::create(to)?;
    to.set_len(from.metadata()?.len().max(bytes))?;
    copy(&mut from, &mut to, 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_copy_is_equal_and_no_larger_on_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        let mut file = File::create(&from).unwrap();
        file.set_len((8 << 20) + 3).unwrap();
        file.seek(SeekFrom::Start(5 << 20)).unwrap();
        file.write_all(b"content").unwrap();
        copy_file(&from, &to, 0).unwrap();
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
        assert!(std::fs::metadata(&to).unwrap().blocks() * 512 <= 2 * PIECE as u64);
        copy_file(&from, &to, 9 << 20).unwrap();
        assert_eq!(std::fs::metadata(&to).unwrap().len(), 9 << 20);
    }
}
