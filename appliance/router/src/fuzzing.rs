//! Entrances for fuzzers to parsers that are private to this crate.

pub use crate::dns::fuzzing::{answer, configuration};
pub use crate::ipc::fuzzing::requests;
pub use crate::timekeeping::fuzzing::time;
