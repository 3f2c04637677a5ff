//! Builds the loader that UEFI starts on a disk with two slots, with the compiler that makes the kernel.

use std::path::{Path, PathBuf};

use crate::BuildError;
use crate::process::{self, Log};

const LOADER: &str = include_str!("uefi/loader.c");
const HEADER: &str = include_str!("uefi/header.S");
const SCRIPT: &str = include_str!("uefi/loader.ld");

/// How it is compiled: code that runs anywhere without being relocated; the firmware's interrupts use its stack, so
/// nothing may lie below; no function of a C library is there to be called.
const FLAGS: &[&str] = &[
    "-std=gnu11",
    "-Os",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-fpie",
    "-fvisibility=hidden",
    "-fshort-wchar",
    "-mno-red-zone",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-fno-tree-loop-distribute-patterns",
    "-nostdlib",
    "-static-pie",
    "-Wl,--oformat=binary",
    "-Wl,--build-id=none",
    "-Wl,--no-dynamic-linker",
    "-Wl,-z,norelro",
];

/// All that decides what comes out besides the compiler, for the disk's key.
pub fn recipe() -> String {
    format!("{LOADER}{HEADER}{SCRIPT}{FLAGS:?}")
}

/// Makes the loader in `directory`.
pub fn build(directory: &Path, log: &mut Log<'_>) -> Result<PathBuf, BuildError> {
    for (name, text) in [
        ("loader.c", LOADER),
        ("header.S", HEADER),
        ("loader.ld", SCRIPT),
    ] {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(BuildError::io("write", &path))?;
    }
    log.run(
        "compiling the UEFI loader",
        process::command("gcc")
            .args(FLAGS)
            .args(["-Wl,-T,loader.ld", "loader.c", "header.S"])
            .args(["-o", "loader.efi"])
            .current_dir(directory),
    )?;
    Ok(directory.join("loader.efi"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::slots;
    use crate::process::Programs;
    use crate::progress::Progress;

    fn make() -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let running = Progress::hidden().start("test");
        let programs = Programs::new().unwrap();
        let path = directory.path().join("log");
        let mut log = Log::create(&path, &running, &programs).unwrap();
        std::fs::read(build(directory.path(), &mut log).unwrap()).unwrap()
    }

    #[test]
    fn the_loader_is_a_uefi_application_without_relocations_and_always_the_same() {
        if process::output(process::command("gcc").arg("--version")).is_err() {
            eprintln!("the loader is not checked here: there is no gcc");
            return;
        }
        let loader = make();
        assert!(loader == make());
        let u16_at = |at: usize| u16::from_le_bytes([loader[at], loader[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let pe = u32_at(60) as usize;
        assert_eq!(&loader[pe..pe + 4], b"PE\0\0");
        assert_eq!(u16_at(pe + 4), 0x8664);
        let optional = pe + 24;
        assert_eq!((u16_at(optional), u16_at(optional + 68)), (0x20b, 10));
        // Its code begins with `start`, and all of the file is in memory.
        assert_eq!(u32_at(optional + 16), 4096);
        let (at, length) = (
            u32_at(optional + 160 + 12) as usize,
            u32_at(optional + 160 + 8) as usize,
        );
        assert_eq!(at + length, loader.len());
    }

    #[test]
    fn both_know_where_the_table_lies() {
        assert!(LOADER.contains(&format!("#define TABLE_LBA {}\n", slots::TABLE_LBA)));
    }
}
