//! Writes to the disk with the slots, in an order in which each of them may be the last: at any moment the disk boots
//! a kernel that is whole.

use std::io;

use super::checksum::Crc32;
use super::image::{FIRST_BYTES_MIN, Passing, check_head};
use super::table::{Kernel, Standing, TABLE_BYTES, TABLE_OFFSET, Table, Trial};
use super::{Slot, SlotsError};

/// Read back at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Something with bytes at offsets that keeps them.
pub trait Medium {
    /// Fills the buffer, or fails.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all, or fails.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when what was written is kept, whatever happens. What is read after comes from there.
    fn flush(&mut self) -> io::Result<()>;
}

/// A disk with slots.
#[derive(Debug)]
pub struct Store<M> {
    medium: M,
    table: Table,
}

/// An image on its way into a slot.
#[derive(Debug)]
pub struct Upload {
    slot: Slot,
    length: u64,
    written: u64,
}

impl Upload {
    /// The slot that it is written to.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Bytes so far.
    pub fn written_bytes(&self) -> u64 {
        self.written
    }
}

impl<M: Medium> Store<M> {
    /// Reads the table.
    pub fn open(mut medium: M) -> Result<Self, SlotsError> {
        let table = read_table(&mut medium)?;
        Ok(Self { medium, table })
    }

    /// What the disk says.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Begins to write `length` bytes to the slot that does not run. What was in it is gone from here on.
    pub fn begin(&mut self, running: Slot, length: u64) -> Result<Upload, SlotsError> {
        let slot = running.other();
        let version = |slot: Slot| {
            let kernel = self.table.kernel(slot);
            kernel.map_or_else(|| "?".into(), |kernel| kernel.version.clone())
        };
        match self.table.standing(running) {
            Standing::OnTrial => return Err(SlotsError::OnTrial(version(running))),
            Standing::Pending => return Err(SlotsError::Pending(version(slot))),
            Standing::Settled | Standing::Died | Standing::TooLate | Standing::Stray => {}
        }
        let room = self.table.room_bytes(slot);
        if length > room {
            return Err(SlotsError::TooLong {
                bytes: length,
                room,
            });
        }
        let mut table = Table {
            // Where the other one could not be started, that is what is written over now.
            default: running,
            trial: Trial::None,
            ..self.table.clone()
        };
        table.records[slot.index()].kernel = None;
        self.put(table)?;
        Ok(Upload {
            slot,
            length,
            written: 0,
        })
    }

    /// Writes the next bytes of an image. The first ones must be [`FIRST_BYTES_MIN`] at least.
    pub fn write(&mut self, upload: &mut Upload, bytes: &[u8]) -> Result<(), SlotsError> {
        let after = upload.written + bytes.len() as u64;
        if after > upload.length {
            return Err(SlotsError::TooLong {
                bytes: after,
                room: upload.length,
            });
        }
        if upload.written == 0 {
            if bytes.len() < FIRST_BYTES_MIN {
                return Err(SlotsError::NotOurs("its beginning is too short"));
            }
            check_head(bytes)?;
        }
        let offset = self.table.records[upload.slot.index()].offset() + upload.written;
        self.medium
            .write_at(offset, bytes)
            .map_err(|error| SlotsError::Io("cannot be written to", error))?;
        upload.written = after;
        Ok(())
    }

    /// Reads what was written, and puts it on trial if it is an image of ours and has this digest.
    /// The trial has `within_s` from the machine's start to join. Returns the version.
    pub fn finish(
        &mut self,
        upload: Upload,
        sha256: &[u8; 32],
        within_s: u32,
    ) -> Result<String, SlotsError> {
        let (length, written) = (upload.length, upload.written);
        if written != length {
            return Err(SlotsError::Incomplete { written, length });
        }
        self.flush()?;
        let offset = self.table.records[upload.slot.index()].offset();
        let (mut passing, mut sum) = (Passing::new(length), Crc32::new());
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = 0;
        while at < length {
            let bytes =
                usize::try_from(length - at).map_or(PIECE_BYTES, |rest| rest.min(PIECE_BYTES));
            let piece = &mut piece[..bytes];
            self.medium
                .read_at(offset + at, piece)
                .map_err(|error| SlotsError::Io("cannot be read", error))?;
            if at == 0 {
                check_head(piece)?;
            }
            passing.update(piece);
            sum.update(piece);
            at += bytes as u64;
        }
        let (mark, digest) = passing.finish()?;
        if digest != *sha256 {
            return Err(SlotsError::Digest);
        }
        let mut table = Table {
            trial: Trial::Pending,
            within_s,
            ..self.table.clone()
        };
        table.records[upload.slot.index()].kernel = Some(Kernel {
            length_bytes: u32::try_from(length).expect("a slot is smaller"),
            crc32: sum.finish(),
            sha256: digest,
            version: mark.version.clone(),
        });
        self.put(table)?;
        Ok(mark.version)
    }

    /// From now on the running slot is booted.
    pub fn confirm(&mut self, running: Slot) -> Result<(), SlotsError> {
        self.put(Table {
            default: running,
            trial: Trial::None,
            ..self.table.clone()
        })
    }

    /// Notes that the running slot's trial is over, and why the earlier one will run again.
    pub fn give_up(&mut self) -> Result<(), SlotsError> {
        self.put(Table {
            trial: Trial::GivenUp,
            ..self.table.clone()
        })
    }

    /// Writes the table, and believes it when it has come back.
    fn put(&mut self, table: Table) -> Result<(), SlotsError> {
        // What was written before must be kept before.
        self.flush()?;
        self.medium
            .write_at(TABLE_OFFSET, &table.to_sector())
            .map_err(|error| SlotsError::Io("cannot be written to", error))?;
        self.flush()?;
        self.table = read_table(&mut self.medium)?;
        match self.table == table {
            true => Ok(()),
            false => Err(SlotsError::NotKept),
        }
    }

    fn flush(&mut self) -> Result<(), SlotsError> {
        let flushed = self.medium.flush();
        flushed.map_err(|error| SlotsError::Io("does not keep what is written", error))
    }
}

fn read_table(medium: &mut impl Medium) -> Result<Table, SlotsError> {
    let mut sector = [0; TABLE_BYTES];
    medium
        .read_at(TABLE_OFFSET, &mut sector)
        .map_err(|error| SlotsError::Io("cannot be read", error))?;
    Table::parse(&sector).unwrap_or(Err(SlotsError::Damaged))
}

#[cfg(test)]
#[path = "store/tests.rs"]
mod tests;
