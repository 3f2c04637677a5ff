//! `cargo xtask image NAME`: builds an image from `images/NAME.toml`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use wow_builder::definition::Definition;
use wow_builder::host::Purpose;
use wow_builder::image::{self, Options};
use wow_builder::manifest::Manifest;

use crate::router;

/// Which image, and how.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The definition's name: `images/NAME.toml`.
    name: String,
    /// A Debian archive to take the kernel source from, instead of this machine's apt sources;
    /// may be given several times (debian and debian-security are separate archives).
    #[arg(long = "mirror", value_name = "URL")]
    mirrors: Vec<String>,
    /// Also write the manifest to this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Builds it.
pub fn run(arguments: &Arguments) -> Result<()> {
    router::ensure_packages(&[Purpose::Image])?;
    let manifest = manifest(&arguments.name, &arguments.mirrors)?;
    if let Some(report) = &arguments.report {
        let text = serde_json::to_vec_pretty(&manifest)?;
        std::fs::write(report, text)
            .with_context(|| format!("cannot write the report {}", report.display()))?;
    }
    Ok(())
}

/// Builds the image of this name; the directory of its artefacts.
pub fn build(name: &str, mirrors: &[String]) -> Result<PathBuf> {
    Ok(manifest(name, mirrors)?.directory)
}

fn manifest(name: &str, mirrors: &[String]) -> Result<Manifest> {
    let mut options = Options::new()?;
    options.mirrors = mirrors.to_vec();
    let definition = Definition::load(&options.directories.root, name)?;
    Ok(image::build(&definition, &options)?)
}
