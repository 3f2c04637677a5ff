//! `cargo xtask sim`: the overlay in the simulator, optimised, with all options handed on.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cargo;

/// Options of the simulator; its own `--help` explains them.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// Handed on to the simulator, as in `--nodes 200 --seed 1 --faults loss=5%,kill=20%`.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTION"
    )]
    options: Vec<String>,
}

/// Builds the simulator and runs it; fails when it found a rule of the protocol broken.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let here = std::env::current_dir().context("no current directory")?;
    let status = cargo::command(&here)
        .args(["run", "--quiet", "--profile", "sim"])
        .args(["--package", "wow-sim", "--"])
        .args(&arguments.options)
        .status()
        .context("cannot run cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
