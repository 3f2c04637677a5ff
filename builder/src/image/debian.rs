//! Builds a Debian image: its plan, and what each step of it does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::publish::{self, Image, Product};
use super::runner::{self, Bench, Results};
use super::{Options, binary, conversion, disc};
use crate::BuildError;
use crate::cache::{self, Fact, Seal};
use crate::debian::archive::{Answer, Archive};
use crate::debian::{TIME, root};
use crate::definition::{Debian, File, Link};
use crate::digest::{Digest, Fields};
use crate::disk::ext4::{self, Addition};
use crate::disk::layout::{Layout, SECTOR_BYTES};
use crate::disk::{fat, raw, squashfs};
use crate::manifest::{Format, Manifest};
use crate::plan::{DebianInputs, Plan, StepId};
use crate::process::{self, Log};

/// Entries to keep in the cache: Debian takes long, its disks are large.
const KEEP_ROOTS: usize = 2;
const KEEP_DISKS: usize = 1;

/// What apt answered.
const ANSWER: &str = "packages.json";

/// UEFI's loader, of Debian's package systemd-boot-efi.
const UEFI_LOADER: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
/// No menu; a key that is held down shows it.
const LOADER: &str = "default wow\ntimeout 0\n";
/// The root on a CD-ROM, where the image's own part of the initramfs looks for it.
const DISC_ROOT: &str = "ROOT.IMG";
/// Beside it, which root it is: by this the initramfs knows a disk that was begun with another.
const DISC_ROOT_ID: &str = "ROOT.ID";

/// Builds the image of `definition`.
pub fn build(definition: &Debian, options: &Options) -> Result<Manifest, BuildError> {
    let started = Instant::now();
    let logs = options.directories.image(&definition.name).join("logs");
    cache::create(&logs)?;
    let tools = tools()?;
    let workshop = Workshop {
        definition,
        bench: Bench::new(options)?,
        archive: Archive::new(&definition.suite, &options.mirrors)?,
    };
    let content = workshop.content();
    let mut conversions = conversion::steps(conversion::DEBIAN, &options.formats);
    let (mut disc_tools, mut disc_recipe) = (String::new(), String::new());
    if let Some(disc) = &definition.disc
        && options.formats.contains(&Format::Iso)
    {
        disc_tools = format!("{}\n{}", disc::tools()?, squashfs::tools()?);
        let loaders = isolinux(&disc.command_line) + LOADER;
        let files = format!("{DISC_ROOT} {DISC_ROOT_ID}");
        disc_recipe = format!(
            "{}\n{disc:?}\n{files}\n{loaders}{disc_tools}",
            fat::tools()?
        );
        conversions.push(StepId::RootIso);
    }
    let plan = Plan::debian(&DebianInputs {
        root: root::recipe(definition, &tools),
        programs: format!("{:?}", definition.binaries),
        disk: disk_recipe(definition, &content, &tools),
        machine: format!("{:?}", definition.machine),
        disc: disc_recipe,
        conversions,
    });
    let results = runner::run(&plan, &workshop, &logs)?;
    let mut inputs = Vec::new();
    for line in tools.lines().chain(disc_tools.lines()) {
        let (name, version) = line.split_once(' ').unwrap_or((line, ""));
        inputs.push(fact(name, version, None));
    }
    for file in definition.early.iter().chain(content.0) {
        inputs.push(fact(&file.path, "", Some(Digest::of(&file.content))));
    }
    for result in results.values() {
        inputs.extend(result.seal.facts.iter().cloned());
    }
    let product = |format, step, name, limit| Product {
        format,
        step,
        name,
        limit,
    };
    let limit = Some((definition.disk_bytes, "disk-bytes"));
    let own = [
        product(Format::Kernel, StepId::RootKernel, "vmlinuz", None),
        product(Format::Initrd, StepId::RootInitramfs, "initrd.img", None),
        product(Format::Raw, StepId::RootDisk, "disk.raw", limit),
    ];
    let has_disc = definition.disc.is_some();
    let image = Image {
        name: &definition.name,
        file: &definition.file,
        command_line: Some(&definition.command_line),
        products: own
            .into_iter()
            .chain(conversion::products(conversion::DEBIAN))
            .chain(has_disc.then(|| product(Format::Iso, StepId::RootIso, disc::FILE, None)))
            .collect(),
    };
    let manifest = publish::publish(&workshop.bench, &image, &results, inputs)?;
    for step in plan.steps() {
        let keep = match step.id {
            StepId::RootDisk
            | StepId::RootQcow2
            | StepId::RootVmdk
            | StepId::RootOva
            | StepId::RootIso => KEEP_DISKS,
            _ => KEEP_ROOTS,
        };
        workshop.bench.cache.prune(step.id.name(), keep)?;
    }
    publish::report(&manifest, options, started);
    Ok(manifest)
}

/// Everything that the steps work with.
#[derive(Debug)]
struct Workshop<'a> {
    definition: &'a Debian,
    bench: Bench<'a>,
    archive: Archive,
}

impl runner::Workshop for Workshop<'_> {
    fn bench(&self) -> &Bench<'_> {
        &self.bench
    }

    fn title(&self, step: StepId) -> &'static str {
        match step {
            StepId::Packages => "asking for the packages' versions",
            StepId::Programs => "building the programs",
            StepId::Root => "unpacking and setting up Debian",
            StepId::RootKernel => "reading the kernel out of it",
            StepId::RootInitramfs => "reading the initramfs out of it",
            StepId::RootDisk => "making the disk",
            StepId::RootQcow2 => "converting the disk to qcow2",
            StepId::RootVmdk => "converting the disk to VMDK",
            StepId::RootOva => "packing the OVA",
            StepId::RootIso => "writing the CD-ROM",
            other => other.name(),
        }
    }

    fn make(
        &self,
        step: StepId,
        _key: Digest,
        entry: &Path,
        results: &Results,
        log: &mut Log<'_>,
    ) -> Result<Seal, BuildError> {
        let root = || results[&StepId::Root].file();
        match step {
            StepId::Packages => self.packages(entry, log),
            StepId::Programs => self.programs(entry, log),
            StepId::Root => {
                let path = results[&StepId::Packages].file();
                let text = std::fs::read(&path).map_err(BuildError::io("read", &path))?;
                let answer: Answer = serde_json::from_slice(&text)
                    .map_err(|error| BuildError::Input(format!("{}: {error}", path.display())))?;
                root::make(self.definition, &self.archive, &answer, entry, log).inspect_err(|_| {
                    // The archive may have moved on; a failure to forget shows again at once.
                    let lists = self.bench.cache.aside("debian-lists");
                    let _ = lists
                        .and_then(|lists| self.archive.forget(&self.definition.packages, &lists));
                })
            }
            StepId::RootKernel => extract(&root(), "/vmlinuz", entry, "vmlinuz", log),
            StepId::RootInitramfs => extract(&root(), "/initrd.img", entry, "initrd.img", log),
            StepId::RootDisk => self.disk(entry, results, log),
            StepId::RootIso => self.disc(entry, results, log),
            other => conversion::make(
                conversion::DEBIAN,
                other,
                &conversion::Image {
                    name: &self.definition.name,
                    machine: &self.definition.machine,
                    results,
                },
                entry,
            ),
        }
    }
}

/// Files and links of our own, besides programs.
type Content<'a> = (Vec<&'a File>, Vec<&'a Link>);

impl Workshop<'_> {
    fn content(&self) -> Content<'_> {
        let definition = self.definition;
        let units = definition.units.iter();
        (
            units
                .clone()
                .map(|unit| &unit.file)
                .chain(&definition.files)
                .collect(),
            units
                .flat_map(|unit| &unit.wants)
                .chain(&definition.links)
                .collect(),
        )
    }

    fn packages(&self, entry: &Path, log: &mut Log<'_>) -> Result<Seal, BuildError> {
        let lists = self.bench.cache.aside("debian-lists")?;
        let (answer, note) = self
            .archive
            .resolve(&self.definition.packages, &lists, log)?;
        let path = entry.join(ANSWER);
        let text = serde_json::to_vec(&answer)
            .map_err(|error| BuildError::Input(format!("cannot note the packages: {error}")))?;
        std::fs::write(&path, text).map_err(BuildError::io("write", &path))?;
        let facts = note.map(|note| Fact {
            note: Some(note),
            ..fact("package lists", "", None)
        });
        Ok(Seal {
            digest: answer.digest(),
            file: Some(ANSWER.to_owned()),
            facts: facts.into_iter().collect(),
        })
    }

    fn programs(&self, entry: &Path, log: &mut Log<'_>) -> Result<Seal, BuildError> {
        let mut digests = Fields::new("wow programs");
        let (mut facts, mut crates) = (Vec::new(), BTreeMap::new());
        for (number, wanted) in self.definition.binaries.iter().enumerate() {
            let directories = &self.bench.options.directories;
            let built = binary::build(directories, &wanted.package, &wanted.binary, log)?;
            let to = program(entry, number);
            std::fs::copy(&built, &to).map_err(BuildError::io("copy", &built))?;
            let digest = Digest::of_file(&to)?;
            digests = digests.field(&wanted.path, digest.as_bytes());
            facts.push(fact(&wanted.path, &binary::compiler()?, Some(digest)));
            crates.extend(binary::crates(directories, &wanted.package)?);
        }
        facts.extend(crates.into_values());
        Ok(Seal {
            digest: digests.finish(),
            file: None,
            facts,
        })
    }

    fn disk(&self, entry: &Path, results: &Results, log: &mut Log<'_>) -> Result<Seal, BuildError> {
        let definition = self.definition;
        let scratch = ext4::scratch(entry)?;
        let root = self.root(&scratch, results, log)?;
        let line = &definition.command_line;
        let files = self.boot_files(line, &scratch, results, log)?;
        let content = fat::Content {
            label: &definition.disk.boot_label,
            files: &files.each_ref().map(|(name, file)| (*name, file.as_path())),
            syslinux: Some(&syslinux(line)),
        };
        let bytes = std::fs::metadata(&root)
            .map_err(BuildError::io("read", &root))?
            .len();
        let layout = Layout::with_root(definition.disk.boot_mib, bytes);
        let place = layout.root.expect("the layout was made with a root");
        let boot = fat::partition(&layout.boot, &content, &scratch, log)?;
        let parts = [(layout.boot, boot.as_path()), (place, root.as_path())];
        let path = raw::assemble(
            &layout,
            &definition.name,
            &parts,
            &[],
            entry.join("disk.raw"),
        )?;
        cache::remove(&scratch)?;
        Ok(Seal {
            digest: Digest::of_file(&path)?,
            file: Some("disk.raw".to_owned()),
            facts: Vec::new(),
        })
    }

    /// The CD-ROM, with the root that is on the disk.
    fn disc(&self, entry: &Path, results: &Results, log: &mut Log<'_>) -> Result<Seal, BuildError> {
        let definition = self.definition;
        let Some(wanted) = &definition.disc else {
            unreachable!("no CD-ROM of {} is planned", definition.name);
        };
        let scratch = ext4::scratch(entry)?;
        let line = &wanted.command_line;
        let files = self.boot_files(line, &scratch, results, log)?;
        let place = Layout::with_root(definition.disk.boot_mib, 0).boot;
        let at = (place.first + place.sectors()) * SECTOR_BYTES;
        let root = scratch.join("root.squashfs");
        let disk = results[&StepId::RootDisk].file();
        squashfs::from_ext4(&disk, at, &root, TIME, log)?;
        let id = scratch.join("root.id");
        let digest = results[&StepId::RootDisk].seal.digest;
        std::fs::write(&id, format!("{digest}\n")).map_err(BuildError::io("write", &id))?;
        let [.., (_, kernel), (_, initramfs)] = &files;
        let content = disc::Content {
            label: &wanted.label,
            uefi: &files.each_ref().map(|(name, file)| (*name, file.as_path())),
            files: &[
                ("VMLINUZ.IMG", kernel),
                ("INITRD.IMG", initramfs),
                (DISC_ROOT, &root),
                (DISC_ROOT_ID, &id),
            ],
            isolinux: &isolinux(line),
        };
        let seal = disc::make(&content, entry, log)?;
        cache::remove(&scratch)?;
        Ok(seal)
    }

    /// What UEFI's loader and the boot volume around it consist of, with this command line; the kernel and its
    /// initramfs last.
    fn boot_files(
        &self,
        line: &str,
        scratch: &Path,
        results: &Results,
        log: &mut Log<'_>,
    ) -> Result<[(&'static str, PathBuf); 5], BuildError> {
        let file = |name: &str, text: &str| {
            let path = scratch.join(name);
            let written = std::fs::write(&path, text);
            written
                .map_err(BuildError::io("write", &path))
                .map(|()| path)
        };
        let entry = format!(
            "title {}\nlinux /vmlinuz\ninitrd /initrd.img\noptions {line}\n",
            self.definition.name
        );
        let uefi = scratch.join("uefi");
        ext4::extract(&results[&StepId::Root].file(), UEFI_LOADER, &uefi, log)?;
        Ok([
            ("/EFI/BOOT/BOOTX64.EFI", uefi),
            ("/loader/loader.conf", file("loader.conf", LOADER)?),
            ("/loader/entries/wow.conf", file("wow.conf", &entry)?),
            ("/vmlinuz", results[&StepId::RootKernel].file()),
            ("/initrd.img", results[&StepId::RootInitramfs].file()),
        ])
    }

    /// The root file system with everything of ours in it.
    fn root(
        &self,
        scratch: &Path,
        results: &Results,
        log: &mut Log<'_>,
    ) -> Result<PathBuf, BuildError> {
        let image = scratch.join(root::FILE);
        let from = results[&StepId::Root].file();
        crate::disk::sparse::copy_file(&from, &image, 0).map_err(BuildError::io("copy", &from))?;
        let (files, links) = self.content();
        let mut additions = Vec::new();
        for (number, binary) in self.definition.binaries.iter().enumerate() {
            additions.push(Addition {
                path: binary.path.clone(),
                mode: 0o755,
                source: program(&results[&StepId::Programs].entry, number),
            });
        }
        for (number, file) in files.iter().enumerate() {
            let source = scratch.join(format!("file-{number}"));
            std::fs::write(&source, &file.content).map_err(BuildError::io("write", &source))?;
            additions.push(Addition {
                path: file.path.clone(),
                mode: file.mode,
                source,
            });
        }
        let links: Vec<Link> = links.into_iter().cloned().collect();
        ext4::change(&image, &additions, &links, TIME, scratch, log)?;
        Ok(image)
    }
}

fn program(entry: &Path, number: usize) -> PathBuf {
    entry.join(format!("program-{number}"))
}

/// No question, no delay.
fn syslinux(line: &str) -> String {
    format!(
        "DEFAULT wow\nPROMPT 0\nLABEL wow\n  LINUX /vmlinuz\n  INITRD /initrd.img\n  APPEND {line}\n"
    )
}

/// The same for isolinux, which knows the files by names of the CD-ROM's.
fn isolinux(line: &str) -> String {
    format!(
        "DEFAULT wow\nPROMPT 0\nLABEL wow\n  LINUX /VMLINUZ.IMG\n  INITRD /INITRD.IMG\n  APPEND {line}\n"
    )
}

fn extract(
    root: &Path,
    path: &str,
    entry: &Path,
    name: &str,
    log: &mut Log<'_>,
) -> Result<Seal, BuildError> {
    let to = entry.join(name);
    ext4::extract(root, path, &to, log)?;
    Ok(Seal {
        digest: Digest::of_file(&to)?,
        file: Some(name.to_owned()),
        facts: Vec::new(),
    })
}

/// What the disk is made of besides the root and the programs, in canonical text.
fn disk_recipe(definition: &Debian, content: &Content<'_>, tools: &str) -> String {
    let mut fields = Fields::new("wow debian content");
    for file in &content.0 {
        fields = fields
            .field("path", &file.path)
            .field("mode", file.mode.to_be_bytes())
            .field("content", &file.content);
    }
    for link in &content.1 {
        fields = fields
            .field("link", &link.path)
            .field("target", &link.target);
    }
    format!(
        "{}\n{:?}\n{}\n{LOADER}{}\n{TIME}\n{tools}",
        definition.name,
        definition.disk,
        fields.finish(),
        syslinux(&definition.command_line),
    )
}

/// The tools that make the file systems, with their packages' versions.
fn tools() -> Result<String, BuildError> {
    let own = process::output(
        process::command("dpkg-query")
            .args(["--show", "--showformat=${Package} ${Version}\\n"])
            .args(["e2fsprogs", "mmdebstrap"]),
    );
    let own = own.map_err(|error| {
        BuildError::Input(format!(
            "{error}\ninstall what makes Debian images: apt-get install mmdebstrap e2fsprogs"
        ))
    })?;
    Ok(format!("{}\n{own}", fat::tools()?))
}

fn fact(name: &str, version: &str, sha256: Option<Digest>) -> Fact {
    Fact {
        name: name.to_owned(),
        version: version.to_owned(),
        sha256,
        ..Fact::default()
    }
}
