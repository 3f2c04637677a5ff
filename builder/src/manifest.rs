//! `manifest.json`: what an image was made of, and what came out.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::BuildError;
use crate::cache::Fact;
use crate::digest::Digest;

/// The manifest's file beside the artefacts.
pub const FILE: &str = "manifest.json";

/// The formats of artefacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The kernel, for `-kernel` and boot loaders. An appliance's has its initramfs built in, and
    /// UEFI starts it too.
    Kernel,
    /// The initramfs of a kernel that has it beside itself.
    Initrd,
    /// A raw disk.
    Raw,
    /// The same disk as qcow2.
    Qcow2,
    /// The same disk as a stream-optimized VMDK.
    Vmdk,
    /// The same as a virtual machine that hypervisors import.
    Ova,
    /// A CD-ROM.
    Iso,
}

impl Format {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::Kernel,
        Self::Initrd,
        Self::Raw,
        Self::Qcow2,
        Self::Vmdk,
        Self::Ova,
        Self::Iso,
    ];
    /// Those that a build makes without being asked, where the image has them.
    pub const DEFAULT: [Self; 4] = [Self::Kernel, Self::Initrd, Self::Raw, Self::Qcow2];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Ova => "ova",
            Self::Iso => "iso",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{text:?} is no format; there are {names}")
        })
    }
}

/// A file that a build made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artefact {
    /// Its format.
    pub format: Format,
    /// Its path, relative to the manifest's directory.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Digest,
}

/// What went in and what came out of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The image's name.
    pub image: String,
    /// What the kernel needs to be told to find its root, where that is on the disk.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "command-line"
    )]
    pub command_line: Option<String>,
    /// Everything it was made of, in a fixed order.
    pub inputs: Vec<Fact>,
    /// Everything that came out.
    pub artefacts: Vec<Artefact>,
    /// The directory of the artefacts. Not written: it differs between machines.
    #[serde(skip)]
    pub directory: PathBuf,
}

impl Manifest {
    /// Reads the manifest of the artefacts in `directory`.
    pub fn load(directory: &Path) -> Result<Self, BuildError> {
        let path = directory.join(FILE);
        let text = std::fs::read(&path).map_err(BuildError::io("read", &path))?;
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| {
            BuildError::Input(format!(
                "{}: {error}; build the image again",
                path.display()
            ))
        })?;
        Ok(Self {
            directory: directory.to_owned(),
            ..manifest
        })
    }

    /// The artefact of a format, if the image has one.
    pub fn artefact(&self, format: Format) -> Option<&Artefact> {
        self.artefacts
            .iter()
            .find(|artefact| artefact.format == format)
    }

    /// Where the artefact of a format lies.
    pub fn path(&self, format: Format) -> Option<PathBuf> {
        self.artefact(format)
            .map(|artefact| self.directory.join(&artefact.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_names_no_directory() {
        let directory = tempfile::tempdir().unwrap();
        let manifest = Manifest {
            image: "router".into(),
            command_line: None,
            inputs: vec![Fact {
                name: "linux-source-6.12".into(),
                version: "6.12.1-1".into(),
                sha256: Some(Digest::of(b"deb")),
                ..Fact::default()
            }],
            artefacts: vec![Artefact {
                format: Format::Raw,
                path: "disk.raw".into(),
                bytes: 3,
                sha256: Digest::of(b"raw"),
            }],
            directory: directory.path().to_owned(),
        };
        let text = serde_json::to_string_pretty(&manifest).unwrap();
        assert!(
            text.contains("\"format\": \"raw\"") && !text.contains("note"),
            "{text}"
        );
        assert!(!text.contains(directory.path().to_str().unwrap()));
        std::fs::write(directory.path().join(FILE), &text).unwrap();
        let read = Manifest::load(directory.path()).unwrap();
        assert_eq!(read, manifest);
        assert_eq!(
            read.path(Format::Raw),
            Some(directory.path().join("disk.raw"))
        );
        assert_eq!(read.path(Format::Kernel), None);
    }
}
