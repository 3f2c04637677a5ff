//! What makes a machine with a ticket a workstation of its pool: head, worker or login.
//!
//! It runs beside the daemon `wow`, learns from it who and where everybody is, and configures and starts
//! what Debian ships: Slurm, OpenSSH, NFS, OpenMPI. It looks every few seconds how things are and puts
//! right what it can; nothing that goes wrong ends it.
#![forbid(unsafe_code)]

mod agent;
mod block;
mod child;
mod clock;
mod command;
mod daemon;
mod disk;
mod exchange;
mod files;
mod head;
mod hosts;
mod live;
mod machine;
mod member;
mod mpi;
mod network;
mod nfs;
mod options;
mod role;
mod roster;
mod service;
mod slurm;
mod ssh;
mod stream;
mod trouble;
mod users;

use std::process::ExitCode;

/// The program.
fn main() -> ExitCode {
    let options = match options::Options::from_args() {
        Ok(options::Asked::Run(options)) => options,
        Ok(options::Asked::Say(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("wow-workstation: {error}");
            return ExitCode::from(2);
        }
    };
    // The journal knows the time.
    tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
    match agent::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
