//! How a request becomes processes on nodes, so that Slurm's allocation has in it what PBS promises.
//!
//! Slurm gives all nodes of a job the same. Chunks of different sizes therefore get nodes of the largest
//! one's size; the node file has each chunk's own count.

use super::select::{Arrangement, Chunk, MAX_COUNT};
use crate::size::mebibytes;

/// What one node does for the job.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Share {
    /// The node, if it is a certain one.
    pub host: Option<String>,
    /// Processes: lines in the node file.
    pub processes: u32,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: Option<u64>,
}

/// Processes and processors over nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Processes that may lie anywhere, each with its processors on one node.
    Free {
        /// How many.
        processes: u32,
        /// Processors of each.
        cpus: u32,
        /// Memory of each.
        memory_bytes: Option<u64>,
        /// On no more nodes than this.
        max_nodes: u32,
    },
    /// One node for each share.
    Shares(Vec<Share>),
    /// Equal chunks of several processes, of which a node may hold several.
    Chunks {
        /// How many.
        count: u32,
        /// Each of them.
        share: Share,
    },
}

/// A node's size, as far as chunks are fitted into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeSize {
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
}

impl Default for Layout {
    fn default() -> Self {
        Self::Shares(vec![Share {
            processes: 1,
            cpus: 1,
            ..Share::default()
        }])
    }
}

impl Layout {
    /// The layout of chunks; `None` when there are too many.
    pub fn of(chunks: &[Chunk], arrangement: Arrangement) -> Option<Self> {
        let total: u64 = chunks
            .iter()
            .map(|chunk| u64::from(chunk.count) * u64::from(chunk.processes.max(chunk.cpus)))
            .sum();
        if total > u64::from(MAX_COUNT) {
            return None;
        }
        let share = |chunk: &Chunk| Share {
            host: chunk.host.clone(),
            processes: chunk.processes,
            cpus: chunk.cpus,
            memory_bytes: chunk.memory_bytes,
        };
        match (arrangement, chunks) {
            (Arrangement::Free, [chunk]) if chunk.host.is_none() && chunk.count > 1 => {
                Some(if chunk.processes == 1 {
                    Self::Free {
                        processes: chunk.count,
                        cpus: chunk.cpus,
                        memory_bytes: chunk.memory_bytes,
                        max_nodes: chunk.count,
                    }
                } else {
                    Self::Chunks {
                        count: chunk.count,
                        share: share(chunk),
                    }
                })
            }
            (Arrangement::Pack, _) => {
                let each = chunks
                    .iter()
                    .flat_map(|chunk| (0..chunk.count).map(|_| share(chunk)));
                each.reduce(|sum, one| sum.plus(&one))
                    .map(|sum| Self::Shares(vec![sum]))
            }
            _ => {
                let mut shares: Vec<Share> = Vec::new();
                for one in chunks
                    .iter()
                    .flat_map(|chunk| (0..chunk.count).map(|_| share(chunk)))
                {
                    // A node that is named twice is still one.
                    match shares
                        .iter_mut()
                        .find(|known| known.host.is_some() && known.host == one.host)
                    {
                        Some(known) => *known = known.plus(&one),
                        None => shares.push(one),
                    }
                }
                Some(Self::Shares(shares))
            }
        }
    }

    /// Settles how many chunks a node holds, given the pool's nodes: as few as there are nodes for, so that
    /// they spread; one where none fits, which Slurm then refuses.
    #[must_use]
    pub fn fitted(self, nodes: &[NodeSize]) -> Self {
        let Self::Chunks { count, share } = self else {
            return self;
        };
        let fits = |together: u32| {
            let wanted = count / together;
            let large = nodes.iter().filter(|node| {
                u64::from(node.cpus) >= u64::from(share.cpus) * u64::from(together)
                    && share.memory_bytes.is_none_or(|bytes| {
                        node.memory_bytes >= bytes.saturating_mul(u64::from(together))
                    })
            });
            large.count() >= wanted as usize
        };
        let together = (1..=count)
            .filter(|together| count.is_multiple_of(*together))
            .find(|together| fits(*together))
            .unwrap_or(1);
        let node = Share {
            host: None,
            processes: share.processes * together,
            cpus: share.cpus * together,
            memory_bytes: share
                .memory_bytes
                .map(|bytes| bytes.saturating_mul(u64::from(together))),
        };
        Self::Shares(vec![node; (count / together) as usize])
    }

    /// The nodes that it takes at most.
    pub fn nodes(&self) -> u32 {
        match self {
            Self::Free { max_nodes, .. } => *max_nodes,
            Self::Shares(shares) => shares.len() as u32,
            Self::Chunks { count, .. } => *count,
        }
    }

    /// All its processes.
    pub fn processes(&self) -> u32 {
        match self {
            Self::Free { processes, .. } => *processes,
            Self::Shares(shares) => shares.iter().map(|share| share.processes).sum(),
            Self::Chunks { count, share } => count * share.processes,
        }
    }

    /// All its processors, as they were asked for.
    pub fn cpus(&self) -> u32 {
        match self {
            Self::Free {
                processes, cpus, ..
            } => processes * cpus,
            Self::Shares(shares) => shares.iter().map(|share| share.cpus).sum(),
            Self::Chunks { count, share } => count * share.cpus,
        }
    }

    /// What the first chunk is: its processes and processors.
    pub fn first(&self) -> (u32, u32) {
        match self {
            Self::Free { cpus, .. } => (1, *cpus),
            Self::Shares(shares) => shares
                .first()
                .map_or((1, 1), |share| (share.processes, share.cpus)),
            Self::Chunks { share, .. } => (share.processes, share.cpus),
        }
    }

    /// sbatch's arguments for it. `memory_bytes` is that of the whole job, or of each process.
    pub fn slurm(
        &self,
        job_memory_bytes: Option<u64>,
        process_memory_bytes: Option<u64>,
    ) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut say = |name: &str, value: String| arguments.push(format!("--{name}={value}"));
        let per_node = |bytes: u64| bytes.div_ceil(u64::from(self.nodes().max(1)));
        let cpus = match self {
            Self::Free {
                processes,
                cpus,
                memory_bytes,
                max_nodes,
            } => {
                say("ntasks", processes.to_string());
                say("nodes", format!("1-{max_nodes}"));
                let each = memory_bytes
                    .or(job_memory_bytes.map(|bytes| bytes.div_ceil(u64::from(*processes))));
                if let Some(bytes) = each.or(process_memory_bytes) {
                    say(
                        "mem-per-cpu",
                        format!("{}M", mebibytes(bytes.div_ceil(u64::from(*cpus)))),
                    );
                }
                *cpus
            }
            Self::Shares(_) | Self::Chunks { .. } => {
                let shares = match self {
                    Self::Shares(shares) => shares.clone(),
                    _ => vec![self.clone().fitted(&[]).largest(); self.nodes() as usize],
                };
                let largest = Self::Shares(shares.clone()).largest();
                say("nodes", shares.len().to_string());
                say("ntasks-per-node", largest.processes.to_string());
                let hosts: Vec<&str> = shares
                    .iter()
                    .filter_map(|share| share.host.as_deref())
                    .collect();
                if !hosts.is_empty() {
                    say("nodelist", hosts.join(","));
                }
                let node = largest
                    .memory_bytes
                    .or(job_memory_bytes.map(per_node))
                    .or(process_memory_bytes
                        .map(|bytes| bytes.saturating_mul(u64::from(largest.processes))));
                if let Some(bytes) = node {
                    say("mem", format!("{}M", mebibytes(bytes)));
                }
                largest.cpus.div_ceil(largest.processes)
            }
        };
        arguments.push(format!("--cpus-per-task={cpus}"));
        arguments
    }

    /// The shape that Slurm gives all nodes: the most of everything.
    fn largest(&self) -> Share {
        match self {
            Self::Shares(shares) => {
                let most = |of: fn(&Share) -> u32| shares.iter().map(of).max().unwrap_or(1);
                let processes = most(|share| share.processes);
                Share {
                    host: None,
                    processes,
                    // Processors come as so many for each process.
                    cpus: shares
                        .iter()
                        .map(|share| share.cpus.div_ceil(share.processes) * processes)
                        .max()
                        .unwrap_or(1),
                    memory_bytes: shares.iter().filter_map(|share| share.memory_bytes).max(),
                }
            }
            Self::Chunks { share, .. } => share.clone(),
            Self::Free {
                cpus, memory_bytes, ..
            } => Share {
                host: None,
                processes: 1,
                cpus: *cpus,
                memory_bytes: *memory_bytes,
            },
        }
    }
}

impl Share {
    fn plus(&self, other: &Self) -> Self {
        Self {
            host: self.host.clone().or_else(|| other.host.clone()),
            processes: self.processes + other.processes,
            cpus: self.cpus + other.cpus,
            memory_bytes: match (self.memory_bytes, other.memory_bytes) {
                (None, None) => None,
                (one, two) => Some(one.unwrap_or(0).saturating_add(two.unwrap_or(0))),
            },
        }
    }
}
