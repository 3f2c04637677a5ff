//! `cargo xtask image NAME`: builds an image from `images/NAME.toml`.

use std::path::PathBuf;

use anyhow::Context as _;
use wow_builder::definition::Definition;
use wow_builder::image::{self, Options};

/// Builds an image; its artefacts and manifest go to target/images/NAME.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: a definition under images/.
    #[arg(default_value = "router")]
    name: String,
    /// A Debian archive to take the kernel source from, instead of this machine's apt sources;
    /// may be given several times (debian and debian-security are separate archives).
    #[arg(long, value_name = "URL")]
    mirror: Vec<String>,
    /// Where to keep the cache; checkouts may share one [default: target/cache].
    #[arg(long, value_name = "DIR", env = "WOW_CACHE_DIR")]
    cache: Option<PathBuf>,
    /// Also write the manifest to this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut options = Options::new()?;
    options.mirrors = args.mirror;
    if let Some(cache) = args.cache {
        options.directories.cache = std::path::absolute(cache)?;
    }
    let definition = Definition::load(&options.directories.root, &args.name)?;
    let manifest = image::build(&definition, &options)?;
    if let Some(report) = args.report {
        let text = serde_json::to_vec_pretty(&manifest)?;
        std::fs::write(&report, text)
            .with_context(|| format!("cannot write the report {}", report.display()))?;
    }
    Ok(())
}
