//! The demonstration: a public seed and three domains behind NATs, one appliance in each.

use std::time::Duration;

use anyhow::Result;

use crate::experiment;
use crate::progress::{Progress, Task};
use crate::report::{Joined, Pair, Report};
use crate::vms::{Setup, VmTestbed};

/// Domains behind NATs.
pub const DOMAINS: u8 = 3;

/// Name of the seed, and of the machines in the domains.
pub const NAMES: [&str; 4] = ["seed", "a", "b", "c"];

/// A machine under the translator on a busy host takes seconds to boot; UEFI adds some.
const JOIN_LIMIT: Duration = Duration::from_secs(180);

/// Pings of each pair: the first may travel by the overlay while a direct path is made.
const PINGS: u32 = 5;

/// Runs the experiment on a started testbed. Whatever happens, the report says how far it came.
pub fn run(setup: &Setup, bed: &mut VmTestbed, progress: &Progress) -> Report {
    let mut report = Report {
        ok: false,
        error: None,
        machine: setup.machine.to_string(),
        firmware: setup.firmware.to_string(),
        accelerator: setup.accelerator.to_string(),
        memory_mib: setup.memory_mib,
        logs: bed.logs().display().to_string(),
        nodes: Vec::new(),
        pairs: Vec::new(),
    };
    match measure(bed, progress, &mut report) {
        Ok(()) => report.ok = true,
        Err(error) => report.error = Some(format!("{error:#}")),
    }
    report
}

fn measure(bed: &mut VmTestbed, progress: &Progress, report: &mut Report) -> Result<()> {
    let nodes = bed.nodes().to_vec();
    let tasks: Vec<Task> = nodes
        .iter()
        .map(|node| {
            let task = progress.start(&node.name);
            task.now("boots and looks for its pool");
            task
        })
        .collect();
    let task_of = |name: &str| {
        nodes
            .iter()
            .position(|node| node.name == name)
            .map(|at| &tasks[at])
    };
    let seen = |joined: &Joined| {
        if let Some(task) = task_of(&joined.name) {
            let seconds = joined.power_on_to_pool_ms / 1000.0;
            task.now(&format!(
                "in the pool as {} after {seconds:.2} s",
                joined.v4
            ));
        }
    };
    report.nodes = experiment::join(&nodes, JOIN_LIMIT, &seen, &mut || bed.check_running())?;
    let answered = |pair: &Pair| {
        if let Some(task) = task_of(&pair.from) {
            task.now(&format!(
                "pinged {}: {}/{} replies",
                pair.to, pair.received, pair.sent
            ));
        }
    };
    report.pairs = experiment::ping_all(&nodes, &report.nodes, PINGS, &answered)?;
    drop(tasks);
    let silent: Vec<String> = report
        .pairs
        .iter()
        .filter(|pair| !pair.answered())
        .map(|pair| format!("{} -> {}", pair.from, pair.to))
        .collect();
    if !silent.is_empty() {
        anyhow::bail!("no reply at all: {}", silent.join(", "));
    }
    bed.check_running()
}
