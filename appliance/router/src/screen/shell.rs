//! A shell on one of the machine's terminals, in images that were built with one.

use std::io;
use std::path::Path;

use tokio::process::Command;
use wow_init::reaper::{self, OwnedChild};
use wow_init::terminal::Terminal;

/// Where such an image has it.
const BUSYBOX: &str = "/bin/busybox";

/// Whether this image has one.
pub fn is_there() -> bool {
    Path::new(BUSYBOX).exists()
}

/// Hands a terminal over to a shell, in a session of its own, so that keys interrupt what runs there.
pub fn open(terminal: &mut Terminal) -> io::Result<OwnedChild> {
    let [input, output, errors] = terminal.hand_over()?;
    let mut command = Command::new(BUSYBOX);
    command
        .args(["setsid", "-c", BUSYBOX, "sh"])
        .env_clear()
        .envs([
            ("PATH", "/bin"),
            ("HOME", "/"),
            ("TERM", "linux"),
            ("PS1", "wow# "),
        ])
        .current_dir("/")
        .stdin(input)
        .stdout(output)
        .stderr(errors)
        .kill_on_drop(true);
    reaper::spawn(&mut command)
}
