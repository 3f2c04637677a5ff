//! What each step of the plan does.

use std::path::Path;

use super::{Options, Results, binary};
use crate::BuildError;
use crate::cache::{self, Cache, Fact, Seal};
use crate::cpio::{Archive, CpioError};
use crate::definition::Definition;
use crate::digest::Digest;
use crate::disk::layout::Layout;
use crate::disk::{fat, qcow2, raw};
use crate::kernel::fragment::Merged;
use crate::kernel::{compile, source};
use crate::plan::StepId;
use crate::process::{Log, Programs};

/// The kernel's build tree within its entry.
const BUILD: &str = "build";

/// Everything that the steps work with.
#[derive(Debug)]
pub struct Workshop<'a> {
    pub definition: &'a Definition,
    pub options: &'a Options,
    pub request: source::Request,
    pub merged: Merged,
    pub skeleton: Archive,
    pub cache: Cache,
    pub programs: Programs,
}

impl Workshop<'_> {
    /// What a step does, for the person who watches.
    pub fn title(&self, step: StepId) -> &'static str {
        match step {
            StepId::Source => "fetching the kernel source",
            StepId::Binary => "building the router",
            StepId::Objects => "compiling the kernel",
            StepId::Initramfs => "packing the initramfs",
            StepId::Kernel => "linking the kernel",
            StepId::Disk => "making the disk",
            StepId::Qcow2 => "converting the disk",
        }
    }

    /// Runs a step whose result goes into the cache under `key`.
    pub fn run(
        &self,
        step: StepId,
        key: Digest,
        results: &Results,
        log: &mut Log<'_>,
    ) -> Result<Seal, BuildError> {
        let name = step.name();
        let entry = self.cache.begin(name, key)?;
        let seal = match step {
            StepId::Source => source::fetch(&self.request, &self.cache.aside("apt")?, &entry, log)?,
            StepId::Binary => self.binary(&entry, log)?,
            StepId::Objects => {
                let tree = results[&StepId::Source].entry.join(source::TREE);
                compile::objects(&self.merged, &tree, &entry.join(BUILD), log)?;
                // The tree is named by what made it: its bytes hold paths and times.
                Seal {
                    digest: key,
                    file: None,
                    facts: Vec::new(),
                }
            }
            StepId::Initramfs => self.initramfs(&entry, results)?,
            StepId::Kernel => self.kernel(&entry, results, log)?,
            StepId::Disk => self.disk(&entry, results, log)?,
            StepId::Qcow2 => {
                let disk = read(&results[&StepId::Disk].file())?;
                write(&entry, "disk.qcow2", &qcow2::image(&disk))?
            }
        };
        self.cache.seal(name, key, &seal)?;
        Ok(seal)
    }

    fn binary(&self, entry: &Path, log: &mut Log<'_>) -> Result<Seal, BuildError> {
        let wanted = &self.definition.initramfs;
        let path = binary::build(
            &self.options.directories,
            &wanted.package,
            &wanted.binary,
            log,
        )?;
        let seal = write(entry, "init", &read(&path)?)?;
        let fact = Fact {
            name: wanted.binary.clone(),
            version: binary::compiler()?,
            sha256: Some(seal.digest),
            note: None,
        };
        Ok(Seal {
            facts: vec![fact],
            ..seal
        })
    }

    fn initramfs(&self, entry: &Path, results: &Results) -> Result<Seal, BuildError> {
        let mut archive = self.skeleton.clone();
        let init = read(&results[&StepId::Binary].file())?;
        archive.file("/init", 0o755, init).map_err(unfit)?;
        let seal = write(entry, "initramfs.cpio", &archive.to_bytes())?;
        let fact = Fact {
            name: "initramfs".to_owned(),
            version: String::new(),
            sha256: Some(seal.digest),
            note: None,
        };
        Ok(Seal {
            facts: vec![fact],
            ..seal
        })
    }

    fn kernel(
        &self,
        entry: &Path,
        results: &Results,
        log: &mut Log<'_>,
    ) -> Result<Seal, BuildError> {
        let initramfs = read(&results[&StepId::Initramfs].file())?;
        let tree = results[&StepId::Source].entry.join(source::TREE);
        let build = results[&StepId::Objects].entry.join(BUILD);
        let image = compile::link(&initramfs, &tree, &build, log)?;
        write(entry, "bzImage", &read(&image)?)
    }

    fn disk(&self, entry: &Path, results: &Results, log: &mut Log<'_>) -> Result<Seal, BuildError> {
        let disk = &self.definition.disk;
        let layout = Layout::new(disk.size_mib);
        let scratch = entry.join("scratch");
        cache::create(&scratch)?;
        let kernel = results[&StepId::Kernel].file();
        let partition = fat::partition(&layout, &disk.label, &kernel, &scratch, log)?;
        let file = "disk.raw";
        let path = raw::assemble(&layout, &self.definition.name, &partition, entry.join(file))?;
        cache::remove(&scratch)?;
        Ok(Seal {
            digest: Digest::of_file(&path)?,
            file: Some(file.to_owned()),
            facts: Vec::new(),
        })
    }
}

/// The initramfs without `/init`.
pub fn skeleton(definition: &Definition) -> Result<Archive, BuildError> {
    let mut archive = Archive::new();
    let mut fill = || {
        // Rust's runtime aborts before main if the first descriptors are closed and /dev/null is
        // missing; the kernel opens /dev/console for them before anything is mounted.
        archive.character_device("/dev/console", 0o600, 5, 1)?;
        archive.character_device("/dev/null", 0o666, 1, 3)?;
        for (path, mode) in &definition.initramfs.directories {
            archive.directory(path, *mode)?;
        }
        for (path, mode, content) in &definition.initramfs.files {
            archive.file(path, *mode, content.clone())?;
        }
        for (path, target) in &definition.initramfs.links {
            archive.symlink(path, target)?;
        }
        Ok(())
    };
    fill().map_err(unfit)?;
    Ok(archive)
}

/// Inputs that are known without running anything: tools, configuration and files.
pub fn static_inputs(
    definition: &Definition,
    options: &str,
    toolchain: &str,
    disk_tools: &str,
) -> Vec<Fact> {
    let tool = |name: &str, version: &str| Fact {
        name: name.to_owned(),
        version: version.to_owned(),
        sha256: None,
        note: None,
    };
    let content = |name: &str, bytes: &[u8]| Fact {
        name: name.to_owned(),
        version: String::new(),
        sha256: Some(Digest::of(bytes)),
        note: None,
    };
    let mut facts: Vec<Fact> = toolchain
        .lines()
        .zip(["compiler", "linker", "assembler"])
        .map(|(version, name)| tool(name, version))
        .collect();
    facts.extend(
        disk_tools
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, version)| tool(name, version)),
    );
    facts.push(content("kernel options", options.as_bytes()));
    for (path, _, bytes) in &definition.initramfs.files {
        facts.push(content(path, bytes));
    }
    facts
}

fn unfit(error: CpioError) -> BuildError {
    BuildError::Input(format!("the initramfs: {error}"))
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    std::fs::read(path).map_err(BuildError::io("read", path))
}

fn write(entry: &Path, file: &str, bytes: &[u8]) -> Result<Seal, BuildError> {
    let path = entry.join(file);
    std::fs::write(&path, bytes).map_err(BuildError::io("write", &path))?;
    Ok(Seal {
        digest: Digest::of(bytes),
        file: Some(file.to_owned()),
        facts: Vec::new(),
    })
}
