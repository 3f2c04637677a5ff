//! Wire formats: the outer datagram, the frames inside a session's records, and their messages.
//!
//! Everything here is decoded once, at the edge, into types that cannot be illegal; what does not
//! decode is an error for the caller to count, never a panic.

pub mod frame;
pub mod message;
pub mod outer;
pub mod record;
pub mod remote;

pub use remote::{Protocol, Remote};
