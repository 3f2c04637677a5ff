//! Puts what was built where people look for it, and describes it.

use std::path::Path;
use std::time::Instant;

use super::Options;
use super::runner::{Bench, Results};
use crate::BuildError;
use crate::cache::{self, Fact};
use crate::digest::Digest;
use crate::manifest::{self, Artefact, Format, Manifest};
use crate::plan::StepId;
use crate::progress::seconds;
use crate::sbom;

/// An image to publish.
#[derive(Debug)]
pub struct Image<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its definition.
    pub file: &'a Path,
    /// What a boot loader tells the kernel, where that is not built in.
    pub command_line: Option<&'a str>,
    /// What can come out.
    pub products: Vec<Product>,
}

/// A file that comes out.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// Its format.
    pub format: Format,
    /// The step that makes it.
    pub step: StepId,
    /// Its name beside the manifest.
    pub name: &'static str,
    /// The most bytes it may have, and the definition's key that says so.
    pub limit: Option<(u64, &'static str)>,
}

/// Puts the artefacts where people look for them, unless they are there already.
pub fn publish(
    bench: &Bench<'_>,
    image: &Image<'_>,
    results: &Results,
    inputs: Vec<Fact>,
) -> Result<Manifest, BuildError> {
    let directory = bench.options.directories.image(image.name);
    let mut artefacts = Vec::new();
    let formats = &bench.options.formats;
    let wanted = |product: &&Product| formats.contains(&product.format);
    for product in image.products.iter().filter(wanted) {
        let Product {
            format,
            step,
            name,
            limit,
        } = *product;
        let result = &results[&step];
        let from = result.file();
        let bytes = std::fs::metadata(&from)
            .map_err(BuildError::io("read", &from))?
            .len();
        if let Some((limit, key)) = limit
            && bytes > limit
        {
            let definition = image.file.to_owned();
            let what = match format {
                Format::Kernel => "the kernel",
                Format::Initrd => "the initramfs",
                Format::Raw | Format::Qcow2 | Format::Vmdk | Format::Ova => "the disk",
                Format::Iso => "the CD-ROM",
            };
            return Err(BuildError::TooLarge {
                what,
                bytes,
                limit,
                key,
                definition,
            });
        }
        let to = directory.join(name);
        if !Digest::of_file(&to).is_ok_and(|digest| digest == result.seal.digest) {
            cache::publish_copy(&from, &to)?;
        }
        artefacts.push(Artefact {
            format,
            path: name.into(),
            bytes,
            sha256: result.seal.digest,
        });
    }
    if artefacts.is_empty() {
        let name = image.name;
        return Err(BuildError::Input(format!(
            "{name} has none of the formats asked for"
        )));
    }
    let manifest = Manifest {
        image: image.name.to_owned(),
        command_line: image.command_line.map(str::to_owned),
        inputs,
        artefacts,
        directory: directory.clone(),
    };
    remove_unasked(&manifest)?;
    let mut text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| BuildError::Input(format!("cannot write the manifest: {error}")))?;
    text.push(b'\n');
    let bill = sbom::bill(image.name, &manifest.inputs).map_err(|error| {
        BuildError::Input(format!("cannot write the bill of materials: {error}"))
    })?;
    cache::publish(&directory.join(sbom::FILE), &bill)?;
    cache::publish(&directory.join(manifest::FILE), &text)?;
    Ok(manifest)
}

/// Removes what an earlier build made and this one does not: it would be taken for this one's.
fn remove_unasked(manifest: &Manifest) -> Result<(), BuildError> {
    // Without an earlier manifest nothing is known of what lies there.
    let Ok(earlier) = Manifest::load(&manifest.directory) else {
        return Ok(());
    };
    let stale = earlier.artefacts.iter().filter(|old| {
        let mut kept = manifest.artefacts.iter();
        !kept.any(|new| new.path == old.path) && is_plain(&old.path)
    });
    for artefact in stale {
        cache::remove(&manifest.directory.join(&artefact.path))?;
    }
    Ok(())
}

/// Whether it is a file of its directory.
fn is_plain(path: &Path) -> bool {
    path.file_name() == Some(path.as_os_str())
}

/// Says what was built.
pub fn report(manifest: &Manifest, options: &Options, started: Instant) {
    let say = |text: String| options.progress.say(&text);
    say(format!(
        "image {} in {}",
        manifest.image,
        seconds(started.elapsed())
    ));
    for artefact in &manifest.artefacts {
        let path = manifest.directory.join(&artefact.path);
        let (format, bytes) = (artefact.format.to_string(), artefact.bytes);
        say(format!(
            "  {format:<7} {bytes:>9} bytes  {}",
            path.display()
        ));
    }
}
