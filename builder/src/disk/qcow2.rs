//! Writes qcow2 images (version 3, QEMU's docs/interop/qcow2.txt): clusters of zeros take no
//! room. No compression, snapshots, backing files or reading.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::Path;

/// Clusters of 64 KiB, QEMU's default.
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
static ZEROS: [u8; CLUSTER as usize] = [0; CLUSTER as usize];
/// Entries of a table of eight-byte numbers in one cluster.
const TABLE_ENTRIES: u64 = CLUSTER / 8;
/// Reference counts of 16 bits, the default.
const REFCOUNT_ORDER: u32 = 4;
const COUNTS: u64 = CLUSTER / 2;
const HEADER_BYTES: u32 = 104;
/// The cluster is referenced once: it may be written in place.
const COPIED: u64 = 1 << 63;

/// Writes the image of the raw disk `from` to `to`.
pub fn convert(from: &Path, to: &Path) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(to)?);
    write(&mut File::open(from)?, &mut out)?;
    out.flush()
}

/// Its parts, in order: header, reference count table, count blocks, first-level table,
/// second-level tables, data. Every number is known before anything is written.
fn write(disk: &mut (impl Read + Seek), out: &mut impl Write) -> io::Result<()> {
    let mut used = Vec::new();
    let mut bytes = 0;
    each_cluster(disk, |index, cluster| {
        bytes += cluster.len() as u64;
        if *cluster != ZEROS[..cluster.len()] {
            used.push(index);
        }
        Ok(())
    })?;
    out.write_all(&tables(bytes, &used))?;
    let mut next = used.iter().peekable();
    each_cluster(disk, |index, cluster| {
        if next.next_if_eq(&&index).is_some() {
            out.write_all(cluster)?;
            out.write_all(&ZEROS[cluster.len()..])?;
        }
        Ok(())
    })
}

/// Gives every cluster of the disk with its number.
fn each_cluster(
    disk: &mut (impl Read + Seek),
    mut give: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    disk.rewind()?;
    let mut cluster = Vec::with_capacity(CLUSTER as usize);
    for index in 0.. {
        cluster.clear();
        if disk.by_ref().take(CLUSTER).read_to_end(&mut cluster)? == 0 {
            break;
        }
        give(index, &cluster)?;
    }
    Ok(())
}

/// Everything before the data, for a disk of `bytes` whose clusters `used` are not empty.
fn tables(bytes: u64, used: &[u64]) -> Vec<u8> {
    let tables = bytes.div_ceil(CLUSTER).div_ceil(TABLE_ENTRIES);
    let first_level = tables.div_ceil(TABLE_ENTRIES).max(1);
    let counted = 1 + first_level + tables + used.len() as u64;
    let (table_clusters, blocks) = refcount_clusters(counted);
    let total = counted + table_clusters + blocks;

    let first_level_at = 1 + table_clusters + blocks;
    let tables_at = first_level_at + first_level;
    let data_at = tables_at + tables;
    let mut out = vec![0; (data_at * CLUSTER) as usize];
    let mut put = |at: u64, bytes: &[u8]| {
        out[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    };

    put(0, b"QFI\xfb");
    let words: [(u64, u32); 7] = [
        (4, 3),
        (20, CLUSTER_BITS),
        (32, 0), // no encryption
        (36, tables as u32),
        (56, table_clusters as u32),
        (96, REFCOUNT_ORDER),
        (100, HEADER_BYTES),
    ];
    for (at, word) in words {
        put(at, &word.to_be_bytes());
    }
    let longs = [(24, bytes), (40, first_level_at * CLUSTER), (48, CLUSTER)];
    for (at, long) in longs {
        put(at, &long.to_be_bytes());
    }
    for block in 0..blocks {
        let place = (1 + table_clusters + block) * CLUSTER;
        put(CLUSTER + 8 * block, &place.to_be_bytes());
    }
    for cluster in 0..total {
        // The blocks follow each other, so counts do too.
        put(
            (1 + table_clusters) * CLUSTER + 2 * cluster,
            &1u16.to_be_bytes(),
        );
    }
    for table in 0..tables {
        let place = ((tables_at + table) * CLUSTER) | COPIED;
        put(first_level_at * CLUSTER + 8 * table, &place.to_be_bytes());
    }
    for (position, index) in used.iter().enumerate() {
        let place = (data_at + position as u64) * CLUSTER;
        // Tables follow each other, so entries do too.
        put(
            tables_at * CLUSTER + 8 * *index,
            &(place | COPIED).to_be_bytes(),
        );
    }
    out
}

/// Clusters of the reference count table and its blocks, which count themselves too.
fn refcount_clusters(counted: u64) -> (u64, u64) {
    let (mut table, mut blocks) = (1, 1);
    loop {
        let needed = (counted + table + blocks).div_ceil(COUNTS);
        let needed_table = needed.div_ceil(TABLE_ENTRIES);
        if (needed_table, needed) == (table, blocks) {
            return (table, blocks);
        }
        (table, blocks) = (needed_table, needed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::testing;

    fn image(disk: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut io::Cursor::new(disk), &mut out).unwrap();
        out
    }

    fn u32_at(image: &[u8], at: u64) -> u64 {
        let at = at as usize;
        u64::from(u32::from_be_bytes(image[at..at + 4].try_into().unwrap()))
    }

    fn u64_at(image: &[u8], at: u64) -> u64 {
        let at = at as usize;
        u64::from_be_bytes(image[at..at + 8].try_into().unwrap())
    }

    /// Reads an image by the specification's rules, counting references on the way.
    fn read(image: &[u8]) -> Vec<u8> {
        assert_eq!(&image[..4], b"QFI\xfb");
        assert_eq!(
            (u32_at(image, 4), u32_at(image, 20), u32_at(image, 96)),
            (3, 16, 4)
        );
        assert!(
            (72..112)
                .filter(|at| !(96..104).contains(at))
                .all(|at| image[at] == 0)
        );
        assert_eq!(u64_at(image, 8), 0, "no backing file");
        let total = image.len() as u64 / CLUSTER;
        assert_eq!(image.len() as u64 % CLUSTER, 0);
        let mut references = vec![0u64; total as usize];
        let mut refer = |place: u64| {
            assert_eq!(place % CLUSTER, 0);
            references[(place / CLUSTER) as usize] += 1;
        };
        refer(0);
        let size = u64_at(image, 24);
        let clusters = size.div_ceil(CLUSTER);
        let (first_level, tables) = (u64_at(image, 40), u32_at(image, 36));
        assert_eq!(tables, clusters.div_ceil(TABLE_ENTRIES));
        for cluster in 0..(tables * 8).div_ceil(CLUSTER).max(1) {
            refer(first_level + cluster * CLUSTER);
        }
        let mut disk = vec![0; (clusters * CLUSTER) as usize];
        for cluster in 0..clusters {
            let table = u64_at(image, first_level + cluster / TABLE_ENTRIES * 8);
            assert!(table & COPIED != 0);
            if cluster % TABLE_ENTRIES == 0 {
                refer(table & !COPIED);
            }
            let entry = u64_at(image, (table & !COPIED) + cluster % TABLE_ENTRIES * 8);
            if entry != 0 {
                assert!(entry & COPIED != 0);
                let place = entry & !COPIED;
                refer(place);
                let at = (cluster * CLUSTER) as usize;
                let from = place as usize;
                disk[at..at + CLUSTER as usize]
                    .copy_from_slice(&image[from..from + CLUSTER as usize]);
            }
        }
        let (table, table_clusters) = (u64_at(image, 48), u32_at(image, 56));
        for cluster in 0..table_clusters {
            refer(table + cluster * CLUSTER);
        }
        let blocks: Vec<u64> = (0..table_clusters * TABLE_ENTRIES)
            .map(|index| u64_at(image, table + 8 * index))
            .take_while(|place| *place != 0)
            .collect();
        for block in &blocks {
            refer(*block);
        }
        for cluster in 0..total {
            let at = blocks[(cluster / COUNTS) as usize] + cluster % COUNTS * 2;
            let count = u16::from_be_bytes(image[at as usize..at as usize + 2].try_into().unwrap());
            assert_eq!(
                u64::from(count),
                references[cluster as usize],
                "cluster {cluster}"
            );
            assert_eq!(count, 1, "no cluster is lost: {cluster}");
        }
        disk.truncate(size as usize);
        disk
    }

    #[test]
    fn zeros_take_no_room() {
        let mut disk = vec![0; 11 << 20];
        let empty = image(&disk);
        disk[5 << 20] = 1;
        assert_eq!(image(&disk).len() as u64 - empty.len() as u64, CLUSTER);
        assert_eq!(empty.len() as u64, 5 * CLUSTER);
    }

    #[test]
    fn more_than_one_second_level_table_reads_back() {
        // 8192 clusters fill a table: 512 MiB. One byte beyond needs a second.
        let mut disk = vec![0; (CLUSTER * TABLE_ENTRIES) as usize + 512];
        let last = disk.len() - 1;
        disk[last] = 7;
        disk[0] = 9;
        let image = image(&disk);
        assert_eq!(u32_at(&image, 36), 2);
        assert!(read(&image) == disk);
    }

    #[test]
    fn counts_cover_their_own_clusters() {
        for counted in [
            1,
            COUNTS - 3,
            COUNTS - 2,
            COUNTS - 1,
            COUNTS,
            COUNTS * TABLE_ENTRIES,
        ] {
            let (table, blocks) = refcount_clusters(counted);
            assert!(blocks * COUNTS >= counted + table + blocks, "{counted}");
            assert!(table * TABLE_ENTRIES >= blocks, "{counted}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn any_disk_reads_back(disk in testing::disks()) {
            prop_assert_eq!(read(&image(&disk)), disk);
        }
    }
}
