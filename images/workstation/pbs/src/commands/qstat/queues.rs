//! `qstat -Q`, `-q` and `-B`: queues and the server, with how many jobs they have in which state.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::arguments::Parsed;
use crate::failure::{Error, Failure};
use crate::slurm::job::State;
use crate::slurm::partition::{self, Partition};
use crate::slurm::queue::Queue;
use crate::{site, time};

use super::full;

/// Jobs by their states.
#[derive(Default)]
struct Counts(BTreeMap<State, u32>);

impl Counts {
    fn of(queue: &Queue, partition: Option<&str>) -> Self {
        let mut counts = Self::default();
        for entry in queue.entries(false) {
            let here = partition.is_none_or(|name| entry.job.partition == name);
            if here && entry.state != State::Finished {
                *counts.0.entry(entry.state).or_default() += 1;
            }
        }
        counts
    }

    fn get(&self, state: State) -> u32 {
        self.0.get(&state).copied().unwrap_or(0)
    }

    fn running(&self) -> u32 {
        self.get(State::Running) + self.get(State::Suspended) + self.get(State::Begun)
    }

    fn total(&self) -> u32 {
        self.0.values().sum()
    }

    /// The five columns of tables: queued, held, waiting, in transit, exiting, with running in between.
    fn columns(&self) -> String {
        format!(
            "{:>5} {:>5} {:>5} {:>5} {:>5} {:>5}",
            self.get(State::Queued),
            self.running(),
            self.get(State::Held),
            self.get(State::Waiting),
            0,
            self.get(State::Exiting)
        )
    }

    fn text(&self) -> String {
        format!(
            "Transit:0 Queued:{} Held:{} Waiting:{} Running:{} Exiting:{} Begun:{}",
            self.get(State::Queued),
            self.get(State::Held),
            self.get(State::Waiting),
            self.get(State::Running) + self.get(State::Suspended),
            self.get(State::Exiting),
            self.get(State::Begun),
        )
    }
}

/// One of the three.
pub fn run(parsed: &Parsed, queue: &Queue) -> Result<u8, Failure> {
    if parsed.has('B') {
        server(parsed, queue);
        return Ok(0);
    }
    let mut code = 0;
    let all = partition::all()?;
    let mut shown: Vec<&Partition> = Vec::new();
    for operand in &parsed.operands {
        let name = operand.split('@').next().unwrap_or_default();
        match all.iter().find(|partition| partition.name == name) {
            Some(partition) => shown.push(partition),
            None if name.is_empty() => shown.extend(&all),
            None => {
                let failure = Failure::about(Error::UnknownQueue, name);
                failure.report("qstat");
                code = failure.code;
            }
        }
    }
    if parsed.operands.is_empty() {
        shown.extend(&all);
    }
    if parsed.has('q') {
        summary(&shown, queue);
    } else if parsed.has('f') || parsed.has('F') {
        in_full(&shown, queue, parsed);
    } else {
        table(&shown, queue);
    }
    Ok(code)
}

fn table(partitions: &[&Partition], queue: &Queue) {
    println!("Queue              Max   Tot Ena Str   Que   Run   Hld   Wat   Trn   Ext Type");
    println!("---------------- ----- ----- --- --- ----- ----- ----- ----- ----- ----- ----");
    for partition in partitions {
        let counts = Counts::of(queue, Some(&partition.name));
        println!(
            "{:<16.16} {:>5} {:>5} {:>3} {:>3} {} Exec",
            partition.name,
            0,
            counts.total(),
            yes(partition.enabled()),
            yes(partition.started()),
            counts.columns()
        );
    }
}

fn summary(partitions: &[&Partition], queue: &Queue) {
    println!("\nserver: {}\n", site::server());
    println!("Queue            Memory CPU Time Walltime Node   Run   Que   Lm  State");
    println!("---------------- ------ -------- -------- ---- ----- ----- ----  -----");
    let (mut running, mut waiting) = (0, 0);
    for partition in partitions {
        let counts = Counts::of(queue, Some(&partition.name));
        let queued = counts.total() - counts.running();
        running += counts.running();
        waiting += queued;
        println!(
            "{:<16.16} {:>6} {:>8} {:>8} {:>4} {:>5} {:>5} {:>4}   {} {}",
            partition.name,
            "--  ",
            "--   ",
            partition
                .max_seconds()
                .map_or_else(|| "--   ".to_owned(), time::format_span),
            partition
                .maximums
                .nodes
                .positive()
                .map_or_else(|| "-- ".to_owned(), |nodes| nodes.to_string()),
            counts.running(),
            queued,
            "-- ",
            if partition.enabled() { 'E' } else { 'D' },
            if partition.started() { 'R' } else { 'S' },
        );
    }
    println!("{:47}----- -----\n{:47}{running:>5} {waiting:>5}", "", "");
}

fn server(parsed: &Parsed, queue: &Queue) {
    let name = site::server();
    let counts = Counts::of(queue, None);
    if !(parsed.has('f') || parsed.has('F')) {
        println!("Server             Max   Tot   Que   Run   Hld   Wat   Trn   Ext Status");
        println!("---------------- ----- ----- ----- ----- ----- ----- ----- ----- -----------");
        println!(
            "{name:<16.16} {:>5} {:>5} {} Active",
            0,
            counts.total(),
            counts.columns()
        );
        return;
    }
    let attributes = vec![
        ("server_state", json!("Active")),
        ("server_host", json!(name)),
        ("scheduling", json!("True")),
        ("total_jobs", json!(counts.total())),
        ("state_count", json!(counts.text())),
        ("pbs_version", json!(site::VERSION)),
    ];
    show(parsed, queue, "Server", vec![(name, attributes)]);
}

fn in_full(partitions: &[&Partition], queue: &Queue, parsed: &Parsed) {
    let objects = partitions.iter().map(|partition| {
        let counts = Counts::of(queue, Some(&partition.name));
        let truth = |it| json!(if it { "True" } else { "False" });
        let mut attributes = vec![
            ("queue_type", json!("Execution")),
            ("total_jobs", json!(counts.total())),
            ("state_count", json!(counts.text())),
        ];
        if let Some(seconds) = partition.max_seconds() {
            attributes.push(("resources_max.walltime", json!(time::format_span(seconds))));
        }
        attributes.push(("enabled", truth(partition.enabled())));
        attributes.push(("started", truth(partition.started())));
        (partition.name.clone(), attributes)
    });
    show(parsed, queue, "Queue", objects.collect());
}

type Object = (String, Vec<(&'static str, Value)>);

fn show(parsed: &Parsed, queue: &Queue, kind: &str, objects: Vec<Object>) {
    if parsed.has('F') {
        let mut map = Map::new();
        for (name, attributes) in objects {
            let attributes = attributes
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value));
            map.insert(name, Value::Object(attributes.collect()));
        }
        full::print(queue, kind, map);
        return;
    }
    for (name, attributes) in objects {
        println!("{kind}: {name}");
        for (name, value) in attributes {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            println!("{}", full::line(name, &text, parsed.has('1')));
        }
        println!();
    }
}

fn yes(it: bool) -> &'static str {
    if it { "yes" } else { "no" }
}
