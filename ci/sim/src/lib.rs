//! A deterministic simulator for the overlay: production protocol code on virtual time.
//!
//! A [`scenario::Scenario`] determines a run to the last event. [`network`] says what becomes of
//! each datagram, [`world`] moves time, [`run`] plays the scenario, [`checks`], [`watch`] and
//! [`probes`] say what must hold, [`report`] what was found. Nothing here reads a clock or the system's
//! randomness. Threads are used twice: [`sweep`] plays whole runs side by side, and [`world`] lets
//! time pass at several domains at once, which changes nothing in a run.
#![forbid(unsafe_code)]

pub mod checks;
pub mod crypto;
pub mod faults;
pub mod figures;
pub mod guests;
pub mod machine;
pub mod matrix;
pub mod network;
pub mod probes;
pub mod production;
pub mod queue;
pub mod report;
pub mod run;
pub mod scenario;
pub mod sweep;
pub mod text;
#[cfg(test)]
mod toy;
pub mod trace;
pub mod watch;
pub mod world;
