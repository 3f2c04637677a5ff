//! OpenMPI over the pool's addresses alone: others lead nowhere between domains.

use std::path::Path;

use anyhow::Result;
use ipnet::Ipv4Net;

use crate::block;

/// OpenMPI's own parameters, and those of the runtime that starts its processes.
const FILES: [(&str, &[&str]); 2] = [
    (
        "/etc/openmpi/openmpi-mca-params.conf",
        &["btl_tcp_if_include"],
    ),
    ("/etc/openmpi/prte-mca-params.conf", &["prte_if_include"]),
];

/// Keeps OpenMPI to the pool's range.
pub fn apply(range: Ipv4Net) -> Result<()> {
    for (file, parameters) in FILES {
        let lines: String = parameters
            .iter()
            .map(|parameter| format!("{parameter} = {range}\n"))
            .collect();
        block::write(Path::new(file), &lines)?;
    }
    Ok(())
}
