//! `cargo xtask lab`: a cluster of virtual machines to work with, and experiments on the paper's testbed out
//! of real routers in network namespaces.

pub mod cluster;
mod join;
mod moves;
pub mod prove;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use wow_builder::host::Purpose;
use wow_lab::topology::Topology;
use wow_lab::{Tools, interrupt, planet};

use crate::{cargo, router};

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Boot a head, workers and a router seed as virtual machines in NATed domains. Needs no root.
    Up(cluster::Up),
    /// Run a command, or a shell, on a machine of that cluster.
    Ssh(cluster::Ssh),
    /// Show its machines: where each is, and whether it takes jobs.
    Status(cluster::Status),
    /// Move a running machine to another domain.
    Migrate(cluster::Migrate),
    /// Pull a machine's plug.
    Kill(cluster::One),
    /// Start a machine again from its disk.
    Boot(cluster::One),
    /// End the cluster.
    Down,
    /// Show on a cluster of its own that machines assemble, compute, move and survive the loss of power.
    Prove(prove::Arguments),
    /// Fresh nodes join, again and again; when is each routable, when has it a direct link? Needs root.
    Join(join::Arguments),
    /// A node moves to another domain during TCP transfers; how long do they stall? Needs root.
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

/// Does it.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.verb {
        Verb::Up(arguments) => cluster::up(arguments),
        Verb::Ssh(arguments) => cluster::ssh(arguments),
        Verb::Status(arguments) => cluster::status(arguments),
        Verb::Migrate(arguments) => cluster::migrate(arguments),
        Verb::Kill(arguments) => cluster::kill(arguments),
        Verb::Boot(arguments) => cluster::boot(arguments),
        Verb::Down => cluster::down(),
        Verb::Prove(arguments) => prove::run(arguments),
        Verb::Join(arguments) => join::run(arguments),
        Verb::Move(arguments) => moves::run(arguments),
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
