//! `cargo xtask bundle`: the static `wow` with what starts it, as a tar and as an OCI image.

use anyhow::Result;
use wow_builder::bundle::{self, Built};
use wow_builder::host::Purpose;
use wow_builder::image::Options;

use crate::router;

/// Nothing is chosen.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Builds it, and says where it is.
pub fn run(_: &Arguments) -> Result<()> {
    let written = build()?.written;
    println!("version {}", written.version);
    for path in [&written.tar, &written.oci, &written.sums] {
        println!(
            "{:>9} bytes  {}",
            std::fs::metadata(path)?.len(),
            path.display()
        );
    }
    Ok(())
}

/// Builds it.
pub fn build() -> Result<Built> {
    router::ensure_packages(&[Purpose::Bundle])?;
    Ok(bundle::build(&Options::new()?)?)
}
