//! `wow-pbs`: PBS's commands over Slurm. Called by one of their names, or as `wow-pbs NAME ...`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    wow_pbs::run(std::env::args_os())
}
