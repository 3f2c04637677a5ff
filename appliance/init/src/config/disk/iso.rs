//! ISO 9660, read only (ECMA-119): the volume descriptors, and the root directory with its names as Joliet,
//! Rock Ridge or the plain standard have them.

use super::volume::{
    DIRECTORY_BYTES_MAX, Fault, Medium, label_of, read_if_there, read_vec, u16_at, u32_at,
};

const SECTOR_BYTES: u64 = 2048;
const FIRST_DESCRIPTOR: u64 = 16;
/// A disk has two or three.
const DESCRIPTORS_MAX: u64 = 16;
/// The root's record within a volume's descriptor, and the fixed part of each record.
const ROOT_RECORD: usize = 156;
const RECORD_BYTES_MIN: usize = 33;
const FLAG_DIRECTORY: u8 = 2;

/// Whose names a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// The standard's, with Rock Ridge's where it is given.
    Plain,
    /// Joliet's: UTF-16, big end first.
    Joliet,
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    sector: u32,
    bytes: u32,
}

impl Extent {
    fn of(record: &[u8]) -> Self {
        Self {
            sector: u32_at(record, 2),
            bytes: u32_at(record, 10),
        }
    }
}

/// An ISO 9660 file system.
pub(super) struct Iso<'m> {
    medium: &'m dyn Medium,
    label: String,
    roots: Vec<(Names, Extent)>,
}

impl<'m> Iso<'m> {
    /// `None` where there are no volume descriptors.
    pub(super) fn open(medium: &'m dyn Medium) -> Result<Option<Self>, Fault> {
        let mut label = None;
        let mut roots = Vec::new();
        for number in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + DESCRIPTORS_MAX {
            let descriptor = read_if_there::<2048>(medium, number * SECTOR_BYTES)?;
            let Some(descriptor) = descriptor.filter(|it| &it[1..6] == b"CD001") else {
                break;
            };
            let root = Extent::of(&descriptor[ROOT_RECORD..]);
            match descriptor[0] {
                1 => {
                    if u64::from(u16_at(&descriptor, 128)) != SECTOR_BYTES {
                        return Err(Fault::Damaged("its blocks are not of 2048 bytes"));
                    }
                    label = Some(label_of(&descriptor[40..72]));
                    roots.push((Names::Plain, root));
                }
                // Joliet names itself by the escape sequence of its letters.
                2 if matches!(&descriptor[88..91], b"%/@" | b"%/C" | b"%/E") => {
                    roots.push((Names::Joliet, root));
                }
                255 => break,
                _ => {}
            }
        }
        Ok(label.map(|label| Iso {
            medium,
            label,
            roots,
        }))
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn read(&self, wanted: &str, most: usize) -> Result<Option<Vec<u8>>, Fault> {
        for (names, root) in &self.roots {
            let bytes = usize::try_from(root.bytes).unwrap_or(usize::MAX);
            let directory = self.extent(*root, bytes.min(DIRECTORY_BYTES_MAX))?;
            let found = records(&directory).find(|record| {
                let known = file_names(record, *names);
                known.iter().any(|name| name.eq_ignore_ascii_case(wanted))
            });
            let Some(record) = found else {
                continue;
            };
            let extent = Extent::of(record);
            let bytes = usize::try_from(extent.bytes).unwrap_or(usize::MAX);
            if bytes > most {
                return Err(Fault::TooLong(most));
            }
            return self.extent(extent, bytes).map(Some);
        }
        Ok(None)
    }

    fn extent(&self, extent: Extent, bytes: usize) -> Result<Vec<u8>, Fault> {
        read_vec(self.medium, u64::from(extent.sector) * SECTOR_BYTES, bytes)
    }
}

/// A directory's records. None crosses a sector; what is left of one is zero.
fn records(directory: &[u8]) -> impl Iterator<Item = &[u8]> {
    directory
        .chunks(SECTOR_BYTES as usize)
        .flat_map(|mut sector| {
            std::iter::from_fn(move || {
                let length = usize::from(*sector.first()?);
                if length < RECORD_BYTES_MIN || length > sector.len() {
                    return None;
                }
                let (record, rest) = sector.split_at(length);
                sector = rest;
                Some(record)
            })
        })
}

/// What a file is called; nothing for a directory.
fn file_names(record: &[u8], names: Names) -> Vec<String> {
    let length = usize::from(record[32]);
    let Some(name) = record.get(RECORD_BYTES_MIN..RECORD_BYTES_MIN + length) else {
        return Vec::new();
    };
    if record[25] & FLAG_DIRECTORY != 0 {
        return Vec::new();
    }
    match names {
        Names::Joliet => {
            let pairs = name.chunks_exact(2);
            let letters: Vec<u16> = pairs.map(|it| u16::from_be_bytes([it[0], it[1]])).collect();
            vec![without_version(&String::from_utf16_lossy(&letters))]
        }
        Names::Plain => {
            let mut known = vec![without_version(&String::from_utf8_lossy(name))];
            // Other fields begin at an even place.
            let rest = record.get((RECORD_BYTES_MIN + length).next_multiple_of(2)..);
            known.extend(rock_ridge(rest.unwrap_or_default()));
            known
        }
    }
}

/// `TICKET.;1` is called TICKET.
fn without_version(name: &str) -> String {
    let name = name.split(';').next().unwrap_or_default();
    name.trim_end_matches('.').to_owned()
}

/// The name in a record's system use fields (IEEE P1282's NM), unless it goes on elsewhere.
fn rock_ridge(mut fields: &[u8]) -> Option<String> {
    /// More letters follow in another field; or it stands for `.` or `..`.
    const CONTINUES_OR_STANDS_FOR: u8 = 0b111;
    while fields.len() >= 4 {
        let (field, rest) = fields.split_at_checked(usize::from(fields[2]))?;
        if field.len() < 4 {
            return None;
        }
        if field.starts_with(b"NM") {
            let flags = *field.get(4)?;
            let name = (flags & CONTINUES_OR_STANDS_FOR == 0).then(|| &field[5..])?;
            return Some(String::from_utf8_lossy(name).into_owned());
        }
        fields = rest;
    }
    None
}
