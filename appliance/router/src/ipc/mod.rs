//! The control socket: newline-delimited JSON over a Unix socket or a virtual machine's serial port.

pub mod client;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod lines;
mod operator;
mod ping;
mod port;
mod server;
mod session;
mod virtio;

use std::path::PathBuf;

pub use operator::{Operator, TRACE_MAX};
pub use server::Server;
pub use virtio::serve_port;

/// Root's control socket.
const SYSTEM: &str = "/run/wow/control.sock";

/// The socket that a client connects to unless told otherwise: that of the user's own node, else root's.
pub fn default_for_clients() -> PathBuf {
    let own = default_socket();
    match own.exists() {
        true => own,
        false => PathBuf::from(SYSTEM),
    }
}

/// Where a daemon's control socket is unless told otherwise: root's in /run, others' in their runtime
/// directory.
pub fn default_socket() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from(SYSTEM);
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("wow-{}", rustix::process::geteuid().as_raw()))
    });
    runtime.join("wow/control.sock")
}
