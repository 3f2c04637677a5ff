//! Formats that are made from the raw disk.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::publish::Product;
use super::runner::Results;
use crate::BuildError;
use crate::cache::Seal;
use crate::definition::VirtualMachine;
use crate::digest::Digest;
use crate::disk::{qcow2, vmdk};
use crate::manifest::Format;
use crate::ova;
use crate::plan::StepId;

/// How one image's raw disk becomes another format.
#[derive(Debug)]
pub struct Conversion {
    format: Format,
    step: StepId,
    file: &'static str,
    disk: StepId,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// The disk itself, written otherwise.
    Convert(fn(&Path, &Path) -> io::Result<()>),
    /// The VMDK that this step made, and what belongs to it.
    Pack(StepId),
}

/// An image whose disk is made already.
#[derive(Debug)]
pub struct Image<'a> {
    /// Its name.
    pub name: &'a str,
    /// What a hypervisor makes of it.
    pub machine: &'a VirtualMachine,
    /// What its steps have left.
    pub results: &'a Results,
}

/// Those of appliances, each after what it is made of.
pub const APPLIANCE: &[Conversion] = &[
    to_qcow2(StepId::Disk, StepId::Qcow2),
    to_vmdk(StepId::Disk, StepId::Vmdk),
    to_ova(StepId::Disk, StepId::Vmdk, StepId::Ova),
];
/// Those of Debian images, whose disks are large: they have places of their own in the cache.
pub const DEBIAN: &[Conversion] = &[
    to_qcow2(StepId::RootDisk, StepId::RootQcow2),
    to_vmdk(StepId::RootDisk, StepId::RootVmdk),
    to_ova(StepId::RootDisk, StepId::RootVmdk, StepId::RootOva),
];

const fn to_qcow2(disk: StepId, step: StepId) -> Conversion {
    Conversion {
        format: Format::Qcow2,
        step,
        file: "disk.qcow2",
        disk,
        work: Work::Convert(qcow2::convert),
    }
}

const fn to_vmdk(disk: StepId, step: StepId) -> Conversion {
    Conversion {
        format: Format::Vmdk,
        step,
        file: "disk.vmdk",
        disk,
        work: Work::Convert(vmdk::convert),
    }
}

const fn to_ova(disk: StepId, vmdk: StepId, step: StepId) -> Conversion {
    Conversion {
        format: Format::Ova,
        step,
        file: "machine.ova",
        disk,
        work: Work::Pack(vmdk),
    }
}

/// The steps that these formats ask for.
pub fn steps(all: &[Conversion], formats: &BTreeSet<Format>) -> Vec<StepId> {
    let is_wanted = |one: &&Conversion| {
        let packed = one.format == Format::Vmdk && formats.contains(&Format::Ova);
        packed || formats.contains(&one.format)
    };
    all.iter().filter(is_wanted).map(|one| one.step).collect()
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
    image: &Image<'_>,
    entry: &Path,
) -> Result<Seal, BuildError> {
    let Some(one) = all.iter().find(|one| one.step == step) else {
        unreachable!("{step} is no step of this image");
    };
    let (path, disk) = (entry.join(one.file), image.results[&one.disk].file());
    let work = || match one.work {
        Work::Convert(write) => write(&disk, &path),
        Work::Pack(vmdk) => {
            let contents = ova::Contents {
                name: image.name,
                machine: image.machine,
                vmdk: &image.results[&vmdk].file(),
                capacity_bytes: std::fs::metadata(&disk)?.len(),
            };
            ova::write(&contents, &path)
        }
    };
    work().map_err(BuildError::io("write", &path))?;
    Ok(Seal {
        digest: Digest::of_file(&path)?,
        file: Some(one.file.to_owned()),
        facts: Vec::new(),
    })
}
