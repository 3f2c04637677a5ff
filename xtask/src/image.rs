//! `cargo xtask image NAME`: builds an image from `images/NAME.toml`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use wow_builder::definition::Definition;
use wow_builder::host::Purpose;
use wow_builder::image::{self, Options};
use wow_builder::manifest::{Format, Manifest};

use crate::router;

/// Which image, and how.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The definition's name: `images/NAME.toml`.
    name: String,
    /// A Debian archive to take packages from, instead of those of this machine's apt; may be given
    /// several times (debian and debian-security are separate archives).
    #[arg(long = "mirror", value_name = "URL")]
    mirrors: Vec<String>,
    /// Packages to add to a Debian image.
    #[arg(long, value_name = "PACKAGE", num_args = 1..)]
    with: Vec<String>,
    /// Whose public keys let the user `wow` of a Debian image log in; may be given several times.
    #[arg(long = "ssh-key", value_name = "FILE")]
    ssh_keys: Vec<PathBuf>,
    /// What to make of it, such as `raw,vmdk`: kernel, initrd (of Debian images), raw, qcow2, vmdk, ova, iso. What an
    /// earlier build made and this one is not asked for is removed, lest it be taken for this one's.
    #[arg(
        long = "format",
        value_name = "FORMAT",
        value_delimiter = ',',
        default_values_t = Format::DEFAULT
    )]
    formats: Vec<Format>,
    /// Give an appliance a shell: busybox, and a key on the machine's screen and serial console that opens it. The
    /// image is called NAME-shell.
    #[arg(long)]
    shell: bool,
    /// Also write the manifest to this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Builds it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let manifest = manifest(arguments)?;
    if let Some(report) = &arguments.report {
        let text = serde_json::to_vec_pretty(&manifest)?;
        std::fs::write(report, text)
            .with_context(|| format!("cannot write the report {}", report.display()))?;
    }
    Ok(())
}

/// Builds the image of this name as its definition has it, with these packages besides.
pub fn build(name: &str, with: &[String]) -> Result<Manifest> {
    build_as(name, with, &Format::DEFAULT)
}

/// The same in these formats.
pub fn build_as(name: &str, with: &[String], formats: &[Format]) -> Result<Manifest> {
    manifest(&plain(name, with, formats))
}

/// An appliance with a shell.
pub fn build_with_shell(name: &str) -> Result<Manifest> {
    manifest(&Arguments {
        shell: true,
        ..plain(name, &[], &Format::DEFAULT)
    })
}

fn plain(name: &str, with: &[String], formats: &[Format]) -> Arguments {
    Arguments {
        name: name.to_owned(),
        mirrors: Vec::new(),
        with: with.to_vec(),
        ssh_keys: Vec::new(),
        formats: formats.to_vec(),
        shell: false,
        report: None,
    }
}

fn manifest(arguments: &Arguments) -> Result<Manifest> {
    let mut options = Options::new()?;
    options.mirrors = arguments.mirrors.clone();
    options.formats = arguments.formats.iter().copied().collect();
    let mut definition = Definition::load(&options.directories.root, &arguments.name)?;
    wishes(arguments, &mut definition)?;
    router::ensure_packages(purposes(&definition))?;
    Ok(image::build(&definition, &options)?)
}

/// What a host needs to build this image.
fn purposes(definition: &Definition) -> &'static [Purpose] {
    match definition {
        Definition::Appliance(_) => &[Purpose::Image],
        Definition::Debian(_) if rustix::process::geteuid().is_root() => &[Purpose::Debian],
        Definition::Debian(_) => &[Purpose::Debian, Purpose::DebianUser],
    }
}

/// Adds what the command line asks for.
fn wishes(arguments: &Arguments, definition: &mut Definition) -> Result<()> {
    let debian = match definition {
        Definition::Debian(debian) if arguments.shell => {
            bail!(
                "{} has a shell already: --shell is for appliances",
                debian.name
            )
        }
        Definition::Debian(debian) => debian,
        Definition::Appliance(appliance)
            if arguments.with.is_empty() && arguments.ssh_keys.is_empty() =>
        {
            if arguments.shell {
                appliance.add_shell().map_err(anyhow::Error::msg)?;
            }
            return Ok(());
        }
        Definition::Appliance(appliance) => bail!(
            "{} is no Debian image: it takes neither --with nor --ssh-key",
            appliance.name
        ),
    };
    debian
        .add_packages(&arguments.with)
        .map_err(anyhow::Error::msg)?;
    for file in &arguments.ssh_keys {
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the SSH key {shown}"))?;
        let added = debian.authorize(&text).map_err(anyhow::Error::msg);
        added.with_context(|| format!("--ssh-key {shown}"))?;
    }
    Ok(())
}
