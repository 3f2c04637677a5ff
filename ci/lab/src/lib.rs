//! Testbeds of real routers, as virtual machines or in network namespaces, joined by the WAN
//! emulator, and the experiments run on them.
//!
//! Everything the routers are asked goes through the `wow` program and its JSON, or the JSON lines of
//! its control socket, as a person's script would do it: no crate of the appliance is linked here. Whatever a testbed starts or
//! creates is gone when its value is dropped, when it fails, and when this process is killed.
#![forbid(unsafe_code)]

pub mod boots;
pub mod browser;
pub mod client;
pub mod cluster;
pub mod command;
pub mod control;
pub mod dataplane;
pub mod demo;
pub mod distribution;
pub mod experiment;
pub mod forwarding;
pub mod inside;
pub mod interrupt;
pub mod join;
pub mod kept;
pub mod lan;
pub mod members;
pub mod memory;
pub mod moves;
pub mod namespaces;
pub mod planet;
pub mod plot;
pub mod pool;
pub mod progress;
pub mod proofs;
pub mod report;
pub mod run_dir;
pub mod streams;
pub mod topology;
pub mod vms;
pub mod wan;
pub mod workloads;

use std::path::PathBuf;

/// The programs that testbeds run.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The router, which is also its own client.
    pub wow: PathBuf,
    /// The WAN emulator.
    pub wan: PathBuf,
}
