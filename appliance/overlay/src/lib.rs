//! The overlay protocol, sans-IO: identities, sessions, paths, the ring and membership.
//!
//! The crate reaches no socket, clock, thread, file or operating-system randomness: time, random
//! seeds and configuration are arguments, so that the simulator runs the very code that ships.
#![forbid(unsafe_code)]

pub mod id;
pub mod membership;
pub mod node;
pub mod session;
pub mod time;
pub mod wire;

/// The deterministic generator that stands behind every random choice of a node.
pub type Rng = rand_chacha::ChaCha12Rng;
