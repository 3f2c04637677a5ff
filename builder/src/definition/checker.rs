//! The rules that all kinds of definitions share.

use std::path::{Component, Path};

use serde::Deserialize;
use toml::Spanned;

use super::{DefinitionError, File, Link};
use crate::cpio::Archive;

/// COMMAND_LINE_SIZE of x86, with its final NUL.
const MAX_COMMAND_LINE_BYTES: usize = 2047;
/// A FAT volume label has 11 bytes.
const MAX_LABEL_BYTES: usize = 11;
/// More than this as text baked into an image is a mistake.
const MAX_FILE_BYTES: u64 = 16 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawFile {
    path: String,
    source: String,
    mode: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawLink {
    path: String,
    target: String,
}

/// A definition's text while it is checked.
pub(super) struct Checker<'a> {
    pub root: &'a Path,
    pub file: &'a Path,
    pub text: &'a str,
}

impl Checker<'_> {
    /// The definition's name, which the file's says too.
    pub fn own_name(&self, name: &Spanned<String>) -> Result<(), DefinitionError> {
        let stem = self.file.file_stem().and_then(|stem| stem.to_str());
        let stem = stem.unwrap_or_default();
        if name.get_ref() == stem {
            return Ok(());
        }
        Err(self.at(name, format!("the name must be {stem:?}, as the file's")))
    }

    /// Files of the image, each tried on an archive, so that its rules hold here, with a line.
    pub fn files(
        &self,
        raw: &[Spanned<RawFile>],
        trial: &mut Archive,
    ) -> Result<Vec<File>, DefinitionError> {
        let mut files = Vec::new();
        for entry in raw {
            let file = entry.get_ref();
            let mode = self.mode(entry, &file.mode)?;
            let added = trial.file(&file.path, mode, Vec::new());
            added.map_err(|error| self.at(entry, error.to_string()))?;
            files.push(File {
                path: file.path.clone(),
                mode,
                content: self.content(entry, &file.source)?,
            });
        }
        Ok(files)
    }

    /// Symbolic links of the image, tried likewise.
    pub fn links(
        &self,
        raw: &[Spanned<RawLink>],
        trial: &mut Archive,
    ) -> Result<Vec<Link>, DefinitionError> {
        let mut links = Vec::new();
        for entry in raw {
            let link = entry.get_ref();
            let added = trial.symlink(&link.path, &link.target);
            added.map_err(|error| self.at(entry, error.to_string()))?;
            links.push(Link {
                path: link.path.clone(),
                target: link.target.clone(),
            });
        }
        Ok(links)
    }

    pub fn command_line(&self, line: &Spanned<String>) -> Result<(), DefinitionError> {
        let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ';
        if line.get_ref().len() <= MAX_COMMAND_LINE_BYTES && line.get_ref().chars().all(plain) {
            return Ok(());
        }
        let message = format!(
            "a kernel command line is at most {MAX_COMMAND_LINE_BYTES} bytes of printable ASCII \
             without quotes and backslashes"
        );
        Err(self.at(line, message))
    }

    pub fn fat_label(&self, label: &Spanned<String>) -> Result<(), DefinitionError> {
        self.word(label, "a FAT label in capitals", |c| {
            c.is_ascii_uppercase() || c.is_ascii_digit() || "_-".contains(c)
        })?;
        if label.get_ref().len() > MAX_LABEL_BYTES {
            let message = format!("a FAT label has at most {MAX_LABEL_BYTES} bytes");
            return Err(self.at(label, message));
        }
        Ok(())
    }

    pub fn crate_name(&self, name: &Spanned<String>, what: &str) -> Result<(), DefinitionError> {
        self.word(name, what, |c| {
            c.is_ascii_alphanumeric() || "_-".contains(c)
        })
    }

    /// A file of the repository, named relative to `images/`.
    pub fn content<T>(&self, entry: &Spanned<T>, source: &str) -> Result<Vec<u8>, DefinitionError> {
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

    pub fn mode<T>(&self, entry: &Spanned<T>, text: &str) -> Result<u32, DefinitionError> {
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

    pub fn word(
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

    pub fn at<T>(&self, value: &Spanned<T>, message: String) -> DefinitionError {
        self.error(value.span().start, message)
    }

    pub fn error(&self, offset: usize, message: String) -> DefinitionError {
        DefinitionError {
            file: self.file.to_owned(),
            line: self.line(offset),
            message,
        }
    }

    pub fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count() + 1
    }
}
