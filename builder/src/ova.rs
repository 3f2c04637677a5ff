//! Writes OVAs (DMTF's DSP0243): a virtual machine in one file, for vSphere and whoever else imports them.
//! No reading.

mod descriptor;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use crate::archive;
use crate::definition::VirtualMachine;
use crate::digest::Digest;

/// What is packed.
#[derive(Debug, Clone, Copy)]
pub struct Contents<'a> {
    /// The machine's name; the files inside begin with it.
    pub name: &'a str,
    /// What a hypervisor makes of it.
    pub machine: &'a VirtualMachine,
    /// The stream-optimized disk.
    pub vmdk: &'a Path,
    /// The size of the disk that it unfolds to.
    pub capacity_bytes: u64,
}

/// Writes the archive to `to`. The descriptor comes first and the disk last, so that it can be imported while
/// it arrives; equal contents give equal bytes.
pub fn write(contents: &Contents<'_>, to: &Path) -> io::Result<()> {
    let name = contents.name;
    let (descriptor_file, disk_file) = (format!("{name}.ovf"), format!("{name}-disk1.vmdk"));
    let disk = File::open(contents.vmdk)?;
    let disk_bytes = disk.metadata()?.len();
    let descriptor = descriptor::descriptor(&descriptor::System {
        contents,
        disk_file: &disk_file,
        disk_bytes,
    })?;
    let manifest = format!(
        "SHA256({descriptor_file})= {}\nSHA256({disk_file})= {}\n",
        Digest::of(&descriptor),
        Digest::of_file(contents.vmdk).map_err(io::Error::other)?
    );
    let out = io::BufWriter::with_capacity(1 << 20, File::create(to)?);
    let mut ova = tar::Builder::new(out);
    let mut add = |file: &str, bytes: u64, content: &mut dyn io::Read| {
        let mut header = archive::header(tar::EntryType::Regular, 0o644, bytes);
        ova.append_data(&mut header, file, content)
    };
    add(
        &descriptor_file,
        descriptor.len() as u64,
        &mut &descriptor[..],
    )?;
    let manifest_file = format!("{name}.mf");
    add(
        &manifest_file,
        manifest.len() as u64,
        &mut manifest.as_bytes(),
    )?;
    add(&disk_file, disk_bytes, &mut &disk)?;
    ova.into_inner()?.flush()
}

#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;
