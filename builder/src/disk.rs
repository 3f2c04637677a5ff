//! Disk images: a GPT with one FAT partition that boots by BIOS (syslinux) and by UEFI (the
//! kernel is its own loader).
//!
//! The partition tables, the boot code in the first sector and qcow2 are written here; the file
//! system is made by mkfs.fat, mtools and syslinux, none of which needs root.

pub mod boot_code;
pub mod fat;
pub mod gpt;
pub mod layout;
pub mod qcow2;
pub mod raw;
