//! The table of an appliance's two slots: one sector between the partition table and the first partition, where
//! boot code, UEFI loader and the appliance itself find it.
//!
//! The first twelve bytes are magic, version, the slot that is booted, and the state of a trial (0: none; 1: boot
//! the other slot once; 2: that was done; 3: and was given up). Boot code changes the state alone. A record of 96 bytes
//! for each slot follows at byte 16, and at byte 508 the CRC-32 of all before, the state taken as zero. Numbers are
//! little-endian. `wow-init` reads and changes the table; a fixture holds both to the same bytes.

use super::layout::{Extent, SECTOR_BYTES};
use crate::mark::{Mark, TEXT_BYTES};

/// Where the table lies on the disk, in sectors: on a page's boundary, with nothing else in the page.
pub const TABLE_LBA: u64 = 40;

const MAGIC: &[u8; 8] = b"WOWSLOTS";
const VERSION: u8 = 1;
const RECORDS: usize = 16;
const RECORD_BYTES: usize = 96;
const CHECKSUM: usize = 508;

/// One slot: where its kernel lies, and which that is.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The sectors that the kernel may take.
    pub place: Extent,
    /// The kernel, where there is one.
    pub kernel: Option<Kernel>,
}

/// A kernel in a slot.
#[derive(Debug, Clone)]
pub struct Kernel {
    length_bytes: u32,
    crc32: u32,
    sha256: [u8; 32],
    version: [u8; TEXT_BYTES],
}

impl Kernel {
    /// What the table says of this kernel.
    pub fn of(bytes: &[u8], mark: &Mark) -> Self {
        Self {
            // The definition bounds a kernel to less.
            length_bytes: u32::try_from(bytes.len()).unwrap_or(0),
            crc32: crc32fast::hash(bytes),
            sha256: *crate::digest::Digest::of(bytes).as_bytes(),
            version: mark.version(),
        }
    }
}

/// The table's sector; the first slot is booted.
pub fn table(slots: &[Slot; 2]) -> [u8; SECTOR_BYTES as usize] {
    let mut table = [0; SECTOR_BYTES as usize];
    table[..8].copy_from_slice(MAGIC);
    table[8] = VERSION;
    for (slot, record) in slots
        .iter()
        .zip(table[RECORDS..].chunks_exact_mut(RECORD_BYTES))
    {
        record[..8].copy_from_slice(&slot.place.first.to_le_bytes());
        let sectors = u32::try_from(slot.place.sectors()).unwrap_or(u32::MAX);
        record[8..12].copy_from_slice(&sectors.to_le_bytes());
        let Some(kernel) = &slot.kernel else {
            continue;
        };
        record[12..16].copy_from_slice(&kernel.length_bytes.to_le_bytes());
        record[16..20].copy_from_slice(&kernel.crc32.to_le_bytes());
        record[20..52].copy_from_slice(&kernel.sha256);
        record[52..52 + TEXT_BYTES].copy_from_slice(&kernel.version);
    }
    let sum = crc32fast::hash(&table[..CHECKSUM]);
    table[CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `wow-init` reads in its tests.
    const FIXTURE: &[u8] = include_bytes!("../../../appliance/init/src/slots/fixtures/table.bin");

    #[test]
    fn the_table_is_what_the_appliance_reads() {
        let mut version = [0; TEXT_BYTES];
        version[..18].copy_from_slice(b"0.1.0-0123456789ab");
        let kernel = Kernel {
            length_bytes: 640,
            crc32: 0x0102_0304,
            sha256: [7; 32],
            version,
        };
        let place = |first| Extent {
            first,
            last: first + 14_335,
        };
        let slots = [
            Slot {
                place: place(2600),
                kernel: Some(kernel),
            },
            Slot {
                place: place(18_000),
                kernel: None,
            },
        ];
        assert!(
            table(&slots) == FIXTURE,
            "the layout changed: raise its version"
        );
    }
}
