//! fw_cfg by its I/O ports, for machines on which the kernel's driver refuses to work: without ACPI
//! (microvm) it cannot take the ACPI lock that it insists on.
//!
//! The interface is QEMU's `docs/specs/fw_cfg.rst`: a 16-bit selector at 0x510, data at 0x511.

use crate::system::ports::Ports;

const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;

const KEY_SIGNATURE: u16 = 0x0000;
const KEY_DIRECTORY: u16 = 0x0019;
const SIGNATURE: &[u8; 4] = b"QEMU";

/// One directory entry: size and selector (big-endian), reserved, name.
const ENTRY_BYTES: usize = 64;
const NAME_BYTES: usize = 56;
/// Entries looked at; QEMU's own table holds a few dozen.
const ENTRIES_MAX: u32 = 256;

/// The device, or its twin in tests.
pub(super) trait Device {
    /// Turns to an item; reading begins at its first byte.
    fn select(&mut self, key: u16);
    /// Reads the next bytes of the item.
    fn read(&mut self, bytes: &mut [u8]);
}

impl Device for Ports {
    fn select(&mut self, key: u16) {
        self.write_u16(SELECTOR, key);
    }

    fn read(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.read_u8(DATA);
        }
    }
}

/// The files below `prefix`: names without it, and at most `bound` bytes of each. `None` where there
/// is no such device.
pub(super) fn read_files(prefix: &str, bound: usize) -> Option<Vec<(String, Vec<u8>)>> {
    let mut ports = Ports::claim(SELECTOR..DATA + 1).ok()?;
    read_files_of(&mut ports, prefix, bound)
}

pub(super) fn read_files_of(
    device: &mut impl Device,
    prefix: &str,
    bound: usize,
) -> Option<Vec<(String, Vec<u8>)>> {
    let mut signature = [0; 4];
    device.select(KEY_SIGNATURE);
    device.read(&mut signature);
    if signature != *SIGNATURE {
        return None;
    }
    let mut count = [0; 4];
    device.select(KEY_DIRECTORY);
    device.read(&mut count);
    let mut found = Vec::new();
    for _ in 0..u32::from_be_bytes(count).min(ENTRIES_MAX) {
        let mut entry = [0; ENTRY_BYTES];
        device.read(&mut entry);
        let size = u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]);
        let key = u16::from_be_bytes([entry[4], entry[5]]);
        let name = entry[ENTRY_BYTES - NAME_BYTES..].split(|byte| *byte == 0);
        let name = String::from_utf8_lossy(name.into_iter().next().unwrap_or(&[])).into_owned();
        if let Some(name) = name.strip_prefix(prefix) {
            found.push((name.to_owned(), key, size));
        }
    }
    let files = found.into_iter().map(|(name, key, size)| {
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(bound);
        let mut content = vec![0; size];
        device.select(key);
        device.read(&mut content);
        (name, content)
    });
    Some(files.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Twin {
        items: BTreeMap<u16, Vec<u8>>,
        key: u16,
        at: usize,
    }

    impl Device for Twin {
        fn select(&mut self, key: u16) {
            (self.key, self.at) = (key, 0);
        }

        fn read(&mut self, bytes: &mut [u8]) {
            let item = self.items.get(&self.key);
            for byte in bytes {
                *byte = item
                    .and_then(|item| item.get(self.at))
                    .copied()
                    .unwrap_or(0);
                self.at += 1;
            }
        }
    }

    fn twin(signature: &[u8], files: &[(&str, &[u8])]) -> Twin {
        let mut items = BTreeMap::from([(KEY_SIGNATURE, signature.to_vec())]);
        let mut directory = u32::try_from(files.len()).unwrap().to_be_bytes().to_vec();
        for (key, (name, content)) in (0x20..).zip(files) {
            let mut entry = [0; ENTRY_BYTES];
            let size = u32::try_from(content.len()).unwrap();
            entry[..4].copy_from_slice(&size.to_be_bytes());
            entry[4..6].copy_from_slice(&u16::to_be_bytes(key));
            entry[8..8 + name.len()].copy_from_slice(name.as_bytes());
            directory.extend(entry);
            items.insert(key, content.to_vec());
        }
        items.insert(KEY_DIRECTORY, directory);
        Twin {
            items,
            key: 0,
            at: 0,
        }
    }

    #[test]
    fn files_below_the_prefix_are_read_up_to_the_bound() {
        let mut device = twin(
            b"QEMU",
            &[
                ("etc/acpi/tables", b"xyz"),
                ("opt/wow/name", b"node"),
                ("opt/wow/ticket", b"0123456789"),
            ],
        );
        let files = read_files_of(&mut device, "opt/wow/", 8).unwrap();
        let expected = [
            ("name".to_owned(), b"node".to_vec()),
            ("ticket".to_owned(), b"01234567".to_vec()),
        ];
        assert_eq!(files, expected);
    }

    #[test]
    fn another_signature_is_no_device() {
        let mut device = twin(&[0xff; 4], &[("opt/wow/name", b"node")]);
        assert_eq!(read_files_of(&mut device, "opt/wow/", 8), None);
    }

    #[test]
    fn a_lying_directory_ends_at_its_bound() {
        let mut device = twin(b"QEMU", &[]);
        device.items.insert(KEY_DIRECTORY, vec![0xff; 4]);
        assert_eq!(read_files_of(&mut device, "opt/wow/", 8), Some(Vec::new()));
    }
}
