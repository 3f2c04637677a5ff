//! How the machines of a cluster are now.

use std::net::Ipv4Addr;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::assembly;
use super::record::Record;
use super::shell::Shell;

/// One machine.
#[derive(Debug, Clone, Serialize)]
pub struct MachineStatus {
    /// Its name.
    pub name: String,
    /// A workstation's role.
    pub role: Option<String>,
    /// Where it stands.
    pub domain: String,
    /// Whether its QEMU runs.
    pub running: bool,
    /// Its virtual address while it is in the pool.
    pub address: Option<Ipv4Addr>,
    /// What is wrong, in its own words.
    pub trouble: Vec<String>,
    /// Its state as the head's `pbsnodes` has it.
    pub pbs: Option<String>,
}

/// Asks each machine, and the head for its nodes.
pub fn look(record: &Record) -> Vec<MachineStatus> {
    let states = assembly::states(&Shell::new(record, "head")).unwrap_or_default();
    let member = |(index, member): (usize, &super::record::Member)| {
        let running = record.is_running(index);
        let status = running
            .then(|| record.client(index).status().ok())
            .flatten();
        let joined = status.as_ref().filter(|status| status.joined);
        MachineStatus {
            name: member.name.clone(),
            role: member.role.clone(),
            domain: member.domain.clone(),
            running,
            address: joined.map(|status| status.addresses.v4),
            trouble: status.map(|status| status.trouble).unwrap_or_default(),
            pbs: states.get(&member.name).cloned(),
        }
    };
    record.members.iter().enumerate().map(member).collect()
}

/// As a table, with what is wrong below it.
pub fn table(record: &Record, machines: &[MachineStatus]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["machine", "role", "domain", "machine is", "address", "PBS"]);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    for machine in machines {
        let state = match (machine.running, machine.address) {
            (false, _) => "off",
            (true, None) => "on, not in the pool",
            (true, Some(_)) => "in the pool",
        };
        table.add_row([
            machine.name.clone(),
            machine.role.clone().unwrap_or_else(|| "router".into()),
            machine.domain.clone(),
            state.into(),
            or_dash(machine.address.map(|address| address.to_string())),
            or_dash(machine.pbs.clone()),
        ]);
    }
    let mut text = format!("{table}\ndomains: {}", record.domains.join(", "));
    for machine in machines {
        for words in &machine.trouble {
            text.push_str(&format!("\n{}: {words}", machine.name));
        }
    }
    text
}
