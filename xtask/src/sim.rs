//! `cargo xtask sim`: the overlay in the simulator, optimised, with all arguments handed on.

use std::process::Command;

use anyhow::{Context, bail};
use clap::Args as ClapArgs;

/// Arguments of the simulator; `--help` prints them.
#[derive(Debug, ClapArgs)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Handed on to the simulator, as in `--nodes 200 --seed 1 --faults loss=5%,kill=20%`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    options: Vec<String>,
}

/// Builds the simulator and runs it; fails when a rule of the protocol was broken.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(&cargo)
        .args(["run", "--quiet", "--profile", "sim"])
        .args(["--package", "wow-sim", "--"])
        .args(&args.options)
        .status()
        .with_context(|| format!("cannot start {}", cargo.display()))?;
    if !status.success() {
        bail!("the simulation failed ({status}); its output above names what and how to repeat it");
    }
    Ok(())
}
