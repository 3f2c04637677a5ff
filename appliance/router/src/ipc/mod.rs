//! The control socket: newline-delimited JSON over a Unix socket or a virtual machine's serial port.

pub mod client;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod lines;
mod operator;
mod ping;
mod server;
mod session;
mod virtio;

use std::path::PathBuf;

pub use operator::{Operator, TRACE_MAX};
pub use server::Server;
pub use virtio::serve_port;

/// Where the control socket is unless told otherwise: root's in /run, others' in their runtime
/// directory.
pub fn default_socket() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/wow/control.sock");
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("wow-{}", rustix::process::geteuid().as_raw()))
    });
    runtime.join("wow/control.sock")
}
