//! `cargo xtask bench WHAT`: figures of this machine.

mod boot;
mod guest;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use wow_builder::host::{Purpose, debian_tree};
use wow_lab::dataplane::{self, Contender, Goal, Outcome, Plan, Row, TREE};
use wow_lab::progress::Progress;
use wow_lab::{Tools, interrupt};

use crate::{cargo, router};

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Throughput, round trips, processor time and memory, in network namespaces. Needs root.
    Dataplane(DataplaneArguments),
    /// From power-on to the pool, on each kind of machine.
    Boot(boot::Arguments),
    /// Back ends for guests, packet and virtio, in the same virtual machine: throughput, packets and
    /// processor time; or a soak. Needs root.
    Guest(guest::Arguments),
}

#[derive(Debug, clap::Args)]
struct DataplaneArguments {
    /// Whom to measure, separated by commas. Default: everybody.
    #[arg(long, value_delimiter = ',', value_parser = parse_contender)]
    only: Vec<Contender>,
    /// How often each is measured, in turn with all others: the medians are shown.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// How long each flow runs.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// TCP's congestion control. Default: this machine's.
    #[arg(long)]
    congestion: Option<String>,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

/// All that is written as JSON.
#[derive(Serialize)]
struct Report {
    rounds: u8,
    seconds_a_flow: u64,
    congestion: String,
    processors: usize,
    rows: Vec<Row>,
    goals: Vec<Goal>,
}

fn parse_contender(text: &str) -> Result<Contender, String> {
    let all = Contender::ALL;
    let found = all.into_iter().find(|contender| contender.name() == text);
    found.ok_or_else(|| format!("there are {}", all.map(Contender::name).join(", ")))
}

/// Runs a benchmark; success when everybody was measured.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.what {
        What::Dataplane(arguments) => dataplane(arguments),
        What::Boot(arguments) => boot::run(arguments),
        What::Guest(arguments) => guest::run(arguments),
    }
}

/// The congestion control that was asked for, or this machine's.
fn congestion(asked: Option<&str>) -> Result<String> {
    let there = dataplane::congestion_controls()?;
    let wanted = there
        .iter()
        .find(|name| asked.is_none_or(|asked| asked == *name));
    let choice = || format!("this kernel's congestion controls are {}", there.join(", "));
    wanted.cloned().with_context(choice)
}

/// WOW's throughput beside that of other overlays.
fn dataplane(arguments: &DataplaneArguments) -> Result<ExitCode> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the benchmark makes network namespaces: run it as root"
    );
    let congestion = congestion(arguments.congestion.as_deref())?;
    interrupt::install()?;
    router::ensure_packages(&[Purpose::Bench])?;
    let metadata = cargo::metadata()?;
    let root = metadata.workspace_root.as_std_path();
    let target = metadata.target_directory.as_std_path();
    let directory = target.join("bench");
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let (suite, packages) = TREE;
    let tree = debian_tree(&directory, suite, packages, &mut |line| eprintln!("{line}"))?;
    let plan = Plan {
        contenders: match arguments.only.is_empty() {
            true => Contender::ALL.to_vec(),
            false => arguments.only.clone(),
        },
        rounds: arguments.rounds.into(),
        span: Duration::from_secs(arguments.seconds),
        congestion: congestion.clone(),
        tools: Tools {
            wow: cargo::build(root, target, "wow-router", "wow", "release")?,
            // Fast enough to be no part of what is measured.
            wan: cargo::build(root, target, "wow-wan", "wow-wan", "release")?,
        },
        tree,
        logs: directory.join("logs"),
    };
    let progress = Progress::to_stderr();
    let task = progress.start("bench");
    let rows = dataplane::run(&plan, &task)?;
    drop(task);

    let failed = |row: &Row| matches!(row.outcome, Outcome::Failed(_));
    let complete = !rows.iter().any(failed);
    let plot = directory.join("dataplane.svg");
    dataplane::draw(&rows, &plot)?;
    eprintln!("{}", plot.display());
    let table = format!("TCP with {congestion}\n{}", dataplane::table(&rows));
    let report = Report {
        rounds: arguments.rounds,
        seconds_a_flow: arguments.seconds,
        congestion,
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        goals: dataplane::goals(&rows),
        rows,
    };
    let json = serde_json::to_string_pretty(&report)?;
    for (name, text) in [("dataplane.json", &json), ("dataplane.txt", &table)] {
        let path = directory.join(name);
        std::fs::write(&path, format!("{text}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("{}", path.display());
    }
    println!("{}", if arguments.json { &json } else { &table });
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
