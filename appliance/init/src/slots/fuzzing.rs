//! Entrance for fuzzers to what is read of a disk with slots, and of images.

use super::image::Mark;
use super::table::{TABLE_BYTES, Table};

/// Reads a table, with the right checksum whatever it says, and then an image.
pub fn slots(bytes: &[u8]) {
    let (table, image) = bytes.split_at(bytes.len().min(TABLE_BYTES));
    let mut sector = [0; TABLE_BYTES];
    sector[..table.len()].copy_from_slice(table);
    Table::seal(&mut sector);
    if let Some(Ok(table)) = Table::parse(&sector) {
        let again = Table::parse(&table.to_sector());
        let again = again.expect("it has its magic").expect("it was sound");
        assert_eq!(again, table);
    }
    // One that is taken is what its own mark vouches for: nothing behind it may be cut off.
    if Mark::of(image).is_ok() {
        assert!(Mark::of(&image[..image.len() - 1]).is_err());
    }
}
