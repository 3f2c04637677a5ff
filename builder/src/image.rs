//! Builds an image: reads the inputs, plans, runs what the cache does not have, and publishes
//! the artefacts with their manifest.

mod binary;
mod steps;

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use crate::BuildError;
use crate::cache::{self, Cache, Fact, Seal};
use crate::definition::{Definition, Limits};
use crate::digest::Digest;
use crate::disk::fat;
use crate::kernel::{compile, source};
use crate::manifest::{self, Artefact, Format, Manifest};
use crate::plan::{Inputs, Plan, Step, StepId};
use crate::process::{Log, Programs};
use crate::progress::{Progress, seconds};
use crate::repository::Directories;

use steps::Workshop;

/// Entries to keep of each step in the cache: the current one, and that of another branch.
const KEEP_ENTRIES: usize = 2;

/// How to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything lies.
    pub directories: Directories,
    /// Debian archives to take the kernel source from, instead of the machine's apt sources.
    pub mirrors: Vec<String>,
    /// Where to show what runs.
    pub progress: Progress,
}

impl Options {
    /// The options of a build without wishes, in the repository of the working directory.
    pub fn new() -> Result<Self, BuildError> {
        Ok(Self {
            directories: Directories::find()?,
            mirrors: Vec::new(),
            progress: Progress::to_stderr(),
        })
    }
}

/// Builds the image of `definition`.
pub fn build(definition: &Definition, options: &Options) -> Result<Manifest, BuildError> {
    let started = Instant::now();
    let directory = options.directories.image(&definition.name);
    let logs = directory.join("logs");
    cache::create(&logs)?;
    let merged = compile::options(&options.directories.root, definition)?;
    let suite = source::suite()?;
    let workshop = Workshop {
        definition,
        options,
        request: source::Request {
            package: definition.kernel.package.clone(),
            version: definition.kernel.versions.get(&suite).cloned(),
            suite,
            mirrors: options.mirrors.clone(),
        },
        merged,
        skeleton: steps::skeleton(definition)?,
        cache: Cache::open(&options.directories.cache, &options.progress)?,
        programs: Programs::new()?,
    };
    let tools = (compile::toolchain()?, fat::tools()?);
    let plan = Plan::new(&Inputs {
        source: (
            workshop.request.package.clone(),
            workshop
                .request
                .version
                .clone()
                .unwrap_or_else(|| workshop.request.suite.clone()),
        ),
        kernel_options: workshop.merged.canonical(),
        toolchain: tools.0.clone(),
        binary: (
            definition.initramfs.package.clone(),
            definition.initramfs.binary.clone(),
        ),
        skeleton: workshop.skeleton.to_bytes(),
        disk: format!("{:?}\n{}\n{}", definition.disk, definition.name, tools.1),
    });
    let results = run(&plan, &workshop, &logs)?;
    let mut inputs =
        steps::static_inputs(definition, &workshop.merged.canonical(), &tools.0, &tools.1);
    for result in results.values() {
        inputs.extend(result.seal.facts.iter().cloned());
    }
    let manifest = publish(definition, &directory, &results, inputs)?;
    for step in plan.steps() {
        workshop.cache.prune(step.id.name(), KEEP_ENTRIES)?;
    }
    report(&manifest, options, started);
    Ok(manifest)
}

/// A step's sealed result and where it lies.
#[derive(Debug, Clone)]
struct StepResult {
    seal: Seal,
    entry: PathBuf,
}

impl StepResult {
    /// The result's file.
    fn file(&self) -> PathBuf {
        self.seal
            .file
            .as_ref()
            .map_or_else(|| self.entry.clone(), |file| self.entry.join(file))
    }
}

type Results = BTreeMap<StepId, StepResult>;

/// Runs the steps whose results the cache does not have, each as soon as those it uses have ended:
/// the kernel's source is fetched and unpacked while the program compiles.
fn run(plan: &Plan, workshop: &Workshop<'_>, logs: &Path) -> Result<Results, BuildError> {
    let mut results = Results::new();
    let mut waiting: Vec<&Step> = plan.steps().iter().collect();
    let mut failure = None;
    let (sender, ended) = mpsc::channel();
    thread::scope(|scope| {
        let mut running = 0;
        loop {
            let is_ready = |step: &Step| step.after.iter().all(|id| results.contains_key(id));
            let ready = match failure {
                None => waiting.extract_if(.., |step| is_ready(step)).collect(),
                Some(_) => Vec::new(),
            };
            for step in ready {
                running += 1;
                let (sender, results) = (sender.clone(), results.clone());
                scope.spawn(move || {
                    let run = || run_step(plan, step, workshop, &results, logs);
                    let result = panic::catch_unwind(AssertUnwindSafe(run));
                    // The receiver lives as long as any step runs.
                    let _ = sender.send((step.id, result));
                });
            }
            if running == 0 {
                break;
            }
            let (id, result) = ended.recv().expect("this function holds a sender too");
            running -= 1;
            match result {
                Ok(Ok(result)) => {
                    results.insert(id, result);
                    continue;
                }
                // Those after the first were stopped by it.
                Ok(Err(error)) => _ = failure.get_or_insert(Ok(error)),
                Err(panic) => _ = failure.get_or_insert(Err(panic)),
            }
            workshop.programs.stop();
        }
    });
    match failure {
        None => Ok(results),
        Some(Ok(error)) => Err(error),
        Some(Err(panic)) => panic::resume_unwind(panic),
    }
}

fn run_step(
    plan: &Plan,
    step: &Step,
    workshop: &Workshop<'_>,
    results: &Results,
    logs: &Path,
) -> Result<StepResult, BuildError> {
    let digests = results.iter().map(|(id, result)| (*id, result.seal.digest));
    let key = plan
        .key(step, &digests.collect())
        .expect("a step runs after those it uses");
    let name = step.id.name();
    let known = match step.always {
        true => None,
        false => workshop.cache.find(name, key),
    };
    let seal = match known {
        Some(seal) => seal,
        None => {
            let log = logs.join(format!("{name}.log"));
            let running = workshop.options.progress.start(workshop.title(step.id));
            let mut log = Log::create(&log, &running, &workshop.programs)?;
            let seal = workshop.run(step.id, key, results, &mut log)?;
            running.finish("done");
            seal
        }
    };
    for note in seal.facts.iter().filter_map(|fact| fact.note.as_ref()) {
        workshop.options.progress.say(&format!("note: {note}"));
    }
    Ok(StepResult {
        seal,
        entry: workshop.cache.path(name, key),
    })
}

/// Puts the artefacts where people look for them, unless they are there already.
fn publish(
    definition: &Definition,
    directory: &Path,
    results: &Results,
    inputs: Vec<Fact>,
) -> Result<Manifest, BuildError> {
    let Limits {
        kernel_bytes,
        disk_bytes,
    } = definition.limits;
    let files = [
        (
            Format::Kernel,
            StepId::Kernel,
            "bzImage",
            Some(("the kernel", kernel_bytes, "kernel-bytes")),
        ),
        (
            Format::Raw,
            StepId::Disk,
            "disk.raw",
            Some(("the raw disk", disk_bytes, "disk-bytes")),
        ),
        (Format::Qcow2, StepId::Qcow2, "disk.qcow2", None),
    ];
    let mut artefacts = Vec::new();
    for (format, step, name, limit) in files {
        let result = &results[&step];
        let from = result.file();
        let bytes = std::fs::metadata(&from)
            .map_err(BuildError::io("read", &from))?
            .len();
        if let Some((what, limit, key)) = limit
            && bytes > limit
        {
            let definition = definition.file.clone();
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
    let manifest = Manifest {
        image: definition.name.clone(),
        inputs,
        artefacts,
        directory: directory.to_owned(),
    };
    let mut text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| BuildError::Input(format!("cannot write the manifest: {error}")))?;
    text.push(b'\n');
    cache::publish(&directory.join(manifest::FILE), &text)?;
    Ok(manifest)
}

fn report(manifest: &Manifest, options: &Options, started: Instant) {
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
