//! Builds an image: reads the inputs, plans, runs what the cache does not have, and publishes
//! the artefacts with their manifest.

mod appliance;
pub(crate) mod binary;
mod conversion;
mod debian;
mod disc;
mod publish;
mod runner;
mod shell;

use std::collections::BTreeSet;

use crate::BuildError;
use crate::definition::Definition;
use crate::manifest::{Format, Manifest};
use crate::progress::Progress;
use crate::repository::Directories;

/// How to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything lies.
    pub directories: Directories,
    /// Debian archives to take sources and packages from, instead of the machine's apt sources.
    pub mirrors: Vec<String>,
    /// What comes out. The same for every image: one without an initramfs of its own makes none.
    pub formats: BTreeSet<Format>,
    /// Where to show what runs.
    pub progress: Progress,
}

impl Options {
    /// The options of a build without wishes, in the repository of the working directory.
    pub fn new() -> Result<Self, BuildError> {
        Ok(Self {
            directories: Directories::find()?,
            mirrors: Vec::new(),
            formats: Format::DEFAULT.into(),
            progress: Progress::to_stderr(),
        })
    }
}

/// Builds the image of `definition`.
pub fn build(definition: &Definition, options: &Options) -> Result<Manifest, BuildError> {
    match definition {
        Definition::Appliance(appliance) => appliance::build(appliance, options),
        Definition::Debian(debian) => debian::build(debian, options),
    }
}
