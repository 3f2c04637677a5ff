//! The GUID partition table, with its protective MBR (UEFI specification 2.10, chapter 5).
//!
//! An EFI system partition that is also marked bootable for BIOS loaders, and after it the second slot's and the
//! root's where there are such. Identifiers are derived from names, so that equal inputs give equal tables.

use super::boot_code::{CODE_BYTES, boot_code, clamp};
use super::layout::{Extent, Layout, SECTOR_BYTES};
use crate::digest::{Digest, Fields};

const SECTOR: usize = SECTOR_BYTES as usize;
/// The usual number of entries, and their size.
const ENTRIES: u32 = 128;
const ENTRY_BYTES: u32 = 128;
/// Sectors of the entries.
const ENTRY_SECTORS: u64 = (ENTRIES * ENTRY_BYTES) as u64 / SECTOR_BYTES;
const HEADER_BYTES: u32 = 92;

/// C12A7328-F81F-11D2-BA4B-00A0C93EC93B, an EFI system partition.
const EFI_SYSTEM: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];
/// BC13C2FF-59E6-4262-A352-B275FD6F7172, more of what is booted (the Boot Loader Specification's XBOOTLDR).
const EXTENDED_BOOT: [u8; 16] = [
    0xff, 0xc2, 0x13, 0xbc, 0xe6, 0x59, 0x62, 0x42, 0xa3, 0x52, 0xb2, 0x75, 0xfd, 0x6f, 0x71, 0x72,
];
/// 4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, the root of an x86-64 system: systemd-repart finds it by this.
const LINUX_ROOT: [u8; 16] = [
    0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09,
];
/// Attribute 2: legacy BIOS bootable.
const BIOS_BOOTABLE: u64 = 1 << 2;

/// The sectors to write at the disk's start and at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// The protective MBR, the header and the entries, from sector 0.
    pub start: Vec<u8>,
    /// The backup of the entries and the header; its last sector is the disk's last.
    pub end: Vec<u8>,
}

/// The tables of a disk for the image `name`.
pub fn tables(layout: &Layout, name: &str) -> Tables {
    let entries = entries(layout, name);
    let sum = crc32fast::hash(&entries);
    let backup = layout.sectors - 1;
    let mut start = protective_mbr(layout, name).to_vec();
    start.extend_from_slice(&header(layout, name, 1, backup, 2, sum));
    start.extend_from_slice(&entries);
    let mut end = entries;
    end.extend_from_slice(&header(
        layout,
        name,
        backup,
        1,
        backup - ENTRY_SECTORS,
        sum,
    ));
    Tables { start, end }
}

fn protective_mbr(layout: &Layout, name: &str) -> [u8; SECTOR] {
    let mut mbr = [0; SECTOR];
    let code = boot_code(layout.boot, layout.second);
    mbr[..CODE_BYTES].copy_from_slice(&code);
    mbr[440..444].copy_from_slice(&guid("mbr", name)[..4]);
    // Not active, from cylinder 0 head 0 sector 2, type "protective", to the end, from LBA 1.
    mbr[446..454].copy_from_slice(&[0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff]);
    mbr[454..458].copy_from_slice(&1u32.to_le_bytes());
    mbr[458..462].copy_from_slice(&clamp(layout.sectors - 1).to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

fn entries(layout: &Layout, name: &str) -> Vec<u8> {
    let mut entries = Vec::with_capacity((ENTRIES * ENTRY_BYTES) as usize);
    let boot = guid("partition", name);
    entries.extend(entry(EFI_SYSTEM, boot, layout.boot, BIOS_BOOTABLE, "boot"));
    if let Some(second) = layout.second {
        let own = guid("second boot partition", name);
        entries.extend(entry(EXTENDED_BOOT, own, second, 0, "boot-b"));
    }
    if let Some(root) = layout.root {
        let own = guid("root partition", name);
        entries.extend(entry(LINUX_ROOT, own, root, 0, "root"));
    }
    entries.resize((ENTRIES * ENTRY_BYTES) as usize, 0);
    entries
}

fn entry(kind: [u8; 16], own: [u8; 16], place: Extent, attributes: u64, name: &str) -> Vec<u8> {
    let mut entry = Vec::with_capacity(ENTRY_BYTES as usize);
    entry.extend_from_slice(&kind);
    entry.extend_from_slice(&own);
    for number in [place.first, place.last, attributes] {
        entry.extend_from_slice(&number.to_le_bytes());
    }
    for unit in name.encode_utf16() {
        entry.extend_from_slice(&unit.to_le_bytes());
    }
    entry.resize(ENTRY_BYTES as usize, 0);
    entry
}

fn header(
    layout: &Layout,
    name: &str,
    own: u64,
    other: u64,
    entries: u64,
    sum: u32,
) -> [u8; SECTOR] {
    let mut text = Vec::with_capacity(SECTOR);
    text.extend_from_slice(b"EFI PART");
    for number in [0x0001_0000, HEADER_BYTES, 0 /* checksum, below */, 0] {
        text.extend_from_slice(&number.to_le_bytes());
    }
    // The sectors that partitions may use lie between the tables.
    let usable = (2 + ENTRY_SECTORS, layout.sectors - 2 - ENTRY_SECTORS);
    for number in [own, other, usable.0, usable.1] {
        text.extend_from_slice(&number.to_le_bytes());
    }
    text.extend_from_slice(&guid("disk", name));
    text.extend_from_slice(&entries.to_le_bytes());
    for number in [ENTRIES, ENTRY_BYTES, sum] {
        text.extend_from_slice(&number.to_le_bytes());
    }
    let checksum = crc32fast::hash(&text);
    text[16..20].copy_from_slice(&checksum.to_le_bytes());
    let mut sector = [0; SECTOR];
    sector[..text.len()].copy_from_slice(&text);
    sector
}

/// An identifier of version 8 (RFC 9562): a digest of what it stands for.
fn guid(what: &str, name: &str) -> [u8; 16] {
    let digest: Digest = Fields::new("wow guid")
        .field("what", what)
        .field("name", name)
        .finish();
    let mut guid = [0; 16];
    guid.copy_from_slice(&digest.as_bytes()[..16]);
    // The first three fields are little-endian, so the version is in byte 7.
    guid[7] = guid[7] & 0x0f | 0x80;
    guid[8] = guid[8] & 0x3f | 0x80;
    guid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    /// Checks a header as firmware does, and returns (own, other, first of the entries).
    #[track_caller]
    fn check_header(header: &[u8], entries: &[u8]) -> (u64, u64, u64) {
        assert_eq!(&header[..8], b"EFI PART");
        let mut zeroed = header[..HEADER_BYTES as usize].to_vec();
        zeroed[16..20].fill(0);
        assert_eq!(u32_at(header, 16), crc32fast::hash(&zeroed));
        assert_eq!(u32_at(header, 88), crc32fast::hash(entries));
        (u64_at(header, 24), u64_at(header, 32), u64_at(header, 72))
    }

    #[test]
    fn both_headers_check_and_point_at_each_other() {
        for size in [6, 11, 4096] {
            let layout = Layout::new(size);
            let tables = tables(&layout, "router");
            let entries = &tables.start[2 * SECTOR..];
            let last = layout.sectors - 1;
            assert_eq!(check_header(&tables.start[SECTOR..], entries), (1, last, 2));
            let (backup, header) = tables.end.split_at(tables.end.len() - SECTOR);
            assert_eq!(backup, entries);
            assert_eq!(check_header(header, backup), (last, 1, last - 32));
        }
    }

    #[test]
    fn the_partition_lies_between_the_tables() {
        for size in 6..64 {
            let layout = Layout::new(size);
            let tables = tables(&layout, "router");
            let entry = &tables.start[2 * SECTOR..];
            assert_eq!(entry[..16], EFI_SYSTEM);
            assert_eq!(
                (u64_at(entry, 32), u64_at(entry, 40)),
                (layout.boot.first, layout.boot.last)
            );
            let usable = (
                u64_at(&tables.start, SECTOR + 40),
                u64_at(&tables.start, SECTOR + 48),
            );
            assert!(usable.0 <= layout.boot.first && layout.boot.last <= usable.1);
            assert!(tables.start.len() as u64 <= layout.boot.first * SECTOR_BYTES);
            assert!(
                layout.sectors * SECTOR_BYTES - tables.end.len() as u64
                    > layout.boot.last * SECTOR_BYTES
            );
        }
    }

    #[test]
    fn the_protective_mbr_covers_the_disk() {
        let layout = Layout::new(11);
        let tables = tables(&layout, "router");
        assert_eq!(tables.start[450], 0xee);
        assert_eq!(u32_at(&tables.start, 454), 1);
        assert_eq!(u64::from(u32_at(&tables.start, 458)), layout.sectors - 1);
        assert_eq!(tables.start[510..512], [0x55, 0xaa]);
    }

    #[test]
    fn names_give_different_and_stable_identifiers() {
        assert_eq!(guid("disk", "router"), guid("disk", "router"));
        assert_ne!(guid("disk", "router"), guid("disk", "worker"));
        assert_ne!(guid("disk", "router"), guid("partition", "router"));
    }

    #[test]
    fn a_second_slot_follows_the_first_and_is_as_large() {
        for size in [16, 17, 64] {
            let layout = Layout::with_slots(size);
            let second = layout.second.unwrap();
            assert_eq!(second.first, layout.boot.last + 1);
            assert_eq!(second.sectors(), layout.boot.sectors());
            let tables = tables(&layout, "router");
            let entry = &tables.start[2 * SECTOR + ENTRY_BYTES as usize..];
            assert_eq!(entry[..16], EXTENDED_BOOT);
            assert_eq!(
                (u64_at(entry, 32), u64_at(entry, 40)),
                (second.first, second.last)
            );
            let end = layout.sectors * SECTOR_BYTES - tables.end.len() as u64;
            assert!(end > second.last * SECTOR_BYTES);
        }
    }

    #[test]
    fn a_root_follows_the_boot_partition_and_ends_before_the_backup() {
        for bytes in [1 << 20, 700 << 20, (3 << 30) + 4096] {
            let layout = Layout::with_root(64, bytes);
            let root = layout.root.unwrap();
            let tables = tables(&layout, "workstation");
            let entry = &tables.start[2 * SECTOR + ENTRY_BYTES as usize..];
            assert_eq!(entry[..16], LINUX_ROOT);
            assert_eq!(
                (u64_at(entry, 32), u64_at(entry, 40)),
                (root.first, root.last)
            );
            assert_eq!(root.first, layout.boot.last + 1);
            assert_eq!(root.bytes(), bytes);
            let end = layout.sectors * SECTOR_BYTES - tables.end.len() as u64;
            assert!(end > root.last * SECTOR_BYTES);
        }
    }

    #[test]
    fn the_systems_sfdisk_reads_the_same_table() {
        let layout = Layout::new(6);
        let tables = tables(&layout, "router");
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut disk = vec![0; (layout.sectors * SECTOR_BYTES) as usize];
        disk[..tables.start.len()].copy_from_slice(&tables.start);
        let end = disk.len() - tables.end.len();
        disk[end..].copy_from_slice(&tables.end);
        std::fs::write(file.path(), disk).unwrap();
        let dump = crate::process::command("sfdisk")
            .arg("--dump")
            .arg(file.path())
            .output();
        let Ok(dump) = dump else {
            eprintln!("sfdisk is not installed: the table is only checked by this file");
            return;
        };
        let text = String::from_utf8_lossy(&dump.stdout).into_owned();
        assert!(
            dump.status.success() && text.contains("label: gpt"),
            "{text}"
        );
        assert!(text.contains("start=        2048"), "{text}");
        assert!(
            text.contains("C12A7328-F81F-11D2-BA4B-00A0C93EC93B"),
            "{text}"
        );
        assert!(text.contains("LegacyBIOSBootable"), "{text}");
        assert!(String::from_utf8_lossy(&dump.stderr).trim().is_empty());
    }
}
