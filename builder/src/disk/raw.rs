//! Puts tables and partitions together as a raw disk.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::layout::{Extent, Layout, SECTOR_BYTES};
use super::{gpt, sparse};
use crate::BuildError;

/// Writes the disk of `layout` for the image `name` to `path`, with the partitions' contents and `between`: sectors
/// before the first partition, each with its place.
pub fn assemble(
    layout: &Layout,
    name: &str,
    partitions: &[(Extent, &Path)],
    between: &[(u64, &[u8])],
    path: PathBuf,
) -> Result<PathBuf, BuildError> {
    for (place, content) in partitions {
        let length = std::fs::metadata(content)
            .map_err(BuildError::io("read", content))?
            .len();
        if length != place.bytes() {
            return Err(BuildError::Input(format!(
                "{} has {length} bytes, and not those of its partition",
                content.display()
            )));
        }
    }
    let tables = gpt::tables(layout, name);
    let bytes = layout.sectors * SECTOR_BYTES;
    let write = || {
        let mut file = File::create(&path)?;
        file.set_len(bytes)?;
        for (at, part) in [
            (0, &tables.start),
            (bytes - tables.end.len() as u64, &tables.end),
        ] {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(part)?;
        }
        for (first, sectors) in between {
            file.seek(SeekFrom::Start(first * SECTOR_BYTES))?;
            file.write_all(sectors)?;
        }
        for (place, content) in partitions {
            sparse::copy(
                &mut File::open(content)?,
                &mut file,
                place.first * SECTOR_BYTES,
            )?;
        }
        Ok(())
    };
    write().map_err(BuildError::io("write", &path))?;
    Ok(path)
}
