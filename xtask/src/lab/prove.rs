//! `cargo xtask lab prove`: what a cluster must stand, shown on one that is started for it.

use std::process::ExitCode;

use anyhow::{Context, Result};
use wow_builder::host::Tether;
use wow_lab::cluster::{Cluster, assembly};
use wow_lab::interrupt;
use wow_lab::progress::Progress;
use wow_lab::proofs::{self, Claim, Proof};

use super::cluster::{ASSEMBLY_LIMIT, Up, prepare};

/// How to prove.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What to prove besides that the machines assemble: healthy, array, mpi, move, head-dies, worker-dies; all unless
    /// some are named, but of machines without disks only those before head-dies.
    claims: Vec<Claim>,
    /// No more than that the machines assemble, and that a worker moves.
    #[arg(long, conflicts_with = "claims")]
    short: bool,
    #[command(flatten)]
    cluster: Up,
}

/// Makes all proofs; success when each claim holds.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let claims = match (arguments.short, &arguments.claims[..]) {
        (true, _) => &Claim::SHORT[..],
        (false, []) if arguments.cluster.disc => &Claim::WITHOUT_DISKS[..],
        (false, []) => &Claim::ALL[..],
        (false, named) => named,
    };
    let proofs = make(&arguments.cluster, claims)?;
    match arguments.cluster.json {
        true => super::print_json(&proofs)?,
        false => println!("{}", proofs::table(&proofs)),
    }
    Ok(match proofs.iter().all(|proof| proof.holds) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Starts a cluster, makes the proofs on it, and ends it. They are also written beside its logs.
pub fn make(size: &Up, claims: &[Claim]) -> Result<Vec<Proof>> {
    interrupt::install()?;
    let mut size = size.clone();
    let packages = claims.iter().flat_map(|claim| claim.packages());
    size.with
        .extend(packages.map(|package| (*package).to_owned()));
    let mut setup = prepare(&size)?;
    setup.tether = Tether::Tied;
    setup.directory = setup.directory.with_file_name("prove");
    let progress = Progress::to_stderr();
    let mut cluster = Cluster::start(&setup, |_| Ok(()))?;
    let logs = cluster.record.inventory.logs.clone();
    let proofs = assembly::wait(&mut cluster, ASSEMBLY_LIMIT, &progress)
        .map(|machines| proofs::run(&mut cluster, &machines, claims, &progress))
        .with_context(|| format!("logs: {}", logs.display()))?;
    let text = serde_json::to_vec_pretty(&proofs)?;
    std::fs::write(logs.join("proofs.json"), text).context("cannot write the proofs down")?;
    Ok(proofs)
}
