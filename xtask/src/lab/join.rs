//! `cargo xtask lab join`.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use wow_lab::join::{self, Outcome, Plan};
use wow_lab::memory::{self, Memory};
use wow_lab::namespaces::NamespaceTestbed;
use wow_lab::progress::Progress;
use wow_lab::report::join_table;
use wow_lab::{members, plot};

use super::BedArguments;

/// How to try.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many fresh nodes join, one after the other.
    #[arg(long, default_value_t = 300)]
    trials: usize,
    /// How many of them at a time, each in another domain.
    #[arg(long, default_value_t = 2)]
    parallel: usize,
    #[command(flatten)]
    bed: BedArguments,
}

/// All that is printed as JSON.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    outcome: Outcome,
    /// The standing routers', after the trials.
    memory: Memory,
}

/// Runs the experiment; success when every trial came through.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(arguments.trials > 0, "no trials, no results");
    let prepared = arguments.bed.prepare("join")?;
    let directory = &prepared.directory;
    let progress = Progress::to_stderr();
    let task = progress.start("testbed");
    task.now("makes namespaces");
    let logs = directory.join("logs");
    let mut bed = NamespaceTestbed::prepare(&prepared.tools, &prepared.topology, &logs)?;
    let members = members::start(&mut bed, &task)?;
    drop(task);
    let plan = Plan {
        trials: arguments.trials,
        parallel: arguments.parallel,
        seed: arguments.bed.seed,
    };
    let task = progress.start("trials");
    let outcome = join::run(&plan, &join::lanes(&bed)?, &members, &task)?;
    drop(task);
    bed.check_running()?;
    let memory = memory::ask(&bed)?;
    drop(bed);

    let csv = directory.join("join.csv");
    std::fs::write(&csv, outcome.to_csv())
        .with_context(|| format!("cannot write {}", csv.display()))?;
    let svg = directory.join("join.svg");
    plot::draw(&outcome, &svg)?;
    let missing = outcome.routable.missing + outcome.direct.missing;
    if arguments.bed.json {
        super::print_json(&Report { outcome, memory })?;
    } else {
        println!("{}\n{memory}", join_table(&outcome));
    }
    eprintln!("{}\n{}", csv.display(), svg.display());
    Ok(if missing == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
