//! The machine that builds and runs: its Debian packages and its child processes. What is done with
//! them is the business of the modules above.

pub mod apt;
pub mod packages;
pub mod process;
pub mod tree;

pub use apt::{Consent, HostError, ensure};
pub use packages::{Package, Purpose, missing};
pub use process::{Guarded, Tether, guarded_command};
pub use tree::debian_tree;
