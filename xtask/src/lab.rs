//! `cargo xtask lab`: the paper's testbed out of real routers in network namespaces, and experiments
//! on it.

mod join;
mod moves;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use wow_builder::host::Purpose;
use wow_lab::topology::Topology;
use wow_lab::{Tools, interrupt, planet};

use crate::{cargo, router};

/// Which experiment.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    experiment: Experiment,
}

#[derive(Debug, clap::Subcommand)]
enum Experiment {
    /// Fresh nodes join, again and again; when is each routable, when has it a direct link?
    Join(join::Arguments),
    /// A node moves to another domain during TCP transfers; how long do they stall?
    Move(moves::Arguments),
}

/// The testbed, as options of all experiments.
#[derive(Debug, clap::Args)]
struct BedArguments {
    /// Public routers.
    #[arg(long, default_value_t = planet::ROUTERS)]
    routers: u16,
    /// Nodes, in six domains behind NATs.
    #[arg(long, default_value_t = planet::NODES)]
    nodes: u16,
    /// Of the map, and of everything that is chosen at random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Use the development build of the router, which is quicker to make.
    #[arg(long)]
    dev: bool,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

/// What an experiment needs.
struct Prepared {
    tools: Tools,
    topology: Topology,
    /// Where results and logs go.
    directory: PathBuf,
}

/// Runs an experiment. Needs root.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.experiment {
        Experiment::Join(arguments) => join::run(arguments),
        Experiment::Move(arguments) => moves::run(arguments),
    }
}

impl BedArguments {
    fn prepare(&self, experiment: &str) -> Result<Prepared> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the lab makes network namespaces: run it as root"
        );
        let topology = planet::topology(self.routers, self.nodes, self.seed)?;
        interrupt::install()?;
        router::ensure_packages(&[Purpose::Lab])?;
        let metadata = cargo::metadata()?;
        let root = metadata.workspace_root.as_std_path();
        let target = metadata.target_directory.as_std_path();
        let directory = target.join("lab").join(experiment);
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let profile = if self.dev { "dev" } else { "release" };
        Ok(Prepared {
            tools: Tools {
                wow: cargo::build(root, target, "wow-router", "wow", profile)?,
                // Optimised as well: it carries every packet of the testbed.
                wan: cargo::build(root, target, "wow-wan", "wow-wan", profile)?,
            },
            topology,
            directory,
        })
    }
}

/// Prints `value` as JSON on standard output.
fn print_json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
