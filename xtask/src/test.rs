//! `cargo xtask test`: everything, in order, each step with its log; the last line counts.

mod ahead;
mod count;
mod crates;
mod excerpt;
mod runner;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use wow_builder::host::{Purpose, debian_tree};

use crate::{bundle, cargo, router};
use ahead::Ahead;
use count::Count;
use runner::Runner;

/// What to test.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Leave out what needs the image: virtual machines and network namespaces.
    #[arg(long, conflicts_with = "vm")]
    fast: bool,
    /// Also boot workstations by each firmware, and make the proofs of `lab prove`: an hour under the translator.
    #[arg(long)]
    vm: bool,
}

/// Runs all steps, also after a failed one. Success when nothing failed.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let metadata = cargo::metadata()?;
    let root = metadata.workspace_root.as_std_path();
    let target = metadata.target_directory.as_std_path();
    let started = Instant::now();
    let mut runner = Runner::new(target.join("test"))?;
    prepare(&mut runner, root, arguments.fast);
    check(&mut runner, root);
    if !arguments.fast {
        let logs = runner.logs().to_path_buf();
        let mut ahead = None;
        runner.preparation("the image, ahead of time", || {
            ahead = Some(Ahead::start(&logs)?);
            Ok(())
        });
        workstation(&mut runner, root, target);
        deploy(&mut runner, root);
        if let Some(ahead) = ahead {
            runner.preparation("the image, ahead of time", || ahead.finish());
        }
        system(&mut runner, root, target, arguments.vm);
    }
    let total = runner.summary(started.elapsed());
    // The last line is for programs.
    println!("{total}");
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Installs what the rest needs.
fn prepare(runner: &mut Runner, root: &Path, fast: bool) {
    let purposes: &[Purpose] = match fast {
        true => &[Purpose::Boot],
        false => &[
            Purpose::Image,
            Purpose::Debian,
            Purpose::Boot,
            Purpose::Lab,
            Purpose::Deploy,
            Purpose::Slurm,
            Purpose::Test,
        ],
    };
    runner.preparation("packages", || router::ensure_packages(purposes));
    runner.preparation("rustfmt and clippy", || {
        for (verb, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
            let there = cargo::command(root).args([verb, "--version"]).output();
            if there.is_ok_and(|output| output.status.success()) {
                continue;
            }
            let status = Command::new("rustup")
                .args(["component", "add", component])
                .status()
                .with_context(|| {
                    format!("cargo {verb} is missing, and so is rustup: install {component}")
                })?;
            anyhow::ensure!(status.success(), "rustup component add {component} failed");
        }
        Ok(())
    });
}

/// What needs nothing but Rust.
fn check(runner: &mut Runner, root: &Path) {
    runner.command(
        "fmt",
        "cargo fmt --check",
        cargo::command(root).args(["fmt", "--all", "--check"]),
    );
    runner.test("crates", "who may depend on whom", || crates::check(root));
    runner.command(
        "clippy",
        "cargo clippy with warnings denied",
        cargo::command(root)
            .args([
                "clippy",
                "--locked",
                "--workspace",
                "--all-targets",
                "--quiet",
            ])
            .args(["--", "--deny", "warnings"]),
    );
    runner.counted(
        "unit",
        "unit tests, property tests, simulator",
        cargo::command(root).args(["test", "--locked", "--workspace", "--no-fail-fast"]),
    );
}

/// The packages of the tree in which our programs meet Debian's: some of the workstation image's.
const WORKSTATION_TREE: (&str, &[&str]) = (
    "trixie",
    &[
        "slurmctld",
        "slurmd",
        "slurm-client",
        "openssh-server",
        "libnss-extrausers",
        "openmpi-bin",
        "glam2",
        "examl",
    ],
);

/// PBS's commands and the workstations' roles against a real Slurm and OpenSSH.
fn workstation(runner: &mut Runner, root: &Path, target: &Path) {
    let pbs = "PBS's commands against a real Slurm";
    let pool = "a pool of workstations out of tickets";
    if !rustix::process::geteuid().is_root() {
        runner.skip(pbs, "needs root");
        runner.skip(pool, "needs root");
        return;
    }
    let mut made = None;
    let logs = runner.logs().to_path_buf();
    runner.preparation("Debian with Slurm", || {
        let (suite, packages) = WORKSTATION_TREE;
        made = Some(debian_tree(&logs, suite, packages, &mut |line| {
            eprintln!("{line}")
        })?);
        Ok(())
    });
    let Some(tree) = made else {
        return;
    };
    let test = |package: &str, name: &str, threads: &str| {
        let mut command = cargo::command(root);
        command
            .args(["test", "--locked", "--package", package, "--test", name])
            .args(["--", threads])
            .env("WOW_TEST_WORKSTATION", &tree);
        command
    };
    // Jobs mostly wait for Slurm, and the workers have eight processors on paper.
    runner.counted(
        "pbs",
        pbs,
        &mut test("wow-pbs", "slurm", "--test-threads=6"),
    );
    let mut built = None;
    runner.preparation("wow and wow-pbs", || {
        let wow = cargo::build(root, target, "wow-router", "wow", "dev")?;
        built = Some((
            wow,
            cargo::build(root, target, "wow-pbs", "wow-pbs", "dev")?,
        ));
        Ok(())
    });
    if let Some((wow, own_pbs)) = built {
        // They share the machines.
        let mut command = test("wow-workstation", "pool", "--test-threads=1");
        command
            .env("WOW_TEST_WOW", wow)
            .env("WOW_TEST_PBS", own_pbs);
        runner.counted("pool", pool, &mut command);
    }
}

/// The packages of the hosts that the router is deployed to, and what else reads what we write.
const HOST_TREE: (&str, &[&str]) = ("trixie", &["openssh-server", "cron", "systemd", "skopeo"]);

/// The bundle, on hosts with a real OpenSSH.
fn deploy(runner: &mut Runner, root: &Path) {
    let what = "the router is deployed to a dozen hosts over ssh";
    if !rustix::process::geteuid().is_root() {
        runner.skip(what, "needs root");
        return;
    }
    let mut made = None;
    let logs = runner.logs().join("deploy");
    runner.preparation("hosts and the bundle", || {
        let (suite, packages) = HOST_TREE;
        let tree = debian_tree(&logs, suite, packages, &mut |line| eprintln!("{line}"))?;
        made = Some((tree, bundle::build()?.program, std::env::current_exe()?));
        Ok(())
    });
    let Some((tree, wow, xtask)) = made else {
        return;
    };
    let mut command = cargo::command(root);
    command.args([
        "test",
        "--locked",
        "--package",
        "wow-lab",
        "--test",
        "deploy",
    ]);
    // Each has a dozen hosts' worth of processes.
    command.args(["--", "--test-threads=1"]);
    for (variable, path) in [
        ("WOW_TEST_HOST", &tree),
        ("WOW_TEST_WOW", &wow),
        ("WOW_TEST_XTASK", &xtask),
    ] {
        command.env(variable, path);
    }
    runner.counted("deploy", what, &mut command);
}

/// What needs the image.
fn system(runner: &mut Runner, root: &Path, target: &Path, vm: bool) {
    let mut built = None;
    runner.test("image", "the router image is built", || {
        let image = router::build_all("router")?;
        let wow = router::wow(target)?;
        let wan = cargo::build_wan(root, target)?;
        built = Some((image, wow, wan));
        Ok(())
    });
    let Some((image, wow, wan)) = built else {
        return;
    };
    let logs = runner.logs().to_path_buf();
    let lab = |name: &str, image: &router::Built| {
        let mut command = cargo::command(root);
        command.args(["test", "--locked", "--package", "wow-lab", "--test", name]);
        // One after the other: each has two cores' worth of machines.
        command.args(["--", "--test-threads=1"]);
        for (variable, path) in [
            ("WOW_TEST_IMAGE", &image.directory),
            ("WOW_TEST_WOW", &wow),
            ("WOW_TEST_WAN", &wan),
            ("WOW_TEST_LOGS", &logs),
        ] {
            command.env(variable, path);
        }
        command
    };
    runner.counted(
        "boot",
        "the image boots and joins, by each firmware",
        &mut lab("image", &image),
    );
    runner.counted(
        "configuration",
        "a machine waits for its configuration, and takes it from a disk",
        &mut lab("configuration", &image),
    );
    runner.counted(
        "update",
        "a machine is updated, and goes back from what does not join",
        &mut lab("update", &image),
    );
    runner.counted(
        "control-port",
        "a machine's control port answers whatever became of other conversations",
        &mut lab("control_port", &image),
    );
    runner.counted(
        "machine-trouble",
        "what goes wrong around a machine's node is named until it is over",
        &mut lab("machine_trouble", &image),
    );
    runner.counted(
        "gateway",
        "a machine without a guest leads into its pool and out of it",
        &mut lab("gateway", &image),
    );
    runner.counted(
        "time",
        "machines with wrong clocks take the time from their pool",
        &mut lab("time", &image),
    );
    let mut with_shell = None;
    runner.test(
        "shell-image",
        "the router image is built with a shell",
        || {
            with_shell = Some(router::build_with_shell("router")?);
            Ok(())
        },
    );
    if let Some(image) = with_shell {
        runner.counted(
            "shell",
            "a key opens the shell of an image that was built with one",
            &mut lab("shell", &image),
        );
    }
    let namespaces = "routers in network namespaces";
    let guests = "ordinary machines behind appliances, by each back end";
    let page = "the status page in a browser, with four nodes and with forty-one";
    if rustix::process::geteuid().is_root() {
        runner.counted("guests", guests, &mut lab("guests", &image));
        runner.counted("namespaces", namespaces, &mut lab("namespaces", &image));
        runner.counted("page", page, &mut lab("page", &image));
    } else {
        runner.skip(guests, "needs root");
        runner.skip(namespaces, "needs root");
        runner.skip(page, "needs root");
    }
    let mut built = None;
    runner.test("debian", "the workstation image is built", || {
        built = Some(router::build_all("workstation")?);
        Ok(())
    });
    if let Some(image) = built {
        let mut command = lab("workstation", &image);
        let what = match vm {
            true => "the workstation's root, and that it boots and joins by each firmware",
            false => "the workstation's root",
        };
        if vm {
            command.arg("--include-ignored");
        }
        runner.counted("workstation", what, &mut command);
    }
    if vm {
        let what = "what a cluster of workstations must stand";
        let live = "a cluster of workstations from the CD-ROM";
        match std::env::current_exe() {
            Ok(xtask) => {
                let prove = |arguments: &[&str]| {
                    let mut command = Command::new(&xtask);
                    command.args(["lab", "prove"]).args(arguments);
                    command
                };
                runner.command("proofs", what, &mut prove(&[]));
                let few = ["--disc", "--workers", "1", "healthy"];
                runner.command("proofs-disc", live, &mut prove(&few));
            }
            Err(error) => runner.skip("proofs", &format!("cannot find this program: {error}")),
        }
    }
}

/// The directory of a step's log, for messages.
fn shown(path: &Path) -> PathBuf {
    std::env::current_dir()
        .ok()
        .and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf))
        .unwrap_or_else(|| path.to_path_buf())
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        match self.skipped {
            0 => Ok(()),
            skipped => write!(f, ", {skipped} skipped"),
        }
    }
}
