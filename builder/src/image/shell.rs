//! The shell of an appliance that is built with one: Debian's static busybox, out of its package.

use std::path::Path;

use crate::BuildError;
use crate::cache::{self, Seal};
use crate::cpio::{Archive, CpioError};
use crate::definition::Appliance;
use crate::digest::Digest;
use crate::kernel::source::{self, Request};
use crate::process::{self, Log};

/// Where the program is in the package and in the initramfs. Process 1 offers a shell where it finds it there.
const PROGRAM: &str = "bin/busybox";

/// What an initramfs needs on the way to it that a definition need not have.
const DIRECTORY: &str = "/bin";

/// What to fetch, if the image is to have a shell.
pub fn request(definition: &Appliance, mirrors: &[String]) -> Result<Option<Request>, BuildError> {
    let shell = &definition.shell;
    let Some(package) = shell.package.clone().filter(|_| shell.wanted) else {
        return Ok(None);
    };
    let suite = source::suite()?;
    Ok(Some(Request {
        package,
        version: shell.versions.get(&suite).cloned(),
        suite,
        mirrors: mirrors.to_vec(),
    }))
}

/// Fetches the package and takes the program out of it.
pub fn fetch(
    request: &Request,
    lists: &Path,
    entry: &Path,
    log: &mut Log<'_>,
) -> Result<Seal, BuildError> {
    let (package, fact) = source::fetch_package(request, "shell.versions", lists, entry, log)?;
    let content = entry.join("content");
    let mut unpack = process::command("dpkg-deb");
    log.run(
        "unpacking the shell",
        unpack.arg("--extract").arg(&package).arg(&content),
    )?;
    cache::remove(&package)?;
    let file = "busybox";
    let path = entry.join(file);
    let program = [content.join(PROGRAM), content.join("usr").join(PROGRAM)];
    let found = program.into_iter().find(|path| path.is_file());
    let found = found.ok_or_else(|| {
        BuildError::Source(format!("the package {} has no {PROGRAM}", request.package))
    })?;
    std::fs::rename(&found, &path).map_err(BuildError::io("move", &found))?;
    cache::remove(&content)?;
    Ok(Seal {
        digest: Digest::of_file(&path)?,
        file: Some(file.to_owned()),
        facts: vec![fact],
    })
}

/// Puts it into an initramfs.
pub fn install(archive: &mut Archive, program: Vec<u8>) -> Result<(), CpioError> {
    archive.file(&format!("/{PROGRAM}"), 0o755, program)?;
    archive.symlink(&format!("{DIRECTORY}/sh"), "busybox")
}
