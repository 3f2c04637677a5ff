//! The plan of a build: which steps there are, what each depends on, and the keys of their
//! results. Pure: no file is read here and nothing runs.
//!
//! A step's key digests its recipe (everything that determines its work besides other steps) and
//! the digests of the results it uses. Results are named by content, so a step whose inputs came
//! out as before is not run again, even if what made them was: a change in Rust that yields the
//! same binary links no kernel.

use std::collections::BTreeMap;
use std::fmt;

use crate::digest::{Digest, Fields};

/// The steps of an image, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepId {
    /// The kernel's source tree, fetched and unpacked.
    Source,
    /// The static binary that becomes `/init`.
    Binary,
    /// A static shell out of its package.
    Shell,
    /// The kernel's compiled objects.
    Objects,
    /// The initramfs archive.
    Initramfs,
    /// The bootable kernel with the initramfs in it.
    Kernel,
    /// The raw disk.
    Disk,
    /// The raw disk as qcow2.
    Qcow2,
    /// The raw disk as VMDK.
    Vmdk,
    /// A virtual machine with that VMDK.
    Ova,
    /// A CD-ROM with the kernel.
    Iso,
    /// Which packages and versions make a Debian image.
    Packages,
    /// The root file system out of them.
    Root,
    /// Debian's kernel, read out of the root.
    RootKernel,
    /// Its initramfs, read out of the root.
    RootInitramfs,
    /// Our own programs in a Debian image.
    Programs,
    /// A Debian image's raw disk.
    RootDisk,
    /// The same as qcow2.
    RootQcow2,
    /// The same as VMDK.
    RootVmdk,
    /// A virtual machine with that VMDK.
    RootOva,
    /// A CD-ROM with the same root.
    RootIso,
}

impl StepId {
    /// The step's name in the cache, the logs and the progress display.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "kernel-source",
            Self::Binary => "binary",
            Self::Shell => "shell",
            Self::Objects => "kernel-objects",
            Self::Initramfs => "initramfs",
            Self::Kernel => "kernel",
            Self::Disk => "disk",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Ova => "ova",
            Self::Iso => "iso",
            Self::Packages => "debian-packages",
            Self::Root => "debian-root",
            Self::RootKernel => "debian-kernel",
            Self::RootInitramfs => "debian-initramfs",
            Self::Programs => "programs",
            Self::RootDisk => "debian-disk",
            Self::RootQcow2 => "debian-qcow2",
            Self::RootVmdk => "debian-vmdk",
            Self::RootOva => "debian-ova",
            Self::RootIso => "debian-iso",
        }
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub id: StepId,
    /// The steps whose results it uses.
    pub after: &'static [StepId],
    /// Everything else that determines its result.
    pub recipe: Digest,
    /// The step is asked each time, because it keeps a cache of its own (cargo's, apt's).
    pub always: bool,
}

/// What the recipes of an appliance's steps are made of. The caller has read it; nothing is read here.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The image's name, which the kernel's mark says.
    pub name: String,
    /// The source package and the version asked for.
    pub source: (String, String),
    /// The directories of it that are compiled for speed.
    pub for_speed: Vec<String>,
    /// The merged kernel options, in canonical text.
    pub kernel_options: String,
    /// The C tool chain, as its tools describe themselves.
    pub toolchain: String,
    /// The cargo package and binary of `/init`.
    pub binary: (String, String),
    /// The shell's package and the version asked for, where the image has one.
    pub shell: Option<(String, String)>,
    /// The initramfs besides `/init`: an archive's bytes.
    pub skeleton: Vec<u8>,
    /// The disk's parameters and tools, in canonical text.
    pub disk: String,
    /// What an OVA says of the machine, in canonical text.
    pub machine: String,
    /// The CD-ROM's parameters and tools, in canonical text.
    pub disc: String,
    /// The formats to make besides the raw disk.
    pub conversions: Vec<StepId>,
}

/// What the recipes of a Debian image's steps are made of.
#[derive(Debug, Clone, Default)]
pub struct DebianInputs {
    /// What else makes the root besides the packages' versions, in canonical text.
    pub root: String,
    /// The programs to build, in canonical text.
    pub programs: String,
    /// What is put into the root, but for the programs, and the disk's parameters and tools.
    pub disk: String,
    /// What an OVA says of the machine, in canonical text.
    pub machine: String,
    /// The CD-ROM's parameters and tools, in canonical text.
    pub disc: String,
    /// What is made from the raw disk.
    pub conversions: Vec<StepId>,
}

/// The graph of an image's steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    steps: Vec<Step>,
}

/// Raised when a step's work changes without its inputs changing.
const RECIPES: &str = "wow image recipes 3";

impl Plan {
    /// The plan of an appliance.
    pub fn new(inputs: &Inputs) -> Self {
        use StepId::*;
        let source = recipe(Source)
            .field("package", &inputs.source.0)
            .field("for speed", inputs.for_speed.join("\n"));
        let binary = recipe(Binary).field("package", &inputs.binary.0);
        let objects = recipe(Objects).field("options", &inputs.kernel_options);
        let mut plan = Self {
            steps: vec![
                step(Source, &[], source.field("version", &inputs.source.1)),
                step(Binary, &[], binary.field("binary", &inputs.binary.1)),
                step(
                    Objects,
                    &[Source],
                    objects.field("toolchain", &inputs.toolchain),
                ),
                step(
                    Initramfs,
                    match inputs.shell {
                        Some(_) => &[Binary, Shell],
                        None => &[Binary],
                    },
                    recipe(Initramfs).field("skeleton", &inputs.skeleton),
                ),
                step(
                    Kernel,
                    &[Objects, Initramfs],
                    recipe(Kernel).field("name", &inputs.name),
                ),
                step(Disk, &[Kernel], recipe(Disk).field("disk", &inputs.disk)),
            ],
        };
        if let Some((package, version)) = &inputs.shell {
            let shell = recipe(Shell).field("package", package);
            let first = step(Shell, &[], shell.field("version", version));
            plan.steps.insert(0, first);
        }
        plan.convert(&inputs.conversions, &inputs.machine, &inputs.disc);
        plan
    }

    /// The plan of a Debian image.
    pub fn debian(inputs: &DebianInputs) -> Self {
        use StepId::*;
        let disk = recipe(RootDisk).field("disk", &inputs.disk);
        let mut plan = Self {
            steps: vec![
                step(Packages, &[], recipe(Packages)),
                step(
                    Programs,
                    &[],
                    recipe(Programs).field("programs", &inputs.programs),
                ),
                step(Root, &[Packages], recipe(Root).field("root", &inputs.root)),
                step(RootKernel, &[Root], recipe(RootKernel)),
                step(RootInitramfs, &[Root], recipe(RootInitramfs)),
                step(RootDisk, &[Root, RootKernel, RootInitramfs, Programs], disk),
            ],
        };
        plan.convert(&inputs.conversions, &inputs.machine, &inputs.disc);
        plan
    }

    fn convert(&mut self, to: &[StepId], machine: &str, disc: &str) {
        use StepId::*;
        let steps = to.iter().map(|id| {
            let recipe = recipe(*id);
            match id {
                Ova => step(*id, &[Disk, Vmdk], recipe.field("machine", machine)),
                RootOva => step(*id, &[RootDisk, RootVmdk], recipe.field("machine", machine)),
                Iso => step(*id, &[Kernel], recipe.field("disc", disc)),
                RootIso => step(
                    *id,
                    &[Root, RootDisk, RootKernel, RootInitramfs],
                    recipe.field("disc", disc),
                ),
                RootQcow2 | RootVmdk => step(*id, &[RootDisk], recipe),
                _ => step(*id, &[Disk], recipe),
            }
        });
        self.steps.extend(steps);
    }

    /// The steps, each after those it uses.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The key of a step's result, given the digests of the results so far; `None` if one that
    /// the step uses is missing.
    pub fn key(&self, step: &Step, results: &BTreeMap<StepId, Digest>) -> Option<Digest> {
        let mut fields = Fields::new("wow image step").field("recipe", step.recipe.as_bytes());
        for id in step.after {
            fields = fields.field(id.name(), results.get(id)?.as_bytes());
        }
        Some(fields.finish())
    }
}

fn recipe(id: StepId) -> Fields {
    Fields::new(RECIPES).field("step", id.name())
}

fn step(id: StepId, after: &'static [StepId], recipe: Fields) -> Step {
    Step {
        id,
        after,
        recipe: recipe.finish(),
        always: matches!(id, StepId::Binary | StepId::Programs | StepId::Packages),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Inputs {
        Inputs {
            name: "router".into(),
            source: ("linux-source-6.12".into(), "6.12.1-1".into()),
            for_speed: vec!["net".into()],
            kernel_options: "CONFIG_SMP=y\n".into(),
            toolchain: "gcc 12".into(),
            binary: ("wow-router".into(), "wow".into()),
            shell: None,
            skeleton: b"070701".to_vec(),
            disk: "8 MiB".into(),
            machine: "128 MiB".into(),
            disc: "isolinux 6".into(),
            conversions: vec![StepId::Qcow2, StepId::Vmdk, StepId::Ova, StepId::Iso],
        }
    }

    /// Keys of all steps when every step's result is its own key, and the binary's is `binary`.
    fn keys(inputs: &Inputs, binary: &[u8]) -> BTreeMap<StepId, Digest> {
        let plan = Plan::new(inputs);
        let mut results = BTreeMap::new();
        let mut keys = BTreeMap::new();
        for step in plan.steps() {
            let key = plan
                .key(step, &results)
                .expect("steps come after what they use");
            keys.insert(step.id, key);
            results.insert(step.id, if step.always { Digest::of(binary) } else { key });
        }
        keys
    }

    /// The steps whose keys differ.
    fn changed(change: impl FnOnce(&mut Inputs)) -> Vec<StepId> {
        let (before, mut other) = (keys(&inputs(), b"elf"), inputs());
        change(&mut other);
        let after = keys(&other, b"elf");
        before
            .keys()
            .copied()
            .filter(|id| before[id] != after[id])
            .collect()
    }

    #[test]
    fn equal_inputs_give_equal_keys() {
        assert_eq!(changed(|_| ()), []);
    }

    #[test]
    fn a_change_reaches_exactly_the_steps_that_depend_on_it() {
        use StepId::*;
        assert_eq!(changed(|i| i.machine.push('x')), [Ova]);
        assert_eq!(
            changed(|i| i.name.push('x')),
            [Kernel, Disk, Qcow2, Vmdk, Ova, Iso]
        );
        assert_eq!(changed(|i| i.disk.push('x')), [Disk, Qcow2, Vmdk, Ova]);
        assert_eq!(changed(|i| i.disc.push('x')), [Iso]);
        assert_eq!(
            changed(|i| i.skeleton.push(0)),
            [Initramfs, Kernel, Disk, Qcow2, Vmdk, Ova, Iso]
        );
        for change in [
            (|i: &mut Inputs| i.kernel_options.push('x')) as fn(&mut Inputs),
            |i| i.toolchain.push('x'),
        ] {
            assert_eq!(
                changed(change),
                [Objects, Kernel, Disk, Qcow2, Vmdk, Ova, Iso]
            );
        }
        assert_eq!(
            changed(|i| i.source.1.push('x')),
            [Source, Objects, Kernel, Disk, Qcow2, Vmdk, Ova, Iso]
        );
    }

    #[test]
    fn another_binary_compiles_no_kernel_and_the_same_one_links_none() {
        use StepId::*;
        let (before, after) = (keys(&inputs(), b"elf"), keys(&inputs(), b"other"));
        let changed: Vec<_> = before.keys().filter(|id| before[id] != after[id]).collect();
        assert_eq!(
            changed,
            [&Initramfs, &Kernel, &Disk, &Qcow2, &Vmdk, &Ova, &Iso]
        );
        assert_eq!(before, keys(&inputs(), b"elf"));
    }

    #[test]
    fn another_program_makes_no_debian_anew_and_another_package_everything_after() {
        use StepId::*;
        let keys = |packages: &[u8], programs: &[u8], inputs: &DebianInputs| {
            let plan = Plan::debian(inputs);
            let (mut keys, mut results) = (BTreeMap::new(), BTreeMap::new());
            for step in plan.steps() {
                let key = plan
                    .key(step, &results)
                    .expect("steps come after what they use");
                let result = match step.id {
                    Packages => Digest::of(packages),
                    Programs => Digest::of(programs),
                    _ => key,
                };
                keys.insert(step.id, key);
                results.insert(step.id, result);
            }
            keys
        };
        let inputs = DebianInputs {
            conversions: vec![RootQcow2, RootIso],
            ..DebianInputs::default()
        };
        let before = keys(b"less 1", b"wow", &inputs);
        let changed = |after: BTreeMap<StepId, Digest>| -> Vec<StepId> {
            let ids = before.keys().copied();
            ids.filter(|id| before[id] != after[id]).collect()
        };
        assert_eq!(changed(keys(b"less 1", b"wow", &inputs)), []);
        assert_eq!(
            changed(keys(b"less 1", b"new", &inputs)),
            [RootDisk, RootQcow2, RootIso]
        );
        let all = [
            Root,
            RootKernel,
            RootInitramfs,
            RootDisk,
            RootQcow2,
            RootIso,
        ];
        assert_eq!(changed(keys(b"less 2", b"wow", &inputs)), all);
        let other = DebianInputs {
            disk: "a unit".into(),
            ..inputs.clone()
        };
        assert_eq!(
            changed(keys(b"less 1", b"wow", &other)),
            [RootDisk, RootQcow2, RootIso]
        );
        let other = DebianInputs {
            disc: "another label".into(),
            ..inputs.clone()
        };
        assert_eq!(changed(keys(b"less 1", b"wow", &other)), [RootIso]);
    }

    #[test]
    fn a_step_without_its_inputs_has_no_key() {
        let plan = Plan::new(&inputs());
        let last = plan.steps().last().unwrap();
        assert_eq!(plan.key(last, &BTreeMap::new()), None);
    }

    #[test]
    fn a_shell_is_fetched_for_the_images_that_have_one_alone() {
        let ids = |inputs: &Inputs| {
            let plan = Plan::new(inputs);
            plan.steps().iter().map(|step| step.id).collect::<Vec<_>>()
        };
        let without = inputs();
        assert!(!ids(&without).contains(&StepId::Shell));
        let with = Inputs {
            shell: Some(("busybox-static".into(), "1:1.35.0-4".into())),
            ..inputs()
        };
        let order = ids(&with);
        let place = |id| order.iter().position(|step| *step == id).unwrap();
        assert!(place(StepId::Shell) < place(StepId::Initramfs));
        let (one, other) = (keys(&without, b"wow"), keys(&with, b"wow"));
        assert_ne!(one[&StepId::Initramfs], other[&StepId::Initramfs]);
        assert_eq!(one[&StepId::Objects], other[&StepId::Objects]);
    }
}
