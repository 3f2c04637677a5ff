//! Slurm's nodes.

use serde::Deserialize;

use super::Number;
use crate::failure::Failure;
use crate::resources::NodeSize;

/// A node, as far as it matters here.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Slurm's words for its state.
    pub state: Vec<String>,
    /// Its processors.
    pub cpus: u32,
    /// How many of them are taken.
    pub alloc_cpus: u32,
    /// Its memory in mebibytes.
    pub real_memory: u64,
    /// How much of that is taken.
    pub alloc_memory: u64,
    /// What jobs may ask for by name.
    pub features: Vec<String>,
    /// Its processor's kind.
    pub architecture: String,
    /// What runs on it.
    pub operating_system: String,
    /// Its address.
    pub address: String,
    /// Why it is offline.
    pub reason: String,
    /// What people say about it.
    pub comment: String,
    /// Its load, in hundredths.
    pub cpu_load: u64,
    /// When it started.
    pub boot_time: Number,
    /// Its partitions.
    pub partitions: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    nodes: Vec<Node>,
}

/// All nodes that jobs may run on.
pub fn all() -> Result<Vec<Node>, Failure> {
    let answer = super::ask::<Answer>("scontrol", &["show", "nodes"])?;
    Ok(in_a_queue(answer.nodes))
}

/// Hosts that only submit are nodes of Slurm's too, outside every partition.
fn in_a_queue(mut nodes: Vec<Node>) -> Vec<Node> {
    nodes.retain(|node| !node.partitions.is_empty());
    // Slurm's order is that in which they joined.
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    nodes
}

impl Node {
    /// Its state in PBS's words, joined by commas.
    pub fn pbs_state(&self) -> String {
        let is = |word: &str| self.state.iter().any(|one| one == word);
        let mut states = Vec::new();
        if is("DOWN") || is("NOT_RESPONDING") || is("ERROR") || is("FAIL") {
            states.push("down");
        }
        if is("DRAIN") {
            states.push("offline");
        }
        if is("UNKNOWN") || is("FUTURE") {
            states.push("state-unknown");
        }
        if states.is_empty() {
            states.push(if self.cpus > 0 && self.alloc_cpus >= self.cpus {
                "job-busy"
            } else {
                "free"
            });
        }
        states.join(",")
    }

    /// Whether it takes no jobs, for whatever reason.
    pub fn is_unusable(&self) -> bool {
        let state = self.pbs_state();
        ["down", "offline", "unknown"]
            .iter()
            .any(|word| state.contains(word))
    }

    /// What chunks are fitted into.
    pub fn size(&self) -> NodeSize {
        NodeSize {
            cpus: self.cpus,
            memory_bytes: self.real_memory << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_only_submits_is_no_node_of_pbs() {
        let node = |name: &str, partitions: &[&str]| Node {
            name: name.to_owned(),
            partitions: partitions.iter().map(|&one| one.to_owned()).collect(),
            ..Node::default()
        };
        let nodes = vec![
            node("w2", &["batch"]),
            node("login", &[]),
            node("w1", &["batch"]),
        ];
        let names: Vec<_> = in_a_queue(nodes)
            .into_iter()
            .map(|node| node.name)
            .collect();
        assert_eq!(names, ["w1", "w2"]);
    }

    #[test]
    fn states_are_pbss() {
        for (slurm, taken, pbs) in [
            ("IDLE DYNAMIC_NORM", 0, "free"),
            ("MIXED", 2, "free"),
            ("ALLOCATED", 4, "job-busy"),
            ("IDLE DRAIN", 0, "offline"),
            ("MIXED DRAIN", 1, "offline"),
            ("DOWN NOT_RESPONDING", 0, "down"),
            ("DOWN DRAIN", 0, "down,offline"),
            ("UNKNOWN", 0, "state-unknown"),
        ] {
            let node = Node {
                cpus: 4,
                alloc_cpus: taken,
                state: slurm.split(' ').map(str::to_owned).collect(),
                ..Node::default()
            };
            assert_eq!(node.pbs_state(), pbs, "{slurm}");
        }
    }
}
