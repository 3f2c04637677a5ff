//! `cargo xtask lab move`.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use wow_lab::members;
use wow_lab::moves::{self, Plan, Trouble};
use wow_lab::namespaces::NamespaceTestbed;
use wow_lab::progress::Progress;
use wow_lab::report::moves_table;

use super::BedArguments;

/// How to move.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many times.
    #[arg(long, default_value_t = 10)]
    moves: usize,
    /// Cut the direct path between the two nodes instead; others remain.
    #[arg(long)]
    cut: bool,
    #[command(flatten)]
    bed: BedArguments,
}

/// Runs the experiment; success when every transfer went on.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(arguments.moves > 0, "no moves, no results");
    let prepared = arguments.bed.prepare("move")?;
    let progress = Progress::to_stderr();
    let task = progress.start("testbed");
    task.now("makes namespaces");
    let logs = prepared.directory.join("logs");
    let mut bed = NamespaceTestbed::prepare(&prepared.tools, &prepared.topology, &logs)?;
    let members = members::start(&mut bed, &task)?;
    drop(task);
    let plan = Plan {
        count: arguments.moves,
        trouble: if arguments.cut {
            Trouble::Cut
        } else {
            Trouble::Move
        },
        seed: arguments.bed.seed,
    };
    let task = progress.start("moves");
    let outcome = moves::run(&plan, &mut bed, &members, &task)?;
    drop(task);
    bed.check_running()?;
    if arguments.bed.json {
        super::print_json(&outcome)?;
    } else {
        println!("{}", moves_table(&outcome));
    }
    Ok(if outcome.stall.missing == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
