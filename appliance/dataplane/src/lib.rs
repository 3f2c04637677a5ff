//! The fast path between guest and underlay, as pure functions of bytes: superpackets are cut while they
//! are sealed, packets that were opened are joined again, datagrams wait in batches.
//!
//! Left out: devices and sockets, which are the guest's and the underlay's.
#![forbid(unsafe_code)]

pub mod checksum;
pub mod coalesce;
#[cfg(test)]
mod fixtures;
mod header;
pub mod queue;
pub mod segment;

pub use coalesce::Coalescer;
pub use queue::SendQueue;
pub use segment::{Malformed, Outbound};
