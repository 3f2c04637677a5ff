//! Image definitions: `images/NAME.toml`, parsed strictly, checked once, passed on whole.
//!
//! [`RawDefinition`] is the file as written and rejects unknown keys; [`Definition`] is what the
//! builder works with. Every error carries the file and the line. Which packages and tools make
//! the image is not the definition's business.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::cpio::Archive;
use crate::disk::layout::MIN_DISK_MIB;

/// A FAT volume label has 11 bytes.
const MAX_LABEL_BYTES: usize = 11;
/// COMMAND_LINE_SIZE of x86, with its final NUL.
const MAX_COMMAND_LINE_BYTES: usize = 2047;
/// FAT16 with clusters of 1 KiB ends here.
const MAX_DISK_MIB: u64 = 64;
/// More than this as text baked into an initramfs is a mistake.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// What is wrong with a definition, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}", file = file.display())]
pub struct DefinitionError {
    /// The definition's file.
    pub file: PathBuf,
    /// The line, from 1; 0 if the file cannot be read at all.
    pub line: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawDefinition {
    name: Spanned<String>,
    kernel: RawKernel,
    initramfs: RawInitramfs,
    disk: RawDisk,
    limits: Limits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawKernel {
    package: Spanned<String>,
    versions: BTreeMap<String, Spanned<String>>,
    fragments: Spanned<Vec<Spanned<String>>>,
    command_line: Spanned<String>,
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
struct RawFile {
    path: String,
    source: String,
    mode: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawLink {
    path: String,
    target: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawDisk {
    size_mib: Spanned<u64>,
    label: Spanned<String>,
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

/// An image, validated.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The file it came from.
    pub file: PathBuf,
    /// The image's name, equal to the file's.
    pub name: String,
    /// The kernel.
    pub kernel: Kernel,
    /// What PID 1 finds.
    pub initramfs: Initramfs,
    /// The disk.
    pub disk: Disk,
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
    /// The command line built in; boot loaders add to it.
    pub command_line: String,
    /// Where the command line stands in the definition.
    pub command_line_line: usize,
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
    /// Files: path, mode, content.
    pub files: Vec<(String, u32, Vec<u8>)>,
    /// Symbolic links: path and target.
    pub links: Vec<(String, String)>,
}

/// The disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The whole disk.
    pub size_mib: u64,
    /// The FAT volume's label.
    pub label: String,
}

impl Definition {
    /// Reads and checks `images/NAME.toml` of the repository at `root`.
    pub fn load(root: &Path, name: &str) -> Result<Self, DefinitionError> {
        let file = Path::new("images").join(format!("{name}.toml"));
        let unreadable = |source: std::io::Error| DefinitionError {
            file: file.clone(),
            line: 0,
            message: format!("cannot read it: {source}; {}", known_images(root)),
        };
        let text = std::fs::read_to_string(root.join(&file)).map_err(unreadable)?;
        Self::parse(root, &file, &text)
    }

    /// Checks `text`, the content of `file` (relative to `root`, under which the fragments and
    /// the initramfs's files lie).
    pub fn parse(root: &Path, file: &Path, text: &str) -> Result<Self, DefinitionError> {
        let checker = Checker { root, file, text };
        let raw: RawDefinition = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            checker.error(at, error.message().to_owned())
        })?;
        checker.definition(raw)
    }
}

/// Names the images there are, for a person who mistyped one.
fn known_images(root: &Path) -> String {
    let mut names: Vec<String> = std::fs::read_dir(root.join("images"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".toml").map(str::to_owned)
        })
        .collect();
    names.sort();
    format!("the images are: {}", names.join(", "))
}

struct Checker<'a> {
    root: &'a Path,
    file: &'a Path,
    text: &'a str,
}

impl Checker<'_> {
    fn definition(&self, raw: RawDefinition) -> Result<Definition, DefinitionError> {
        let stem = self
            .file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        if raw.name.get_ref() != stem {
            let message = format!("the name must be {stem:?}, as the file's");
            return Err(self.at(&raw.name, message));
        }
        Ok(Definition {
            file: self.file.to_owned(),
            kernel: self.kernel(raw.kernel)?,
            initramfs: self.initramfs(raw.initramfs)?,
            disk: self.disk(raw.disk, &raw.limits)?,
            limits: raw.limits,
            name: raw.name.into_inner(),
        })
    }

    fn kernel(&self, raw: RawKernel) -> Result<Kernel, DefinitionError> {
        self.word(&raw.package, "a Debian package name", |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c)
        })?;
        for version in raw.versions.values() {
            self.word(version, "a Debian version", |c| {
                c.is_ascii_alphanumeric() || "+-.:~".contains(c)
            })?;
        }
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
        let line = &raw.command_line;
        let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ';
        if line.get_ref().len() > MAX_COMMAND_LINE_BYTES || !line.get_ref().chars().all(plain) {
            let message = format!(
                "a kernel command line is at most {MAX_COMMAND_LINE_BYTES} bytes of printable \
                 ASCII without quotes and backslashes"
            );
            return Err(self.at(line, message));
        }
        Ok(Kernel {
            package: raw.package.into_inner(),
            versions: raw
                .versions
                .into_iter()
                .map(|(suite, version)| (suite, version.into_inner()))
                .collect(),
            fragments,
            command_line_line: self.line(raw.command_line.span().start),
            command_line: raw.command_line.into_inner(),
        })
    }

    fn initramfs(&self, raw: RawInitramfs) -> Result<Initramfs, DefinitionError> {
        let crate_name = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        self.word(&raw.init.package, "a cargo package", crate_name)?;
        self.word(&raw.init.binary, "a cargo binary", crate_name)?;
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
        let mut files = Vec::new();
        for entry in &raw.files {
            let file = entry.get_ref();
            let mode = self.mode(entry, &file.mode)?;
            let added = trial.file(&file.path, mode, Vec::new());
            added.map_err(|error| self.at(entry, error.to_string()))?;
            files.push((file.path.clone(), mode, self.content(entry, &file.source)?));
        }
        let mut links = Vec::new();
        for entry in &raw.links {
            let link = entry.get_ref();
            let added = trial.symlink(&link.path, &link.target);
            added.map_err(|error| self.at(entry, error.to_string()))?;
            links.push((link.path.clone(), link.target.clone()));
        }
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
        self.word(&raw.label, "a FAT label in capitals", |c| {
            c.is_ascii_uppercase() || c.is_ascii_digit() || "_-".contains(c)
        })?;
        if raw.label.get_ref().len() > MAX_LABEL_BYTES {
            let message = format!("a FAT label has at most {MAX_LABEL_BYTES} bytes");
            return Err(self.at(&raw.label, message));
        }
        Ok(Disk {
            size_mib: size,
            label: raw.label.into_inner(),
        })
    }

    /// A file of the repository, named relative to `images/`.
    fn content<T>(&self, entry: &Spanned<T>, source: &str) -> Result<Vec<u8>, DefinitionError> {
        let relative = Path::new(source);
        if !relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            let message =
                format!("{source:?} must be a path below images/, without `..` or a leading slash");
            return Err(self.at(entry, message));
        }
        let path = Path::new("images").join(relative);
        let full = self.root.join(&path);
        let length = std::fs::metadata(&full).map(|metadata| metadata.len());
        if length.as_ref().is_ok_and(|length| *length > MAX_FILE_BYTES) {
            let message = format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display());
            return Err(self.at(entry, message));
        }
        length
            .and_then(|_| std::fs::read(&full))
            .map_err(|error| self.at(entry, format!("cannot read {}: {error}", path.display())))
    }

    fn mode<T>(&self, entry: &Spanned<T>, text: &str) -> Result<u32, DefinitionError> {
        u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| mode & !0o7777 == 0)
            .ok_or_else(|| {
                self.at(
                    entry,
                    format!("mode {text:?} must be octal permissions, such as \"0644\""),
                )
            })
    }

    fn word(
        &self,
        value: &Spanned<String>,
        what: &str,
        allowed: impl Fn(char) -> bool,
    ) -> Result<(), DefinitionError> {
        let text = value.get_ref();
        let fine = !text.is_empty() && !text.starts_with('-') && text.chars().all(allowed);
        if fine {
            Ok(())
        } else {
            Err(self.at(value, format!("{text:?} is not {what}")))
        }
    }

    fn at<T>(&self, value: &Spanned<T>, message: String) -> DefinitionError {
        self.error(value.span().start, message)
    }

    fn error(&self, offset: usize, message: String) -> DefinitionError {
        DefinitionError {
            file: self.file.to_owned(),
            line: self.line(offset),
            message,
        }
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count() + 1
    }
}

#[cfg(test)]
mod tests;
