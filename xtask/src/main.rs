//! `cargo xtask VERB`: everything that is done with this repository. One module a verb; the work
//! is done by the builder and the laboratory.
#![forbid(unsafe_code)]

mod bench;
mod boot;
mod bundle;
mod cargo;
mod console;
mod demo;
mod deploy;
mod fuzz;
mod image;
mod lab;
mod router;
mod sim;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, boots, demonstrates and tests WOW.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build an image from its definition under `images/`.
    Image(image::Arguments),
    /// Run an image under QEMU with its console on this terminal.
    Boot(boot::Arguments),
    /// Pack the static `wow` with what starts it on other hosts: a tar and an OCI image.
    Bundle(bundle::Arguments),
    /// Put the router on a list of hosts over ssh, upgrade it there, ask after it, or remove it.
    Deploy(Box<deploy::Arguments>),
    /// Boot three routers behind NATs and a seed, and let everyone ping everyone.
    Demo(demo::Arguments),
    /// Connect this terminal to a machine that `lab up` or `demo --keep` has left running.
    Console(console::Arguments),
    /// Simulate a pool of any size on virtual time; `sim --help` lists the options.
    Sim(sim::Arguments),
    /// A cluster of virtual machines to work with, and experiments with real routers.
    Lab(lab::Arguments),
    /// Measure WOW beside other overlays on this machine (dataplane), its back ends for guests (guest), both as
    /// root, or the time from power-on to the pool (boot).
    Bench(bench::Arguments),
    /// Look for inputs that break a decoder, guided by coverage; without a target, by turns for all.
    Fuzz(fuzz::Arguments),
    /// Check everything: style, lints, unit tests, simulator, images under QEMU, namespaces.
    Test(test::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Image(arguments) => image::run(&arguments).map(|()| ExitCode::SUCCESS),
        Verb::Boot(arguments) => boot::run(&arguments),
        Verb::Bundle(arguments) => bundle::run(&arguments).map(|()| ExitCode::SUCCESS),
        Verb::Deploy(arguments) => deploy::run(&arguments),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Console(arguments) => console::run(&arguments).map(|()| ExitCode::SUCCESS),
        Verb::Sim(arguments) => sim::run(&arguments),
        Verb::Lab(arguments) => lab::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Fuzz(arguments) => fuzz::run(&arguments),
        Verb::Test(arguments) => test::run(&arguments),
    };
    exit_code(result)
}

fn exit_code(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
