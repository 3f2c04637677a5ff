//! Fetches the kernel's source as a Debian package, through apt, which checks its signature.
//!
//! The machine's own package lists serve if they know the pinned version. Otherwise lists of our
//! own are fetched into the cache, from the machine's apt sources or from mirrors the caller
//! names; that needs no root. If the mirrors have moved on, the current version is taken, and
//! the seal's note says so.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::BuildError;
use crate::cache::{self, Fact, Package, Seal};
use crate::digest::Digest;
use crate::process::{self, Log};

/// Which package is wanted.
#[derive(Debug, Clone)]
pub struct Request {
    /// The package's name.
    pub package: String,
    /// The version pinned for this machine's suite, if the definition has one.
    pub version: Option<String>,
    /// The suite's code name.
    pub suite: String,
    /// Archive URLs to use in place of the machine's apt sources.
    pub mirrors: Vec<String>,
}

/// The source tree within the entry.
pub const TREE: &str = "tree";

/// What no appliance compiles, more than half of the tree. Kconfig files and makefiles stay, since
/// kbuild reads all of them.
const LEFT_OUT: [&str; 10] = [
    "*.dts",
    "*.dtsi",
    "*/Documentation/*/*",
    "*/drivers/gpu/*.[ch]",
    "*/drivers/media/*.[ch]",
    "*/drivers/net/wireless/*.[ch]",
    "*/drivers/staging/*.[ch]",
    "*/sound/*.[ch]",
    "*/tools/perf/*",
    "*/tools/testing/*",
];

/// Keys that sign Debian's archives, under the names that its releases give them.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// The code name of the Debian suite that this machine runs.
pub fn suite() -> Result<String, BuildError> {
    let path = Path::new("/etc/os-release");
    let text = fs::read_to_string(path).map_err(BuildError::io("read", path))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| {
            BuildError::Source(
                "/etc/os-release has no VERSION_CODENAME: build on a Debian release".to_owned(),
            )
        })
}

/// Fetches and unpacks the source into `entry`. `lists` is a directory that keeps package lists
/// between builds.
pub fn fetch(
    request: &Request,
    lists: &Path,
    entry: &Path,
    log: &mut Log<'_>,
) -> Result<Seal, BuildError> {
    let (package, fact) = fetch_package(request, "kernel.versions", lists, entry, log)?;
    unpack(&package, &entry.join(TREE), log)?;
    cache::remove(&package)?;
    let digest = fact.sha256.expect("a fetched package has its digest");
    Ok(Seal {
        digest,
        file: None,
        facts: vec![fact],
    })
}

/// Fetches a package into `entry`; its file, and what is to be told of it. `pins` is the definition's key for its
/// versions.
pub fn fetch_package(
    request: &Request,
    pins: &str,
    lists: &Path,
    entry: &Path,
    log: &mut Log<'_>,
) -> Result<(PathBuf, Fact), BuildError> {
    let (package, version) = download(request, lists, entry, log)?;
    let digest = Digest::of_file(&package)?;
    let note = match &request.version {
        Some(pinned) if *pinned != version => Some(format!(
            "{} {pinned} has left the mirrors; {version} is used. Pin it under {pins}",
            request.package
        )),
        None => Some(format!(
            "no version of {} is pinned for {}; {version} is used. Pin it under {pins}",
            request.package, request.suite
        )),
        Some(_) => None,
    };
    let fact = Fact {
        package: Some(Package::debian(&request.package, &version)),
        name: request.package.clone(),
        version,
        sha256: Some(digest),
        note,
    };
    Ok((package, fact))
}

/// Downloads the package into `entry`; returns its file and version.
fn download(
    request: &Request,
    lists: &Path,
    entry: &Path,
    log: &mut Log<'_>,
) -> Result<(PathBuf, String), BuildError> {
    let machine = Apt {
        options: Vec::new(),
    };
    if let (Some(version), true) = (&request.version, request.mirrors.is_empty())
        && machine.versions(&request.package)?.contains(version)
    {
        match machine.download(&request.package, version, entry, log) {
            Ok(package) => return Ok((package, version.clone())),
            // The machine's lists may be older than the mirror.
            Err(error) => log.note(&format!(
                "the machine's package lists did not serve: {error}"
            ))?,
        }
    }
    let own = Apt::with_lists(request, lists)?;
    own.update(log)?;
    let available = own.versions(&request.package)?;
    let pinned = request
        .version
        .iter()
        .find(|version| available.contains(version));
    // `apt-cache madison` lists the newest first.
    let Some(version) = pinned.or(available.first()) else {
        return Err(BuildError::Source(format!(
            "no apt source of this machine has {} for {}; check /etc/apt and `apt-get update`, or \
             name an archive with --mirror URL",
            request.package, request.suite
        )));
    };
    Ok((
        own.download(&request.package, version, entry, log)?,
        version.clone(),
    ))
}

/// apt with options that say whose sources and lists it uses.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// Lists below `directory`, sources of the machine or the request's mirrors.
    fn with_lists(request: &Request, directory: &Path) -> Result<Self, BuildError> {
        // Lists of one set of sources must not serve another.
        let name = Digest::of(request.mirrors.join("\n").as_bytes()).short();
        let directory = directory.join(name);
        for part in ["lists/partial", "cache/archives/partial"] {
            cache::create(&directory.join(part))?;
        }
        let mut options = vec![
            format!("Dir::State::Lists={}", directory.join("lists").display()),
            format!("Dir::Cache={}", directory.join("cache").display()),
        ];
        if !request.mirrors.is_empty() {
            let sources = directory.join("sources.list");
            let text = sources_list(&request.mirrors, &request.suite, keyring()?)?;
            cache::publish(&sources, text.as_bytes())?;
            options.push(format!("Dir::Etc::SourceList={}", sources.display()));
            options.push("Dir::Etc::SourceParts=-".to_owned());
        }
        Ok(Self { options })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = process::command(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        // apt drops root for a user who may not enter the cache; we need no such switch.
        command.args([
            "-o",
            "APT::Sandbox::User=root",
            "-o",
            "APT::Get::AllowUnauthenticated=false",
        ]);
        command
    }

    fn update(&self, log: &mut Log<'_>) -> Result<(), BuildError> {
        let mut command = self.command("apt-get");
        // A third party's broken source must not keep us from Debian's; what matters is whether
        // the package is there afterwards.
        match log.run("`apt-get update`", command.arg("update")) {
            Err(error @ BuildError::Command { .. }) => log.note(&error.to_string()),
            other => other,
        }
    }

    /// The versions there are, newest first.
    fn versions(&self, package: &str) -> Result<Vec<String>, BuildError> {
        let mut command = self.command("apt-cache");
        let text = process::output(command.args(["madison", package]))?;
        Ok(madison(&text, package))
    }

    fn download(
        &self,
        package: &str,
        version: &str,
        directory: &Path,
        log: &mut Log<'_>,
    ) -> Result<PathBuf, BuildError> {
        let mut command = self.command("apt-get");
        command
            .args(["--quiet", "download"])
            .arg(format!("{package}={version}"));
        log.run(
            &format!("downloading {package} {version}"),
            command.current_dir(directory),
        )?;
        let listing = fs::read_dir(directory).map_err(BuildError::io("list", directory))?;
        listing
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .ok_or_else(|| {
                BuildError::Source(format!(
                    "apt-get left no package in {}",
                    directory.display()
                ))
            })
    }
}

/// The versions in the output of `apt-cache madison`.
fn madison(text: &str, package: &str) -> Vec<String> {
    let mut versions: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut columns = line.split('|').map(str::trim);
        let (name, version, origin) = (columns.next(), columns.next(), columns.next());
        // The `Sources` lines name source packages.
        let binary = origin.is_some_and(|origin| origin.ends_with("Packages"));
        if let (Some(name), Some(version)) = (name, version)
            && name == package
            && binary
            && !versions.iter().any(|known| known == version)
        {
            versions.push(version.to_owned());
        }
    }
    versions
}

/// Debian's keys on this machine.
pub fn keyring() -> Result<&'static str, BuildError> {
    let found = KEYRINGS.into_iter().find(|path| Path::new(path).exists());
    found.ok_or_else(|| {
        BuildError::Source(
            "Debian's keys are missing: apt-get install debian-archive-keyring".to_owned(),
        )
    })
}

/// Sources for the mirrors: `debian-security` archives carry other suites than `debian` ones.
pub fn sources_list(mirrors: &[String], suite: &str, keyring: &str) -> Result<String, BuildError> {
    let mut text = String::new();
    for mirror in mirrors {
        let known = ["http://", "https://", "file:/", "copy:/"];
        if !known.iter().any(|scheme| mirror.starts_with(scheme))
            || mirror.contains(|c: char| c.is_whitespace() || c == '[')
        {
            return Err(BuildError::Source(format!(
                "{mirror:?} is no archive URL: give http://, https:// or file:/ and the directory \
                 that has dists/"
            )));
        }
        let suites = if mirror.trim_end_matches('/').ends_with("-security") {
            vec![format!("{suite}-security")]
        } else {
            vec![suite.to_owned(), format!("{suite}-updates")]
        };
        for suite in suites {
            text.push_str(&format!(
                "deb [signed-by={keyring}] {mirror} {suite} main\n"
            ));
        }
    }
    Ok(text)
}

/// Unpacks the tree that lies as one tar archive in the package.
/// Has these directories of a tree compiled for speed, whatever the rest is compiled for.
pub fn compile_for_speed(tree: &Path, directories: &[String]) -> Result<(), BuildError> {
    for directory in directories {
        let makefile = tree.join(directory).join("Makefile");
        let text = fs::read_to_string(&makefile).map_err(BuildError::io("read", &makefile))?;
        // The last option counts, and this one comes after those for every directory.
        let text = format!("{text}\nsubdir-ccflags-y += -O2\n");
        fs::write(&makefile, text).map_err(BuildError::io("write", &makefile))?;
    }
    Ok(())
}

fn unpack(package: &Path, tree: &Path, log: &mut Log<'_>) -> Result<(), BuildError> {
    let beside = |name: &str| package.with_file_name(name);
    let outer = beside("package.tar");
    let file = File::create(&outer).map_err(BuildError::io("create", &outer))?;
    let mut command = process::command("dpkg-deb");
    log.run_into(
        "unpacking the package",
        command.arg("--fsys-tarfile").arg(package),
        file,
    )?;
    let inner = beside("source.tar.xz");
    let file = File::create(&inner).map_err(BuildError::io("create", &inner))?;
    let mut command = process::command("tar");
    command
        .args(["--extract", "--to-stdout", "--wildcards", "--file"])
        .arg(&outer);
    log.run_into(
        "finding the tree in the package",
        command.arg("./usr/src/*.tar.xz"),
        file,
    )?;
    cache::remove(&outer)?;
    cache::create(tree)?;
    let mut command = process::command("tar");
    command
        .args(LEFT_OUT.map(|pattern| format!("--exclude={pattern}")))
        .args(["--extract", "--xz", "--strip-components=1", "--file"])
        .arg(&inner);
    log.run("unpacking the tree", command.arg("--directory").arg(tree))?;
    cache::remove(&inner)?;
    if tree.join("Makefile").is_file() && tree.join("Kconfig").is_file() {
        return Ok(());
    }
    Err(BuildError::Source(format!(
        "{} holds no kernel tree",
        package.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_for_speed_is_told_to_its_makefile_and_one_that_is_missing_is_named() {
        let tree = tempfile::tempdir().unwrap();
        let makefile = tree.path().join("net/Makefile");
        fs::create_dir(tree.path().join("net")).unwrap();
        fs::write(&makefile, "obj-y += core/").unwrap();
        compile_for_speed(tree.path(), &["net".into()]).unwrap();
        let text = fs::read_to_string(&makefile).unwrap();
        assert_eq!(text, "obj-y += core/\nsubdir-ccflags-y += -O2\n");
        let error = compile_for_speed(tree.path(), &["nets".into()]).unwrap_err();
        assert!(error.to_string().contains("nets/Makefile"), "{error}");
    }

    #[test]
    fn madison_gives_binary_versions_newest_first() {
        let text = "\
 linux-source-6.12 | 6.12.117-1~deb12u1 | http://m.test/debian-security s/main amd64 Packages
 linux-source-6.12 | 6.12.117-1~deb12u1 | http://n.test/debian-security s/main amd64 Packages
 linux-source-6.12 | 6.12.115-2~deb12u1 | http://m.test/debian-security s/main amd64 Packages
 linux-6.12 | 6.12.120-1 | http://m.test/debian-security s/main Sources
";
        let versions = madison(text, "linux-source-6.12");
        assert_eq!(versions, ["6.12.117-1~deb12u1", "6.12.115-2~deb12u1"]);
        assert!(madison("", "linux-source-6.12").is_empty());
    }

    #[test]
    fn mirrors_become_signed_sources_of_the_right_suites() {
        let mirrors = [
            "http://m.test/debian".to_owned(),
            "http://m.test/debian-security/".to_owned(),
        ];
        let text = sources_list(&mirrors, "bookworm", KEYRINGS[0]).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines
                .iter()
                .all(|line| line.starts_with("deb [signed-by=/usr/share/"))
        );
        assert!(lines[0].ends_with("http://m.test/debian bookworm main"));
        assert!(lines[2].ends_with("debian-security/ bookworm-security main"));
    }

    #[test]
    fn a_mirror_that_is_no_url_is_refused() {
        for mirror in [
            "m.test",
            "http://m.test/debian [trusted=yes]",
            "ftp://m.test",
        ] {
            let error = sources_list(&[mirror.to_owned()], "bookworm", KEYRINGS[0]).unwrap_err();
            assert!(error.to_string().contains("is no archive URL"), "{error}");
        }
    }
}
