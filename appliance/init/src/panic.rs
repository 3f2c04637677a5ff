//! What a panic does in process 1: say it on the console and in the kernel log, sync, restart.
//!
//! Without this the process would exit and the kernel panic, losing the message on a machine whose
//! console scrolled by, and, without `panic=`, staying dead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::power::Shutdown;
use crate::{console, shutdown, system};

/// Time for a person, or a serial log, to catch the message.
const READ_IT: Duration = Duration::from_secs(3);

/// Installs the hook. A panic of any thread then restarts the machine; the hook does not return.
pub fn install() {
    std::panic::set_hook(Box::new(|info| {
        static PANICKING: AtomicBool = AtomicBool::new(false);
        if PANICKING.swap(true, Ordering::SeqCst) {
            // The hook itself panicked, or a second thread did.
            shutdown::reboot_now(Shutdown::Restart);
        }
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        die(&format!("thread `{name}`: {info}"));
    }));
}

/// Keeps the program from looking at its own stack, as `RUST_BACKTRACE` asks: one that aborts when it panics has no
/// tables for that, and libgcc aborts where it finds none. The first thing of a program, before any thread.
pub fn without_backtraces() {
    if cfg!(panic = "abort") {
        system::forget(&["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"]);
    }
}

/// Says `why`, syncs, and restarts the machine after a short delay.
pub fn die(why: &str) -> ! {
    console::shout(&format!(
        "wow cannot go on: {why}\nThis machine restarts in {} seconds.",
        READ_IT.as_secs()
    ));
    shutdown::sync_bounded(shutdown::SYNC_LIMIT);
    std::thread::sleep(READ_IT);
    shutdown::reboot_now(Shutdown::Restart)
}
