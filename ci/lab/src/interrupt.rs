//! Ctrl-C and SIGTERM as a flag that every wait looks at, so that testbeds end by their drops.
//!
//! A second signal ends the process at once; tied children die with it, and what it left (network
//! namespaces) is swept by the next run.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};

/// The exit status after a second signal, as shells report a SIGINT.
const STATUS: i32 = 130;

fn flag() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

/// Starts catching signals. Further calls change nothing that matters.
pub fn install() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        // Order matters: the second signal finds the flag that the first has set.
        signal_hook::flag::register_conditional_shutdown(signal, STATUS, flag().clone())?;
        signal_hook::flag::register(signal, flag().clone())?;
    }
    Ok(())
}

/// An error once a signal has come.
pub fn check() -> anyhow::Result<()> {
    match requested() {
        true => Err(anyhow::anyhow!("interrupted")),
        false => Ok(()),
    }
}

/// Whether a signal has come.
pub fn requested() -> bool {
    flag().load(Ordering::Relaxed)
}
