//! `-l`: the resources that a job asks for, as text by name, and what they mean together.

mod layout;
mod select;

use std::collections::BTreeMap;

use crate::failure::{Error, Failure};
use crate::{size, time};

pub use layout::{Layout, NodeSize, Share};
use select::{Chunk, Place};

/// Resources that say where and how large: those of one source replace all those of a weaker one.
const PLACEMENT: &[&str] = &["nodes", "select", "place", "ncpus", "procs", "host"];

/// Resources that PBS knows and that change nothing here.
const IGNORED: &[&str] = &[
    "arch",
    "opsys",
    "os",
    "other",
    "software",
    "neednodes",
    "vmem",
    "size",
];

/// Resources by their names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Resources(BTreeMap<String, String>);

/// What resources mean together.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Request {
    /// The time after which the job is ended.
    pub walltime_seconds: Option<u64>,
    /// Processes and processors, and on how many nodes.
    pub layout: Layout,
    /// Memory of the whole job.
    pub memory_bytes: Option<u64>,
    /// Memory of each process.
    pub process_memory_bytes: Option<u64>,
    /// No other job beside it on its nodes.
    pub exclusive: bool,
    /// What its nodes must have, in Slurm's features.
    pub features: Vec<String>,
    /// Graphics processors on each node.
    pub gpus: Option<u32>,
    /// Other generic resources, as Slurm spells them.
    pub gres: Option<String>,
    /// Threads of each process.
    pub threads: Option<u32>,
    /// Limits that the job's shell sets for its processes.
    pub limits: Limits,
}

/// Limits of each process, and its niceness.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Processor time.
    pub cpu_seconds: Option<u64>,
    /// The size of files.
    pub file_bytes: Option<u64>,
    /// Address space.
    pub address_bytes: Option<u64>,
    /// As nice(1) takes it.
    pub nice: Option<i32>,
}

impl Resources {
    /// Adds the resources of one `-l`; the last of a name counts.
    pub fn add(&mut self, text: &str) -> Result<(), Failure> {
        for one in text.split(',') {
            let (name, value) = one.split_once('=').ok_or(Failure::illegal('l'))?;
            let (name, value) = (name.trim(), value.trim().trim_matches(['"', '\'']));
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
            if name.is_empty() || value.is_empty() || !name.chars().all(plain) {
                return Err(Failure::illegal('l'));
            }
            self.0.insert(name.to_owned(), value.to_owned());
        }
        Ok(())
    }

    /// Puts the resources of a stronger source over these.
    pub fn override_with(&mut self, stronger: Self) {
        let places =
            |resources: &Self| PLACEMENT.iter().any(|name| resources.0.contains_key(*name));
        if places(&stronger) {
            self.0.retain(|name, _| !PLACEMENT.contains(&&**name));
        }
        self.0.extend(stronger.0);
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any of them is about where and how large.
    pub fn has_placement(&self) -> bool {
        PLACEMENT.iter().any(|name| self.0.contains_key(*name))
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// What they mean, or which one means nothing.
    pub fn request(&self) -> Result<Request, Failure> {
        let mut request = Request::default();
        let mut sizes = Sizes::default();
        for (name, value) in self.iter() {
            match name {
                "walltime" => request.walltime_seconds = Some(span(value)?),
                "mem" => request.memory_bytes = Some(bytes(value)?),
                "pmem" => request.process_memory_bytes = Some(bytes(value)?),
                "nodes" => {
                    sizes.chunks = Some(select::parse_nodes(value).ok_or(Failure::illegal('l'))?)
                }
                "select" => {
                    sizes.chunks = Some(select::parse_select(value)?);
                    sizes.selected = true;
                }
                "place" => sizes.place = Some(Place::parse(value).ok_or(Failure::illegal('l'))?),
                "ncpus" => sizes.cpus = Some(count(value)?),
                "procs" => sizes.processes = Some(count(value)?),
                "host" | "vnode" => {
                    sizes.host = Some(select::host(value).ok_or(Failure::illegal('l'))?)
                }
                "gpus" | "ngpus" => request.gpus = Some(count(value)?),
                "gres" => request.gres = Some(generic(value)?),
                "feature" => request
                    .features
                    .push(select::feature(value).ok_or(Failure::illegal('l'))?),
                "naccesspolicy" => {
                    let policy = value.to_ascii_lowercase();
                    request.exclusive |= policy.starts_with("single");
                }
                "cput" | "pcput" => {
                    let seconds = span(value)?;
                    let known = request.limits.cpu_seconds.unwrap_or(seconds);
                    request.limits.cpu_seconds = Some(known.min(seconds));
                }
                "file" => request.limits.file_bytes = Some(bytes(value)?),
                "pvmem" => request.limits.address_bytes = Some(bytes(value)?),
                "nice" => request.limits.nice = Some(nice(value)?),
                _ if IGNORED.contains(&name) => {}
                _ => {
                    return Err(Failure::about(
                        Error::UnknownResource,
                        format_args!("Resource_List.{name}"),
                    ));
                }
            }
        }
        sizes.settle(self, &mut request)?;
        Ok(request)
    }
}

/// The resources about size, before they are settled with each other.
#[derive(Default)]
struct Sizes {
    chunks: Option<Vec<Chunk>>,
    selected: bool,
    place: Option<Place>,
    cpus: Option<u32>,
    processes: Option<u32>,
    host: Option<String>,
}

impl Sizes {
    fn settle(self, resources: &Resources, request: &mut Request) -> Result<(), Failure> {
        if self.selected || self.place.is_some() {
            // As OpenPBS has it: beside chunks nothing is asked for the job as a whole.
            for name in ["nodes", "ncpus", "mem", "procs", "host"] {
                if resources.0.contains_key(name) && (self.selected || name != "ncpus") {
                    return Err(Failure {
                        message: format!(
                            "\"-lresource=\" cannot be used with \"select\" or \"place\", resource is: {name}"
                        ),
                        code: Error::InvalidJobResource.code(),
                    });
                }
            }
        }
        let whole = Chunk {
            cpus: self.cpus.unwrap_or(1),
            host: self.host,
            ..Chunk::default()
        };
        let chunks = self.chunks.unwrap_or_else(|| vec![whole]);
        let first = &chunks[0];
        request.threads = first.threads;
        request.gpus = chunks
            .iter()
            .filter_map(|chunk| chunk.gpus)
            .max()
            .or(request.gpus);
        request.features.extend(
            chunks
                .iter()
                .flat_map(|chunk| chunk.features.iter().cloned()),
        );
        request.features.sort_unstable();
        request.features.dedup();
        let place = self.place.unwrap_or_default();
        request.exclusive |= place.exclusive;
        request.layout = match self.processes {
            Some(processes) if !resources.0.contains_key("nodes") => Layout::Free {
                processes,
                cpus: 1,
                memory_bytes: None,
                max_nodes: processes,
            },
            _ => Layout::of(
                &chunks,
                if self.selected {
                    place.arrangement
                } else {
                    select::Arrangement::Scatter
                },
            )
            .ok_or(Failure::illegal('l'))?,
        };
        Ok(())
    }
}

fn span(value: &str) -> Result<u64, Failure> {
    time::parse_span(value).ok_or(Failure::illegal('l'))
}

fn bytes(value: &str) -> Result<u64, Failure> {
    size::parse(value).ok_or(Failure::illegal('l'))
}

fn count(value: &str) -> Result<u32, Failure> {
    select::count(value).ok_or(Failure::illegal('l'))
}

fn nice(value: &str) -> Result<i32, Failure> {
    let nice = value.parse().ok().filter(|nice| (-20..=19).contains(nice));
    nice.ok_or(Failure::illegal('l'))
}

/// `name`, `name:2`, as Slurm spells them too.
fn generic(value: &str) -> Result<String, Failure> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || ":_-".contains(letter);
    if value.chars().all(plain) {
        Ok(value.to_owned())
    } else {
        Err(Failure::illegal('l'))
    }
}

#[cfg(test)]
mod tests;
