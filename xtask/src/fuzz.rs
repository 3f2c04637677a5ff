//! `cargo xtask fuzz`: coverage-guided fuzzing of the targets of `ci/fuzz`, on stable Rust.
//!
//! The flags are cargo-fuzz's for libFuzzer, less the sanitizers, which take a nightly compiler: our
//! code is safe Rust, so panics, overflows and broken assertions are what there is to find.

mod corpus;
mod outcome;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use wow_builder::host::Purpose;

use crate::{cargo, router};
use outcome::Outcome;

/// Instrumentation for libFuzzer's counters and comparisons.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Branches that were folded into one would count as one.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];
/// Named, so that build scripts and procedural macros are not instrumented.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// One input that takes longer is a find.
const TIMEOUT_SECONDS: u32 = 10;
/// A process that takes more memory is a find.
const MEMORY_MIB: u32 = 1024;
/// Longest input; most targets take less.
const INPUT_BYTES_MAX: u32 = 8192;

/// What to fuzz.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Targets by name, those of the directories in `ci/fuzz/corpus`; all without any.
    targets: Vec<String>,
    /// How long each target is fuzzed.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Replace the committed corpora by the smallest ones that reach the same code.
    #[arg(long)]
    keep: bool,
}

/// Fuzzes each target. Fails when something was found, and says where the input is.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let metadata = cargo::metadata()?;
    let root = metadata.workspace_root.as_std_path();
    let target = metadata.target_directory.as_std_path();
    let known = corpus::names(root)?;
    for name in &arguments.targets {
        if !known.contains(name) {
            bail!("there is no target {name}; there are {}", known.join(", "));
        }
    }
    router::ensure_packages(&[Purpose::Fuzz])?;
    let fuzzer = Fuzzer {
        program: build(root, target)?,
        root: root.to_path_buf(),
        work: target.join("fuzzing"),
    };
    let chosen = match arguments.targets.is_empty() {
        true => &known,
        false => &arguments.targets,
    };
    println!("{}", Outcome::HEADER);
    let mut failed = Vec::new();
    for name in chosen {
        let outcome = fuzzer.fuzz(name, arguments.seconds)?;
        println!("{outcome}");
        if !outcome.passed {
            failed.push(outcome);
        } else if arguments.keep {
            fuzzer.keep(name)?;
        }
    }
    for outcome in &failed {
        eprintln!("\n{}", outcome.failure(&fuzzer.program));
    }
    Ok(match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn build(root: &Path, target: &Path) -> Result<PathBuf> {
    let status = cargo::command(root)
        .args(["build", "--quiet", "--locked", "--profile", "fuzz"])
        .args(["--target", TRIPLE, "--package", "wow-fuzz"])
        .args(["--features", "libfuzzer", "--bin", "wow-fuzz"])
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .env("CARGO_TARGET_DIR", target)
        .status()
        .context("cannot run cargo")?;
    anyhow::ensure!(status.success(), "building the fuzzer failed with {status}");
    Ok(target.join(TRIPLE).join("fuzz/wow-fuzz"))
}

struct Fuzzer {
    program: PathBuf,
    root: PathBuf,
    /// Corpora that grow, logs, and what was found.
    work: PathBuf,
}

impl Fuzzer {
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("WOW_FUZZ_TARGET", name).current_dir(&self.root);
        command
    }

    fn fuzz(&self, name: &str, seconds: u32) -> Result<Outcome> {
        let grown = corpus::directory(&self.work, name)?;
        let mut seeding = self.command(name);
        // libFuzzer warns of sanitizers that are not there.
        seeding.env("WOW_FUZZ_SEEDS", &grown).stderr(Stdio::null());
        let seeded = seeding.status().context("cannot run the fuzzer")?;
        anyhow::ensure!(seeded.success(), "{name} has no seeds: {seeded}");
        let finds = self.work.join("found");
        std::fs::create_dir_all(&finds).context("cannot make a directory for finds")?;
        let output = self
            .command(name)
            .args([&grown, &corpus::committed(&self.root, name)])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={TIMEOUT_SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg(format!("-artifact_prefix={}/{name}-", finds.display()))
            .args(["-print_final_stats=1", "-reload=0"])
            .output()
            .context("cannot run the fuzzer")?;
        let log = self.work.join(format!("{name}.log"));
        std::fs::write(&log, &output.stderr)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(Outcome::read(name, output.status.success(), &said))
    }

    /// Merges what was found into the committed corpus.
    fn keep(&self, name: &str) -> Result<()> {
        let merged = self.work.join("merged").join(name);
        // Of an earlier merge, if there was one.
        let _ = std::fs::remove_dir_all(&merged);
        std::fs::create_dir_all(&merged).context("cannot make a directory to merge in")?;
        let status = self
            .command(name)
            .args([&merged, &corpus::committed(&self.root, name)])
            .arg(corpus::directory(&self.work, name)?)
            .args(["-merge=1", "-verbosity=0"])
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .stderr(Stdio::null())
            .status()
            .context("cannot run the fuzzer")?;
        anyhow::ensure!(status.success(), "merging the corpus of {name} failed");
        corpus::replace(&corpus::committed(&self.root, name), &merged)
    }
}
