//! This machine: its name, and its starts.

use std::path::Path;

use anyhow::{Context, Result};

use crate::files::{self, PUBLIC};

/// In memory: it ends with the machine.
const BOOT: &str = "/run/wow-workstation/boot";

/// Gives the machine its name in the pool.
pub fn set_host_name(name: &str) -> Result<()> {
    if rustix::system::uname().nodename().to_bytes() != name.as_bytes() {
        rustix::system::sethostname(name.as_bytes())
            .with_context(|| format!("cannot call this machine {name}"))?;
        tracing::info!(name, "this machine's name in the pool");
    }
    let line = format!("{name}\n");
    files::write(Path::new("/etc/hostname"), line.as_bytes(), PUBLIC).map(drop)
}

/// Whether systemd runs the machine, and not a test.
pub fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// A text that is another after each start of the machine, and the same for all of this program's.
pub fn boot() -> Result<String> {
    let path = Path::new(BOOT);
    let kept = files::text(path)?;
    if !kept.is_empty() {
        return Ok(kept);
    }
    let made = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .context("the kernel makes no random numbers")?;
    let made = made.trim_end();
    files::write(path, made.as_bytes(), PUBLIC)?;
    Ok(made.to_owned())
}
