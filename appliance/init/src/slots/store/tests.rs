//! Updates on a disk in memory that loses its power: after any of its writes, and with any part of those that were
//! not yet flushed.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::super::checksum::crc32;
use super::super::image::Mark;
use super::super::image::testing::image;
use super::super::table::{Record, SECTOR_BYTES};
use super::*;

const SECTOR: usize = SECTOR_BYTES as usize;
/// Room in a slot: enough for the images here.
const SLOT_SECTORS: u32 = 12;
const FIRST: [u64; 2] = [60, 90];
const DISK_BYTES: usize = 110 * SECTOR;
const WITHIN_S: u32 = 120;

/// The twin of a disk: what it keeps, and what it was told since it kept all.
#[derive(Debug, Clone)]
struct Disk {
    kept: Vec<u8>,
    /// Sectors in the order of their writes.
    cached: Vec<(usize, Vec<u8>)>,
    /// Everything that was ever on the way: sectors, and `None` for a flush.
    log: Vec<Option<(usize, Vec<u8>)>>,
    /// Writes until it fails.
    fails_after: Option<usize>,
}

impl Disk {
    /// As the builder makes it: a kernel in the first slot.
    fn fresh() -> Self {
        let kernel = old_image();
        let record = |first_sector, kernel| Record {
            first_sector,
            sectors: SLOT_SECTORS,
            kernel,
        };
        let table = Table {
            default: Slot::A,
            trial: Trial::None,
            within_s: 0,
            records: [
                record(FIRST[0], Some(described(&kernel))),
                record(FIRST[1], None),
            ],
        };
        let mut kept = vec![0; DISK_BYTES];
        let at = |offset: u64| offset as usize;
        kept[at(TABLE_OFFSET)..][..TABLE_BYTES].copy_from_slice(&table.to_sector());
        kept[FIRST[0] as usize * SECTOR..][..kernel.len()].copy_from_slice(&kernel);
        Self {
            kept,
            cached: Vec::new(),
            log: Vec::new(),
            fails_after: None,
        }
    }

    /// The same after the power was cut.
    fn after(kept: Vec<u8>) -> Self {
        Self {
            kept,
            ..Self::fresh()
        }
    }
}

impl Medium for Disk {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut seen = self.kept.clone();
        for (at, sector) in &self.cached {
            seen[*at..at + SECTOR].copy_from_slice(sector);
        }
        let at = offset as usize;
        buffer.copy_from_slice(&seen[at..at + buffer.len()]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // A disk knows nothing but sectors.
        let first = offset as usize / SECTOR * SECTOR;
        let end = (offset as usize + bytes.len()).next_multiple_of(SECTOR);
        let mut whole = vec![0; end - first];
        self.read_at(first as u64, &mut whole)?;
        whole[offset as usize - first..][..bytes.len()].copy_from_slice(bytes);
        for (index, sector) in whole.chunks(SECTOR).enumerate() {
            if let Some(left) = &mut self.fails_after {
                *left = left.checked_sub(1).ok_or(io::ErrorKind::Other)?;
            }
            let write = (first + index * SECTOR, sector.to_vec());
            self.log.push(Some(write.clone()));
            self.cached.push(write);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        for (at, sector) in self.cached.drain(..) {
            self.kept[at..at + SECTOR].copy_from_slice(&sector);
        }
        self.log.push(None);
        Ok(())
    }
}

fn old_image() -> Vec<u8> {
    image(3000, 1, "old")
}

fn new_image() -> Vec<u8> {
    image(4000, 2, "new")
}

fn described(kernel: &[u8]) -> Kernel {
    Kernel {
        length_bytes: kernel.len() as u32,
        crc32: crc32(kernel),
        sha256: Sha256::digest(kernel).into(),
        version: Mark::of(kernel).unwrap().version,
    }
}

/// Updates as the router does, in pieces.
fn update(store: &mut Store<Disk>, running: Slot, image: &[u8]) -> Result<String, SlotsError> {
    let mut upload = store.begin(running, image.len() as u64)?;
    for piece in image.chunks(FIRST_BYTES_MIN + 300) {
        store.write(&mut upload, piece)?;
    }
    store.finish(upload, &Sha256::digest(image).into(), WITHIN_S)
}

/// Who boots the machine.
#[derive(Debug, Clone, Copy)]
enum Loader {
    /// Boot code: it looks at the magic alone, and checks no kernel.
    Bios,
    /// Ours for UEFI: it starts what has the right sum, the other slot if need be.
    Uefi,
}

/// Boots a disk, as `boot_code.rs` and `loader.c` do. The slot and its kernel; it must be whole.
fn boot(disk: &mut [u8], loader: Loader) -> (Slot, Vec<u8>) {
    let at = TABLE_OFFSET as usize;
    let sector: &mut [u8] = &mut disk[at..at + TABLE_BYTES];
    assert!(sector.starts_with(b"WOWSLOTS"));
    let mut slot = [Slot::A, Slot::B][usize::from(sector[9])];
    if sector[10] == 1 {
        sector[10] = 2;
        slot = slot.other();
    }
    let table = Table::parse(sector.first_chunk().unwrap())
        .unwrap()
        .unwrap();
    let whole = |slot: Slot| {
        let kernel = table.kernel(slot)?;
        let from = FIRST[slot.index()] as usize * SECTOR;
        let bytes = disk[from..from + kernel.length_bytes as usize].to_vec();
        (crc32(&bytes) == kernel.crc32).then_some(bytes)
    };
    if matches!(loader, Loader::Uefi) && whole(slot).is_none() {
        slot = slot.other();
    }
    let kernel =
        whole(slot).unwrap_or_else(|| panic!("{loader:?} boots slot {slot}, which is damaged"));
    (slot, kernel)
}

/// Whatever a power cut has left boots the old kernel, or the new one once and then the old one; and
/// can be updated after that.
fn check_boots(kept: &[u8]) {
    for loader in [Loader::Bios, Loader::Uefi] {
        let mut disk = kept.to_vec();
        let (slot, kernel) = boot(&mut disk, loader);
        if slot == Slot::B {
            assert!(kernel == new_image());
            let (slot, kernel) = boot(&mut disk, loader);
            assert!((slot, kernel) == (Slot::A, old_image()), "no trial lasts");
        } else {
            assert!(kernel == old_image());
        }
        let mut store = Store::open(Disk::after(disk)).unwrap();
        update(&mut store, Slot::A, &new_image()).unwrap();
        let mut disk = store.medium.kept;
        assert_eq!(boot(&mut disk, loader).0, Slot::B);
    }
}

#[test]
fn an_update_runs_once_and_stays_when_it_is_confirmed() {
    for loader in [Loader::Bios, Loader::Uefi] {
        let mut store = Store::open(Disk::fresh()).unwrap();
        assert_eq!(update(&mut store, Slot::A, &new_image()).unwrap(), "new");
        assert_eq!(store.table().standing(Slot::A), Standing::Pending);
        let mut disk = store.medium.kept;
        assert!(boot(&mut disk, loader) == (Slot::B, new_image()));
        let mut store = Store::open(Disk::after(disk)).unwrap();
        assert_eq!(store.table().standing(Slot::B), Standing::OnTrial);
        assert_eq!(store.table().within_s, WITHIN_S);
        store.confirm(Slot::B).unwrap();
        let mut disk = store.medium.kept;
        for _ in 0..3 {
            assert!(boot(&mut disk, loader) == (Slot::B, new_image()));
        }
        // And the next one goes to the first slot.
        let mut store = Store::open(Disk::after(disk)).unwrap();
        assert_eq!(store.begin(Slot::B, 2000).unwrap().slot(), Slot::A);
    }
}

#[test]
fn an_update_that_is_not_confirmed_runs_once() {
    for given_up in [false, true] {
        let mut store = Store::open(Disk::fresh()).unwrap();
        update(&mut store, Slot::A, &new_image()).unwrap();
        let mut disk = store.medium.kept;
        assert_eq!(boot(&mut disk, Loader::Bios).0, Slot::B);
        let mut store = Store::open(Disk::after(disk)).unwrap();
        if given_up {
            store.give_up().unwrap();
        }
        let mut disk = store.medium.kept;
        assert!(boot(&mut disk, Loader::Bios) == (Slot::A, old_image()));
        let store = Store::open(Disk::after(disk)).unwrap();
        let expected = if given_up {
            Standing::TooLate
        } else {
            Standing::Died
        };
        assert_eq!(store.table().standing(Slot::A), expected);
        assert_eq!(store.table().kernel(Slot::B).unwrap().version, "new");
    }
}

#[test]
fn no_update_begins_over_another_one() {
    let mut store = Store::open(Disk::fresh()).unwrap();
    update(&mut store, Slot::A, &new_image()).unwrap();
    let error = store.begin(Slot::A, 2000).unwrap_err().to_string();
    assert!(error.contains("version new is written"), "{error}");
    let mut disk = store.medium.kept;
    boot(&mut disk, Loader::Bios);
    let mut store = Store::open(Disk::after(disk)).unwrap();
    let error = store.begin(Slot::B, 2000).unwrap_err().to_string();
    assert!(error.contains("version new is on trial"), "{error}");
}

#[test]
fn what_is_no_image_or_not_whole_is_never_put_on_trial() {
    let good = new_image();
    let check = |image: &[u8], announced: u64, digest: [u8; 32], reason: &str| {
        let mut store = Store::open(Disk::fresh()).unwrap();
        let written = store.begin(Slot::A, announced).and_then(|mut upload| {
            for piece in image.chunks(1500) {
                store.write(&mut upload, piece)?;
            }
            store.finish(upload, &digest, WITHIN_S)
        });
        let error = written.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        check_boots(&store.medium.kept);
        assert_eq!(store.table().trial, Trial::None);
    };
    let length = good.len() as u64;
    let digest = |image: &[u8]| Sha256::digest(image).into();
    check(&good[..3000], length, digest(&good), "3000 of 4128 bytes");
    check(&good, length - 100, digest(&good), "has room for");
    check(&good, 1 << 40, digest(&good), "has room for");
    check(&good, length, [7; 32], "damaged on its way");
    check(&[9; 2000], 2000, digest(&[9; 2000]), "no Linux kernel");
    check(&good[..500], 500, digest(&good[..500]), "too short");
    check(&good[..4000], 4000, digest(&good[..4000]), "no mark");
}

#[test]
fn a_disk_that_fails_at_any_write_keeps_booting() {
    for fails_after in 0..30 {
        let mut disk = Disk::fresh();
        disk.fails_after = Some(fails_after);
        let mut store = Store::open(disk).unwrap();
        let failed = update(&mut store, Slot::A, &new_image());
        match failed {
            Ok(_) => assert!(fails_after >= 11, "the writes were counted wrong"),
            Err(error) => assert!(error.to_string().contains("failing"), "{error}"),
        }
        check_boots(&store.medium.kept);
    }
}

#[test]
fn a_disk_that_keeps_nothing_is_noticed() {
    struct Forgetful(Disk);
    impl Medium for Forgetful {
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset, buffer)
        }
        fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut disk = Disk::fresh();
    let mut table = read_table(&mut disk).unwrap();
    table.trial = Trial::Booted;
    disk.write_at(TABLE_OFFSET, &table.to_sector()).unwrap();
    let mut store = Store::open(Forgetful(disk)).unwrap();
    assert!(matches!(store.confirm(Slot::B), Err(SlotsError::NotKept)));
}

#[test]
fn a_slot_that_could_not_be_started_is_what_is_written_over() {
    let mut disk = Disk::fresh();
    let mut table = read_table(&mut disk).unwrap();
    let kernel = new_image();
    table.default = Slot::B;
    table.records[1].kernel = Some(described(&kernel));
    disk.kept[TABLE_OFFSET as usize..][..TABLE_BYTES].copy_from_slice(&table.to_sector());
    // Nothing of it is there, so UEFI starts the other one.
    assert_eq!(boot(&mut disk.kept, Loader::Uefi).0, Slot::A);
    let mut store = Store::open(disk).unwrap();
    assert_eq!(store.table().standing(Slot::A), Standing::Stray);
    update(&mut store, Slot::A, &kernel).unwrap();
    check_boots(&store.medium.kept);
}

/// All writes of an update, and of what its trial writes after.
fn all_writes(confirmed: bool) -> Vec<Option<(usize, Vec<u8>)>> {
    let mut store = Store::open(Disk::fresh()).unwrap();
    update(&mut store, Slot::A, &new_image()).unwrap();
    if !confirmed {
        return store.medium.log;
    }
    let mut log = store.medium.log;
    let mut disk = store.medium.kept;
    boot(&mut disk, Loader::Bios);
    let mut store = Store::open(Disk::after(disk)).unwrap();
    store.confirm(Slot::B).unwrap();
    log.extend(store.medium.log);
    log
}

proptest! {
    #[test]
    fn wherever_the_power_is_cut_the_disk_boots_what_is_whole(cut in any::<prop::sample::Index>(), lost in any::<u64>()) {
        let log = all_writes(false);
        let cut = cut.index(log.len() + 1);
        let mut kept = Disk::fresh().kept;
        let flushed = log[..cut].iter().rposition(Option::is_none).map_or(0, |at| at + 1);
        for (index, write) in log[..cut].iter().enumerate() {
            // Of what was not flushed, any part is there, in any order.
            let is_lost = index >= flushed && lost >> ((index - flushed) % 64) & 1 == 1;
            if let Some((at, sector)) = write && !is_lost {
                kept[*at..at + SECTOR].copy_from_slice(sector);
            }
        }
        check_boots(&kept);
    }
}

#[test]
fn wherever_the_power_is_cut_in_a_trial_the_disk_boots() {
    let log = all_writes(true);
    let begun = all_writes(false).len();
    for cut in begun..=log.len() {
        let mut kept = Disk::fresh().kept;
        for (index, write) in log[..cut].iter().enumerate() {
            if index == begun {
                boot(&mut kept, Loader::Bios);
            }
            if let Some((at, sector)) = write {
                kept[*at..at + SECTOR].copy_from_slice(sector);
            }
        }
        for loader in [Loader::Bios, Loader::Uefi] {
            boot(&mut kept.clone(), loader);
        }
    }
}
