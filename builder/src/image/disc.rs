//! The CD-ROM of an image: what firmware loads, in a volume for UEFI and as files for BIOS.

use std::path::{Path, PathBuf};

use crate::BuildError;
use crate::cache::{self, Seal};
use crate::digest::Digest;
use crate::disk::{fat, iso};
use crate::process::{self, Log};

/// The CD-ROM's file beside the manifest.
pub const FILE: &str = "disc.iso";

/// What a BIOS starts, of Debian's package isolinux.
const ISOLINUX: &str = "/usr/lib/ISOLINUX/isolinux.bin";
/// What that loads, of Debian's package syslinux-common.
const LDLINUX: &str = "/usr/lib/syslinux/modules/bios/ldlinux.c32";

/// What is on the CD-ROM.
#[derive(Debug)]
pub struct Content<'a> {
    /// The volume's label.
    pub label: &'a str,
    /// What the UEFI volume holds, each with its place such as `/EFI/BOOT/BOOTX64.EFI`.
    pub uefi: &'a [(&'a str, &'a Path)],
    /// Files, each with a name of 8.3.
    pub files: &'a [(&'a str, &'a Path)],
    /// The configuration of isolinux.
    pub isolinux: &'a str,
}

/// The packages that a CD-ROM's loader comes from, with their versions: part of its key.
pub fn tools() -> Result<String, BuildError> {
    let mut question = process::command("dpkg-query");
    question
        .args(["--show", "--showformat=${Package} ${Version}\\n"])
        .args(["isolinux", "syslinux-common"]);
    process::output(&mut question).map_err(|error| {
        BuildError::Input(format!(
            "{error}\ninstall what boots a CD-ROM by BIOS: apt-get install isolinux syslinux-common"
        ))
    })
}

/// Makes it in `entry`.
pub fn make(content: &Content<'_>, entry: &Path, log: &mut Log<'_>) -> Result<Seal, BuildError> {
    let scratch = scratch(entry)?;
    let volume = fat::Content {
        label: content.label,
        files: content.uefi,
        syslinux: None,
    };
    let volume = fat::disc(&volume, &scratch, log)?;
    let configuration = scratch.join("isolinux.cfg");
    std::fs::write(&configuration, content.isolinux)
        .map_err(BuildError::io("write", &configuration))?;
    let own = [
        ("ISOLINUX.CFG", configuration.as_path()),
        ("LDLINUX.C32", Path::new(LDLINUX)),
    ];
    let disc = iso::Disc {
        label: content.label,
        bios: ("ISOLINUX.BIN", Path::new(ISOLINUX)),
        uefi: ("UEFI.IMG", &volume),
        files: &[&own, content.files].concat(),
    };
    let path = entry.join(FILE);
    iso::write(&disc, &path).map_err(BuildError::io("write", &path))?;
    cache::remove(&scratch)?;
    Ok(Seal {
        digest: Digest::of_file(&path)?,
        file: Some(FILE.to_owned()),
        facts: Vec::new(),
    })
}

/// An empty directory to work in, beside that of the caller.
fn scratch(entry: &Path) -> Result<PathBuf, BuildError> {
    let scratch = entry.join("disc");
    cache::remove(&scratch)?;
    cache::create(&scratch)?;
    Ok(scratch)
}
