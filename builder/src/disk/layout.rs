//! Where things lie on a disk, in sectors of 512 bytes.

/// Bytes in a sector.
pub const SECTOR_BYTES: u64 = 512;
/// The first sector of the partition: 1 MiB in, aligned for any flash or RAID underneath.
pub const PARTITION_START: u64 = 2048;
/// Sectors at the end: the backup of the partition table.
const BACKUP_SECTORS: u64 = 33;
/// Below this, the file system would have too few clusters for FAT16.
pub const MIN_DISK_MIB: u64 = 6;

/// The layout of a disk of a given size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// All sectors.
    pub sectors: u64,
    /// The partition's first sector.
    pub first: u64,
    /// The partition's last sector.
    pub last: u64,
}

impl Layout {
    /// The layout of a disk of `size_mib`, which is at least [`MIN_DISK_MIB`].
    pub fn new(size_mib: u64) -> Self {
        let sectors = (size_mib << 20) / SECTOR_BYTES;
        // The partition ends on a whole number of kibibytes, as mkfs.fat counts.
        let last = (sectors - BACKUP_SECTORS) / 8 * 8 - 1;
        Self {
            sectors,
            first: PARTITION_START,
            last,
        }
    }

    /// The partition's size in sectors.
    pub fn partition_sectors(&self) -> u64 {
        self.last - self.first + 1
    }
}
