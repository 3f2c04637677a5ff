//! Which packages and versions a Debian archive gives for a list of names: apt's own answer, from
//! lists of our own, whose signatures apt checks. Nothing is installed and no root is needed.
//!
//! An answer serves for a day. Without the network the last one serves on, and the build says so.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::BuildError;
use crate::cache;
use crate::definition::Package;
use crate::digest::{Digest, Fields};
use crate::host::tree;
use crate::kernel::source;
use crate::process::{self, Log};

/// How long an answer is not asked for again.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// An archive's suite, as apt's sources.
#[derive(Debug)]
pub struct Archive {
    /// The suite's code name.
    pub suite: String,
    /// The lines of a sources.list.
    pub sources: String,
}

/// What an archive gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The packages' versions, by name.
    pub versions: BTreeMap<String, String>,
}

impl Answer {
    /// Names the answer by content.
    pub fn digest(&self) -> Digest {
        let mut fields = Fields::new("wow debian packages");
        for (name, version) in &self.versions {
            fields = fields.field(name, version);
        }
        fields.finish()
    }
}

impl Archive {
    /// The suite in `mirrors`, or in the archives that this machine's apt uses.
    pub fn new(suite: &str, mirrors: &[String]) -> Result<Self, BuildError> {
        let own = tree::mirrors();
        let mirrors = if mirrors.is_empty() { &own } else { mirrors };
        if mirrors.is_empty() {
            return Err(BuildError::Input(
                "this machine's apt knows no Debian archive: name one with --mirror URL".to_owned(),
            ));
        }
        Ok(Self {
            suite: suite.to_owned(),
            sources: source::sources_list(mirrors, suite, source::keyring()?)?,
        })
    }

    /// The versions of `packages`, of what they depend on, and of what every Debian has. `directory`
    /// keeps lists and answers between builds. The second value is what to tell the person who builds.
    pub fn resolve(
        &self,
        packages: &[Package],
        directory: &Path,
        log: &mut Log<'_>,
    ) -> Result<(Answer, Option<String>), BuildError> {
        let apt = Apt::new(&self.sources, directory)?;
        let names = names(packages);
        let known = apt.known(&names);
        if let Some(answer) = read_answer(&known)
            && is_fresh(&known)
        {
            return Ok((answer, None));
        }
        if let Err(error) = apt.update(&self.suite, log) {
            let Some(answer) = read_answer(&known) else {
                return Err(error);
            };
            log.note(&error.to_string())?;
            let note = format!(
                "Debian {} cannot be reached: its packages' versions are those of the last build",
                self.suite
            );
            return Ok((answer, Some(note)));
        }
        let answer = apt.answer(&self.suite, packages, &names, log)?;
        let text = serde_json::to_vec_pretty(&answer)
            .map_err(|error| BuildError::Input(format!("cannot note the packages: {error}")))?;
        cache::publish(&known, &text)?;
        Ok((answer, None))
    }

    /// Asks again at the next build: the archive did not have what it had answered.
    pub fn forget(&self, packages: &[Package], directory: &Path) -> Result<(), BuildError> {
        let apt = Apt::new(&self.sources, directory)?;
        cache::remove(&apt.known(&names(packages)))
    }
}

/// The packages' names, each once.
fn names(packages: &[Package]) -> Vec<&str> {
    let mut names: Vec<&str> = packages.iter().map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn read_answer(path: &Path) -> Option<Answer> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn is_fresh(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH))
}

/// apt with lists of its own.
struct Apt {
    directory: PathBuf,
}

impl Apt {
    fn new(sources: &str, directory: &Path) -> Result<Self, BuildError> {
        // Lists of one set of sources must not serve another.
        let directory = directory.join(Digest::of(sources.as_bytes()).short());
        for part in ["state/lists/partial", "cache/archives/partial"] {
            cache::create(&directory.join(part))?;
        }
        cache::publish(&directory.join("sources.list"), sources.as_bytes())?;
        // A machine without packages.
        cache::publish(&directory.join("status"), b"")?;
        Ok(Self { directory })
    }

    /// The last answer to these names.
    fn known(&self, names: &[&str]) -> PathBuf {
        let digest = Digest::of(names.join(" ").as_bytes());
        self.directory
            .join(format!("answer-{}.json", digest.short()))
    }

    fn command(&self) -> Command {
        let mut command = process::command("apt-get");
        let below =
            |option: &str, name: &str| format!("{option}={}", self.directory.join(name).display());
        let options = [
            below("Dir::State", "state"),
            below("Dir::State::status", "status"),
            below("Dir::Cache", "cache"),
            below("Dir::Etc::SourceList", "sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::Preferences=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures=amd64".to_owned(),
            "APT::Install-Recommends=false".to_owned(),
            "APT::Get::AllowUnauthenticated=false".to_owned(),
            "APT::Update::Error-Mode=any".to_owned(),
            // apt drops root for a user who may not enter the cache; we need no such switch.
            "APT::Sandbox::User=root".to_owned(),
        ];
        for option in options {
            command.args(["-o", &option]);
        }
        command
    }

    fn update(&self, suite: &str, log: &mut Log<'_>) -> Result<(), BuildError> {
        match log.run("`apt-get update`", self.command().arg("update")) {
            Err(BuildError::Command { tail, .. }) if is_unknown_suite(&tail) => {
                Err(BuildError::Input(format!(
                    "the Debian archive has no suite {suite:?}: correct debian.suite"
                )))
            }
            other => other,
        }
    }

    fn answer(
        &self,
        suite: &str,
        packages: &[Package],
        names: &[&str],
        log: &mut Log<'_>,
    ) -> Result<Answer, BuildError> {
        let path = self.directory.join("uris");
        let file = fs::File::create(&path).map_err(BuildError::io("create", &path))?;
        let mut command = self.command();
        // What every Debian has comes with each package set.
        command.args(["install", "-qq", "--print-uris", "?essential"]);
        match log.run_into("choosing packages", command.args(names), file) {
            Err(BuildError::Command { tail, .. }) if !unknown(&tail).is_empty() => {
                let lines = unknown(&tail).into_iter().map(|name| {
                    let place = packages.iter().find(|package| package.name == name);
                    let origin = place.map_or("packages", |package| package.origin.as_str());
                    format!("{origin}: Debian {suite} has no package {name:?}")
                });
                let lines: Vec<String> = lines.collect();
                return Err(BuildError::Input(lines.join("\n")));
            }
            other => other?,
        }
        let text = fs::read_to_string(&path).map_err(BuildError::io("read", &path))?;
        let versions: BTreeMap<String, String> = text.lines().filter_map(of_uri).collect();
        if versions.is_empty() {
            return Err(BuildError::Input(format!(
                "apt names no package of Debian {suite}: is the archive's mirror whole?"
            )));
        }
        Ok(Answer { versions })
    }
}

fn is_unknown_suite(lines: &[String]) -> bool {
    lines
        .iter()
        .any(|line| line.contains("does not have a Release file"))
}

/// The names that apt does not know.
fn unknown(lines: &[String]) -> Vec<&str> {
    let known = ["E: Unable to locate package ", "E: Package '"];
    let names = lines.iter().filter_map(|line| {
        let rest = known.iter().find_map(|start| line.strip_prefix(start))?;
        rest.split(['\'', ' ']).next()
    });
    names.collect()
}

/// Name and version of the package in a line of `--print-uris`: `'URI' NAME_VERSION_ARCH.deb …`.
fn of_uri(line: &str) -> Option<(String, String)> {
    let file = line.split_ascii_whitespace().nth(1)?.strip_suffix(".deb")?;
    let mut parts = file.split('_');
    let (name, version) = (parts.next()?, parts.next()?);
    // The epoch's colon is written so in file names.
    Some((name.to_owned(), version.replace("%3a", ":")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_read_from_uris() {
        let line =
            "'http://m.test/pool/x_1.deb' openssh-server_1%3a10.0p1-7_amd64.deb 605000 MD5Sum:0";
        let expected = ("openssh-server".to_owned(), "1:10.0p1-7".to_owned());
        assert_eq!(of_uri(line), Some(expected));
        assert_eq!(of_uri("Reading package lists..."), None);
    }

    #[test]
    fn packages_and_suites_that_there_are_not_are_recognised() {
        let lines = [
            "E: Unable to locate package nosuch".to_owned(),
            "E: Package 'git2' has no installation candidate".to_owned(),
            "W: else".to_owned(),
        ];
        assert_eq!(unknown(&lines), ["nosuch", "git2"]);
        let line = "E: The repository 'http://m.test sid7 Release' does not have a Release file.";
        assert!(is_unknown_suite(&[line.to_owned()]) && !is_unknown_suite(&lines));
    }

    #[test]
    fn an_answer_is_named_by_its_versions() {
        let answer = |version: &str| Answer {
            versions: [("less".to_owned(), version.to_owned())].into(),
        };
        assert_eq!(answer("1").digest(), answer("1").digest());
        assert_ne!(answer("1").digest(), answer("2").digest());
    }
}
