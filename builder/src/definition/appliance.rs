//! Definitions of appliances: a kernel of our own, whose process 1 is one program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::checker::{Checker, RawFile, RawLink};
use super::machine::RawMachine;
use super::{DefinitionError, File, Link, VirtualMachine};
use crate::cpio::Archive;
use crate::disk::layout::{Layout, MIN_DISK_MIB};

/// FAT16 with clusters of 1 KiB ends here.
const MAX_DISK_MIB: u64 = 64;
/// What a slot's partition holds besides its kernel: syslinux, UEFI's loader, and the tables of FAT.
const SLOT_OVERHEAD_BYTES: u64 = 384 << 10;

/// By so much an image with a shell may be larger: busybox has some 2 MB, half of it when compressed.
const SHELL_MIB: u64 = 2;

/// An appliance, validated.
#[derive(Debug, Clone)]
pub struct Appliance {
    /// The file it came from.
    pub file: PathBuf,
    /// The image's name, equal to the file's.
    pub name: String,
    /// The kernel.
    pub kernel: Kernel,
    /// What PID 1 finds.
    pub initramfs: Initramfs,
    /// The shell that an image has if it is asked for, and whether it is.
    pub shell: Shell,
    /// The disk.
    pub disk: Disk,
    /// What an OVA asks a hypervisor for.
    pub machine: VirtualMachine,
    /// Sizes not to exceed.
    pub limits: Limits,
}

/// Which kernel, and how it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Debian's source package of the kernel (a binary package that holds the tree).
    pub package: String,
    /// The version to use in each Debian suite, by code name.
    pub versions: BTreeMap<String, String>,
    /// The fragments' files, in order.
    pub fragments: Vec<PathBuf>,
    /// Directories of the source that are compiled for speed where the rest is compiled for size.
    pub for_speed: Vec<String>,
    /// The command line built in; boot loaders add to it.
    pub command_line: String,
    /// Where the command line stands in the definition.
    pub command_line_line: usize,
}

/// A shell for whoever stands before the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shell {
    /// Debian's package of a static busybox; none where the definition has no shell to offer.
    pub package: Option<String>,
    /// The version to use in each Debian suite, by code name.
    pub versions: BTreeMap<String, String>,
    /// Whether the image has it.
    pub wanted: bool,
}

/// The content of the initramfs besides the device nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initramfs {
    /// The cargo package of `/init`.
    pub package: String,
    /// Its binary.
    pub binary: String,
    /// Directories: path and mode.
    pub directories: Vec<(String, u32)>,
    /// Files.
    pub files: Vec<File>,
    /// Symbolic links.
    pub links: Vec<Link>,
}

/// The disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The whole disk.
    pub size_mib: u64,
    /// The FAT volume's label.
    pub label: String,
    /// Room for a kernel in each of two slots, where the appliance can be updated.
    pub slot_mib: Option<u64>,
}

impl Appliance {
    /// Asks for the definition's shell. The image then has a name of its own, so that nobody takes it for the one
    /// without.
    ///
    /// # Errors
    /// The definition names none.
    pub fn add_shell(&mut self) -> Result<(), String> {
        if self.shell.package.is_none() {
            return Err(format!(
                "{} names no shell: add a table [shell] with the package to take it from",
                self.file.display()
            ));
        }
        if !self.shell.wanted {
            self.shell.wanted = true;
            self.name.push_str("-shell");
            self.limits.kernel_bytes += SHELL_MIB << 20;
            // Both slots hold it.
            self.disk.size_mib += 2 * SHELL_MIB;
            self.limits.disk_bytes += (2 * SHELL_MIB) << 20;
        }
        Ok(())
    }
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawAppliance {
    name: Spanned<String>,
    kernel: RawKernel,
    initramfs: RawInitramfs,
    #[serde(default)]
    shell: Option<RawShell>,
    disk: RawDisk,
    machine: RawMachine,
    limits: Limits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawKernel {
    package: Spanned<String>,
    versions: BTreeMap<String, Spanned<String>>,
    fragments: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    for_speed: Vec<Spanned<String>>,
    command_line: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawShell {
    package: Spanned<String>,
    #[serde(default)]
    versions: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    always: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawInitramfs {
    init: RawInit,
    #[serde(default)]
    directories: Vec<Spanned<RawDirectory>>,
    #[serde(default)]
    files: Vec<Spanned<RawFile>>,
    #[serde(default)]
    links: Vec<Spanned<RawLink>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawInit {
    package: Spanned<String>,
    binary: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawDirectory {
    path: String,
    mode: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawDisk {
    size_mib: Spanned<u64>,
    label: Spanned<String>,
    slot_mib: Option<Spanned<u64>>,
}

/// The largest sizes that a build accepts, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// The kernel with its initramfs.
    pub kernel_bytes: u64,
    /// The raw disk.
    pub disk_bytes: u64,
}

impl Checker<'_> {
    pub(super) fn appliance(&self, raw: RawAppliance) -> Result<Appliance, DefinitionError> {
        self.own_name(&raw.name)?;
        Ok(Appliance {
            file: self.file.to_owned(),
            name: raw.name.into_inner(),
            kernel: self.kernel(raw.kernel)?,
            initramfs: self.initramfs(raw.initramfs)?,
            shell: match raw.shell {
                Some(shell) => self.shell(shell)?,
                None => Shell::default(),
            },
            disk: self.disk(raw.disk, &raw.limits)?,
            machine: self.machine(raw.machine)?,
            limits: raw.limits,
        })
    }

    /// A package, and its versions by suite.
    fn package(
        &self,
        package: &Spanned<String>,
        versions: &BTreeMap<String, Spanned<String>>,
    ) -> Result<(), DefinitionError> {
        self.word(package, "a Debian package name", |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c)
        })?;
        for version in versions.values() {
            self.word(version, "a Debian version", |c| {
                c.is_ascii_alphanumeric() || "+-.:~".contains(c)
            })?;
        }
        Ok(())
    }

    fn shell(&self, raw: RawShell) -> Result<Shell, DefinitionError> {
        self.package(&raw.package, &raw.versions)?;
        Ok(Shell {
            package: Some(raw.package.into_inner()),
            versions: raw
                .versions
                .into_iter()
                .map(|(suite, version)| (suite, version.into_inner()))
                .collect(),
            wanted: raw.always,
        })
    }

    fn kernel(&self, raw: RawKernel) -> Result<Kernel, DefinitionError> {
        self.package(&raw.package, &raw.versions)?;
        if raw.fragments.get_ref().is_empty() {
            let message = "name at least one fragment of kernel-config/".to_owned();
            return Err(self.at(&raw.fragments, message));
        }
        let mut fragments = Vec::new();
        for name in raw.fragments.get_ref() {
            self.word(name, "a fragment's name", |c| {
                c.is_ascii_alphanumeric() || "_-".contains(c)
            })?;
            let file = Path::new("kernel-config").join(format!("{}.config", name.get_ref()));
            if !self.root.join(&file).is_file() {
                let message = format!(
                    "there is no {}: correct the name, or write it",
                    file.display()
                );
                return Err(self.at(name, message));
            }
            if fragments.contains(&file) {
                return Err(self.at(name, "this fragment is named twice: remove one".to_owned()));
            }
            fragments.push(file);
        }
        for directory in &raw.for_speed {
            self.word(directory, "a directory of the kernel's source", |c| {
                c.is_ascii_lowercase() || c.is_ascii_digit() || "/_-".contains(c)
            })?;
            if directory.get_ref().starts_with('/') {
                let message = "a directory is named from the source's own root".to_owned();
                return Err(self.at(directory, message));
            }
        }
        self.command_line(&raw.command_line)?;
        Ok(Kernel {
            package: raw.package.into_inner(),
            versions: raw
                .versions
                .into_iter()
                .map(|(suite, version)| (suite, version.into_inner()))
                .collect(),
            fragments,
            for_speed: raw.for_speed.into_iter().map(Spanned::into_inner).collect(),
            command_line_line: self.line(raw.command_line.span().start),
            command_line: raw.command_line.into_inner(),
        })
    }

    fn initramfs(&self, raw: RawInitramfs) -> Result<Initramfs, DefinitionError> {
        self.crate_name(&raw.init.package, "a cargo package")?;
        self.crate_name(&raw.init.binary, "a cargo binary")?;
        // Everything is tried on an archive, so that its rules hold here, with a line.
        let mut trial = Archive::new();
        let mut directories = Vec::new();
        for entry in &raw.directories {
            let directory = entry.get_ref();
            let mode = self.mode(entry, &directory.mode)?;
            let added = trial.directory(&directory.path, mode);
            added.map_err(|error| self.at(entry, error.to_string()))?;
            directories.push((directory.path.clone(), mode));
        }
        let files = self.files(&raw.files, &mut trial)?;
        let links = self.links(&raw.links, &mut trial)?;
        Ok(Initramfs {
            package: raw.init.package.into_inner(),
            binary: raw.init.binary.into_inner(),
            directories,
            files,
            links,
        })
    }

    fn disk(&self, raw: RawDisk, limits: &Limits) -> Result<Disk, DefinitionError> {
        let size = *raw.size_mib.get_ref();
        if !(MIN_DISK_MIB..=MAX_DISK_MIB).contains(&size) {
            let message = format!("a disk has {MIN_DISK_MIB} to {MAX_DISK_MIB} MiB, not {size}");
            return Err(self.at(&raw.size_mib, message));
        }
        if size << 20 > limits.disk_bytes {
            let message = format!(
                "{size} MiB are {} bytes, more than limits.disk-bytes ({}): change one of them",
                size << 20,
                limits.disk_bytes
            );
            return Err(self.at(&raw.size_mib, message));
        }
        self.fat_label(&raw.label)?;
        if let Some(slot) = &raw.slot_mib {
            self.slot(slot, size, limits)?;
        }
        Ok(Disk {
            size_mib: size,
            slot_mib: raw.slot_mib.map(Spanned::into_inner),
            label: raw.label.into_inner(),
        })
    }

    /// A slot holds the largest kernel that is allowed, and both fit the disk with their boot loaders.
    fn slot(&self, slot: &Spanned<u64>, size: u64, limits: &Limits) -> Result<(), DefinitionError> {
        let mib = *slot.get_ref();
        if mib
            .checked_mul(1 << 20)
            .is_none_or(|bytes| bytes < limits.kernel_bytes)
        {
            let message = format!(
                "{mib} MiB are less than limits.kernel-bytes ({}): change one of them",
                limits.kernel_bytes
            );
            return Err(self.at(slot, message));
        }
        let partition = Layout::with_slots(size).boot.bytes();
        if (mib << 20) + SLOT_OVERHEAD_BYTES > partition {
            let message = format!(
                "a disk of {size} MiB has no room for two slots of {mib} MiB and their boot loaders"
            );
            return Err(self.at(slot, message));
        }
        Ok(())
    }
}
