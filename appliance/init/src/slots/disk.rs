//! The disk that the machine was booted from, found by its table.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, fadvise};

use super::store::{Medium, Store};
use super::table::{TABLE_BYTES, TABLE_OFFSET, Table};
use super::{Slot, SlotsError};
use crate::config::{cmdline_value, disk};

/// The parameter of the kernel's command line by which boot loaders say what they have booted.
const PARAMETER: &str = "wow.slot";

/// The slot that this machine was booted from.
pub fn booted() -> Result<Slot, SlotsError> {
    let slot = cmdline_value(PARAMETER).and_then(|letter| Slot::by_letter(&letter));
    slot.ok_or(SlotsError::NotBootedFromSlots)
}

/// Finds the disk and reads its table. May wait for slow disks: not for an event loop's thread.
pub fn open() -> Result<Store<File>, SlotsError> {
    booted()?;
    let class = Path::new("/sys/class/block");
    let disks = disk::names(class).into_iter();
    let disks = disks.filter(|name| {
        // Neither is ours, and drives without a medium take seconds to say so.
        let is_removable = name.starts_with("fd") || name.starts_with("sr");
        !is_removable && !class.join(name).join("partition").exists()
    });
    let with_table = |name: &String| {
        let mut sector = [0; TABLE_BYTES];
        let file = File::open(Path::new("/dev").join(name)).ok()?;
        file.read_exact_at(&mut sector, TABLE_OFFSET).ok()?;
        Table::parse(&sector).map(drop)
    };
    let found: Vec<String> = disks.filter(|name| with_table(name).is_some()).collect();
    let name = match &found[..] {
        [] => return Err(SlotsError::NoDisk),
        [one] => one,
        several => return Err(SlotsError::Ambiguous(several.join(", "))),
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(Path::new("/dev").join(name));
    Store::open(file.map_err(|error| SlotsError::Io("cannot be opened", error))?)
}

impl Medium for File {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sync_data()?;
        // What is read next comes from the disk, and not from the kernel's memory of it.
        Ok(fadvise(&*self, 0, None, Advice::DontNeed)?)
    }
}
