//! Chunks: what `nodes=2:ppn=4+1` and `select=2:ncpus=4:mem=2gb+1` are lists of, and `place=`.

use crate::failure::{Error, Failure};
use crate::size;

/// More chunks, processes or processors than this in one request are a mistake.
pub const MAX_COUNT: u32 = 100_000;

/// So many equal pieces of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// How many of them.
    pub count: u32,
    /// Processors of each.
    pub cpus: u32,
    /// Processes of each: lines in the node file.
    pub processes: u32,
    /// Threads of each process, if it was said.
    pub threads: Option<u32>,
    /// Memory of each.
    pub memory_bytes: Option<u64>,
    /// Graphics processors of each.
    pub gpus: Option<u32>,
    /// On this very node.
    pub host: Option<String>,
    /// What its node must have.
    pub features: Vec<String>,
}

impl Default for Chunk {
    fn default() -> Self {
        Self {
            count: 1,
            cpus: 1,
            processes: 1,
            threads: None,
            memory_bytes: None,
            gpus: None,
            host: None,
            features: Vec::new(),
        }
    }
}

/// How chunks lie on nodes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// Anywhere.
    #[default]
    Free,
    /// All on one node.
    Pack,
    /// Each on a node of its own.
    Scatter,
}

/// `place=`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// How chunks lie on nodes.
    pub arrangement: Arrangement,
    /// No other job beside it.
    pub exclusive: bool,
}

impl Place {
    /// Parses `free|pack|scatter[:excl|shared]` and its parts alone.
    pub fn parse(text: &str) -> Option<Self> {
        let mut place = Self::default();
        for word in text.split(':') {
            match word {
                "free" => place.arrangement = Arrangement::Free,
                "pack" => place.arrangement = Arrangement::Pack,
                "scatter" | "vscatter" => place.arrangement = Arrangement::Scatter,
                "excl" | "exclhost" => place.exclusive = true,
                "shared" => place.exclusive = false,
                // Groups of nodes by a resource: there is one group.
                _ if word.starts_with("group=") => {}
                _ => return None,
            }
        }
        Some(place)
    }
}

/// Parses Torque's `nodes=`: counts or names of nodes, with `ppn` and features.
pub fn parse_nodes(text: &str) -> Option<Vec<Chunk>> {
    let one = |text: &str| {
        let mut words = text.split(':');
        let mut chunk = Chunk::default();
        let first = words.next()?;
        match count(first) {
            Some(count) => chunk.count = count,
            None if first.bytes().all(|byte| byte.is_ascii_digit()) => return None,
            None => chunk.host = Some(host(first)?),
        }
        for word in words {
            match word.split_once('=') {
                Some(("ppn", value)) => {
                    chunk.processes = count(value)?;
                    chunk.cpus = chunk.processes;
                }
                Some(("gpus", value)) => chunk.gpus = Some(count(value)?),
                Some(_) => return None,
                None => chunk.features.push(feature(word)?),
            }
        }
        Some(chunk)
    };
    text.split('+').map(one).collect()
}

/// Parses OpenPBS's `select=`.
pub fn parse_select(text: &str) -> Result<Vec<Chunk>, Failure> {
    let illegal = || Failure::illegal('l');
    let one = |text: &str| {
        let mut chunk = Chunk::default();
        let mut words = text.split(':').peekable();
        let mut processes = None;
        if let Some(first) = words.peek()
            && !first.contains('=')
        {
            chunk.count = count(first).ok_or_else(illegal)?;
            words.next();
        }
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(illegal)?;
            match name {
                "ncpus" => chunk.cpus = count(value).ok_or_else(illegal)?,
                "mpiprocs" => processes = Some(count(value).ok_or_else(illegal)?),
                "ompthreads" => chunk.threads = Some(count(value).ok_or_else(illegal)?),
                "mem" => chunk.memory_bytes = Some(size::parse(value).ok_or_else(illegal)?),
                "ngpus" => chunk.gpus = Some(count(value).ok_or_else(illegal)?),
                "host" | "vnode" => chunk.host = Some(host(value).ok_or_else(illegal)?),
                "vmem" | "arch" => {}
                // A resource that is true is a feature.
                _ if value.eq_ignore_ascii_case("true") => {
                    chunk.features.push(feature(name).ok_or_else(illegal)?);
                }
                _ => {
                    return Err(Failure::about(
                        Error::UnknownResource,
                        format_args!(": {name}"),
                    ));
                }
            }
        }
        chunk.processes = processes.unwrap_or(1);
        // Each process needs a processor.
        chunk.cpus = chunk.cpus.max(chunk.processes);
        Ok(chunk)
    };
    text.split('+').map(one).collect()
}

/// A count of something: at least one of it.
pub fn count(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse()
        .ok()
        .filter(|count| (1..=MAX_COUNT).contains(count))
}

/// A node's name.
pub fn host(text: &str) -> Option<String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_');
    let first = text.chars().next()?;
    (first.is_ascii_alphanumeric() && text.chars().all(plain)).then(|| text.to_owned())
}

/// A feature's name, without Slurm's operators.
pub fn feature(text: &str) -> Option<String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_');
    (!text.is_empty() && text.chars().all(plain)).then(|| text.to_owned())
}
