//! The console: makes descriptors 0–2 lead somewhere, and writes lines that must be seen.
//!
//! Rust's runtime opens /dev/null for a descriptor it finds closed (and aborts when there is no
//! /dev/null, which is why the image carries that node), so "valid" is not enough: standard output on
//! /dev/null would swallow every message.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use rustix::fs::fstat;

use crate::step::StepError;

/// Where the standard descriptors lead, best first; all may be missing on a kernel without console.
const CANDIDATES: [&str; 3] = ["/dev/console", "/dev/kmsg", "/dev/null"];

/// Makes descriptors 0–2 valid and visible: what is closed or on /dev/null moves to the console, or
/// to the kernel log where there is no console. Leaves redirected ones alone. May be repeated, and is,
/// once devtmpfs has more devices to offer. Names the device, or `None` when nothing needed a change.
pub fn claim() -> Option<&'static str> {
    let lost = [
        leads_nowhere(rustix::stdio::stdin()),
        leads_nowhere(rustix::stdio::stdout()),
        leads_nowhere(rustix::stdio::stderr()),
    ];
    if lost == [false; 3] {
        return None;
    }
    let (path, device) = CANDIDATES.into_iter().find_map(|path| {
        let reads = path != "/dev/kmsg";
        let file = OpenOptions::new()
            .read(reads)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(path)
            .ok()?;
        file.metadata()
            .ok()?
            .file_type()
            .is_char_device()
            .then_some((path, file))
    })?;
    // A failure here leaves what was there before: nothing better can be done, nor be said anywhere.
    if lost[0] {
        let _ = rustix::stdio::dup2_stdin(&device);
    }
    if lost[1] {
        let _ = rustix::stdio::dup2_stdout(&device);
    }
    if lost[2] {
        let _ = rustix::stdio::dup2_stderr(&device);
    }
    Some(path)
}

/// Writes lines to standard error and to the kernel log, ignoring failures: unlike `eprintln!`, it
/// never panics. For panics and last words; ordinary messages go through `tracing`.
pub fn shout(lines: &str) {
    let shown = std::io::stderr()
        .write_all(format!("\n{lines}\n").as_bytes())
        .is_ok();
    // As "error" the kernel prints it on the console itself; as "notice" it only records it.
    let priority = if shown { 5 } else { 3 };
    if let Ok(mut kmsg) = OpenOptions::new().write(true).open("/dev/kmsg") {
        for line in lines.lines() {
            let _ = kmsg.write_all(format!("<{priority}>wow: {line}\n").as_bytes());
        }
    }
}

pub(crate) fn step() -> Result<String, StepError> {
    let claimed = claim();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    std::env::set_current_dir("/")
        .map_err(|error| StepError::new(format!("cannot change to /: {error}")))?;
    Ok(match claimed {
        None => "standard descriptors were given".to_owned(),
        Some(path) => format!("standard descriptors on {path}"),
    })
}

fn leads_nowhere(descriptor: std::os::fd::BorrowedFd<'_>) -> bool {
    let Ok(stat) = fstat(descriptor) else {
        return true;
    };
    // Linux's fixed number of /dev/null: character device 1:3.
    rustix::fs::FileType::from_raw_mode(stat.st_mode).is_char_device()
        && stat.st_rdev == rustix::fs::makedev(1, 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn dev_null_leads_nowhere_and_a_file_leads_somewhere() {
        let null = File::open("/dev/null").unwrap();
        assert!(leads_nowhere(null.as_fd()));
        let file = tempfile::tempfile().unwrap();
        assert!(!leads_nowhere(file.as_fd()));
        let zero = File::open("/dev/zero").unwrap();
        assert!(!leads_nowhere(zero.as_fd()));
    }
}
