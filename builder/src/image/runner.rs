//! Runs a plan's steps against the cache, each as soon as those it uses have ended.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use super::Options;
use crate::BuildError;
use crate::cache::{Cache, Seal};
use crate::digest::Digest;
use crate::plan::{Plan, Step, StepId};
use crate::process::{Log, Programs};

/// What the steps of every kind of image work with.
#[derive(Debug)]
pub struct Bench<'a> {
    pub options: &'a Options,
    pub cache: Cache,
    pub programs: Programs,
}

impl<'a> Bench<'a> {
    /// A bench with the cache locked.
    pub fn new(options: &'a Options) -> Result<Self, BuildError> {
        Ok(Self {
            options,
            cache: Cache::open(&options.directories.cache, &options.progress)?,
            programs: Programs::new()?,
        })
    }
}

/// Knows how the steps of one kind of image are done.
pub trait Workshop: Sync {
    /// What the steps work with.
    fn bench(&self) -> &Bench<'_>;

    /// What a step does, for the person who watches.
    fn title(&self, step: StepId) -> &'static str;

    /// Does a step whose result goes into the empty directory `entry`.
    fn make(
        &self,
        step: StepId,
        key: Digest,
        entry: &Path,
        results: &Results,
        log: &mut Log<'_>,
    ) -> Result<Seal, BuildError>;
}

/// A step's sealed result and where it lies.
#[derive(Debug, Clone)]
pub struct StepResult {
    /// What it left.
    pub seal: Seal,
    /// Its directory.
    pub entry: PathBuf,
}

impl StepResult {
    /// The result's file.
    pub fn file(&self) -> PathBuf {
        self.seal
            .file
            .as_ref()
            .map_or_else(|| self.entry.clone(), |file| self.entry.join(file))
    }
}

/// The results so far.
pub type Results = BTreeMap<StepId, StepResult>;

/// Runs the steps whose results the cache does not have, each as soon as those it uses have ended:
/// the kernel's source is fetched and unpacked while the program compiles.
pub fn run(plan: &Plan, workshop: &dyn Workshop, logs: &Path) -> Result<Results, BuildError> {
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
            workshop.bench().programs.stop();
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
    workshop: &dyn Workshop,
    results: &Results,
    logs: &Path,
) -> Result<StepResult, BuildError> {
    let digests = results.iter().map(|(id, result)| (*id, result.seal.digest));
    let key = plan
        .key(step, &digests.collect())
        .expect("a step runs after those it uses");
    let name = step.id.name();
    let bench = workshop.bench();
    let known = match step.always {
        true => None,
        false => bench.cache.find(name, key),
    };
    let seal = match known {
        Some(seal) => seal,
        None => {
            let log = logs.join(format!("{name}.log"));
            let running = bench.options.progress.start(workshop.title(step.id));
            let mut log = Log::create(&log, &running, &bench.programs)?;
            let seal = bench
                .cache
                .begin(name, key)
                .and_then(|entry| workshop.make(step.id, key, &entry, results, &mut log))?;
            bench.cache.seal(name, key, &seal)?;
            running.finish("done");
            seal
        }
    };
    for note in seal.facts.iter().filter_map(|fact| fact.note.as_ref()) {
        bench.options.progress.say(&format!("note: {note}"));
    }
    Ok(StepResult {
        seal,
        entry: bench.cache.path(name, key),
    })
}
