//! `cargo xtask lab up` and what is done with the cluster that it leaves running.

use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use wow_builder::host::{Purpose, Tether};
use wow_lab::cluster::assembly::{self, Assembled};
use wow_lab::cluster::migrate::Notice;
use wow_lab::cluster::plan::Plan;
use wow_lab::cluster::record::Record;
use wow_lab::cluster::shell::Shell;
use wow_lab::cluster::{self, Cluster, Setup, machines, migrate, status};
use wow_lab::progress::Progress;
use wow_lab::{Tools, interrupt};

use crate::cargo;
use crate::router::{self, Accel, MachineArguments};

/// Debian under the translator, several at once on two cores.
pub const ASSEMBLY_LIMIT: Duration = Duration::from_secs(1800);

/// A cluster's size.
#[derive(Debug, Clone, clap::Args)]
pub struct Up {
    /// Heads; a pool has one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=1))]
    heads: u8,
    /// Workers.
    #[arg(long, default_value_t = 2)]
    workers: u8,
    /// Domains behind NATs; machines stand in them by turns.
    #[arg(long, default_value_t = 3)]
    domains: u8,
    /// Memory of each workstation, such as 1G.
    #[arg(long, default_value = "1G", value_parser = router::parse_memory)]
    memory: u32,
    /// Virtual CPUs of each workstation.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Disk of each workstation.
    #[arg(long, default_value = "8G", value_parser = router::parse_memory)]
    disk: u32,
    /// The workstations' image, a name under `images/`.
    #[arg(long, default_value = "workstation")]
    image: String,
    /// Packages to add to that image.
    #[arg(long, value_name = "PACKAGE", num_args = 1..)]
    pub with: Vec<String>,
    /// Boot the workstations from that image's CD-ROM, by BIOS. They have no disks.
    #[arg(long, conflicts_with = "disk")]
    pub disc: bool,
    /// What executes the guests: auto tries kvm with a tiny guest, and falls back to tcg.
    #[arg(long, default_value = "auto", value_parser = router::parse_accelerator)]
    accel: Accel,
    /// Print the machines as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Which machine, and what to run on it.
#[derive(Debug, clap::Args)]
pub struct Ssh {
    /// The machine's name.
    name: String,
    /// A command; without one, a shell.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Which machine.
#[derive(Debug, clap::Args)]
pub struct One {
    /// The machine's name.
    name: String,
}

/// Which machine, and where to.
#[derive(Debug, clap::Args)]
pub struct Migrate {
    /// The machine's name.
    name: String,
    /// The domain, as `lab status` lists them.
    domain: String,
    /// Do not let the machine notice that its cable was pulled, as where a hypervisor moves it without a word.
    #[arg(long)]
    silently: bool,
}

/// How to tell.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Starts a cluster, waits until it is one, and leaves it running.
pub fn up(arguments: &Up) -> Result<ExitCode> {
    let file = file()?;
    if Record::load(&file)?.is_some() {
        bail!("a cluster is there already: `cargo xtask lab down` ends it");
    }
    interrupt::install()?;
    let setup = prepare(arguments)?;
    let progress = Progress::to_stderr();
    progress.say(&format!(
        "a head and {} workers in {} domains behind NATs, and a public router as seed",
        arguments.workers, arguments.domains
    ));
    let assembled = assemble(&setup, &file, &progress);
    let (cluster, outcome) = match assembled {
        Ok(begun) if !interrupt::requested() => begun,
        interrupted => {
            if let Some(record) = Record::load(&file)? {
                cluster::end(&record, &file)?;
            }
            return interrupted.and(Err(anyhow!("interrupted")));
        }
    };
    let code = match outcome {
        Ok(machines) if arguments.json => super::print_json(&machines).map(|()| ExitCode::SUCCESS),
        Ok(machines) => {
            println!("{}", assembly::table(&machines));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            eprintln!("logs: {}", cluster.record.inventory.logs.display());
            Ok(ExitCode::FAILURE)
        }
    };
    // Also one that failed: it is there to be looked at.
    explain(&cluster.record);
    cluster.release();
    code
}

/// A cluster that was started, and whether it became one.
fn assemble(
    setup: &Setup,
    file: &std::path::Path,
    progress: &Progress,
) -> Result<(Cluster, Result<Vec<Assembled>>)> {
    let mut cluster = Cluster::start(setup, |record| record.save(file))?;
    let outcome = assembly::wait(&mut cluster, ASSEMBLY_LIMIT, progress);
    Ok((cluster, outcome))
}

/// Installs and builds what a cluster of this size is made of.
pub fn prepare(arguments: &Up) -> Result<Setup> {
    // Said before anything is built.
    let plan = Plan {
        workers: arguments.workers,
        domains: arguments.domains,
    };
    plan.topology()?;
    router::ensure_packages(&[Purpose::Image, Purpose::Boot, Purpose::Cluster])?;
    let metadata = cargo::metadata()?;
    let target = metadata.target_directory.as_std_path();
    let seed = router::build("router")?;
    let workstation = match arguments.disc {
        true => router::build_disc(&arguments.image, &arguments.with)?,
        false => router::build_with(&arguments.image, &arguments.with)?,
    };
    let tools = Tools {
        wow: router::wow(target)?,
        wan: cargo::build_wan(metadata.workspace_root.as_std_path(), target)?,
    };
    let (emulator, accelerator) = MachineArguments::plain(arguments.accel).emulator(target)?;
    interrupt::check()?;
    Ok(Setup {
        tools,
        emulator,
        accelerator,
        router: seed.files,
        workstation: workstation.files,
        plan,
        memory_mib: arguments.memory,
        cpus: arguments.cpus,
        disk_mib: arguments.disk,
        directory: target.join("lab/cluster"),
        tether: Tether::Free,
    })
}

/// Runs a command, or a shell, on a machine.
pub fn ssh(arguments: &Ssh) -> Result<ExitCode> {
    let record = load()?;
    record.index(&arguments.name)?;
    let line = (!arguments.command.is_empty()).then(|| arguments.command.join(" "));
    let shell = Shell::new(&record, &arguments.name);
    let mut command = shell.command(line.as_deref(), Tether::Free)?;
    if line.is_none() {
        ensure!(
            std::io::stdin().is_terminal(),
            "a shell needs a terminal: name a command"
        );
    }
    // We become it, so that its terminal and exit status are ours.
    Err(command.exec()).context("cannot run ssh")
}

/// Shows the machines as they are.
pub fn status(arguments: &Status) -> Result<ExitCode> {
    let record = load()?;
    let machines = status::look(&record);
    match arguments.json {
        true => super::print_json(&machines)?,
        false => println!("{}", status::table(&record, &machines)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Moves a running machine to another domain.
pub fn migrate(arguments: &Migrate) -> Result<ExitCode> {
    let (_lock, file, mut record) = load_to_change()?;
    let index = record.index(&arguments.name)?;
    let from = record.members[index].domain.clone();
    let notice = match arguments.silently {
        true => Notice::None,
        false => Notice::Cable,
    };
    let moved = migrate::migrate(&mut record, index, &arguments.domain, notice, Tether::Free);
    // Noted also when it failed: another process may be the machine now.
    record.save(&file)?;
    let moved = moved?;
    moved.vm.release();
    println!(
        "{} went from domain {from} to {}; it stood still for {:.2} s",
        arguments.name,
        arguments.domain,
        moved.stopped.as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

/// Pulls a machine's plug.
pub fn kill(arguments: &One) -> Result<ExitCode> {
    let (_lock, _, record) = load_to_change()?;
    machines::kill(&record, record.index(&arguments.name)?)?;
    println!(
        "{0} is off; `cargo xtask lab boot {0}` starts it again",
        arguments.name
    );
    Ok(ExitCode::SUCCESS)
}

/// Starts a machine that is off.
pub fn boot(arguments: &One) -> Result<ExitCode> {
    let (_lock, file, mut record) = load_to_change()?;
    let index = record.index(&arguments.name)?;
    let vm = machines::boot(&mut record, index, Tether::Free)?;
    record.save(&file)?;
    vm.release();
    println!("{} boots", arguments.name);
    Ok(ExitCode::SUCCESS)
}

/// Ends the cluster.
pub fn down() -> Result<ExitCode> {
    let file = file()?;
    let _lock = Record::lock(&file)?;
    match Record::load(&file)? {
        Some(record) => eprintln!("ended {} processes", cluster::end(&record, &file)?),
        None => eprintln!("no cluster is there"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Where a running cluster is written down.
pub fn file() -> Result<PathBuf> {
    let target = cargo::metadata()?.target_directory.into_std_path_buf();
    Ok(target.join("lab-cluster.json"))
}

fn load() -> Result<Record> {
    let record = Record::load(&file()?)?;
    record.context("no cluster is there: `cargo xtask lab up` starts one")
}

/// Nobody else changes it meanwhile: a machine that moves is another process afterwards.
fn load_to_change() -> Result<(File, PathBuf, Record)> {
    let file = file()?;
    let lock = Record::lock(&file)?;
    Ok((lock, file, load()?))
}

fn explain(record: &Record) {
    eprintln!(
        "left running:\n  \
         cargo xtask lab ssh head           a shell, where qsub and qstat are\n  \
         cargo xtask lab status             the machines and their jobs' states\n  \
         cargo xtask lab migrate w1 DOMAIN  to another network while it runs; there are {}\n  \
         cargo xtask lab kill w1            pulls its plug; `lab boot w1` starts it again\n  \
         cargo xtask console w1             its console\n  \
         cargo xtask lab down               ends it all",
        record.domains.join(", ")
    );
}
