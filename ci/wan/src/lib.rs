//! WAN emulator in user space: Ethernet segments with gateways and NATs, joined by a core that
//! delays, loses and limits. [`world`] is the emulator itself, without sockets or clocks; [`shell`]
//! attaches it to QEMU's stream sockets and to TAP devices. [`config`] says what is emulated, and
//! [`control`] how it is changed while it runs.
//! It leaves out IPv6 between domains (frames of any kind are switched inside a domain).
#![forbid(unsafe_code)]

pub mod config;
pub mod control;
pub mod counters;
pub mod nat;
pub mod report;
pub mod shell;
pub mod time;
pub mod wire;
pub mod world;
