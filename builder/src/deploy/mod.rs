//! Puts the router on a list of hosts by the system's `ssh`: in parallel, each host by itself, so that one that
//! is down keeps no other waiting. One connection a host does all; what a host has already is not sent again,
//! so a second run does only what is left.
//!
//! What is decided (lists, orders, replies) is pure; [`session`] alone starts processes.

mod crew;
pub mod hosts;
mod order;
mod outcome;
mod reply;
mod session;
mod ssh;

use std::time::Duration;

pub use crew::run;
pub use hosts::{HostsError, Target, User};
pub use order::{Action, Deployment, Guest, NodeOptions, Secret};
pub use outcome::{Ended, Outcome};
pub use ssh::Login;

/// What is done, where, and how long it may take.
#[derive(Debug, Clone)]
pub struct Plan {
    /// On these hosts, in this order.
    pub targets: Vec<Target>,
    /// How to log in.
    pub login: Login,
    /// What is done.
    pub action: Action,
    /// On how many hosts at once.
    pub parallel: usize,
    /// How long.
    pub limits: Limits,
}

/// How long things may take on each host.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Until the host answers after the login.
    pub connect: Duration,
    /// Until a node that was started is in its pool.
    pub join: Duration,
    /// Everything together.
    pub host: Duration,
}

/// What happens on a host, as it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// Its turn has come.
    Began(&'a Target),
    /// What is done there now.
    Step(&'a Target, &'a str),
    /// It is done with.
    Ended(&'a Target, &'a Outcome),
}

/// Is told what happens, by several threads at once.
pub type Watch<'a> = dyn Fn(Event<'_>) + Sync + 'a;
