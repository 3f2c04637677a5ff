//! The emulator with simulated hosts on virtual time. Every packet that a host receives has all
//! its checksums verified.

mod hosts;

mod change;
mod hostile;
mod lan;
mod nat;
mod routing;
