//! FAT volumes with what firmware loads: a disk's boot partition, FAT16 with syslinux for BIOS, and the
//! volume that UEFI looks for on a CD-ROM.
//!
//! One copy of a kernel serves both. Times, the volume id and the order of the files are fixed.

use std::path::{Path, PathBuf};

use super::iso;
use super::layout::{Extent, SECTOR_BYTES};
use crate::BuildError;
use crate::digest::Fields;
use crate::process::{self, Log};

/// Clusters of 1 KiB make FAT16 of the smallest disk; beyond this there would be too many of them.
const SMALL_CLUSTERS: (u64, &str) = (63 << 20, "2");
const LARGE_CLUSTERS: &str = "4";

/// Clusters of a CD-ROM's volume: as long as its sectors, so that its files begin with one.
const DISC_CLUSTER: u64 = iso::SECTOR_BYTES;
/// With fewer clusters a volume is FAT12, and with more FAT16.
const FAT12_CLUSTERS_MAX: u64 = 4084;
const FAT16_CLUSTERS: std::ops::Range<u64> = 4096..65_000;
/// Room on a CD-ROM's volume for its tables and directories, in clusters beside those of the files.
const DISC_OVERHEAD: u64 = 160;

/// What a volume holds.
#[derive(Debug, Clone)]
pub struct Content<'a> {
    /// The volume's label.
    pub label: &'a str,
    /// Files in this order, each with its place such as `/EFI/BOOT/BOOTX64.EFI`.
    pub files: &'a [(&'a str, &'a Path)],
    /// The configuration of syslinux, where a BIOS shall start it.
    pub syslinux: Option<&'a str>,
}

/// How a volume is made.
struct Shape<'a> {
    bytes: u64,
    /// Where it lies on its disk, in sectors.
    first: u64,
    bits: &'a str,
    cluster_sectors: &'a str,
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
    let shape = Shape {
        bytes: place.bytes(),
        first: place.first,
        bits: "16",
        cluster_sectors: match place.bytes() <= SMALL_CLUSTERS.0 {
            true => SMALL_CLUSTERS.1,
            false => LARGE_CLUSTERS,
        },
    };
    volume(&shape, content, directory, log)
}

/// Makes the image of a CD-ROM's volume, just large enough, in `directory`.
pub fn disc(
    content: &Content<'_>,
    directory: &Path,
    log: &mut Log<'_>,
) -> Result<PathBuf, BuildError> {
    let mut clusters = DISC_OVERHEAD;
    for (_, file) in content.files {
        let bytes = std::fs::metadata(file)
            .map_err(BuildError::io("read", file))?
            .len();
        clusters += bytes.div_ceil(DISC_CLUSTER);
    }
    let bits = match clusters {
        ..=FAT12_CLUSTERS_MAX => "12",
        _ => "16",
    };
    if bits == "16" {
        // Its tables are longer, and what has too few clusters is taken for FAT12.
        clusters = (clusters + clusters / 512).max(FAT16_CLUSTERS.start + DISC_OVERHEAD);
    }
    if clusters >= FAT16_CLUSTERS.end {
        let message = "too much for the FAT volume of a CD-ROM".to_owned();
        return Err(BuildError::Input(message));
    }
    let shape = Shape {
        bytes: clusters * DISC_CLUSTER,
        first: 0,
        bits,
        cluster_sectors: "4",
    };
    volume(&shape, content, directory, log)
}

/// Where a file in the root of a FAT16 volume lies, in sectors from the volume's start. It must lie in one piece, as
/// files of a volume just made do.
pub fn place_of(image: &Path, name: &str) -> Result<Extent, BuildError> {
    let volume = std::fs::read(image).map_err(BuildError::io("read", image))?;
    let wrong = |what: &str| {
        let shown = image.display();
        BuildError::Input(format!("{name} in {shown}: {what}"))
    };
    let number = |at: usize, bytes: usize| {
        let field = volume.get(at..at + bytes).unwrap_or_default();
        let digits = field.iter().rev();
        digits.fold(0u64, |number, digit| number << 8 | u64::from(*digit))
    };
    // Microsoft's FAT specification, "Boot Sector and BPB".
    let cluster_sectors = number(13, 1);
    let fats = number(14, 2);
    let root = fats + number(16, 1) * number(22, 2);
    let entries = number(17, 2);
    let data = root + (entries * 32).div_ceil(SECTOR_BYTES);
    let (stem, extension) = name[1..].split_once('.').unwrap_or((&name[1..], ""));
    let short = format!("{stem:<8}{extension:<3}");
    let at = |sector: u64| (sector * SECTOR_BYTES) as usize;
    let entry = (0..entries as usize)
        .map(|index| at(root) + 32 * index)
        .find(|entry| volume.get(*entry..*entry + 11) == Some(short.as_bytes()))
        .ok_or_else(|| wrong("is not there"))?;
    let (first, bytes) = (number(entry + 26, 2), number(entry + 28, 4));
    let clusters = bytes.div_ceil(cluster_sectors * SECTOR_BYTES);
    let in_one_piece = (first..first + clusters - 1)
        .all(|cluster| number(at(fats) + 2 * cluster as usize, 2) == cluster + 1);
    if !in_one_piece {
        return Err(wrong("lies in pieces"));
    }
    let first = data + (first - 2) * cluster_sectors;
    Ok(Extent {
        first,
        last: first + bytes.div_ceil(SECTOR_BYTES) - 1,
    })
}

fn volume(
    shape: &Shape<'_>,
    content: &Content<'_>,
    directory: &Path,
    log: &mut Log<'_>,
) -> Result<PathBuf, BuildError> {
    let label = content.label;
    let image = directory.join("partition.img");
    let created = std::fs::File::create(&image).and_then(|file| file.set_len(shape.bytes));
    created.map_err(BuildError::io("create", &image))?;
    let id = &Fields::new("wow fat")
        .field("label", label)
        .finish()
        .to_string()[..8];
    log.run(
        "making the file system",
        process::command("mkfs.fat")
            .args(["--invariant", "-F", shape.bits])
            .args(["-s", shape.cluster_sectors, "-i", id, "-n", label])
            .args(["-h", &shape.first.to_string()])
            .arg(&image),
    )?;
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
    let configuration = directory.join("syslinux.cfg");
    let mut files = content.files.to_vec();
    if let Some(text) = content.syslinux {
        std::fs::write(&configuration, text).map_err(BuildError::io("write", &configuration))?;
        files.push(("/syslinux/syslinux.cfg", &configuration));
    }
    let mut directories: Vec<String> = Vec::new();
    for (name, _) in &files {
        for (at, _) in name.match_indices('/').skip(1) {
            let directory = format!("::{}", &name[..at]);
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
    }
    log.run("making directories", mtool("mmd").args(&directories))?;
    for (name, file) in files {
        log.run(
            &format!("copying {name} to the disk (is it too small?)"),
            mtool("mcopy").arg(file).arg(format!("::{name}")),
        )?;
    }
    if content.syslinux.is_some() {
        log.run(
            "installing the boot loader",
            process::command("syslinux")
                .env("MTOOLSRC", "/dev/null")
                .args(["--install", "--directory", "/syslinux"])
                .arg(&image),
        )?;
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::layout::{Layout, MIN_DISK_MIB};
    use crate::process::Programs;
    use crate::progress::Progress;

    const SMALL: &[u8] = b"0123456789";

    /// Makes a partition with `kernel` in a directory of its own; `None` without the tools.
    fn make(kernel: &[u8]) -> Option<(tempfile::TempDir, Result<PathBuf, BuildError>)> {
        if let Err(error) = tools() {
            eprintln!("the file system is not checked here: {error}");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("kernel");
        std::fs::write(&file, kernel).unwrap();
        let small = directory.path().join("small");
        std::fs::write(&small, SMALL.repeat(300)).unwrap();
        let running = Progress::hidden().start("test");
        let path = directory.path().join("log");
        let programs = Programs::new().unwrap();
        let mut log = Log::create(&path, &running, &programs).unwrap();
        let content = Content {
            label: "TEST",
            files: &[("/EFI/BOOT/BOOTX64.EFI", &file), ("/SMALL.TXT", &small)],
            syslinux: Some("DEFAULT x\n"),
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
        // What is found by sectors is what is found by name.
        let place = place_of(&one, "/SMALL.TXT").unwrap();
        assert_eq!(place.sectors(), 6);
        let at = (place.first * SECTOR_BYTES) as usize;
        assert_eq!(sector[at..at + 3000], SMALL.repeat(300));
        let missing = place_of(&one, "/NO.TXT").unwrap_err().to_string();
        assert!(missing.contains("is not there"), "{missing}");
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
