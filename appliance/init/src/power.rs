//! Requests to end the machine: the ACPI power button, Ctrl-Alt-Del and signals.
//!
//! Signals mean what busybox's `halt`, `poweroff` and `reboot` send to process 1. The kernel delivers
//! to process 1 only signals it handles, so all others do nothing.

use std::fmt;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::system::{RebootCommand, reboot};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::system::readable::Readable;

/// linux/input-event-codes.h.
const EV_KEY: u16 = 0x01;
const KEY_POWER: u16 = 116;
/// `struct input_event` on 64-bit machines: two 8-byte times, type, code, value.
const EVENT_BYTES: usize = 24;
/// Devices watched at most; a PC has one or two power buttons.
const MOST_BUTTONS: usize = 8;
/// Requests waiting at most; the first decides, so further ones may be dropped.
const QUEUE: usize = 4;

/// How the machine is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Switch off; a machine without ACPI restarts instead.
    PowerOff,
    /// Restart.
    Restart,
    /// Stop the CPUs and stay.
    Halt,
}

impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowerOff => "power off",
            Self::Restart => "restart",
            Self::Halt => "halt",
        })
    }
}

/// A request to end the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// How.
    pub shutdown: Shutdown,
    /// Who asked, for the log.
    pub cause: &'static str,
}

/// (signal, meaning) of all signals process 1 handles.
const SIGNALS: [(libc::c_int, Request); 5] = [
    (
        libc::SIGINT,
        Request {
            shutdown: Shutdown::Restart,
            cause: "Ctrl-Alt-Del (SIGINT)",
        },
    ),
    (
        libc::SIGTERM,
        Request {
            shutdown: Shutdown::Restart,
            cause: "SIGTERM",
        },
    ),
    (
        libc::SIGUSR1,
        Request {
            shutdown: Shutdown::Halt,
            cause: "SIGUSR1",
        },
    ),
    (
        libc::SIGUSR2,
        Request {
            shutdown: Shutdown::PowerOff,
            cause: "SIGUSR2",
        },
    ),
    (
        libc::SIGPWR,
        Request {
            shutdown: Shutdown::PowerOff,
            cause: "power failure (SIGPWR)",
        },
    ),
];

/// The stream of requests.
#[derive(Debug)]
pub struct PowerEvents {
    requests: mpsc::Receiver<Request>,
    /// Kept, so that the stream stays open when no source is left, and for other sources.
    sender: mpsc::Sender<Request>,
}

impl PowerEvents {
    /// Installs the handlers, takes Ctrl-Alt-Del away from the kernel (which would restart without
    /// asking) and listens to the power buttons. Needs a running tokio runtime.
    pub fn start() -> io::Result<Self> {
        let (sender, requests) = mpsc::channel(QUEUE);
        for (number, request) in SIGNALS {
            let mut stream = signal(SignalKind::from_raw(number))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    let _ = sender.try_send(request);
                }
            });
        }
        if crate::is_process_one()
            && let Err(error) = reboot(RebootCommand::CadOff)
        {
            tracing::warn!("Ctrl-Alt-Del restarts at once, unordered: {error}");
        }
        let buttons = find_buttons(Path::new("/sys/class/input"), Path::new("/dev/input"));
        if buttons.is_empty() {
            tracing::info!("no power button (no ACPI, or no CONFIG_INPUT_EVDEV)");
        }
        for path in buttons.into_iter().take(MOST_BUTTONS) {
            let device = match open_button(&path) {
                Ok(device) => device,
                Err(error) => {
                    tracing::warn!("power button {}: {error}", path.display());
                    continue;
                }
            };
            tracing::debug!("power button {}", path.display());
            tokio::spawn(watch_button(device, sender.clone()));
        }
        Ok(Self { requests, sender })
    }

    /// Where others ask for the machine's end, such as somebody at its keyboard.
    pub fn sender(&self) -> mpsc::Sender<Request> {
        self.sender.clone()
    }

    /// Waits for the next request. Safe to cancel.
    pub async fn next(&mut self) -> Request {
        match self.requests.recv().await {
            Some(request) => {
                tracing::info!("{}: {}", request.cause, request.shutdown);
                request
            }
            // Cannot be, since we hold a sender.
            None => std::future::pending().await,
        }
    }
}

fn open_button(path: &Path) -> io::Result<Readable> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    Readable::new(file.into())
}

async fn watch_button(device: Readable, sender: mpsc::Sender<Request>) {
    let pressed = Request {
        shutdown: Shutdown::PowerOff,
        cause: "power button",
    };
    let mut buffer = [0; 16 * EVENT_BYTES];
    loop {
        match device
            .read(|file| Ok(rustix::io::read(file, &mut buffer)?))
            .await
        {
            Ok(0) => return,
            Ok(length) if holds_press(&buffer[..length]) => {
                let _ = sender.try_send(pressed);
            }
            Ok(_) => {}
            // ENODEV: unplugged.
            Err(error) => {
                tracing::debug!("power button gone: {error}");
                return;
            }
        }
    }
}

/// Whether some of these input events is the power key going down (releases and repeats are not).
fn holds_press(events: &[u8]) -> bool {
    events.chunks_exact(EVENT_BYTES).any(|event| {
        let field = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
        let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
        (field(16), field(18), value) == (EV_KEY, KEY_POWER, 1)
    })
}

/// The input devices with a power key, by what sysfs says of their capabilities.
fn find_buttons(class: &Path, devices: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(class) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("event"))
        .filter(|entry| {
            std::fs::read_to_string(entry.path().join("device/capabilities/key"))
                .is_ok_and(|bits| has_bit(&bits, KEY_POWER))
        })
        .map(|entry| devices.join(entry.file_name()))
        .collect();
    found.sort();
    found
}

/// Reads one bit of sysfs's bitmap: hexadecimal words of 64 bits, most significant word first.
fn has_bit(bitmap: &str, bit: u16) -> bool {
    bitmap
        .split_whitespace()
        .rev()
        .nth(usize::from(bit / 64))
        .and_then(|word| u64::from_str_radix(word, 16).ok())
        .is_some_and(|word| word >> (bit % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut bytes = vec![0xa5; 16];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(code.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_the_power_key_going_down_is_a_press() {
        assert!(holds_press(&event(EV_KEY, KEY_POWER, 1)));
        assert!(!holds_press(&event(EV_KEY, KEY_POWER, 0)), "release");
        assert!(!holds_press(&event(EV_KEY, KEY_POWER, 2)), "repeat");
        assert!(!holds_press(&event(EV_KEY, 30, 1)), "another key");
        assert!(!holds_press(&event(0, KEY_POWER, 1)), "another kind");
        let both = [event(0, 0, 0), event(EV_KEY, KEY_POWER, 1)].concat();
        assert!(holds_press(&both));
        assert!(!holds_press(&both[..47]), "a torn event");
    }

    #[test]
    fn devices_with_a_power_key_are_found_by_their_capabilities() {
        let root = tempfile::tempdir().unwrap();
        // The ACPI button has KEY_POWER alone; a keyboard here has none; `mice` is no event device.
        for (name, keys) in [
            ("event0", "10000000000000 0"),
            ("event1", "ffff 0 0 3ff"),
            ("mice", "10000000000000 0"),
        ] {
            let directory = root.path().join(name).join("device/capabilities");
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("key"), keys).unwrap();
        }
        let found = find_buttons(root.path(), Path::new("/dev/input"));
        assert_eq!(found, [PathBuf::from("/dev/input/event0")]);
        assert!(find_buttons(Path::new("/nonexistent"), Path::new("/dev/input")).is_empty());
    }

    #[test]
    fn a_signal_becomes_a_request() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let request = runtime.block_on(async {
            let mut power = PowerEvents::start().unwrap();
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::USR2).unwrap();
            power.next().await
        });
        assert_eq!(
            request,
            Request {
                shutdown: Shutdown::PowerOff,
                cause: "SIGUSR2"
            }
        );
    }
}
