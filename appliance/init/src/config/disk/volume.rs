//! A file system on a disk, as far as a configuration needs it: its label, and small files in its root,
//! read by their names.
//!
//! Read here and not by the kernel: what lies on the disk may be anybody's, and a parser that gets it wrong
//! in this program costs a message, in the kernel the machine. Nothing is ever written, no file outside the
//! root is found, and every table is read up to a limit.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::ext::Ext;
use super::fat::Fat;
use super::iso::Iso;

/// Of a directory this much is looked at: thousands of entries.
pub(super) const DIRECTORY_BYTES_MAX: usize = 128 * 1024;

/// Something with bytes at offsets.
pub(super) trait Medium {
    /// Fills the buffer, or fails.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Medium for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

/// The twin in memory.
impl Medium for &[u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok();
        let part = from.and_then(|from| self.get(from..from.checked_add(buffer.len())?));
        let part = part.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }
}

/// Why something cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The disk fails.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file system contradicts itself.
    #[error("is damaged: {0}; make the disk anew")]
    Damaged(&'static str),
    /// What is there is not what is expected there.
    #[error("is longer than {0} bytes: is it the right file?")]
    TooLong(usize),
}

/// One of the file systems that are understood.
pub(super) enum Volume<'m> {
    Fat(Fat<'m>),
    Iso(Iso<'m>),
    Ext(Ext<'m>),
}

impl<'m> Volume<'m> {
    /// The file system on a disk or partition; `None` where there is none that is understood.
    pub(super) fn open(medium: &'m dyn Medium) -> Result<Option<Self>, Fault> {
        if let Some(ext) = Ext::open(medium)? {
            return Ok(Some(Self::Ext(ext)));
        }
        // Before FAT: a CD that also starts PCs begins with a boot sector.
        if let Some(iso) = Iso::open(medium)? {
            return Ok(Some(Self::Iso(iso)));
        }
        Ok(Fat::open(medium)?.map(Self::Fat))
    }

    /// What it is called.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Fat(_) => "FAT",
            Self::Iso(_) => "ISO 9660",
            Self::Ext(_) => "ext",
        }
    }

    /// Its label, without blanks around it.
    pub(super) fn label(&self) -> &str {
        match self {
            Self::Fat(fat) => fat.label(),
            Self::Iso(iso) => iso.label(),
            Self::Ext(ext) => ext.label(),
        }
    }

    /// The content of a file in the root, of at most `most` bytes; `None` where there is no such file.
    /// Capital letters and small ones are the same, except on ext.
    pub(super) fn read(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>, Fault> {
        match self {
            Self::Fat(fat) => fat.read(name, most),
            Self::Iso(iso) => iso.read(name, most),
            Self::Ext(ext) => ext.read(name, most),
        }
    }
}

/// Reads `length` bytes at `offset`; the caller has bounded the length.
pub(super) fn read_vec(medium: &dyn Medium, offset: u64, length: usize) -> Result<Vec<u8>, Fault> {
    let mut bytes = vec![0; length];
    medium.read_at(offset, &mut bytes)?;
    Ok(bytes)
}

/// Reads the block at `offset`; `None` beyond the medium's end, as where a small disk has no such place.
pub(super) fn read_if_there<const LENGTH: usize>(
    medium: &dyn Medium,
    offset: u64,
) -> Result<Option<[u8; LENGTH]>, Fault> {
    let mut bytes = [0; LENGTH];
    match medium.read_at(offset, &mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A little-endian number within a block; zero outside of it.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u16::from_le_bytes(*field))
}

/// See [`u16_at`].
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u32::from_le_bytes(*field))
}

/// A label's field as text, without what pads it.
pub(super) fn label_of(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    text.trim_end_matches('\0').trim().to_owned()
}
