//! FAT12, FAT16 and FAT32, read only: the boot sector, the root directory with long names, and files as
//! chains of clusters (Microsoft's "FAT: General Overview of On-Disk Format", 1.03).

use super::volume::{
    DIRECTORY_BYTES_MAX, Fault, Medium, label_of, read_if_there, read_vec, u16_at, u32_at,
};

const ENTRY_BYTES: usize = 32;
const ATTRIBUTE_LABEL: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTES_LONG_NAME: u8 = 0x0f;
/// Of a long name, one entry holds so many letters, and a name has at most so many entries.
const LETTERS_AN_ENTRY: usize = 13;
const LONG_ENTRIES_MAX: usize = 20;

/// How wide the entries of the allocation table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Twelve,
    Sixteen,
    ThirtyTwo,
}

/// Where the root directory lies.
#[derive(Debug, Clone, Copy)]
enum Root {
    Region { offset: u64, bytes: usize },
    Chain(u32),
}

/// A FAT file system.
pub(super) struct Fat<'m> {
    medium: &'m dyn Medium,
    width: Width,
    table: u64,
    data: u64,
    cluster_bytes: u64,
    clusters: u32,
    root: Root,
    label: String,
}

impl<'m> Fat<'m> {
    /// `None` where the first sector is not one of FAT's.
    pub(super) fn open(medium: &'m dyn Medium) -> Result<Option<Self>, Fault> {
        let Some(boot) = read_if_there::<512>(medium, 0)? else {
            return Ok(None);
        };
        let sector = u64::from(u16_at(&boot, 11));
        let per_cluster = u64::from(boot[13]);
        let reserved = u64::from(u16_at(&boot, 14));
        let copies = u64::from(boot[16]);
        let is_fat = matches!(boot[0], 0xeb | 0xe9)
            && matches!(sector, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && matches!(copies, 1..=4)
            && u16_at(&boot, 510) == 0xaa55;
        if !is_fat {
            return Ok(None);
        }
        let either = |short: u16, long: u32| match short {
            0 => u64::from(long),
            short => u64::from(short),
        };
        let table_sectors = either(u16_at(&boot, 22), u32_at(&boot, 36));
        let sectors = either(u16_at(&boot, 19), u32_at(&boot, 32));
        let root_bytes = usize::from(u16_at(&boot, 17)) * ENTRY_BYTES;
        let root_sectors = (root_bytes as u64).div_ceil(sector);
        // None of these products comes near to 64 bits: a sector has 12, a count of them 32, copies 3.
        let root = reserved + copies * table_sectors;
        let data = root + root_sectors;
        let clusters = sectors.saturating_sub(data) / per_cluster;
        let clusters = u32::try_from(clusters).map_err(|_| Fault::Damaged("too many clusters"))?;
        let width = match clusters {
            0 => return Err(Fault::Damaged("it has no clusters")),
            1..4085 => Width::Twelve,
            4085..65525 => Width::Sixteen,
            _ => Width::ThirtyTwo,
        };
        let (root, label) = match width {
            Width::ThirtyTwo => (Root::Chain(u32_at(&boot, 44)), &boot[71..82]),
            _ => {
                let region = Root::Region {
                    offset: root * sector,
                    bytes: root_bytes.min(DIRECTORY_BYTES_MAX),
                };
                (region, &boot[43..54])
            }
        };
        let mut fat = Fat {
            medium,
            width,
            table: reserved * sector,
            data: data * sector,
            cluster_bytes: per_cluster * sector,
            clusters,
            root,
            label: label_of(label),
        };
        let directory = fat.directory()?;
        // The root's own entry counts: some programs change only that.
        if let Some(label) = entries(&directory).find_map(|entry| match entry {
            Entry::Label(label) => Some(label),
            Entry::File { .. } => None,
        }) {
            fat.label = label;
        }
        Ok(Some(fat))
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn read(&self, wanted: &str, most: usize) -> Result<Option<Vec<u8>>, Fault> {
        let directory = self.directory()?;
        let found = entries(&directory).find_map(|entry| match entry {
            Entry::File {
                names,
                first,
                bytes,
            } => {
                let is_it = names.iter().any(|name| name.eq_ignore_ascii_case(wanted));
                is_it.then_some((first, bytes))
            }
            Entry::Label(_) => None,
        });
        let Some((first, bytes)) = found else {
            return Ok(None);
        };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if bytes > most {
            return Err(Fault::TooLong(most));
        }
        let content = self.chain(first, bytes)?;
        if content.len() < bytes {
            return Err(Fault::Damaged("a file ends before its length"));
        }
        Ok(Some(content))
    }

    fn directory(&self) -> Result<Vec<u8>, Fault> {
        match self.root {
            Root::Region { offset, bytes } => read_vec(self.medium, offset, bytes),
            Root::Chain(first) => self.chain(first, DIRECTORY_BYTES_MAX),
        }
    }

    /// The first `most` bytes of a chain of clusters, or all if it is shorter. Ends, as each turn adds some.
    fn chain(&self, first: u32, most: usize) -> Result<Vec<u8>, Fault> {
        let mut content = Vec::new();
        let mut cluster = first;
        while content.len() < most {
            // The first two numbers stand for nothing.
            let Some(index) = cluster.checked_sub(2).filter(|&at| at < self.clusters) else {
                return Err(Fault::Damaged("a chain leads out of the file system"));
            };
            let rest = (most - content.len()) as u64;
            let length = usize::try_from(rest.min(self.cluster_bytes))
                .expect("not longer than what is left to read");
            let offset = self.data + u64::from(index) * self.cluster_bytes;
            content.extend(read_vec(self.medium, offset, length)?);
            match self.next(cluster)? {
                Some(next) => cluster = next,
                None => break,
            }
        }
        Ok(content)
    }

    /// The cluster that follows; `None` at a chain's end.
    fn next(&self, cluster: u32) -> Result<Option<u32>, Fault> {
        let at = u64::from(cluster);
        let mut field = [0; 4];
        let (offset, length, end) = match self.width {
            Width::Twelve => (at + at / 2, 2, 0xff8),
            Width::Sixteen => (at * 2, 2, 0xfff8),
            Width::ThirtyTwo => (at * 4, 4, 0x0fff_fff8),
        };
        let field_part = &mut field[..length];
        self.medium.read_at(self.table + offset, field_part)?;
        let value = u32::from_le_bytes(field);
        let value = match self.width {
            Width::Twelve if cluster % 2 == 1 => value >> 4,
            Width::Twelve => value & 0xfff,
            Width::Sixteen => value,
            Width::ThirtyTwo => value & 0x0fff_ffff,
        };
        Ok((value < end).then_some(value))
    }
}

enum Entry {
    Label(String),
    File {
        /// The short name, and the long one where there is one.
        names: Vec<String>,
        first: u32,
        bytes: u32,
    },
}

/// The files and labels of a directory.
fn entries(directory: &[u8]) -> impl Iterator<Item = Entry> {
    let mut long = LongName::default();
    directory
        .chunks_exact(ENTRY_BYTES)
        .take_while(|entry| entry[0] != 0)
        .filter_map(move |entry| {
            let attributes = entry[11];
            if entry[0] == 0xe5 {
                long = LongName::default();
                return None;
            }
            if attributes & 0x3f == ATTRIBUTES_LONG_NAME {
                long.add(entry);
                return None;
            }
            let long = std::mem::take(&mut long);
            if attributes & ATTRIBUTE_LABEL != 0 {
                return Some(Entry::Label(label_of(&entry[..11])));
            }
            if attributes & ATTRIBUTE_DIRECTORY != 0 {
                return None;
            }
            let mut names = vec![short_name(entry)];
            names.extend(long.finish(checksum(&entry[..11])));
            Some(Entry::File {
                names,
                first: u32::from(u16_at(entry, 20)) << 16 | u32::from(u16_at(entry, 26)),
                bytes: u32_at(entry, 28),
            })
        })
}

fn short_name(entry: &[u8]) -> String {
    let (base, extension) = (label_of(&entry[..8]), label_of(&entry[8..11]));
    if extension.is_empty() {
        return base;
    }
    format!("{base}.{extension}")
}

/// Ties a long name's entries to the short one's that follows them.
fn checksum(short: &[u8]) -> u8 {
    short
        .iter()
        .fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// The parts of a long name, which stand last first before the entry that they name.
#[derive(Default)]
struct LongName {
    /// By their number, from 1; a part that is missing spoils the name.
    parts: Vec<[u16; LETTERS_AN_ENTRY]>,
    checksum: u8,
    /// The number of the part that was seen last.
    last: usize,
}

impl LongName {
    fn add(&mut self, entry: &[u8]) {
        let number = usize::from(entry[0] & 0x3f);
        let starts = entry[0] & 0x40 != 0;
        let follows =
            !self.parts.is_empty() && number + 1 == self.last && entry[13] == self.checksum;
        if number == 0 || number > LONG_ENTRIES_MAX || !(starts || follows) {
            *self = Self::default();
            return;
        }
        if starts {
            self.parts.clear();
            self.checksum = entry[13];
        }
        self.last = number;
        let mut letters = [0; LETTERS_AN_ENTRY];
        let places = (1..11)
            .step_by(2)
            .chain((14..26).step_by(2))
            .chain([28, 30]);
        for (letter, at) in letters.iter_mut().zip(places) {
            *letter = u16_at(entry, at);
        }
        self.parts.push(letters);
    }

    fn finish(self, checksum: u8) -> Option<String> {
        if self.last != 1 || checksum != self.checksum {
            return None;
        }
        let letters = self.parts.into_iter().rev().flatten();
        let letters: Vec<u16> = letters.take_while(|letter| *letter != 0).collect();
        String::from_utf16(&letters).ok()
    }
}
