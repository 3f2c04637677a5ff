//! Disk images: a GPT with a FAT partition that boots by BIOS (syslinux) and by UEFI, two of them where
//! an appliance can be updated, and an ext4 root where the image has one.
//!
//! The partition tables, the boot code in the first sector, the table of slots and the loader that reads it, ISO 9660, qcow2 and VMDK are written here; the
//! other file systems are made by mkfs.fat, mtools, syslinux, e2fsprogs and mksquashfs, none of which needs root.

pub mod boot_code;
pub mod ext4;
pub mod fat;
pub mod gpt;
pub mod iso;
pub mod layout;
pub mod qcow2;
pub mod raw;
pub mod slots;
pub mod sparse;
pub mod squashfs;
pub mod uefi;
pub mod vmdk;

#[cfg(test)]
mod testing {
    use proptest::prelude::*;

    /// Disks of whole sectors, empty but for some bytes.
    pub fn disks() -> impl Strategy<Value = Vec<u8>> {
        let bytes = proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 0..20);
        (1usize..2000, bytes).prop_map(|(sectors, bytes)| {
            let mut disk = vec![0; sectors * 512];
            for (index, byte) in bytes {
                let at = index.index(disk.len());
                disk[at] = byte;
            }
            disk
        })
    }
}
