//! The bundle: the static `wow` with what starts it on hosts that are not ours, as a small tar and as an OCI
//! image. The same inputs give the same bytes.

mod oci;
mod read;

use std::path::{Path, PathBuf};

use crate::BuildError;
use crate::archive::{self, Entry};
use crate::cache;
use crate::digest::Digest;
use crate::image::{Options, binary};
use crate::process::{Log, Programs};

pub use read::{Bundle, ReadError, Version, VersionError};

/// The cargo package and binary that are bundled.
const PACKAGE: (&str, &str) = ("wow-router", "wow");
/// The program within the bundle.
const PROGRAM: &str = "wow";
/// The checksums of everything else in the bundle.
const SUMS: &str = "SHA256SUMS";
/// Where the repository keeps what stands beside the program.
const FILES_DIRECTORY: &str = "images/bundle";
/// What stands beside the program: the start script and the unit, with their modes.
const FILES: [(&str, u32); 2] = [("wow-node", 0o755), ("wow.service", 0o644)];
/// How many digits of the content's digest a version has.
const DIGITS: usize = 12;

/// What [`build`] made.
#[derive(Debug, Clone)]
pub struct Built {
    /// The program, which runs on this machine as well.
    pub program: PathBuf,
    /// What it is packed in.
    pub written: Written,
}

/// The files that [`write`] wrote.
#[derive(Debug, Clone)]
pub struct Written {
    /// The bundle's version: the program's, and what tells contents apart.
    pub version: Version,
    /// The tar, compressed by gzip.
    pub tar: PathBuf,
    /// The OCI image's tar.
    pub oci: PathBuf,
    /// SHA-256 sums of both.
    pub sums: PathBuf,
}

/// Builds the program and writes tar, OCI image and checksums into `target/bundle`.
pub fn build(options: &Options) -> Result<Built, BuildError> {
    let directories = &options.directories;
    let output = directories.target.join("bundle");
    cache::create(&output)?;
    let programs = Programs::new()?;
    let (package, name) = PACKAGE;
    let running = options.progress.start("the program");
    let log_path = output.join("build.log");
    let mut log = Log::create(&log_path, &running, &programs)?;
    let program = binary::build(directories, package, name, &mut log)?;
    running.finish("done");
    let content = std::fs::read(&program).map_err(BuildError::io("read", &program))?;
    let written = write(&directories.root, &output, content)?;
    Ok(Built { program, written })
}

/// Writes the bundle of this program into `output`; what stands beside the program comes from the repository
/// at `root`.
pub fn write(root: &Path, output: &Path, program: Vec<u8>) -> Result<Written, BuildError> {
    let release = env!("CARGO_PKG_VERSION");
    let oci = oci::image(&program, release)?;
    let (version, tar) = tar(root, program)?;
    let mut sums = String::new();
    let mut publish = |name: String, bytes: &[u8]| {
        sums += &format!("{}  {name}\n", Digest::of(bytes));
        let path = output.join(name);
        cache::publish(&path, bytes).map(|()| path)
    };
    let tar = publish(format!("wow-{release}-x86_64.tar.gz"), &tar)?;
    let oci = publish(format!("wow-{release}-x86_64.oci.tar"), &oci)?;
    let path = output.join(SUMS);
    cache::publish(&path, sums.as_bytes())?;
    Ok(Written {
        version,
        tar,
        oci,
        sums: path,
    })
}

/// The compressed tar: one directory, named by the version.
fn tar(root: &Path, program: Vec<u8>) -> Result<(Version, Vec<u8>), BuildError> {
    let mut files = vec![(PROGRAM, 0o755, program)];
    for (name, mode) in FILES {
        let path = root.join(FILES_DIRECTORY).join(name);
        let content = std::fs::read(&path).map_err(BuildError::io("read", &path))?;
        files.push((name, mode, content));
    }
    let sums: String = files
        .iter()
        .map(|(name, _, content)| format!("{}  {name}\n", Digest::of(content)))
        .collect();
    let content = Digest::of(sums.as_bytes()).to_string();
    let version = format!("{}-{}", env!("CARGO_PKG_VERSION"), &content[..DIGITS]);
    let version =
        Version::new(&version).expect("cargo's versions and digits are what a version is");
    files.push((SUMS, 0o644, sums.into_bytes()));
    let mut entries = vec![Entry::directory(format!("wow-{version}"))];
    for (name, mode, content) in &files {
        entries.push(Entry::file(format!("wow-{version}/{name}"), *mode, content));
    }
    let compressed = archive::gzip(&archive::tar(&entries)?)?;
    Ok((version, compressed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the builder lies in the repository")
    }

    #[test]
    fn the_same_program_gives_the_same_files_and_another_one_another_version() {
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let write = |n: usize, program: &[u8]| {
            write(repository(), directories[n].path(), program.to_vec()).unwrap()
        };
        let (one, same) = (write(0, b"one"), write(1, b"one"));
        let content = |path: &Path| std::fs::read(path).unwrap();
        assert_eq!(one.version, same.version);
        assert_eq!(content(&one.tar), content(&same.tar));
        assert_eq!(content(&one.oci), content(&same.oci));
        assert_eq!(content(&one.sums), content(&same.sums));
        assert_ne!(write(1, b"two").version, one.version);
    }

    #[test]
    fn what_was_written_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let written = write(repository(), directory.path(), b"program".to_vec()).unwrap();
        let bundle = Bundle::read(&written.tar).unwrap();
        assert_eq!(bundle.version(), &written.version);
        assert_eq!(bundle.bytes(), std::fs::read(&written.tar).unwrap());
    }
}
