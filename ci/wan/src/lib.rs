//! WAN emulator in user space: Ethernet segments with gateways and NATs, joined by a core that
//! delays, loses and limits. [`config`] says what is emulated, [`nat`] how gateways translate.
//! It leaves out IPv6 between domains (frames of any kind are switched inside a domain).
#![forbid(unsafe_code)]

pub mod config;
pub mod nat;
