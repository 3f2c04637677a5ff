//! Fuzz targets: every decoder of what peers, guests, servers and operators send, as plain functions.
//!
//! A target takes bytes and panics when something does not hold. Its [`Target::seeds`] are sound
//! inputs made by the code as it stands; `corpus/NAME` holds what the fuzzer found from there. The
//! tests replay both; `cargo xtask fuzz` looks for more.
#![forbid(unsafe_code)]

pub mod script;
mod targets;

/// One thing to fuzz.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Longest input worth trying, in bytes.
    pub input_bytes_max: usize,
    /// Panics when something does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = targets::ALL;

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
