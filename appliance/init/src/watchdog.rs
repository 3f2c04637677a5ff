//! The hardware watchdog: resets the machine when the data plane stops making progress.
//!
//! There is deliberately no timer here. The router calls [`Watchdog::pet`] where work gets done; a
//! daemon that is alive but stuck must trip it. For the same reason boot does not arm it: a machine that
//! waits for its ticket makes no progress and is not to be reset. The router arms it with its loop.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use crate::system;

/// Time without progress until the machine is reset.
const TIMEOUT_SECONDS: u32 = 60;
/// The device is written to at most this often, however often it is petted.
const WRITE_EVERY: Duration = Duration::from_secs(5);

/// An armed watchdog. Dropping it without [`Watchdog::disarm`] leaves it armed, on purpose: a crash
/// must end in a reset.
#[derive(Debug)]
pub struct Watchdog {
    device: File,
    written: Option<Instant>,
}

impl Watchdog {
    /// Opens and so arms the machine's watchdog; `None` where there is none.
    pub fn open() -> Option<Self> {
        let device = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_CLOEXEC)
            .open("/dev/watchdog")
            .ok()?;
        match system::set_watchdog_timeout(&device, TIMEOUT_SECONDS) {
            Ok(seconds) => tracing::info!(seconds, "watchdog armed"),
            Err(error) => tracing::warn!("watchdog armed with its own timeout: {error}"),
        }
        Some(Self {
            device,
            written: None,
        })
    }

    /// Says that work got done. Cheap: call it as often as it happens, at least every few seconds.
    pub fn pet(&mut self) {
        let now = Instant::now();
        if self.written.is_some_and(|last| now - last < WRITE_EVERY) {
            return;
        }
        match self.device.write_all(b"\0") {
            Ok(()) => self.written = Some(now),
            Err(error) => tracing::warn!("cannot pet the watchdog: {error}"),
        }
    }

    /// Disarms it, for an ordered shutdown (the "magic close" of the watchdog API).
    pub fn disarm(mut self) -> io::Result<()> {
        self.device.write_all(b"V")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn petting_is_rate_limited_and_disarming_writes_the_magic_character() {
        let (mut reader, writer) = io::pipe().unwrap();
        let device = File::from(std::os::fd::OwnedFd::from(writer));
        let mut watchdog = Watchdog {
            device,
            written: None,
        };
        watchdog.pet();
        watchdog.pet();
        watchdog.disarm().unwrap();
        let mut written = Vec::new();
        reader.read_to_end(&mut written).unwrap();
        assert_eq!(written, b"\0V");
    }
}
