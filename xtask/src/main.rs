//! `cargo xtask VERB`: everything that people and CI do with this repository.

mod image;

use clap::Parser;

/// Builds, runs and tests WOW.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Verb {
    /// Builds an image.
    Image(image::Args),
}

fn main() -> anyhow::Result<()> {
    match Verb::parse() {
        Verb::Image(args) => image::run(args),
    }
}
