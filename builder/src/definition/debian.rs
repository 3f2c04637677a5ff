//! Definitions of Debian images: packages of a suite, and what is put among them afterwards.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::checker::{Checker, RawFile, RawLink};
use super::machine::RawMachine;
use super::{DefinitionError, File, Link, VirtualMachine};
use crate::cpio::Archive;

/// FAT16 with clusters of 2 KiB holds these sizes.
const BOOT_MIB: std::ops::RangeInclusive<u64> = 16..=96;
/// More is better given to the disk after the build: the root grows.
const MAX_FREE_MIB: u64 = 64 << 10;
/// Where units of the machine's owner lie.
const UNITS: &str = "/etc/systemd/system";
/// Whom `--ssh-key` lets in.
const AUTHORIZED_KEYS: &str = "/etc/ssh/authorized_keys.d/wow";

/// A Debian image, validated.
#[derive(Debug, Clone)]
pub struct Debian {
    /// The file it came from.
    pub file: PathBuf,
    /// The image's name, equal to the file's.
    pub name: String,
    /// Debian's release, by code name.
    pub suite: String,
    /// The packages asked for; what they depend on comes with them.
    pub packages: Vec<Package>,
    /// Patterns of paths that packages hold and the image does not.
    pub left_out: Vec<String>,
    /// What is there before the packages are set up.
    pub early: Vec<File>,
    /// Units that start at boot, besides those that packages start.
    pub enabled: Vec<String>,
    /// Units of packages that do not start at boot.
    pub disabled: Vec<String>,
    /// Patterns of paths that setting up packages leaves and no image may share.
    pub removed: Vec<String>,
    /// Programs of this repository.
    pub binaries: Vec<Binary>,
    /// Units that start at boot.
    pub units: Vec<Unit>,
    /// Files put in last.
    pub files: Vec<File>,
    /// Symbolic links put in last.
    pub links: Vec<Link>,
    /// The kernel's command line.
    pub command_line: String,
    /// The disk.
    pub disk: DebianDisk,
    /// The CD-ROM, where there can be one.
    pub disc: Option<DebianDisc>,
    /// What an OVA asks a hypervisor for.
    pub machine: VirtualMachine,
    /// The largest raw disk that a build accepts.
    pub disk_bytes: u64,
}

/// A package, and where it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Debian's name.
    pub name: String,
    /// The place, for messages.
    pub origin: String,
}

/// A program that cargo builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// The cargo package.
    pub package: String,
    /// The binary's name.
    pub binary: String,
    /// Where it lies in the image.
    pub path: String,
}

/// A systemd unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its file.
    pub file: File,
    /// The links that start it, as its `WantedBy=` asks.
    pub wants: Vec<Link>,
}

/// The disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebianDisk {
    /// The boot partition's size.
    pub boot_mib: u64,
    /// The boot partition's label.
    pub boot_label: String,
    /// The root file system's label.
    pub root_label: String,
    /// Room in the root besides the packages; it grows with the disk.
    pub free_mib: u64,
}

/// The CD-ROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebianDisc {
    /// Its label.
    pub label: String,
    /// The kernel's command line.
    pub command_line: String,
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawDebian {
    name: Spanned<String>,
    debian: RawSystem,
    #[serde(default)]
    content: RawContent,
    boot: RawBoot,
    disk: RawDisk,
    disc: Option<RawDisc>,
    machine: RawMachine,
    limits: RawLimits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawSystem {
    suite: Spanned<String>,
    packages: Vec<Spanned<String>>,
    #[serde(default)]
    left_out: Vec<Spanned<String>>,
    #[serde(default)]
    files: Vec<Spanned<RawFile>>,
    #[serde(default)]
    enabled: Vec<Spanned<String>>,
    #[serde(default)]
    disabled: Vec<Spanned<String>>,
    #[serde(default)]
    removed: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct RawContent {
    binaries: Vec<Spanned<RawBinary>>,
    units: Vec<Spanned<String>>,
    files: Vec<Spanned<RawFile>>,
    links: Vec<Spanned<RawLink>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawBinary {
    package: Spanned<String>,
    binary: Spanned<String>,
    path: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawBoot {
    command_line: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawDisk {
    boot_mib: Spanned<u64>,
    boot_label: Spanned<String>,
    root_label: Spanned<String>,
    free_mib: Spanned<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawDisc {
    label: Spanned<String>,
    command_line: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawLimits {
    disk_bytes: u64,
}

impl Debian {
    /// Adds packages that a person asked for besides the definition's.
    pub fn add_packages(&mut self, names: &[String]) -> Result<(), String> {
        for name in names {
            if !is_package(name) {
                return Err(format!("--with {name:?}: this is no Debian package name"));
            }
            self.packages.push(Package {
                name: name.clone(),
                origin: "--with".to_owned(),
            });
        }
        Ok(())
    }

    /// Lets the holders of the keys in `text`, a public key file's content, log in.
    pub fn authorize(&mut self, text: &str) -> Result<(), String> {
        if text.contains("PRIVATE KEY") {
            return Err("this is a private key: give the file with .pub at its end".to_owned());
        }
        let kinds = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"];
        let is_key = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let kind = words.next().unwrap_or_default();
            kinds.iter().any(|known| kind.starts_with(known)) && words.next().is_some()
        };
        let mut keys = String::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if !is_key(line) {
                return Err("this is no public key file of OpenSSH".to_owned());
            }
            keys.push_str(line);
            keys.push('\n');
        }
        if keys.is_empty() {
            return Err("this file holds no key".to_owned());
        }
        match self.files.iter_mut().find(|f| f.path == AUTHORIZED_KEYS) {
            Some(file) => file.content.extend(keys.into_bytes()),
            None => self.files.push(File {
                path: AUTHORIZED_KEYS.to_owned(),
                mode: 0o644,
                content: keys.into_bytes(),
            }),
        }
        Ok(())
    }
}

impl Checker<'_> {
    pub(super) fn debian(&self, raw: RawDebian) -> Result<Debian, DefinitionError> {
        self.own_name(&raw.name)?;
        self.command_line(&raw.boot.command_line)?;
        self.word(&raw.debian.suite, "a Debian suite's code name", |c| {
            c.is_ascii_lowercase()
        })?;
        let unit = |units: &[Spanned<String>]| {
            self.words(units, "a systemd unit", |c| {
                c.is_ascii_alphanumeric() || "@._-".contains(c)
            })
        };
        let pattern = |patterns: &[Spanned<String>]| {
            self.words(patterns, "a pattern of absolute paths", |c| {
                c.is_ascii_alphanumeric() || "/._-*+".contains(c)
            })
        };
        let mut trial = Archive::new();
        let mut early = Archive::new();
        let content = raw.content;
        let system = raw.debian;
        Ok(Debian {
            file: self.file.to_owned(),
            packages: self.packages(&system.packages)?,
            left_out: pattern(&system.left_out)?,
            early: self.debian_files(&system.files, &mut early)?,
            enabled: unit(&system.enabled)?,
            disabled: unit(&system.disabled)?,
            removed: pattern(&system.removed)?,
            suite: system.suite.into_inner(),
            binaries: self.binaries(&content.binaries, &mut trial)?,
            units: self.units(&content.units, &mut trial)?,
            files: self.debian_files(&content.files, &mut trial)?,
            links: self.debian_links(&content.links, &mut trial)?,
            command_line: raw.boot.command_line.into_inner(),
            disk: self.debian_disk(raw.disk)?,
            disc: raw.disc.map(|raw| self.debian_disc(raw)).transpose()?,
            machine: self.machine(raw.machine)?,
            disk_bytes: raw.limits.disk_bytes,
            name: raw.name.into_inner(),
        })
    }

    fn packages(&self, raw: &[Spanned<String>]) -> Result<Vec<Package>, DefinitionError> {
        let mut packages: Vec<Package> = Vec::new();
        for name in raw {
            if !is_package(name.get_ref()) {
                let message = format!("{:?} is not a Debian package name", name.get_ref());
                return Err(self.at(name, message));
            }
            if packages.iter().any(|known| known.name == *name.get_ref()) {
                return Err(self.at(name, "this package is named twice: remove one".to_owned()));
            }
            let line = self.line(name.span().start);
            packages.push(Package {
                name: name.get_ref().clone(),
                origin: format!("{}:{line}", self.file.display()),
            });
        }
        Ok(packages)
    }

    fn binaries(
        &self,
        raw: &[Spanned<RawBinary>],
        trial: &mut Archive,
    ) -> Result<Vec<Binary>, DefinitionError> {
        let mut binaries = Vec::new();
        for entry in raw {
            let binary = entry.get_ref();
            self.crate_name(&binary.package, "a cargo package")?;
            self.crate_name(&binary.binary, "a cargo binary")?;
            self.plain_path(entry, &binary.path)?;
            let added = trial.file(&binary.path, 0o755, Vec::new());
            added.map_err(|error| self.at(entry, error.to_string()))?;
            binaries.push(Binary {
                package: binary.package.get_ref().clone(),
                binary: binary.binary.get_ref().clone(),
                path: binary.path.clone(),
            });
        }
        Ok(binaries)
    }

    fn units(
        &self,
        raw: &[Spanned<String>],
        trial: &mut Archive,
    ) -> Result<Vec<Unit>, DefinitionError> {
        let mut units = Vec::new();
        for source in raw {
            let content = self.content(source, source.get_ref())?;
            let name = source.get_ref().rsplit('/').next().unwrap_or_default();
            let path = format!("{UNITS}/{name}");
            self.plain_path(source, &path)?;
            let added = trial.file(&path, 0o644, Vec::new());
            added.map_err(|error| self.at(source, error.to_string()))?;
            let mut wants = Vec::new();
            for target in wanted_by(&String::from_utf8_lossy(&content)) {
                let link = format!("{UNITS}/{target}.wants/{name}");
                self.plain_path(source, &link)?;
                let added = trial.symlink(&link, &path);
                added.map_err(|error| self.at(source, error.to_string()))?;
                wants.push(Link {
                    path: link,
                    target: path.clone(),
                });
            }
            if wants.is_empty() {
                let message = format!("{name} has no WantedBy= under [Install]: nothing starts it");
                return Err(self.at(source, message));
            }
            units.push(Unit {
                file: File {
                    path,
                    mode: 0o644,
                    content,
                },
                wants,
            });
        }
        Ok(units)
    }

    fn debian_files(
        &self,
        raw: &[Spanned<RawFile>],
        trial: &mut Archive,
    ) -> Result<Vec<File>, DefinitionError> {
        let files = self.files(raw, trial)?;
        for (entry, file) in raw.iter().zip(&files) {
            self.plain_path(entry, &file.path)?;
        }
        Ok(files)
    }

    fn debian_links(
        &self,
        raw: &[Spanned<RawLink>],
        trial: &mut Archive,
    ) -> Result<Vec<Link>, DefinitionError> {
        let links = self.links(raw, trial)?;
        for (entry, link) in raw.iter().zip(&links) {
            self.plain_path(entry, &link.path)?;
            self.plain_path(entry, &link.target)?;
        }
        Ok(links)
    }

    /// Paths go through shells and debugfs, whose quoting differs.
    fn plain_path<T>(&self, entry: &Spanned<T>, path: &str) -> Result<(), DefinitionError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:".contains(c);
        if path.chars().all(plain) {
            return Ok(());
        }
        let message = format!("{path:?} has characters besides letters, digits and /._-+@:");
        Err(self.at(entry, message))
    }

    fn words(
        &self,
        raw: &[Spanned<String>],
        what: &str,
        allowed: impl Fn(char) -> bool,
    ) -> Result<Vec<String>, DefinitionError> {
        raw.iter()
            .map(|value| {
                self.word(value, what, &allowed)?;
                Ok(value.get_ref().clone())
            })
            .collect()
    }

    fn debian_disk(&self, raw: RawDisk) -> Result<DebianDisk, DefinitionError> {
        let boot = *raw.boot_mib.get_ref();
        if !BOOT_MIB.contains(&boot) {
            let (least, most) = BOOT_MIB.into_inner();
            let message = format!("the boot partition has {least} to {most} MiB, not {boot}");
            return Err(self.at(&raw.boot_mib, message));
        }
        if *raw.free_mib.get_ref() > MAX_FREE_MIB {
            let message = format!("at most {MAX_FREE_MIB} MiB are left free");
            return Err(self.at(&raw.free_mib, message));
        }
        self.fat_label(&raw.boot_label)?;
        self.word(&raw.root_label, "a file system's label", |c| {
            c.is_ascii_alphanumeric() || "_-".contains(c)
        })?;
        if raw.root_label.get_ref().len() > 16 {
            let message = "an ext4 label has at most 16 bytes".to_owned();
            return Err(self.at(&raw.root_label, message));
        }
        Ok(DebianDisk {
            boot_mib: boot,
            boot_label: raw.boot_label.into_inner(),
            root_label: raw.root_label.into_inner(),
            free_mib: raw.free_mib.into_inner(),
        })
    }

    fn debian_disc(&self, raw: RawDisc) -> Result<DebianDisc, DefinitionError> {
        self.word(&raw.label, "a CD-ROM's label in capitals", |c| {
            c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'
        })?;
        // It is also that of the volume for UEFI.
        self.fat_label(&raw.label)?;
        self.command_line(&raw.command_line)?;
        Ok(DebianDisc {
            label: raw.label.into_inner(),
            command_line: raw.command_line.into_inner(),
        })
    }
}

fn is_package(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
}

/// The targets that a unit's `[Install]` names.
fn wanted_by(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim)
        .skip_while(|line| *line != "[Install]")
        .filter_map(|line| line.strip_prefix("WantedBy="))
        .flat_map(str::split_ascii_whitespace)
        .collect()
}
