//! `cargo xtask VERB`: everything that is done with this repository. One module a verb; the work
//! is done by the builder and the laboratory.
#![forbid(unsafe_code)]

mod image;

use clap::{Parser, Subcommand};

/// Builds images of WOW.
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
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().verb {
        Verb::Image(arguments) => image::run(&arguments),
    }
}
