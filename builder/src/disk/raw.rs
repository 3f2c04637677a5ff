//! Puts tables and partition together as a raw disk.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::gpt;
use super::layout::{Layout, SECTOR_BYTES};
use crate::BuildError;

/// Writes the disk of `layout` for the image `name` to `path`, with `partition`'s content.
pub fn assemble(
    layout: &Layout,
    name: &str,
    partition: &Path,
    path: PathBuf,
) -> Result<PathBuf, BuildError> {
    let content = std::fs::read(partition).map_err(BuildError::io("read", partition))?;
    if content.len() as u64 != layout.partition_sectors() * SECTOR_BYTES {
        return Err(BuildError::Input(format!(
            "{} has {} bytes, and not those of its partition",
            partition.display(),
            content.len()
        )));
    }
    let tables = gpt::tables(layout, name);
    let bytes = layout.sectors * SECTOR_BYTES;
    let write = || {
        let mut file = File::create(&path)?;
        file.set_len(bytes)?;
        let parts: [(u64, &[u8]); 3] = [
            (0, &tables.start),
            (layout.first * SECTOR_BYTES, &content),
            (bytes - tables.end.len() as u64, &tables.end),
        ];
        for (at, part) in parts {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(part)?;
        }
        Ok(())
    };
    write().map_err(BuildError::io("write", &path))?;
    Ok(path)
}
