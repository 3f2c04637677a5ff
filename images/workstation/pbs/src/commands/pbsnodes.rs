//! pbsnodes: the nodes, and which of them take no jobs.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde_json::{Map, Value, json};

use crate::arguments::{self, Parsed};
use crate::failure::{Error, Failure};
use crate::slurm::job::State;
use crate::slurm::node::{self, Node};
use crate::slurm::queue::{Entry, Queue};
use crate::{site, slurm};

const SPEC: &str = "alocrdnqxs:N:C:F:HvjSL:";

/// What a node is taken offline with when nobody says why: Slurm insists on a reason.
const NO_REASON: &str = "offline by pbsnodes";

/// `pbsnodes [-a] [NODE...]`, `pbsnodes -l`, `pbsnodes -o|-c|-r [-N TEXT] NODE...`
pub fn run(arguments: Vec<OsString>) -> Result<u8, Failure> {
    let parsed = arguments::parse(SPEC, arguments)?;
    if parsed.value('F').is_some_and(|format| format != "json") {
        return Err(Failure::illegal('F'));
    }
    let nodes = node::all()?;
    let remark = parsed
        .value('N')
        .or(parsed.value('C'))
        .filter(|text| !text.is_empty());
    let offline = parsed.has('o') || parsed.has('d');
    let online = parsed.has('c') || parsed.has('r');
    if offline || online || (remark.is_some() && !parsed.operands.is_empty()) {
        return change(&parsed, &nodes, remark, offline, online);
    }
    if parsed.has('l') {
        list(&parsed, &nodes);
        return Ok(0);
    }
    let queue = Queue::load()?;
    let entries = queue.entries(true);
    let (shown, code) = select(&parsed.operands, &nodes);
    if parsed.has('F') {
        let objects: Map<String, Value> = shown
            .iter()
            .map(|node| (node.name.clone(), as_json(&attributes(node, &entries))))
            .collect();
        let frame = json!({
            "timestamp": queue.now,
            "pbs_version": site::VERSION,
            "pbs_server": site::server(),
            "nodes": objects,
        });
        println!("{frame:#}");
        return Ok(code);
    }
    for node in shown {
        println!("{}", node.name);
        for (name, value) in attributes(node, &entries) {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            println!("     {name} = {text}");
        }
        println!();
    }
    Ok(code)
}

/// The nodes that are named, all if none is; complains about the others.
fn select<'a>(names: &[String], nodes: &'a [Node]) -> (Vec<&'a Node>, u8) {
    if names.is_empty() {
        return (nodes.iter().collect(), 0);
    }
    let mut code = 0;
    let mut found = Vec::new();
    for name in names {
        match nodes.iter().find(|node| node.name == *name) {
            Some(node) => found.push(node),
            None => {
                eprintln!("Node: {name},  Error: {}", Error::UnknownNode.text());
                code = 1;
            }
        }
    }
    (found, code)
}

/// `-l [STATE]`: nodes that take no jobs, or those in a state of Torque's.
fn list(parsed: &Parsed, nodes: &[Node]) {
    let states = [
        "all",
        "up",
        "free",
        "down",
        "offline",
        "active",
        "busy",
        "job-busy",
        "job-exclusive",
    ];
    let (state, names) = match parsed.operands.split_first() {
        Some((first, rest)) if states.contains(&first.as_str()) => (first.as_str(), rest),
        _ => ("", parsed.operands.as_slice()),
    };
    for node in nodes {
        let own = node.pbs_state();
        let unusable = node.is_unusable();
        let fits = match state {
            "" => unusable,
            "all" => true,
            "up" => !unusable,
            "active" => node.alloc_cpus > 0,
            "busy" | "job-exclusive" => own == "job-busy",
            state => own.split(',').any(|one| one == state),
        };
        if fits && (names.is_empty() || names.contains(&node.name)) {
            match unusable && !node.reason.is_empty() {
                true => println!("{:<20} {:<22} {}", node.name, own, node.reason),
                false => println!("{:<20} {own}", node.name),
            }
        }
    }
}

fn change(
    parsed: &Parsed,
    nodes: &[Node],
    remark: Option<&str>,
    offline: bool,
    online: bool,
) -> Result<u8, Failure> {
    if parsed.operands.is_empty() {
        return Err(Failure::usage("no node was given"));
    }
    let (found, mut code) = select(&parsed.operands, nodes);
    for node in found {
        let mut words = vec!["update".to_owned(), format!("NodeName={}", node.name)];
        if offline {
            words.push("State=DRAIN".to_owned());
            words.push(format!("Reason={}", remark.unwrap_or(NO_REASON)));
        } else if online {
            // What was not offline stays as it is.
            if !node.state.iter().any(|state| state == "DRAIN") {
                continue;
            }
            words.push("State=UNDRAIN".to_owned());
        } else if let Some(remark) = remark {
            words.push(format!("Comment={remark}"));
        }
        if let Err(failure) = slurm::act("scontrol", &words) {
            eprintln!("Node: {},  Error: {}", node.name, failure.message);
            code = failure.code;
        }
    }
    Ok(code)
}

/// A node in the words of both: `np` is Torque's, `resources_available` OpenPBS's.
fn attributes(node: &Node, entries: &[Entry]) -> Vec<(&'static str, Value)> {
    let (mut jobs, mut slot) = (Vec::new(), 0);
    for entry in entries {
        if !matches!(
            entry.state,
            State::Running | State::Suspended | State::Exiting
        ) {
            continue;
        }
        for allocation in entry
            .job
            .allocations()
            .iter()
            .filter(|one| one.name == node.name)
        {
            for _ in 0..allocation.cpus() {
                jobs.push(format!("{}/{slot}", entry.id.full()));
                slot += 1;
            }
        }
    }
    let mut list = vec![
        ("Mom", json!(node.address)),
        ("ntype", json!("PBS")),
        ("state", json!(node.pbs_state())),
        ("np", json!(node.cpus)),
        ("pcpus", json!(node.cpus)),
    ];
    if !node.features.is_empty() {
        list.push(("properties", json!(node.features.join(","))));
    }
    if !jobs.is_empty() {
        list.push(("jobs", json!(jobs.join(", "))));
    }
    let kibibytes = |mebibytes: u64| json!(format!("{}kb", mebibytes << 10));
    list.extend([
        ("resources_available.arch", json!("linux")),
        ("resources_available.host", json!(node.name)),
        ("resources_available.mem", kibibytes(node.real_memory)),
        ("resources_available.ncpus", json!(node.cpus)),
        ("resources_available.vnode", json!(node.name)),
        ("resources_assigned.mem", kibibytes(node.alloc_memory)),
        ("resources_assigned.ncpus", json!(node.alloc_cpus)),
    ]);
    let status = format!(
        "opsys=linux,uname={},ncpus={},physmem={}kb,loadave={}.{:02},state={}",
        node.operating_system,
        node.cpus,
        node.real_memory << 10,
        node.cpu_load / 100,
        node.cpu_load % 100,
        node.pbs_state()
    );
    list.push(("status", json!(status)));
    list.push(("queues", json!(node.partitions.join(","))));
    // Slurm keeps the last reason of a node that is well again.
    if !node.reason.is_empty() && node.is_unusable() {
        list.push(("note", json!(node.reason)));
    }
    if !node.comment.is_empty() {
        list.push(("comment", json!(node.comment)));
    }
    list
}

/// Attributes with dots are objects within.
fn as_json(attributes: &[(&'static str, Value)]) -> Value {
    let mut object = Map::new();
    let mut groups: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (name, value) in attributes {
        match name.split_once('.') {
            Some((group, name)) => {
                groups
                    .entry(group)
                    .or_default()
                    .insert(name.to_owned(), value.clone());
            }
            None => {
                object.insert((*name).to_owned(), value.clone());
            }
        }
    }
    for (name, group) in groups {
        object.insert(name.to_owned(), Value::Object(group));
    }
    Value::Object(object)
}
