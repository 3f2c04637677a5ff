//! The table of slots: one sector. `builder/src/disk/slots.rs` says in words what lies where; a fixture holds
//! both to the same bytes.

use super::checksum::crc32;
use super::{Slot, SlotsError};

/// A sector, which is written whole or not at all.
pub(super) const SECTOR_BYTES: u64 = 512;
/// Where the table lies on the disk.
pub(super) const TABLE_OFFSET: u64 = 40 * SECTOR_BYTES;
pub(super) const TABLE_BYTES: usize = SECTOR_BYTES as usize;

const MAGIC: &[u8; 8] = b"WOWSLOTS";
const VERSION: u8 = 1;
const AT_DEFAULT: usize = 9;
const AT_TRIAL: usize = 10;
const AT_WITHIN: usize = 12;
const AT_RECORDS: usize = 16;
const RECORD_BYTES: usize = 96;
const AT_CHECKSUM: usize = 508;
const VERSION_BYTES: usize = 32;
/// A slot larger than this is no slot of ours.
const SLOT_SECTORS_MAX: u32 = (64 << 20) / SECTOR_BYTES as u32;

/// How far a trial is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// There is none.
    None,
    /// The other slot is to be booted, once.
    Pending,
    /// It was. Whoever booted it wrote this.
    Booted,
    /// Its process 1 has given up: it had not joined in time.
    GivenUp,
}

/// A slot's kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its length, the mark included.
    pub length_bytes: u32,
    /// Its checksum.
    pub crc32: u32,
    /// Its digest.
    pub sha256: [u8; 32],
    /// Its version, as its mark says.
    pub version: String,
}

/// Where a slot lies, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) first_sector: u64,
    pub(super) sectors: u32,
    pub(super) kernel: Option<Kernel>,
}

impl Record {
    pub(super) fn room_bytes(&self) -> u64 {
        u64::from(self.sectors) * SECTOR_BYTES
    }

    pub(super) fn offset(&self) -> u64 {
        self.first_sector * SECTOR_BYTES
    }
}

/// How things stand for the machine that runs one of the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It runs what it boots.
    Settled,
    /// At the next start the other slot is tried.
    Pending,
    /// It runs a slot that has yet to be confirmed.
    OnTrial,
    /// The other slot was tried, and nothing more was heard of it.
    Died,
    /// The other slot was tried, and did not join in time.
    TooLate,
    /// It does not run what it is to boot, since that could not be started.
    Stray,
}

/// The table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The slot that is booted.
    pub default: Slot,
    /// The trial of the other one.
    pub trial: Trial,
    /// How long a trial may take to join, in seconds since the machine's start.
    pub within_s: u32,
    pub(super) records: [Record; 2],
}

impl Table {
    /// What is in a slot.
    pub fn kernel(&self, slot: Slot) -> Option<&Kernel> {
        self.records[slot.index()].kernel.as_ref()
    }

    /// Bytes that a kernel in a slot may have.
    pub fn room_bytes(&self, slot: Slot) -> u64 {
        self.records[slot.index()].room_bytes()
    }

    /// How things stand for the machine that runs `running`.
    pub fn standing(&self, running: Slot) -> Standing {
        match (running == self.default, self.trial) {
            (true, Trial::None) => Standing::Settled,
            (true, Trial::Pending) => Standing::Pending,
            (true, Trial::Booted) => Standing::Died,
            (true, Trial::GivenUp) => Standing::TooLate,
            (false, Trial::Booted) => Standing::OnTrial,
            (false, _) => Standing::Stray,
        }
    }

    /// The table in a sector; `None` where there is something else.
    pub(super) fn parse(sector: &[u8; TABLE_BYTES]) -> Option<Result<Self, SlotsError>> {
        sector
            .starts_with(MAGIC)
            .then(|| Self::parse_own(sector).ok_or(SlotsError::Damaged))
    }

    /// Makes of any sector one with magic and the right sum, so that the rest of it is looked at.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn seal(sector: &mut [u8; TABLE_BYTES]) {
        sector[..8].copy_from_slice(MAGIC);
        sector[8] = VERSION;
        let trial = std::mem::take(&mut sector[AT_TRIAL]);
        let sum = crc32(&sector[..AT_CHECKSUM]);
        sector[AT_CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
        sector[AT_TRIAL] = trial;
    }

    fn parse_own(sector: &[u8; TABLE_BYTES]) -> Option<Self> {
        let mut summed = *sector;
        summed[AT_TRIAL] = 0;
        let sum = crc32(&summed[..AT_CHECKSUM]);
        if sector[8] != VERSION || u32_at(sector, AT_CHECKSUM) != sum {
            return None;
        }
        let default = match sector[AT_DEFAULT] {
            0 => Slot::A,
            1 => Slot::B,
            _ => return None,
        };
        let trial = match sector[AT_TRIAL] {
            0 => Trial::None,
            1 => Trial::Pending,
            2 => Trial::Booted,
            3 => Trial::GivenUp,
            _ => return None,
        };
        let record = |slot: Slot| {
            let at = AT_RECORDS + slot.index() * RECORD_BYTES;
            parse_record(&sector[at..at + RECORD_BYTES])
        };
        let records = [record(Slot::A)?, record(Slot::B)?];
        let [one, other] = &records;
        let end = |record: &Record| record.first_sector.checked_add(record.sectors.into());
        // Neither within the other, nor over the table.
        let apart = end(one)? <= other.first_sector || end(other)? <= one.first_sector;
        let behind = records.iter().all(|record| record.offset() > TABLE_OFFSET);
        (apart && behind).then_some(Self {
            default,
            trial,
            within_s: u32_at(sector, AT_WITHIN),
            records,
        })
    }

    /// The sector that holds it.
    pub(super) fn to_sector(&self) -> [u8; TABLE_BYTES] {
        let mut sector = [0; TABLE_BYTES];
        sector[..8].copy_from_slice(MAGIC);
        sector[8] = VERSION;
        sector[AT_DEFAULT] = self.default.index() as u8;
        sector[AT_WITHIN..AT_WITHIN + 4].copy_from_slice(&self.within_s.to_le_bytes());
        for (record, bytes) in self
            .records
            .iter()
            .zip(sector[AT_RECORDS..].chunks_exact_mut(RECORD_BYTES))
        {
            bytes[..8].copy_from_slice(&record.first_sector.to_le_bytes());
            bytes[8..12].copy_from_slice(&record.sectors.to_le_bytes());
            let Some(kernel) = &record.kernel else {
                continue;
            };
            bytes[12..16].copy_from_slice(&kernel.length_bytes.to_le_bytes());
            bytes[16..20].copy_from_slice(&kernel.crc32.to_le_bytes());
            bytes[20..52].copy_from_slice(&kernel.sha256);
            let length = kernel.version.len().min(VERSION_BYTES);
            bytes[52..52 + length].copy_from_slice(&kernel.version.as_bytes()[..length]);
        }
        let sum = crc32(&sector[..AT_CHECKSUM]);
        sector[AT_CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
        sector[AT_TRIAL] = match self.trial {
            Trial::None => 0,
            Trial::Pending => 1,
            Trial::Booted => 2,
            Trial::GivenUp => 3,
        };
        sector
    }
}

fn parse_record(bytes: &[u8]) -> Option<Record> {
    let first_sector = u64_at(bytes, 0);
    let sectors = u32_at(bytes, 8);
    let possible = first_sector <= u64::from(u32::MAX) && (1..=SLOT_SECTORS_MAX).contains(&sectors);
    let length_bytes = u32_at(bytes, 12);
    let fits = u64::from(length_bytes) <= u64::from(sectors) * SECTOR_BYTES;
    let kernel = (length_bytes > 0).then(|| Kernel {
        length_bytes,
        crc32: u32_at(bytes, 16),
        sha256: *bytes[20..].first_chunk().expect("records are longer"),
        version: text(&bytes[52..52 + VERSION_BYTES]),
    });
    (possible && fits).then_some(Record {
        first_sector,
        sectors,
        kernel,
    })
}

/// A field of text without its padding, fit to be shown.
pub(super) fn text(field: &[u8]) -> String {
    let printable = |byte: &&u8| byte.is_ascii_graphic();
    let letters = field.iter().take_while(printable);
    letters.map(|byte| char::from(*byte)).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes[at..].first_chunk();
    u32::from_le_bytes(*field.expect("tables are longer than their fields"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes[at..].first_chunk();
    u64::from_le_bytes(*field.expect("tables are longer than their fields"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIXTURE: &[u8; TABLE_BYTES] = include_bytes!("fixtures/table.bin");

    fn fixture() -> Table {
        Table::parse(FIXTURE).unwrap().unwrap()
    }

    #[test]
    fn the_builders_table_is_read_and_written_the_same() {
        let table = fixture();
        assert_eq!((table.default, table.trial), (Slot::A, Trial::None));
        assert_eq!(table.room_bytes(Slot::B), 7 << 20);
        let kernel = table.kernel(Slot::A).unwrap();
        assert_eq!(kernel.length_bytes, 640);
        assert_eq!(kernel.sha256, [7; 32]);
        assert_eq!(kernel.version, "0.1.0-0123456789ab");
        assert_eq!(table.kernel(Slot::B), None);
        assert_eq!(&table.to_sector(), FIXTURE);
    }

    #[test]
    fn only_the_trials_state_may_be_changed_by_boot_code() {
        for at in 8..TABLE_BYTES {
            let mut sector = *FIXTURE;
            sector[at] ^= 1;
            let parsed = Table::parse(&sector).unwrap();
            assert_eq!(parsed.is_ok(), at == AT_TRIAL, "byte {at}");
        }
    }

    #[test]
    fn how_things_stand_follows_from_what_runs() {
        for (trial, as_default, as_other) in [
            (Trial::None, Standing::Settled, Standing::Stray),
            (Trial::Pending, Standing::Pending, Standing::Stray),
            (Trial::Booted, Standing::Died, Standing::OnTrial),
            (Trial::GivenUp, Standing::TooLate, Standing::Stray),
        ] {
            let table = Table { trial, ..fixture() };
            assert_eq!(table.standing(Slot::A), as_default);
            assert_eq!(table.standing(Slot::B), as_other);
        }
    }

    proptest! {
        #[test]
        fn any_sector_is_a_table_that_comes_back_or_refused(
            sector in proptest::collection::vec(any::<u8>(), TABLE_BYTES),
            plausible in any::<bool>(),
        ) {
            let mut sector: [u8; TABLE_BYTES] = sector.try_into().unwrap();
            if plausible {
                sector[AT_DEFAULT] &= 1;
                sector[AT_TRIAL] &= 3;
                Table::seal(&mut sector);
            }
            if let Some(Ok(table)) = Table::parse(&sector) {
                let again = Table::parse(&table.to_sector()).unwrap().unwrap();
                prop_assert_eq!(again, table);
            }
        }
    }
}
