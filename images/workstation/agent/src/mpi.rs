//! OpenMPI over the pool's interface alone: others lead nowhere between domains.
//!
//! The interface is named instead of its range. The runtime that starts the processes (PRRTE 3.0) compares
//! a range with one address of each interface, here the IPv6 one, and finding none it uses all interfaces.

use std::path::Path;

use anyhow::Result;

use crate::block;

/// What OpenMPI reads, and the runtime that starts its processes.
const LIBRARY: &str = "/etc/openmpi/openmpi-mca-params.conf";
const RUNTIME: &str = "/etc/openmpi/prte-mca-params.conf";

/// Keeps OpenMPI to this interface.
pub fn apply(interface: Option<&str>) -> Result<()> {
    let only = |parameter: &str| match interface {
        Some(name) => format!("{parameter} = {name}\n"),
        None => String::new(),
    };
    // A process that waits for a message would spin, and the message comes by another process of this
    // machine, `wow`: where both share a processor each would wait for the scheduler.
    let library = only("btl_tcp_if_include") + "mpi_yield_when_idle = 1\n";
    // Nor would two jobs on one machine know of each other, and both bind their first process to the first
    // core. Slurm counts processors here but hands out none.
    // A daemon that starts processes from threads of their own may miss the end of a short one, and `mpirun` then
    // waits for it for ever (openpmix/prrte#2713).
    let runtime = only("prte_if_include")
        + "prte_hwloc_default_binding_policy = none\n\
           odls_base_max_threads = 0\n";
    block::write(Path::new(LIBRARY), &library)?;
    block::write(Path::new(RUNTIME), &runtime).map(drop)
}
