//! Where things lie on a disk, in sectors of 512 bytes.

/// Bytes in a sector.
pub const SECTOR_BYTES: u64 = 512;
/// The first sector of the first partition: 1 MiB in, aligned for any flash or RAID underneath.
pub const PARTITION_START: u64 = 2048;
/// Sectors at the end: the backup of the partition table.
const BACKUP_SECTORS: u64 = 33;
/// Below this, the file system would have too few clusters for FAT16.
pub const MIN_DISK_MIB: u64 = 6;
const MIB_SECTORS: u64 = (1 << 20) / SECTOR_BYTES;

/// A partition's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Its first sector.
    pub first: u64,
    /// Its last sector.
    pub last: u64,
}

impl Extent {
    /// Its size in sectors.
    pub fn sectors(&self) -> u64 {
        self.last - self.first + 1
    }

    /// The same place counted from `sectors` earlier.
    pub fn after(&self, sectors: u64) -> Self {
        Self {
            first: self.first + sectors,
            last: self.last + sectors,
        }
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.sectors() * SECTOR_BYTES
    }
}

/// The layout of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// All sectors.
    pub sectors: u64,
    /// The partition that firmware boots from.
    pub boot: Extent,
    /// The same for the second slot, where there is one.
    pub second: Option<Extent>,
    /// The root file system's, where there is one; the last on the disk, so that it can grow.
    pub root: Option<Extent>,
}

impl Layout {
    /// A disk of `size_mib`, at least [`MIN_DISK_MIB`], with nothing but a boot partition.
    pub fn new(size_mib: u64) -> Self {
        let sectors = size_mib * MIB_SECTORS;
        // The partition ends on a whole number of kibibytes, as mkfs.fat counts.
        let last = (sectors - BACKUP_SECTORS) / 8 * 8 - 1;
        Self {
            sectors,
            boot: Extent {
                first: PARTITION_START,
                last,
            },
            second: None,
            root: None,
        }
    }

    /// A disk of `size_mib` with two boot partitions of the same size, a slot each.
    pub fn with_slots(size_mib: u64) -> Self {
        let one = Self::new(size_mib);
        let sectors = one.boot.sectors() / 16 * 8;
        let at = |first| Extent {
            first,
            last: first + sectors - 1,
        };
        Self {
            boot: at(PARTITION_START),
            second: Some(at(PARTITION_START + sectors)),
            ..one
        }
    }

    /// The smallest disk for a boot partition of `boot_mib` and a root of `root_bytes`.
    pub fn with_root(boot_mib: u64, root_bytes: u64) -> Self {
        let boot = Extent {
            first: PARTITION_START,
            last: PARTITION_START + boot_mib * MIB_SECTORS - 1,
        };
        let first = boot.last + 1;
        let last = first + root_bytes.div_ceil(SECTOR_BYTES) - 1;
        let sectors = (last + 1 + BACKUP_SECTORS).next_multiple_of(MIB_SECTORS);
        Self {
            sectors,
            boot,
            second: None,
            root: Some(Extent { first, last }),
        }
    }
}
