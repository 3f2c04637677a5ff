//! The boot partition: FAT16 with what BIOS and UEFI load, and syslinux for the former.
//!
//! One copy of a kernel serves both. Times, the volume id and the order of the files are fixed.

use std::path::{Path, PathBuf};

use super::layout::Extent;
use crate::BuildError;
use crate::digest::Fields;
use crate::process::{self, Log};

/// Clusters of 1 KiB make FAT16 of the smallest disk; beyond this there would be too many of them.
const SMALL_CLUSTERS: (u64, &str) = (63 << 20, "2");
const LARGE_CLUSTERS: &str = "4";

/// What a boot partition holds.
#[derive(Debug, Clone)]
pub struct Content<'a> {
    /// The volume's label.
    pub label: &'a str,
    /// Files in this order, each with its place such as `/EFI/BOOT/BOOTX64.EFI`.
    pub files: &'a [(&'a str, &'a Path)],
    /// The configuration of syslinux.
    pub syslinux: &'a str,
}

/// The tools that make the file system, with their packages' versions: part of the disk's key.
pub fn tools() -> Result<String, BuildError> {
    process::output(
        process::command("dpkg-query")
            .args(["--show", "--showformat=${Package} ${Version}\\n"])
            .args(["dosfstools", "mtools", "syslinux"]),
    )
    .map_err(|error| {
        BuildError::Input(format!(
            "{error}\ninstall the packages that make disks: apt-get install dosfstools mtools syslinux"
        ))
    })
}

/// Makes the partition's image in `directory`.
pub fn partition(
    place: &Extent,
    content: &Content<'_>,
    directory: &Path,
    log: &mut Log<'_>,
) -> Result<PathBuf, BuildError> {
    let label = content.label;
    let image = directory.join("partition.img");
    let created = std::fs::File::create(&image).and_then(|file| file.set_len(place.bytes()));
    created.map_err(BuildError::io("create", &image))?;
    let id = &Fields::new("wow fat")
        .field("label", label)
        .finish()
        .to_string()[..8];
    let clusters = match place.bytes() <= SMALL_CLUSTERS.0 {
        true => SMALL_CLUSTERS.1,
        false => LARGE_CLUSTERS,
    };
    log.run(
        "making the file system",
        process::command("mkfs.fat")
            .args([
                "--invariant",
                "-F",
                "16",
                "-s",
                clusters,
                "-i",
                id,
                "-n",
                label,
            ])
            .args(["-h", &place.first.to_string()])
            .arg(&image),
    )?;
    let configuration = directory.join("syslinux.cfg");
    std::fs::write(&configuration, content.syslinux)
        .map_err(BuildError::io("write", &configuration))?;
    let mtool = |program: &str| {
        let mut command = process::command(program);
        // mtools would read a configuration of the user's.
        command
            .env("MTOOLSRC", "/dev/null")
            .env("MTOOLS_SKIP_CHECK", "1")
            .arg("-i")
            .arg(&image);
        command
    };
    let mut directories: Vec<String> = Vec::new();
    let parents = content.files.iter().map(|(name, _)| *name);
    for name in parents.chain(["/syslinux/syslinux.cfg"]) {
        for (at, _) in name.match_indices('/').skip(1) {
            let directory = format!("::{}", &name[..at]);
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
    }
    log.run("making directories", mtool("mmd").args(&directories))?;
    for (name, file) in content.files {
        log.run(
            &format!("copying {name} to the disk (is it too small?)"),
            mtool("mcopy").arg(file).arg(format!("::{name}")),
        )?;
    }
    log.run(
        "copying the loader's configuration",
        mtool("mcopy")
            .arg(&configuration)
            .arg("::/syslinux/syslinux.cfg"),
    )?;
    log.run(
        "installing the boot loader",
        process::command("syslinux")
            .env("MTOOLSRC", "/dev/null")
            .args(["--install", "--directory", "/syslinux"])
            .arg(&image),
    )?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::layout::{Layout, MIN_DISK_MIB};
    use crate::process::Programs;
    use crate::progress::Progress;

    /// Makes a partition with `kernel` in a directory of its own; `None` without the tools.
    fn make(kernel: &[u8]) -> Option<(tempfile::TempDir, Result<PathBuf, BuildError>)> {
        if let Err(error) = tools() {
            eprintln!("the file system is not checked here: {error}");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("kernel");
        std::fs::write(&file, kernel).unwrap();
        let running = Progress::hidden().start("test");
        let path = directory.path().join("log");
        let programs = Programs::new().unwrap();
        let mut log = Log::create(&path, &running, &programs).unwrap();
        let content = Content {
            label: "TEST",
            files: &[("/EFI/BOOT/BOOTX64.EFI", &file)],
            syslinux: "DEFAULT x\n",
        };
        let place = Layout::new(MIN_DISK_MIB).boot;
        let image = partition(&place, &content, directory.path(), &mut log);
        Some((directory, image))
    }

    #[test]
    fn two_partitions_of_the_same_kernel_are_identical() {
        let kernel: Vec<u8> = (0..3_000_000u32)
            .map(|n| (n.wrapping_mul(n) >> 7) as u8)
            .collect();
        let (Some((_a, one)), Some((_b, two))) = (make(&kernel), make(&kernel)) else {
            return;
        };
        let (one, two) = (one.unwrap(), two.unwrap());
        assert!(std::fs::read(&one).unwrap() == std::fs::read(two).unwrap());
        let mut mtype = process::command("mtype");
        let found = mtype
            .args(["-i", one.to_str().unwrap(), "::/EFI/BOOT/BOOTX64.EFI"])
            .output()
            .unwrap();
        assert!(found.stdout == kernel);
        // The boot sector knows where on the disk it lies.
        let sector = std::fs::read(&one).unwrap();
        assert_eq!(sector[28..32], 2048u32.to_le_bytes());
        assert_eq!(sector[510..512], [0x55, 0xaa]);
    }

    #[test]
    fn a_kernel_too_large_for_the_disk_is_told() {
        let Some((_directory, result)) = make(&vec![1; 6 << 20]) else {
            return;
        };
        let text = result.unwrap_err().to_string();
        assert!(text.contains("is it too small?"), "{text}");
    }
}
