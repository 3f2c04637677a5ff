//! Chooses an accelerator by running a guest under it; `/dev/kvm` alone proves nothing.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::boot_sector;
use crate::host::packages::find_program;
use crate::host::process::{Guarded, Tether, guarded_command};

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor's virtualisation through Linux.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Accelerator {
    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The installed QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emulator {
    /// The program.
    pub program: PathBuf,
    /// The first line of `--version`.
    pub version: String,
}

/// An accelerator and why it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What to use.
    pub accelerator: Accelerator,
    /// What was found, in words.
    pub reason: String,
    /// Whether an earlier probe of the same machine was believed.
    #[serde(skip)]
    pub cached: bool,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cached = if self.cached { " (probed earlier)" } else { "" };
        write!(
            f,
            "accelerator {}: {}{cached}",
            self.accelerator, self.reason
        )
    }
}

/// Why no accelerator could be found.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// QEMU is not installed.
    #[error("qemu-system-x86_64 is not installed (Debian package qemu-system-x86)")]
    NoQemu,
    /// QEMU is older than what the command lines are written for.
    #[error("{0} is too old: 7.2 or newer is needed, for its `-netdev stream`")]
    TooOld(String),
    /// Not even the translator works.
    #[error("no accelerator works: {0}")]
    None(String),
    /// A file or process could not be handled.
    #[error("cannot probe accelerators: {0}")]
    Io(#[from] io::Error),
}

/// A working accelerator runs the guest in a fraction of a second; one that emulates takes many.
const DEADLINE: Duration = Duration::from_secs(5);

/// The translator is the last resort: on a busy machine it may take longer.
const LAST_DEADLINE: Duration = Duration::from_secs(60);

const CACHE_FILE: &str = "accelerator.json";

impl Emulator {
    /// Finds QEMU and asks for its version.
    pub fn find() -> Result<Self, ProbeError> {
        let program = find_program("qemu-system-x86_64").ok_or(ProbeError::NoQemu)?;
        let output = Command::new(&program)
            .arg("--version")
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().next().unwrap_or_default().to_owned();
        if parse_version(&version).is_none_or(|version| version < (7, 2)) {
            return Err(ProbeError::TooOld(version));
        }
        Ok(Self { program, version })
    }
}

/// Major and minor from `QEMU emulator version 7.2.22 (Debian …)`.
fn parse_version(line: &str) -> Option<(u32, u32)> {
    let number = line
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut parts = number.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What a cached choice depends on.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    host_kernel: String,
    qemu: String,
    kvm_device: String,
}

#[derive(Serialize, Deserialize)]
struct Cached {
    key: Key,
    choice: Choice,
}

impl Accelerator {
    /// The accelerator that runs a guest here. The result is kept in `cache_dir` until the host's kernel,
    /// QEMU or `/dev/kvm` changes.
    pub fn probe(emulator: &Emulator, cache_dir: &Path) -> Result<Choice, ProbeError> {
        let key = Key {
            host_kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            qemu: emulator.version.clone(),
            kvm_device: kvm_identity(),
        };
        let file = cache_dir.join(CACHE_FILE);
        // Any other content than a matching entry means: probe.
        if let Ok(text) = std::fs::read_to_string(&file)
            && let Ok(cached) = serde_json::from_str::<Cached>(&text)
            && cached.key == key
        {
            return Ok(Choice {
                cached: true,
                ..cached.choice
            });
        }
        let choice = probe_now(emulator)?;
        std::fs::create_dir_all(cache_dir)?;
        let mut temporary = tempfile::NamedTempFile::new_in(cache_dir)?;
        serde_json::to_writer_pretty(
            &mut temporary,
            &Cached {
                key,
                choice: choice.clone(),
            },
        )
        .map_err(io::Error::from)?;
        temporary.persist(&file).map_err(|error| error.error)?;
        Ok(choice)
    }
}

/// `/dev/kvm` as far as a probe's result depends on it.
fn kvm_identity() -> String {
    match std::fs::metadata("/dev/kvm") {
        Ok(meta) => {
            let opens = openable();
            format!("{}:{}:{:o}:{opens:?}", meta.dev(), meta.rdev(), meta.mode())
        }
        Err(error) => format!("{:?}", error.kind()),
    }
}

fn openable() -> Result<(), io::ErrorKind> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map(drop)
        .map_err(|error| error.kind())
}

fn probe_now(emulator: &Emulator) -> Result<Choice, ProbeError> {
    let against_kvm = match openable() {
        Err(io::ErrorKind::NotFound) => "there is no /dev/kvm".to_owned(),
        Err(kind) => format!("/dev/kvm cannot be opened ({kind})"),
        Ok(()) => match run_guest(emulator, Accelerator::Kvm, DEADLINE)? {
            Ok(took) => {
                let reason = format!("a test guest ran under it in {} ms", took.as_millis());
                return Ok(Choice {
                    accelerator: Accelerator::Kvm,
                    reason,
                    cached: false,
                });
            }
            Err(why) => format!("/dev/kvm exists, but {why}"),
        },
    };
    match run_guest(emulator, Accelerator::Tcg, LAST_DEADLINE)? {
        Ok(took) => {
            let reason = format!(
                "{against_kvm}; the test guest ran under tcg in {} ms",
                took.as_millis()
            );
            Ok(Choice {
                accelerator: Accelerator::Tcg,
                reason,
                cached: false,
            })
        }
        Err(why) => Err(ProbeError::None(format!("kvm: {against_kvm}; tcg: {why}"))),
    }
}

/// Runs the test guest. The inner error says in words what went wrong in it.
fn run_guest(
    emulator: &Emulator,
    accelerator: Accelerator,
    deadline: Duration,
) -> Result<Result<Duration, String>, ProbeError> {
    let mut disk = tempfile::NamedTempFile::new()?;
    disk.write_all(&boot_sector::image())?;
    let mut messages = tempfile::tempfile()?;
    let mut command = guarded_command(&emulator.program, Tether::Tied);
    command
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(["-machine", "pc", "-m", "16", "-accel", accelerator.name()])
        .args([
            "-device",
            &format!(
                "isa-debug-exit,iobase={:#x},iosize=4",
                boot_sector::EXIT_PORT
            ),
        ])
        .arg("-drive")
        .arg(format!("if=ide,format=raw,file={}", disk.path().display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages.try_clone()?);
    let start = Instant::now();
    let mut guest = Guarded::spawn(command)?;
    let status = guest.wait_for(deadline)?;
    let took = start.elapsed();
    guest.kill();
    if status.and_then(|status| status.code()) == Some(boot_sector::EXIT_STATUS) {
        return Ok(Ok(took));
    }
    let mut text = String::new();
    messages.rewind()?;
    messages.take(4096).read_to_string(&mut text)?;
    let said = text
        .lines()
        .find(|line| !line.contains("warning:"))
        .unwrap_or_default();
    let said = if said.is_empty() {
        String::new()
    } else {
        format!(" ({said})")
    };
    Ok(Err(match status {
        None => format!(
            "its test guest did not finish within {} s{said}",
            deadline.as_secs()
        ),
        Some(status) => format!("its test guest failed with {status}{said}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_debian_are_read() {
        let twelve = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)";
        assert_eq!(parse_version(twelve), Some((7, 2)));
        assert_eq!(
            parse_version("QEMU emulator version 10.0.3 (Debian 1:10.0.3)"),
            Some((10, 0))
        );
        assert_eq!(parse_version("no number"), None);
    }

    #[test]
    fn a_cached_choice_is_believed_only_for_the_same_machine() {
        let dir = tempfile::tempdir().unwrap();
        let emulator = Emulator {
            program: "/nonexistent/qemu".into(),
            version: "v".into(),
        };
        let key = |qemu: &str| Key {
            host_kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            qemu: qemu.into(),
            kvm_device: kvm_identity(),
        };
        let choice = Choice {
            accelerator: Accelerator::Tcg,
            reason: "said so".into(),
            cached: false,
        };
        let write = |key| {
            let text = serde_json::to_string(&Cached {
                key,
                choice: choice.clone(),
            })
            .unwrap();
            std::fs::write(dir.path().join(CACHE_FILE), text).unwrap();
        };
        write(key("v"));
        let found = Accelerator::probe(&emulator, dir.path()).unwrap();
        assert_eq!(
            found,
            Choice {
                cached: true,
                ..choice.clone()
            }
        );
        // Another QEMU: the program would have to run, and there is none.
        write(key("other"));
        assert!(Accelerator::probe(&emulator, dir.path()).is_err());
    }
}
