//! `wow`: the daemon, its command line, and process 1 of the appliance. Everything that waits,
//! waits in the one event loop of [`daemon`].
//!
//! A library only so that fuzzers reach its parsers; what it offers is [`main`].
#![forbid(unsafe_code)]

mod api;
mod appliance;
mod caretaker;
mod cli;
mod client;
mod config;
mod configuration;
mod daemon;
mod dns;
mod failure;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod ipc;
mod keeper;
mod logging;
mod machine;
mod map;
mod output;
mod pool;
mod random;
mod remembered;
mod run;
mod screen;
mod services;
mod state;
mod syslog;
mod timekeeping;
mod update;
mod wall_clock;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use cli::{Cli, Verb};

/// The program.
pub fn main() -> ExitCode {
    wow_init::panic::without_backtraces();
    if wow_init::is_process_one() {
        // The kernel hands its own words over as arguments; they are none of ours.
        appliance::boot()
    }
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

#[cfg(feature = "completions")]
fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        shell,
        &mut <Cli as clap::CommandFactory>::command(),
        "wow",
        &mut script,
    );
    output::say(&String::from_utf8_lossy(&script))
}

fn dispatch(cli: Cli) -> Result<()> {
    let logging = logging::Logging::install(cli.log.as_deref())?;
    let node = client::Socket::new(cli.socket.as_deref());
    match cli.verb {
        Verb::Run(args) if args.from_machine => machine::run(args.state, cli.socket, &logging),
        Verb::Run(args) => run::run(config::Config::from_args(*args, cli.socket)?),
        Verb::Init => appliance::refuse(),
        Verb::Pool(verb) => pool::run(verb, &node),
        Verb::Ticket(verb) => pool::run_ticket(verb),
        Verb::Status(args) => client::status(&node, &args),
        Verb::Peers(args) => client::peers(&node, &args),
        Verb::Ping(args) => client::ping(&node, &args),
        Verb::Wait(args) => client::wait(&node, &args),
        Verb::Leases(args) => client::leases(&node, &args),
        Verb::Dht(verb) => client::dht(&node, verb),
        Verb::Revoke(args) => client::revoke(&node, &args),
        Verb::Resolve(args) => client::resolve(&node, &args),
        Verb::Whois(args) => client::whois(&node, &args),
        Verb::Service(verb) => client::service(&node, verb),
        Verb::Trouble(verb) => client::trouble(&node, verb),
        Verb::Config(cli::ConfigVerb::Show(args)) => configuration::show(&node, &args),
        Verb::Trace(args) => client::trace(&node, &args),
        Verb::Update(args) => update::client::run(&node, &args),
        Verb::Map(args) => map::run(&node, &args),
        #[cfg(feature = "completions")]
        Verb::Completions { shell } => completions(shell),
    }
}
