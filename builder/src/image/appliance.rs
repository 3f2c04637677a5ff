//! Builds an appliance: its plan, and what each step of it does.

use std::path::Path;
use std::time::Instant;

use super::publish::{self, Image, Product};
use super::runner::{self, Bench, Results};
use super::{Options, binary, conversion, disc, shell};
use crate::BuildError;
use crate::cache::{self, Fact, Seal};
use crate::cpio::{Archive, CpioError};
use crate::definition::Appliance;
use crate::digest::Digest;
use crate::disk::layout::Layout;
use crate::disk::slots::Kernel;
use crate::disk::{fat, raw, slots, uefi};
use crate::kernel::fragment::Merged;
use crate::kernel::{compile, source};
use crate::manifest::{Format, Manifest};
use crate::mark::{self, Mark};
use crate::plan::{Inputs, Plan, StepId};
use crate::process::Log;

/// The kernel's build tree within its entry.
const BUILD: &str = "build";

/// Where UEFI looks for what it starts.
const UEFI: &str = "/EFI/BOOT/BOOTX64.EFI";

/// The kernel on a disk with two slots, as long as its slot.
const SLOT: &str = "/WOW.EFI";

/// The configuration of syslinux: no question, no delay, and the kernel's file.
fn syslinux(kernel: &str, append: &str) -> String {
    format!("DEFAULT wow\nPROMPT 0\nLABEL wow\n  LINUX {kernel}\n{append}")
}

/// What the kernel is told of the slot that it was booted from.
fn told_slot(slot: char) -> String {
    format!("  APPEND wow.slot={slot}\n")
}

/// That of isolinux, which knows the same file by a name of the CD-ROM's.
const ISOLINUX: &str = "DEFAULT wow\nPROMPT 0\nLABEL wow\n  LINUX /WOW.EFI\n";

/// Entries to keep of each step in the cache: the current one, and that of another branch.
const KEEP_ENTRIES: usize = 2;

/// Builds the appliance of `definition`.
pub fn build(definition: &Appliance, options: &Options) -> Result<Manifest, BuildError> {
    let started = Instant::now();
    let directory = options.directories.image(&definition.name);
    let logs = directory.join("logs");
    cache::create(&logs)?;
    let merged = compile::options(&options.directories.root, definition)?;
    let suite = source::suite()?;
    let workshop = Workshop {
        definition,
        bench: Bench::new(options)?,
        request: source::Request {
            package: definition.kernel.package.clone(),
            version: definition.kernel.versions.get(&suite).cloned(),
            suite,
            mirrors: options.mirrors.clone(),
        },
        merged,
        skeleton: skeleton(definition)?,
        shell: shell::request(definition, &options.mirrors)?,
    };
    let tools = (compile::toolchain()?, fat::tools()?);
    let mut conversions = conversion::steps(conversion::APPLIANCE, &options.formats);
    let mut disc_tools = String::new();
    if options.formats.contains(&Format::Iso) {
        disc_tools = disc::tools()?;
        conversions.push(StepId::Iso);
    }
    let plan = Plan::new(&Inputs {
        name: definition.name.clone(),
        source: (
            workshop.request.package.clone(),
            workshop
                .request
                .version
                .clone()
                .unwrap_or_else(|| workshop.request.suite.clone()),
        ),
        for_speed: definition.kernel.for_speed.clone(),
        kernel_options: workshop.merged.canonical(),
        toolchain: tools.0.clone(),
        binary: (
            definition.initramfs.package.clone(),
            definition.initramfs.binary.clone(),
        ),
        shell: workshop.shell.as_ref().map(|request| {
            let version = request.version.as_ref().unwrap_or(&request.suite);
            (request.package.clone(), version.clone())
        }),
        skeleton: workshop.skeleton.to_bytes(),
        disk: format!(
            "{:?}\n{}\n{}{}{}{}",
            definition.disk,
            definition.name,
            tools.1,
            tools.0,
            uefi::recipe(),
            syslinux(SLOT, &told_slot('a'))
        ),
        machine: format!("{:?}", definition.machine),
        disc: format!("{}\n{ISOLINUX}{disc_tools}", definition.disk.label),
        conversions,
    });
    let results = runner::run(&plan, &workshop, &logs)?;
    let disk_tools = format!("{}{disc_tools}", tools.1);
    let mut inputs = static_inputs(
        definition,
        &workshop.merged.canonical(),
        &tools.0,
        &disk_tools,
    );
    for result in results.values() {
        inputs.extend(result.seal.facts.iter().cloned());
    }
    let limit = |bytes, key| Some((bytes, key));
    let limits = &definition.limits;
    let product = |format, step, name, limit| Product {
        format,
        step,
        name,
        limit,
    };
    let own = [
        product(
            Format::Kernel,
            StepId::Kernel,
            "bzImage",
            limit(limits.kernel_bytes, "kernel-bytes"),
        ),
        product(
            Format::Raw,
            StepId::Disk,
            "disk.raw",
            limit(limits.disk_bytes, "disk-bytes"),
        ),
        product(Format::Iso, StepId::Iso, disc::FILE, None),
    ];
    let image = Image {
        name: &definition.name,
        file: &definition.file,
        command_line: None,
        products: own
            .into_iter()
            .chain(conversion::products(conversion::APPLIANCE))
            .collect(),
    };
    let manifest = publish::publish(&workshop.bench, &image, &results, inputs)?;
    for step in plan.steps() {
        workshop.bench.cache.prune(step.id.name(), KEEP_ENTRIES)?;
    }
    publish::report(&manifest, options, started);
    Ok(manifest)
}

/// Everything that the steps work with.
#[derive(Debug)]
struct Workshop<'a> {
    definition: &'a Appliance,
    bench: Bench<'a>,
    request: source::Request,
    merged: Merged,
    skeleton: Archive,
    /// Where the shell comes from, if the image has one.
    shell: Option<source::Request>,
}

impl runner::Workshop for Workshop<'_> {
    fn bench(&self) -> &Bench<'_> {
        &self.bench
    }

    fn title(&self, step: StepId) -> &'static str {
        match step {
            StepId::Source => "fetching the kernel source",
            StepId::Binary => "building the router",
            StepId::Shell => "fetching the shell",
            StepId::Objects => "compiling the kernel",
            StepId::Initramfs => "packing the initramfs",
            StepId::Kernel => "linking the kernel",
            StepId::Disk => "making the disk",
            StepId::Qcow2 => "converting the disk to qcow2",
            StepId::Vmdk => "converting the disk to VMDK",
            StepId::Ova => "packing the OVA",
            StepId::Iso => "writing the CD-ROM",
            other => other.name(),
        }
    }

    fn make(
        &self,
        step: StepId,
        key: Digest,
        entry: &Path,
        results: &Results,
        log: &mut Log<'_>,
    ) -> Result<Seal, BuildError> {
        Ok(match step {
            StepId::Source => {
                let lists = self.bench.cache.aside("apt")?;
                let seal = source::fetch(&self.request, &lists, entry, log)?;
                let tree = entry.join(source::TREE);
                source::compile_for_speed(&tree, &self.definition.kernel.for_speed)?;
                seal
            }
            StepId::Binary => self.binary(entry, log)?,
            StepId::Shell => {
                let lists = self.bench.cache.aside("apt")?;
                let request = self.shell.as_ref();
                let request = request.expect("the plan has this step for an image with a shell");
                shell::fetch(request, &lists, entry, log)?
            }
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
            StepId::Initramfs => self.initramfs(entry, results)?,
            StepId::Kernel => self.kernel(entry, results, log)?,
            StepId::Disk => self.disk(entry, results, log)?,
            StepId::Iso => self.disc(entry, results, log)?,
            other => conversion::make(
                conversion::APPLIANCE,
                other,
                &conversion::Image {
                    name: &self.definition.name,
                    machine: &self.definition.machine,
                    results,
                },
                entry,
            )?,
        })
    }
}

impl Workshop<'_> {
    fn binary(&self, entry: &Path, log: &mut Log<'_>) -> Result<Seal, BuildError> {
        let wanted = &self.definition.initramfs;
        let path = binary::build(
            &self.bench.options.directories,
            &wanted.package,
            &wanted.binary,
            log,
        )?;
        let seal = write(entry, "init", &read(&path)?)?;
        let fact = Fact {
            name: wanted.binary.clone(),
            version: binary::compiler()?,
            sha256: Some(seal.digest),
            ..Fact::default()
        };
        let directories = &self.bench.options.directories;
        let crates = binary::crates(directories, &wanted.package)?;
        Ok(Seal {
            facts: [fact].into_iter().chain(crates.into_values()).collect(),
            ..seal
        })
    }

    fn initramfs(&self, entry: &Path, results: &Results) -> Result<Seal, BuildError> {
        let mut archive = self.skeleton.clone();
        let init = read(&results[&StepId::Binary].file())?;
        archive.file("/init", 0o755, init).map_err(unfit)?;
        if let Some(fetched) = results.get(&StepId::Shell) {
            let program = read(&fetched.file())?;
            shell::install(&mut archive, program).map_err(unfit)?;
        }
        let seal = write(entry, "initramfs.cpio", &archive.to_bytes())?;
        let fact = Fact {
            name: "initramfs".to_owned(),
            version: String::new(),
            sha256: Some(seal.digest),
            ..Fact::default()
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
        let (kernel, _) = mark::append(read(&image)?, &self.definition.name);
        write(entry, "bzImage", &kernel)
    }

    fn disc(&self, entry: &Path, results: &Results, log: &mut Log<'_>) -> Result<Seal, BuildError> {
        let kernel = results[&StepId::Kernel].file();
        let content = disc::Content {
            label: &self.definition.disk.label,
            uefi: &[("/EFI/BOOT/BOOTX64.EFI", &kernel)],
            files: &[("WOW.EFI", &kernel)],
            isolinux: ISOLINUX,
        };
        disc::make(&content, entry, log)
    }

    fn disk(&self, entry: &Path, results: &Results, log: &mut Log<'_>) -> Result<Seal, BuildError> {
        let scratch = entry.join("scratch");
        cache::create(&scratch)?;
        let path = entry.join("disk.raw");
        let kernel = results[&StepId::Kernel].file();
        match self.definition.disk.slot_mib {
            None => self.single(&kernel, &scratch, &path, log)?,
            Some(slot_mib) => self.slots(&kernel, slot_mib, &scratch, &path, log)?,
        }
        cache::remove(&scratch)?;
        Ok(Seal {
            digest: Digest::of_file(&path)?,
            file: Some("disk.raw".to_owned()),
            facts: Vec::new(),
        })
    }

    /// A disk with one kernel, which both firmwares load.
    fn single(
        &self,
        kernel: &Path,
        scratch: &Path,
        path: &Path,
        log: &mut Log<'_>,
    ) -> Result<(), BuildError> {
        let disk = &self.definition.disk;
        let layout = Layout::new(disk.size_mib);
        let content = fat::Content {
            label: &disk.label,
            files: &[(UEFI, kernel)],
            syslinux: Some(&syslinux(UEFI, "")),
        };
        let partition = fat::partition(&layout.boot, &content, scratch, log)?;
        let parts = [(layout.boot, partition.as_path())];
        raw::assemble(&layout, &self.definition.name, &parts, &[], path.into())?;
        Ok(())
    }

    /// A disk with two slots: the kernel is in the first, and the second has room for its successor.
    fn slots(
        &self,
        kernel: &Path,
        slot_mib: u64,
        scratch: &Path,
        path: &Path,
        log: &mut Log<'_>,
    ) -> Result<(), BuildError> {
        let disk = &self.definition.disk;
        let layout = Layout::with_slots(disk.size_mib);
        let second = layout.second.expect("a layout with slots has two");
        let loader = uefi::build(scratch, log)?;
        let bytes = read(kernel)?;
        let capacity = usize::try_from(slot_mib << 20).unwrap_or(usize::MAX);
        if bytes.len() > capacity {
            return Err(BuildError::Input(format!(
                "the kernel has {} bytes, more than a slot: raise disk.slot-mib in {}",
                bytes.len(),
                self.definition.file.display()
            )));
        }
        let Some(mark) = Mark::of(&bytes) else {
            return Err(BuildError::Input("the kernel has no mark".to_owned()));
        };
        let padded = |name: &str, content: &[u8]| {
            let (path, mut file) = (scratch.join(name), content.to_vec());
            file.resize(capacity, 0);
            std::fs::write(&path, file).map_err(BuildError::io("write", &path))?;
            Ok::<_, BuildError>(path)
        };
        let (full, empty) = (padded("full", &bytes)?, padded("empty", &[])?);
        let mut made = Vec::new();
        let second_label = format!("{}-B", &disk.label[..disk.label.len().min(9)]);
        for (letter, place, label, files) in [
            (
                'a',
                layout.boot,
                &disk.label,
                &[(UEFI, &*loader), (SLOT, &*full)][..],
            ),
            ('b', second, &second_label, &[(SLOT, &*empty)][..]),
        ] {
            let content = fat::Content {
                label,
                files,
                syslinux: Some(&syslinux(SLOT, &told_slot(letter))),
            };
            let directory = scratch.join(letter.to_string());
            cache::create(&directory)?;
            let image = fat::partition(&place, &content, &directory, log)?;
            made.push((place, fat::place_of(&image, SLOT)?, image));
        }
        let slot = |at: usize, kernel| slots::Slot {
            place: made[at].1.after(made[at].0.first),
            kernel,
        };
        let table = slots::table(&[slot(0, Some(Kernel::of(&bytes, &mark))), slot(1, None)]);
        let parts: Vec<_> = made
            .iter()
            .map(|(place, _, image)| (*place, image.as_path()))
            .collect();
        let between = [(slots::TABLE_LBA, &table[..])];
        raw::assemble(
            &layout,
            &self.definition.name,
            &parts,
            &between,
            path.into(),
        )?;
        Ok(())
    }
}

/// The initramfs without `/init`.
fn skeleton(definition: &Appliance) -> Result<Archive, BuildError> {
    let mut archive = Archive::new();
    let mut fill = || {
        // Rust's runtime aborts before main if the first descriptors are closed and /dev/null is
        // missing; the kernel opens /dev/console for them before anything is mounted.
        archive.character_device("/dev/console", 0o600, 5, 1)?;
        archive.character_device("/dev/null", 0o666, 1, 3)?;
        for (path, mode) in &definition.initramfs.directories {
            archive.directory(path, *mode)?;
        }
        for file in &definition.initramfs.files {
            archive.file(&file.path, file.mode, file.content.clone())?;
        }
        for link in &definition.initramfs.links {
            archive.symlink(&link.path, &link.target)?;
        }
        Ok(())
    };
    fill().map_err(unfit)?;
    Ok(archive)
}

/// Inputs that are known without running anything: tools, configuration and files.
fn static_inputs(
    definition: &Appliance,
    options: &str,
    toolchain: &str,
    disk_tools: &str,
) -> Vec<Fact> {
    let tool = |name: &str, version: &str| Fact {
        name: name.to_owned(),
        version: version.to_owned(),
        ..Fact::default()
    };
    let content = |name: &str, bytes: &[u8]| Fact {
        name: name.to_owned(),
        version: String::new(),
        sha256: Some(Digest::of(bytes)),
        ..Fact::default()
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
    for file in &definition.initramfs.files {
        facts.push(content(&file.path, &file.content));
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
