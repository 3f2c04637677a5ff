//! The root file system of a Debian image, made by mmdebstrap without root.
//!
//! An ordinary user's mmdebstrap works in a user namespace with the ids of /etc/subuid; root needs
//! none. Both leave the same tar archive, byte for byte, out of which mke2fs makes the file system in
//! a namespace of the same kind, since owners could not be written otherwise.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use super::TIME;
use super::archive::{Answer, Archive};
use crate::BuildError;
use crate::cache::{self, Fact, Package, Seal};
use crate::definition::Debian;
use crate::digest::Digest;
use crate::disk::{ext4, sparse};
use crate::process::{self, Log};

/// The file system's file.
pub const FILE: &str = "root.ext4";
const TAR: &str = "root.tar";

/// Everything besides versions that makes the root, in canonical text.
pub fn recipe(definition: &Debian, tools: &str) -> String {
    let mut early = String::new();
    for file in &definition.early {
        let digest = Digest::of(&file.content);
        let _ = writeln!(early, "{} {:o} {digest}", file.path, file.mode);
    }
    format!(
        "{}\n{:?}\n{:?}\n{:?}\n{:?}\n{early}\n{}\n{tools}",
        definition.suite,
        definition.left_out,
        definition.enabled,
        definition.disabled,
        definition.removed,
        script(definition),
    )
}

/// Makes the root in `entry`; the packages that are in it become the seal's facts.
pub fn make(
    definition: &Debian,
    archive: &Archive,
    answer: &Answer,
    entry: &Path,
    log: &mut Log<'_>,
) -> Result<Seal, BuildError> {
    let path = |name: &str| entry.join(name);
    let write = |name: &str, text: &[u8]| {
        let path = path(name);
        fs::write(&path, text).map_err(BuildError::io("write", &path))
    };
    write("sources.list", archive.sources.as_bytes())?;
    for (number, file) in definition.early.iter().enumerate() {
        write(&format!("early-{number}"), &file.content)?;
    }
    log.run(
        "unpacking and setting up Debian",
        mmdebstrap(definition, answer).current_dir(entry),
    )?;
    let status = path("status");
    let file = File::create(&status).map_err(BuildError::io("create", &status))?;
    log.run_into(
        "reading which packages there are",
        process::command("tar")
            .args([
                "--extract",
                "--to-stdout",
                "--file",
                TAR,
                "./var/lib/dpkg/status",
            ])
            .current_dir(entry),
        file,
    )?;
    let status = fs::read_to_string(&status).map_err(BuildError::io("read", &status))?;
    // As it leaves the namespace it has no holes.
    let full = path("root.full");
    let file = File::create(&full).map_err(BuildError::io("create", &full))?;
    log.run_into(
        "making the root file system",
        file_system(definition).current_dir(entry),
        file,
    )?;
    let root = path(FILE);
    sparse::copy_file(&full, &root, 0).map_err(BuildError::io("write", &root))?;
    for name in [TAR, "root.full"] {
        cache::remove(&path(name))?;
    }
    Ok(Seal {
        digest: Digest::of_file(&root)?,
        file: Some(FILE.to_owned()),
        facts: installed(&status),
    })
}

fn mmdebstrap(definition: &Debian, answer: &Answer) -> Command {
    let mut command = process::command("mmdebstrap");
    let mode = if is_root() { "root" } else { "unshare" };
    let versions = answer.versions.iter();
    let include: Vec<String> = versions
        .map(|(name, version)| format!("{name}={version}"))
        .collect();
    command
        .env("SOURCE_DATE_EPOCH", TIME.to_string())
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args([
            "--variant=essential",
            "--format=tar",
            "--architectures=amd64",
        ])
        .arg(format!("--mode={mode}"))
        .arg(format!("--include={}", include.join(",")));
    for pattern in &definition.left_out {
        command.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    // A package's own file of the same name gives way.
    command.arg("--dpkgopt=force-confold");
    for (number, file) in definition.early.iter().enumerate() {
        let (path, mode) = (&file.path, file.mode);
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        command
            .arg(format!("--essential-hook=mkdir -p \"$1\"{parent}"))
            .arg(format!("--essential-hook=upload early-{number} {path}"))
            .arg(format!("--essential-hook=chmod {mode:o} \"$1\"{path}"));
    }
    let in_root = |words: &str| format!("--customize-hook=chroot \"$1\" {words}");
    // Enabled first: a unit may bring others along that are not wanted.
    if !definition.enabled.is_empty() {
        command.arg(in_root(&format!(
            "systemctl enable {}",
            definition.enabled.join(" ")
        )));
    }
    if !definition.disabled.is_empty() {
        command.arg(in_root(&format!(
            "systemctl disable {}",
            definition.disabled.join(" ")
        )));
    }
    command.arg("--customize-hook=if [ -e \"$1\"/usr/bin/systemd-sysusers ]; then chroot \"$1\" systemd-sysusers; fi");
    for pattern in &definition.removed {
        command.arg(format!("--customize-hook=rm -rf \"$1\"{pattern}"));
    }
    command.args([&definition.suite, TAR, "sources.list"]);
    command
}

/// Turns the archive into a file system on standard output.
fn file_system(definition: &Debian) -> Command {
    let mut command = process::command("sh");
    let inside = if is_root() {
        ""
    } else {
        "mmdebstrap --unshare-helper "
    };
    // The archive is opened out here, where the namespace's root might not come.
    command.args([
        "-c",
        &format!("exec {inside}sh -c \"$1\" <{TAR}"),
        "sh",
        &script(definition),
    ]);
    command
}

/// What is done in the namespace.
fn script(definition: &Debian) -> String {
    let disk = &definition.disk;
    // Device nodes are devtmpfs's, and could not be made in a namespace.
    format!(
        "set -e\n\
         work=$(mktemp -d)\n\
         trap 'rm -rf \"$work\"' EXIT\n\
         cd \"$work\"\n\
         mkdir tree\n\
         tar --extract --file=- --directory=tree --numeric-owner --same-owner --same-permissions \
         --xattrs --xattrs-include='*' --exclude='./dev/*'\n\
         {}\
         cat root.ext4\n",
        ext4::make_script(&disk.root_label, &definition.name, disk.free_mib, TIME)
    )
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Names and versions in dpkg's list of what is installed.
fn installed(status: &str) -> Vec<Fact> {
    let field = |paragraph: &str, name: &str| {
        let line = paragraph.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
    };
    let packages = status.split("\n\n").filter_map(|paragraph| {
        let name = field(paragraph, "Package:")?;
        let version = field(paragraph, "Version:")?;
        Some(Fact {
            package: Some(Package::debian(&name, &version)),
            name,
            version,
            ..Fact::default()
        })
    });
    let mut facts: Vec<Fact> = packages.collect();
    facts.sort_by(|one, other| one.name.cmp(&other.name));
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_are_read_in_order() {
        let status = "Package: zlib1g\nStatus: install ok installed\nVersion: 1:1.3\n\n\
                      Package: adduser\nVersion: 3.152\nDescription: x\n Version: 9\n\n";
        let facts = installed(status);
        let shown: Vec<_> = facts
            .iter()
            .map(|f| format!("{} {}", f.name, f.version))
            .collect();
        assert_eq!(shown, ["adduser 3.152", "zlib1g 1:1.3"]);
    }
}
