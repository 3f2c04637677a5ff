//! Formats that are made from the raw disk.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::publish::Product;
use crate::BuildError;
use crate::cache::Seal;
use crate::digest::Digest;
use crate::disk::{qcow2, vmdk};
use crate::manifest::Format;
use crate::plan::StepId;

/// How one image's raw disk becomes another format.
#[derive(Debug)]
pub struct Conversion {
    format: Format,
    step: StepId,
    file: &'static str,
    write: fn(&Path, &Path) -> io::Result<()>,
}

/// Those of appliances.
pub const APPLIANCE: &[Conversion] = &[to_qcow2(StepId::Qcow2), to_vmdk(StepId::Vmdk)];
/// Those of Debian images, whose disks are large: they have places of their own in the cache.
pub const DEBIAN: &[Conversion] = &[to_qcow2(StepId::RootQcow2), to_vmdk(StepId::RootVmdk)];

const fn to_qcow2(step: StepId) -> Conversion {
    Conversion {
        format: Format::Qcow2,
        step,
        file: "disk.qcow2",
        write: qcow2::convert,
    }
}

const fn to_vmdk(step: StepId) -> Conversion {
    Conversion {
        format: Format::Vmdk,
        step,
        file: "disk.vmdk",
        write: vmdk::convert,
    }
}

/// The steps that these formats ask for.
pub fn steps(all: &[Conversion], formats: &BTreeSet<Format>) -> Vec<StepId> {
    let wanted = all.iter().filter(|one| formats.contains(&one.format));
    wanted.map(|one| one.step).collect()
}

/// What they all make.
pub fn products(all: &[Conversion]) -> impl Iterator<Item = Product> {
    all.iter().map(|one| Product {
        format: one.format,
        step: one.step,
        name: one.file,
        limit: None,
    })
}

/// Does such a step in `entry`.
pub fn make(
    all: &[Conversion],
    step: StepId,
    disk: &Path,
    entry: &Path,
) -> Result<Seal, BuildError> {
    let Some(one) = all.iter().find(|one| one.step == step) else {
        unreachable!("{step} is no step of this image");
    };
    let path = entry.join(one.file);
    (one.write)(disk, &path).map_err(BuildError::io("write", &path))?;
    Ok(Seal {
        digest: Digest::of_file(&path)?,
        file: Some(one.file.to_owned()),
        facts: Vec::new(),
    })
}
