//! ISO 9660: a CD-ROM of a few files in one directory that boots by BIOS and by UEFI.
//!
//! Written to the letter of ECMA-119 (level 1) and of El Torito 1.0, whose catalogue names two boot
//! images: isolinux for BIOS, a FAT volume for UEFI. A file may lie within another, so one copy of a
//! kernel is part of that volume and a file of its own. There are no times and no names but 8.3: the
//! same files give the same bytes.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::sparse;

/// Bytes in a sector of a CD-ROM.
pub const SECTOR_BYTES: u64 = 2048;
/// What a directory that is one sector long has room for, with the longest names.
const FILES_MAX: usize = 40;
/// A file's length is a number of 32 bits.
const FILE_BYTES_MAX: u64 = u32::MAX as u64;
/// Sectors of 512 bytes that a BIOS loads of isolinux; it loads the rest itself.
const BIOS_SECTORS: u16 = 4;
/// Where isolinux is told where it lies.
const INFO: std::ops::Range<usize> = 8..64;

// The first sixteen sectors belong to whoever boots the disk otherwise.
const VOLUME: u32 = 16;
const BOOT_RECORD: u32 = 17;
const END: u32 = 18;
const PATHS_LITTLE: u32 = 19;
const PATHS_BIG: u32 = 20;
const DIRECTORY: u32 = 21;
const CATALOGUE: u32 = 22;
const FIRST_FILE: u32 = 23;

/// The catalogue of El Torito as a file, which is a custom.
const CATALOGUE_NAME: &str = "BOOT.CAT";

/// A CD-ROM.
#[derive(Debug)]
pub struct Disc<'a> {
    /// The volume's label: capital letters, digits, `_`, 32 at most.
    pub label: &'a str,
    /// The file that a BIOS starts: isolinux, which is told where it lies.
    pub bios: (&'a str, &'a Path),
    /// The FAT volume that UEFI starts from.
    pub uefi: (&'a str, &'a Path),
    /// Other files. One that [`Disc::uefi`] holds in one piece is not written again.
    pub files: &'a [(&'a str, &'a Path)],
}

/// A file's place: its first sector, and its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    sector: u32,
    bytes: u32,
}

/// Writes the CD-ROM to `to`.
pub fn write(disc: &Disc<'_>, to: &Path) -> io::Result<()> {
    let mut next = FIRST_FILE;
    let mut take = |bytes: u64| {
        let place = Place {
            sector: next,
            bytes: u32::try_from(bytes).map_err(|_| invalid("a file is longer than 4 GiB"))?,
        };
        let sectors = u32::try_from(bytes.div_ceil(SECTOR_BYTES)).map_err(|_| too_large())?;
        next = next.checked_add(sectors).ok_or_else(too_large)?;
        Ok::<_, io::Error>(place)
    };
    let bios = take(length(disc.bios.1)?)?;
    let mut places = vec![(disc.bios.0, bios)];
    let mut written = Vec::new();
    let mut inside = Vec::new();
    for (name, path) in disc.files {
        match position(disc.uefi.1, path)? {
            Some(offset) => inside.push((*name, offset, length(path)?)),
            None => {
                let place = take(length(path)?)?;
                places.push((*name, place));
                written.push((place, *path));
            }
        }
    }
    // Last, since firmware may take it to reach to the disc's end.
    let uefi = take(length(disc.uefi.1)?)?;
    places.push((disc.uefi.0, uefi));
    written.push((uefi, disc.uefi.1));
    for (name, offset, bytes) in inside {
        let within = u32::try_from(offset / SECTOR_BYTES).map_err(|_| too_large())?;
        let place = Place {
            sector: uefi.sector + within,
            bytes: u32::try_from(bytes).map_err(|_| too_large())?,
        };
        places.push((name, place));
    }
    let catalogue = Place {
        sector: CATALOGUE,
        bytes: SECTOR_BYTES as u32,
    };
    places.push((CATALOGUE_NAME, catalogue));
    check(disc.label, &places)?;
    // Records stand in the order of their names.
    places.sort_unstable_by_key(|(name, _)| *name);

    let mut file = BufWriter::new(File::create(to)?);
    file.get_ref().set_len(u64::from(next) * SECTOR_BYTES)?;
    let sectors = [
        (VOLUME, volume(disc.label, next)),
        (BOOT_RECORD, boot_record()),
        (END, end()),
        (PATHS_LITTLE, path_table(DIRECTORY.to_le_bytes(), [1, 0])),
        (PATHS_BIG, path_table(DIRECTORY.to_be_bytes(), [0, 1])),
        (DIRECTORY, directory(&places)),
        (CATALOGUE, boot_catalogue(bios, uefi)),
    ];
    for (sector, content) in sectors {
        file.seek(SeekFrom::Start(u64::from(sector) * SECTOR_BYTES))?;
        file.write_all(&content)?;
    }
    file.seek(SeekFrom::Start(u64::from(bios.sector) * SECTOR_BYTES))?;
    file.write_all(&told(std::fs::read(disc.bios.1)?, bios)?)?;
    file.flush()?;
    let mut file = file.into_inner().map_err(|error| error.into_error())?;
    for (place, path) in written {
        let at = u64::from(place.sector) * SECTOR_BYTES;
        sparse::copy(&mut File::open(path)?, &mut file, at)?;
    }
    Ok(())
}

fn length(path: &Path) -> io::Result<u64> {
    let bytes = std::fs::metadata(path)?.len();
    match bytes <= FILE_BYTES_MAX {
        true => Ok(bytes),
        false => Err(invalid("a file is longer than 4 GiB")),
    }
}

/// Where `whole` holds all of `part` in one piece that begins with a sector; none if it does not.
fn position(whole: &Path, part: &Path) -> io::Result<Option<u64>> {
    let (mut whole, mut part) = (File::open(whole)?, File::open(part)?);
    let (all, bytes) = (whole.metadata()?.len(), part.metadata()?.len());
    if bytes < SECTOR_BYTES {
        return Ok(None);
    }
    let mut begin = [0; SECTOR_BYTES as usize];
    part.read_exact(&mut begin)?;
    let mut sector = begin;
    let last = all.saturating_sub(bytes);
    for at in (0..=last).step_by(SECTOR_BYTES as usize) {
        whole.seek(SeekFrom::Start(at))?;
        if all < at + bytes || whole.read_exact(&mut sector).is_err() {
            return Ok(None);
        }
        if sector == begin {
            part.seek(SeekFrom::Start(SECTOR_BYTES))?;
            if same(&mut whole, &mut part)? {
                return Ok(Some(at));
            }
        }
    }
    Ok(None)
}

/// Whether `whole` goes on as the rest of `part` does.
fn same(whole: &mut File, part: &mut File) -> io::Result<bool> {
    let (mut one, mut other) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = part.read(&mut one)?;
        if count == 0 {
            return Ok(true);
        }
        whole.read_exact(&mut other[..count])?;
        if one[..count] != other[..count] {
            return Ok(false);
        }
    }
}

fn check(label: &str, places: &[(&str, Place)]) -> io::Result<()> {
    let is_plain = |text: &str| {
        let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        !text.is_empty() && text.chars().all(allowed)
    };
    if !is_plain(label) || label.len() > 32 {
        return Err(invalid("a CD-ROM's label has A-Z, 0-9, _ and 32 at most"));
    }
    let is_name = |name: &str| match name.split_once('.') {
        Some((stem, extension)) => {
            is_plain(stem) && stem.len() <= 8 && is_plain(extension) && extension.len() <= 3
        }
        None => false,
    };
    let repeated = (1..places.len()).any(|at| places[..at].iter().any(|p| p.0 == places[at].0));
    if places.len() > FILES_MAX || repeated || !places.iter().all(|(name, _)| is_name(name)) {
        return Err(invalid("a CD-ROM's files have different names of 8.3"));
    }
    Ok(())
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn too_large() -> io::Error {
    invalid("what shall be on the CD-ROM is too much for one")
}

type Sector = [u8; SECTOR_BYTES as usize];

const EMPTY: Sector = [0; SECTOR_BYTES as usize];

fn put(sector: &mut Sector, at: usize, bytes: &[u8]) {
    sector[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A number in both orders of bytes.
fn both32(value: u32) -> [u8; 8] {
    let (little, big) = (value.to_le_bytes(), value.to_be_bytes());
    std::array::from_fn(|at| if at < 4 { little[at] } else { big[at - 4] })
}

fn both16(value: u16) -> [u8; 4] {
    let (little, big) = (value.to_le_bytes(), value.to_be_bytes());
    [little[0], little[1], big[0], big[1]]
}

/// The head of a volume descriptor of this kind.
fn descriptor(kind: u8) -> Sector {
    let mut sector = EMPTY;
    put(&mut sector, 0, &[kind]);
    put(&mut sector, 1, b"CD001\x01");
    sector
}

/// The primary volume descriptor (ECMA-119, 8.4).
fn volume(label: &str, sectors: u32) -> Sector {
    const NOT_SAID: &[u8; 17] = b"0000000000000000\0";
    let mut sector = descriptor(1);
    // Names of systems and people: none, which is blanks.
    sector[8..72].fill(b' ');
    put(&mut sector, 40, label.as_bytes());
    put(&mut sector, 80, &both32(sectors));
    put(&mut sector, 120, &both16(1));
    put(&mut sector, 124, &both16(1));
    put(&mut sector, 128, &both16(SECTOR_BYTES as u16));
    put(&mut sector, 132, &both32(10));
    put(&mut sector, 140, &PATHS_LITTLE.to_le_bytes());
    put(&mut sector, 148, &PATHS_BIG.to_be_bytes());
    put(&mut sector, 156, &record(&[0], root(), true));
    sector[190..813].fill(b' ');
    for at in [813, 830, 847, 864] {
        put(&mut sector, at, NOT_SAID);
    }
    sector[881] = 1;
    sector
}

fn root() -> Place {
    Place {
        sector: DIRECTORY,
        bytes: SECTOR_BYTES as u32,
    }
}

/// What says where El Torito's catalogue is.
fn boot_record() -> Sector {
    let mut sector = descriptor(0);
    put(&mut sector, 7, b"EL TORITO SPECIFICATION");
    put(&mut sector, 71, &CATALOGUE.to_le_bytes());
    sector
}

fn end() -> Sector {
    descriptor(255)
}

/// A path table with the root alone.
fn path_table(sector: [u8; 4], parent: [u8; 2]) -> Sector {
    let mut table = EMPTY;
    table[0] = 1;
    put(&mut table, 2, &sector);
    put(&mut table, 6, &parent);
    table
}

/// The root directory: itself, its parent (itself), the files.
fn directory(places: &[(&str, Place)]) -> Sector {
    let mut sector = EMPTY;
    let mut at = 0;
    let own = [record(&[0], root(), true), record(&[1], root(), true)];
    let files = places.iter().map(|(name, place)| {
        let name = format!("{name};1");
        record(name.as_bytes(), *place, false)
    });
    for record in own.into_iter().chain(files) {
        put(&mut sector, at, &record);
        at += record.len();
    }
    sector
}

/// A directory record (ECMA-119, 9.1).
fn record(name: &[u8], place: Place, is_directory: bool) -> Vec<u8> {
    // 1 January 1970: some readers take no date for a mistake.
    const DATE: [u8; 7] = [70, 1, 1, 0, 0, 0, 0];
    let bytes = (33 + name.len()).next_multiple_of(2);
    let mut record = vec![bytes as u8, 0];
    record.extend(both32(place.sector));
    record.extend(both32(place.bytes));
    record.extend(DATE);
    record.extend([if is_directory { 2 } else { 0 }, 0, 0]);
    record.extend(both16(1));
    record.push(name.len() as u8);
    record.extend(name);
    record.resize(bytes, 0);
    record
}

/// El Torito's catalogue: an entry for BIOS, and a section with one for UEFI.
fn boot_catalogue(bios: Place, uefi: Place) -> Sector {
    const BOOTABLE: u8 = 0x88;
    const LAST_SECTION: u8 = 0x91;
    const EFI: u8 = 0xef;
    let mut sector = EMPTY;
    put(&mut sector, 0, &[1]);
    put(&mut sector, 30, &[0x55, 0xaa]);
    let words = sector[..32].chunks(2);
    let sum = words.fold(0u16, |sum, word| {
        sum.wrapping_add(u16::from_le_bytes([word[0], word[1]]))
    });
    put(&mut sector, 28, &sum.wrapping_neg().to_le_bytes());
    let mut entry = |at: usize, count: u16, place: Place| {
        sector[at] = BOOTABLE;
        put(&mut sector, at + 6, &count.to_le_bytes());
        put(&mut sector, at + 8, &place.sector.to_le_bytes());
    };
    entry(32, BIOS_SECTORS, bios);
    // Zero is what larger volumes have: they reach to the disc's end.
    let count = u16::try_from(uefi.bytes / 512).unwrap_or(0);
    entry(96, count, uefi);
    put(&mut sector, 64, &[LAST_SECTION, EFI, 1, 0]);
    sector
}

/// isolinux with its table: where the volume descriptor and it are, its length and the sum of its words.
fn told(mut loader: Vec<u8>, place: Place) -> io::Result<Vec<u8>> {
    if loader.len() < INFO.end {
        return Err(invalid("isolinux is too short to be one"));
    }
    let words = loader[INFO.end..].chunks(4);
    let sum = words.fold(0u32, |sum, word| {
        let mut full = [0; 4];
        full[..word.len()].copy_from_slice(word);
        sum.wrapping_add(u32::from_le_bytes(full))
    });
    loader[INFO].fill(0);
    for (at, value) in [VOLUME, place.sector, place.bytes, sum].iter().enumerate() {
        let at = INFO.start + at * 4;
        loader[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    Ok(loader)
}

#[cfg(test)]
#[path = "iso/tests.rs"]
mod tests;
