//! How long an appliance takes from power-on to the pool, on each kind of machine, with a seed near by that is there
//! already. One machine boots at a time.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use comfy_table::{Table, presets};
use serde::Serialize;
use wow_builder::host::Tether;
use wow_builder::qemu::{Choice, Emulator, Firmware, Hardware, ImageFiles, Machine};

use crate::command::wait_until;
use crate::progress::Task;
use crate::report::Joined;
use crate::topology::{CORE, Topology};
use crate::vms::{Setup, VmTestbed};
use crate::{Tools, experiment};

/// Under the translator, with others on the same cores.
const JOIN_LIMIT: Duration = Duration::from_secs(120);
/// The firmware itself needs more than the appliance.
const UEFI_MEMORY_MIB: u32 = 256;
const MEMORY_MIB: u32 = 64;

/// A way to boot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way {
    /// The board.
    pub machine: Machine,
    /// How it starts the image.
    pub firmware: Firmware,
    /// What the way shall take at most, in seconds, where there is a goal.
    pub goal: Option<f64>,
}

/// Every way there is.
pub const WAYS: [Way; 4] = [
    Way {
        machine: Machine::Microvm,
        firmware: Firmware::Direct,
        goal: Some(1.4),
    },
    Way {
        machine: Machine::Q35,
        firmware: Firmware::Direct,
        goal: Some(2.0),
    },
    Way {
        machine: Machine::Q35,
        firmware: Firmware::Bios,
        goal: None,
    },
    Way {
        machine: Machine::Q35,
        firmware: Firmware::Uefi,
        goal: None,
    },
];

impl Way {
    /// Its name, such as `q35 direct`.
    pub fn name(&self) -> String {
        format!("{} {}", self.machine, self.firmware)
    }
}

/// What to measure with.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// The programs.
    pub tools: Tools,
    /// QEMU.
    pub emulator: Emulator,
    /// How it runs guests.
    pub accelerator: Choice,
    /// The image.
    pub image: ImageFiles,
    /// The ways.
    pub ways: Vec<Way>,
    /// How often each is gone.
    pub runs: u32,
    /// Where logs go.
    pub logs: &'a Path,
}

/// What one way took.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub way: String,
    /// Every boot, in order.
    pub boots: Vec<Joined>,
    /// What it shall take at most, in seconds.
    pub goal: Option<f64>,
}

/// Boots each way as often as planned.
pub fn run(plan: &Plan<'_>, task: &Task) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for way in &plan.ways {
        let mut topology = Topology::seed_and_empty(0);
        topology.add("a", CORE);
        let setup = Setup {
            tools: plan.tools.clone(),
            emulator: plan.emulator.clone(),
            accelerator: plan.accelerator.clone(),
            image: plan.image.clone(),
            machine: way.machine,
            hardware: Hardware::Virtio,
            firmware: way.firmware,
            memory_mib: match way.firmware {
                Firmware::Uefi => UEFI_MEMORY_MIB,
                Firmware::Direct | Firmware::Bios => MEMORY_MIB,
            },
            topology,
            logs: plan.logs.join(way.name().replace(' ', "-")),
            tether: Tether::Tied,
            more: Vec::new(),
        };
        let name = way.name();
        let boots = boots(&setup, plan.runs, &name, task).with_context(|| name.clone())?;
        rows.push(Row {
            way: name,
            boots,
            goal: way.goal,
        });
    }
    Ok(rows)
}

fn boots(setup: &Setup, runs: u32, name: &str, task: &Task) -> Result<Vec<Joined>> {
    const SEED: usize = 0;
    const NODE: usize = 1;
    let mut bed = VmTestbed::start(setup)?;
    // With this boot the seed comes up as well: it does not count.
    let all = bed.nodes().to_vec();
    experiment::join(&all, JOIN_LIMIT, &|_| (), &mut || bed.check_running())?;
    let mut boots = Vec::new();
    for run in 1..=runs {
        task.now(&format!("{name}: {run} of {runs}"));
        bed.unplug(NODE);
        // A newcomer asks for its neighbours; the one before it would not answer, and be waited for.
        let seed = bed.nodes()[SEED].client.clone();
        wait_until("the seed has given up the node before", JOIN_LIMIT, || {
            let peers = seed.raw_peers()?;
            Ok(peers.as_array().is_some_and(Vec::is_empty).then_some(()))
        })?;
        bed.boot_again(setup, NODE)?;
        let node = bed.nodes()[NODE].clone();
        let joined = experiment::join(&[node], JOIN_LIMIT, &|_| (), &mut || bed.check_running())?;
        boots.extend(joined);
    }
    // Whoever has joined a pool that is gone has joined nothing.
    bed.nodes()[SEED].client.status().context("the seed")?;
    Ok(boots)
}

/// The rows as a table, in seconds.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "machine",
        "boots",
        "power-on to pool",
        "fastest",
        "slowest",
        "kernel to pool",
        "daemon to pool",
        "goal",
    ]);
    for row in rows {
        let of = |time: fn(&Joined) -> Option<f64>| {
            let mut times: Vec<f64> = row.boots.iter().filter_map(time).collect();
            times.sort_by(f64::total_cmp);
            times
        };
        let power = of(|boot| Some(boot.power_on_to_pool_ms));
        table.add_row([
            row.way.clone(),
            row.boots.len().to_string(),
            seconds(median(&power)),
            seconds(power.first().copied()),
            seconds(power.last().copied()),
            seconds(median(&of(|boot| boot.boot_to_pool_ms))),
            seconds(median(&of(|boot| boot.daemon_to_pool_ms))),
            row.goal
                .map_or_else(|| "-".into(), |goal| format!("≤ {goal} s")),
        ]);
    }
    table.to_string()
}

/// The middle one of sorted times; of an even number the earlier of the two in the middle.
fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

fn seconds(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".into(), |ms| format!("{:.2} s", ms / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_and_goals() {
        let boot = |ms: f64| Joined {
            name: "a".into(),
            id: String::new(),
            v4: std::net::Ipv4Addr::LOCALHOST,
            v6: std::net::Ipv6Addr::LOCALHOST,
            power_on_to_pool_ms: ms,
            boot_to_pool_ms: Some(ms / 2.0),
            daemon_to_pool_ms: None,
            rss_bytes: None,
        };
        let row = Row {
            way: WAYS[0].name(),
            boots: [3000.0, 1000.0, 2000.0].map(boot).to_vec(),
            goal: WAYS[0].goal,
        };
        let text = table(&[row]);
        let line = text.lines().find(|line| line.contains("microvm direct"));
        let words: Vec<&str> = line.unwrap().split_whitespace().collect();
        let expected = "│ microvm direct 3 2.00 s 1.00 s 3.00 s 1.00 s - ≤ 1.4 s │";
        assert_eq!(words.join(" "), expected);
        assert_eq!(median(&[]), None);
    }
}
