//! Installs missing Debian packages, after saying exactly what apt will do.
//!
//! Root installs at once; anyone else is asked when there is a terminal, and told the command when
//! there is none. QEMU's packages conflict between suites: installing one can remove another. What
//! would be removed is therefore always shown, and the removed package's own suite is tried first.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::packages::{Package, Purpose, find_program, missing};

/// What the first round removes is brought back by the second, in a version that agrees.
const ROUNDS: usize = 2;

/// How to treat missing packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// Root installs; others are asked on the terminal, or told the command without one.
    AsUsual,
    /// Never install: only say what is missing.
    Never,
}

/// Why the needed packages are not all there.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Packages are missing and were not installed.
    #[error("missing packages: {names}; install them with: {command}")]
    Missing {
        /// The packages' names.
        names: String,
        /// What installs them.
        command: String,
    },
    /// This is no machine with apt.
    #[error("missing: {names} (Debian's names); there is no apt-get here, install them your way")]
    NoApt {
        /// The packages' names.
        names: String,
    },
    /// apt failed.
    #[error("`{command}` failed: {message}")]
    Apt {
        /// What was run.
        command: String,
        /// The end of what it said.
        message: String,
    },
    /// apt succeeded, and yet something is not there.
    #[error("still missing after installing: {names}; look at `apt-get check` and apt's sources")]
    StillMissing {
        /// The packages' names.
        names: String,
    },
    /// A program could not be started or spoken to.
    #[error("cannot run {program}: {source}")]
    Run {
        /// The program.
        program: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

/// What apt would do for one request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Simulation {
    installs: Vec<String>,
    removes: Vec<String>,
}

/// Makes sure that everything for `purposes` is there. `say` gets one line at a time.
pub fn ensure(
    purposes: &[Purpose],
    consent: Consent,
    say: &mut dyn FnMut(&str),
) -> Result<(), HostError> {
    settle(
        || missing(purposes),
        |lacking| install(lacking, consent, say),
    )
}

/// Installs what is missing until nothing is: what comes may push out what was there and is needed too.
fn settle(
    mut missing: impl FnMut() -> Vec<Package>,
    mut install: impl FnMut(&[Package]) -> Result<(), HostError>,
) -> Result<(), HostError> {
    for _ in 0..ROUNDS {
        let lacking = missing();
        if lacking.is_empty() {
            return Ok(());
        }
        install(&lacking)?;
    }
    match missing() {
        left if left.is_empty() => Ok(()),
        left => Err(HostError::StillMissing { names: join(&left) }),
    }
}

fn install(
    lacking: &[Package],
    consent: Consent,
    say: &mut dyn FnMut(&str),
) -> Result<(), HostError> {
    for package in lacking {
        say(&format!(
            "missing package {}: {}",
            package.name, package.why
        ));
    }
    let names: Vec<&str> = lacking.iter().map(|package| package.name).collect();
    if find_program("apt-get").is_none() {
        return Err(HostError::NoApt {
            names: names.join(" "),
        });
    }
    let root = rustix::process::geteuid().is_root();
    let plain = format!("apt-get install {}", names.join(" "));
    if consent == Consent::Never {
        return Err(HostError::Missing {
            names: names.join(" "),
            command: with_sudo(root, &plain),
        });
    }
    if root && !lists_present(Path::new("/var/lib/apt/lists")) {
        update(root, say)?;
    }
    let (suite, simulation) = choose_suite(&names, root, say)?;
    for removed in &simulation.removes {
        say(&format!(
            "apt will REMOVE {removed}, which conflicts with what is needed"
        ));
    }
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    if let Some(suite) = &suite {
        say(&format!(
            "taking packages from {suite}, so that nothing has to be removed"
        ));
        arguments.extend(["--target-release", suite]);
    }
    arguments.extend(&names);
    let command = with_sudo(root, &format!("apt-get {}", arguments.join(" ")));
    if !root && !agreed(&command, &simulation)? {
        return Err(HostError::Missing {
            names: names.join(" "),
            command,
        });
    }
    say(&format!(
        "installing {} packages: {command}",
        simulation.installs.len()
    ));
    if let Err(first) = apt_get(root, &arguments) {
        // Lists older than the mirror name files that have left it.
        say(&format!(
            "{first}; refreshing the package lists and trying once more"
        ));
        update(root, say)?;
        apt_get(root, &arguments)?;
    }
    Ok(())
}

fn join(packages: &[Package]) -> String {
    packages
        .iter()
        .map(|package| package.name)
        .collect::<Vec<_>>()
        .join(" ")
}

fn with_sudo(root: bool, command: &str) -> String {
    if root {
        command.to_owned()
    } else {
        format!("sudo {command}")
    }
}

/// What installs packages where apt does not know them yet.
fn without_lists(names: &[&str]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install --no-install-recommends {}",
        names.join(" ")
    )
}

fn update(root: bool, say: &mut dyn FnMut(&str)) -> Result<(), HostError> {
    say("fetching the package lists: apt-get update");
    apt_get(root, &["update"]).map(drop)
}

/// Whether apt has fetched any package list yet; a fresh container has none.
fn lists_present(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

/// The suite to take packages from, when apt's own choice would remove something and another's not.
fn choose_suite(
    names: &[&str],
    root: bool,
    say: &mut dyn FnMut(&str),
) -> Result<(Option<String>, Simulation), HostError> {
    let first = match simulate(names, None) {
        Ok(simulation) => simulation,
        // No lists yet, or names unknown to old ones. Only root refreshes unasked.
        Err(_) => {
            if !root && !asked("apt's lists do not name them all. Run `sudo apt-get update`?")? {
                return Err(HostError::Missing {
                    names: names.join(" "),
                    command: without_lists(names),
                });
            }
            update(root, say)?;
            simulate(names, None)?
        }
    };
    if first.removes.is_empty() {
        return Ok((None, first));
    }
    for removed in &first.removes {
        let Some(suite) = suite_of_installed(removed) else {
            continue;
        };
        if let Ok(other) = simulate(names, Some(&suite))
            && other.removes.is_empty()
        {
            return Ok((Some(suite), other));
        }
    }
    Ok((None, first))
}

fn simulate(names: &[&str], suite: Option<&str>) -> Result<Simulation, HostError> {
    let mut arguments = vec![
        "--simulate",
        "-o",
        "Debug::NoLocking=1",
        "install",
        "--no-install-recommends",
    ];
    if let Some(suite) = suite {
        arguments.extend(["--target-release", suite]);
    }
    arguments.extend(names);
    // A simulation needs no root.
    apt_get(true, &arguments).map(|text| parse_simulation(&text))
}

fn parse_simulation(text: &str) -> Simulation {
    let mut simulation = Simulation::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Inst"), Some(name)) => simulation.installs.push(name.to_owned()),
            (Some("Remv" | "Purg"), Some(name)) => simulation.removes.push(name.to_owned()),
            _ => {}
        }
    }
    simulation
}

fn suite_of_installed(package: &str) -> Option<String> {
    let output = Command::new("apt-cache")
        .args(["policy", package])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    parse_policy(&String::from_utf8_lossy(&output.stdout))
}

/// The suite of the installed version in `apt-cache policy`'s version table: the archive line under
/// the line marked `***`, other than dpkg's own status file.
fn parse_policy(text: &str) -> Option<String> {
    let mut lines = text
        .lines()
        .skip_while(|line| !line.trim_start().starts_with("***"));
    lines.next()?;
    lines
        .map_while(|line| {
            let mut words = line.split_whitespace();
            words.next()?.parse::<i32>().ok()?;
            let source = words.next().filter(|source| source.contains('/'))?;
            Some((source.to_owned(), words.next().map(str::to_owned)))
        })
        .find(|(source, _)| source.contains("://"))
        .and_then(|(_, suite)| suite)
        .and_then(|suite| suite.split('/').next().map(str::to_owned))
}

fn agreed(command: &str, simulation: &Simulation) -> Result<bool, HostError> {
    let removal = match simulation.removes.len() {
        0 => String::new(),
        count => format!(", removing {count}"),
    };
    asked(&format!(
        "Run `{command}` ({} new{removal})?",
        simulation.installs.len()
    ))
}

/// The answer of whoever sits at the terminal; no without one.
fn asked(question: &str) -> Result<bool, HostError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(false);
    }
    eprint!("{question} [y/N] ");
    let run = |source| HostError::Run {
        program: "the terminal",
        source,
    };
    std::io::stderr().flush().map_err(run)?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).map_err(run)?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

/// Runs apt-get, through sudo unless `root`; its standard output, or an error with its last lines.
fn apt_get(root: bool, arguments: &[&str]) -> Result<String, HostError> {
    let program = if root { "apt-get" } else { "sudo" };
    let mut command = Command::new(program);
    if root {
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
    } else {
        command.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    }
    let output = command
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .map_err(|source| HostError::Run { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let mut last: Vec<&str> = text.lines().rev().take(4).collect();
    last.reverse();
    Err(HostError::Apt {
        command: format!("apt-get {}", arguments.join(" ")),
        message: last.join("; "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs `system` and `utils`, of which installing the first removes the second; `stubborn` ones never stay.
    fn settled(stubborn: bool) -> (Result<(), HostError>, Vec<String>) {
        let there = std::cell::RefCell::new(vec!["utils"]);
        let mut installed = Vec::new();
        let all = ["system", "utils"].map(Package::named);
        let result = settle(
            || {
                let is_there = |package: &&Package| there.borrow().contains(&package.name);
                all.iter().filter(|one| !is_there(one)).copied().collect()
            },
            |lacking| {
                installed.push(join(lacking));
                let mut there = there.borrow_mut();
                if stubborn || lacking.iter().any(|package| package.name == "system") {
                    there.clear();
                }
                there.extend(lacking.iter().map(|package| package.name));
                Ok(())
            },
        );
        (result, installed)
    }

    #[test]
    fn what_an_installation_pushes_out_is_brought_back() {
        let (result, installed) = settled(false);
        assert!(result.is_ok());
        assert_eq!(installed, ["system", "utils"]);
    }

    #[test]
    fn packages_that_exclude_each_other_are_named() {
        let (result, _) = settled(true);
        let error = result.unwrap_err().to_string();
        assert!(
            error.contains("still missing after installing: system;"),
            "{error}"
        );
    }

    #[test]
    fn a_simulation_tells_installs_from_removals() {
        let text = "Reading package lists...\nThe following packages will be REMOVED:\n  qemu-utils\n\
                    Remv qemu-utils [1:10.0~bpo12+1]\n\
                    Inst qemu-system-common (1:7.2 Debian:12 [amd64])\n\
                    Inst qemu-system-x86 (1:7.2 Debian:12 [amd64]) []\n\
                    Conf qemu-system-x86 (1:7.2 Debian:12 [amd64])\n";
        assert_eq!(
            parse_simulation(text),
            Simulation {
                installs: vec!["qemu-system-common".into(), "qemu-system-x86".into()],
                removes: vec!["qemu-utils".into()],
            }
        );
    }

    #[test]
    fn the_suite_of_the_installed_version_is_found() {
        let text = "qemu-utils:\n  Installed: 1:10.0~bpo12+1\n  Candidate: 1:10.0~bpo12+1\n  \
                    Version table:\n *** 1:10.0~bpo12+1 100\n        \
                    100 http://mirror.test/debian bookworm-backports/main amd64 Packages\n        \
                    100 /var/lib/dpkg/status\n     1:7.2 500\n        \
                    500 http://mirror.test/debian bookworm/main amd64 Packages\n";
        assert_eq!(parse_policy(text).as_deref(), Some("bookworm-backports"));
    }

    #[test]
    fn a_package_installed_from_a_file_has_no_suite() {
        let text = "x:\n  Version table:\n *** 1 100\n        100 /var/lib/dpkg/status\n     0 500\n        \
                    500 http://mirror.test/debian bookworm/main amd64 Packages\n";
        assert_eq!(parse_policy(text), None);
    }

    #[test]
    fn empty_list_directories_ask_for_an_update() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!lists_present(dir.path()));
        assert!(!lists_present(&dir.path().join("absent")));
        std::fs::write(
            dir.path()
                .join("mirror_dists_x_main_binary-amd64_Packages.lz4"),
            "",
        )
        .unwrap();
        assert!(lists_present(dir.path()));
    }
}
