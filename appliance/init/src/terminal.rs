//! The machine's own terminals, for whoever stands before it: the VGA screen with its keyboard, and the serial
//! line. Keys come one by one, unechoed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::system::readable::Readable;

/// The screen's first virtual terminal, which is shown after boot.
const SCREEN: &str = "/dev/tty1";
/// The terminals that the kernel writes to; the last of them is /dev/console.
const ACTIVE: &str = "/sys/class/tty/console/active";

/// An open terminal.
#[derive(Debug)]
pub struct Terminal {
    path: PathBuf,
    keys: Readable,
    out: File,
}

impl Terminal {
    /// The screen; `None` on a machine without one. Needs a running event loop.
    pub fn screen() -> Option<Self> {
        Self::open(Path::new(SCREEN)).ok()
    }

    /// The serial line that is the console; `None` where the console is the screen, or nothing.
    pub fn serial() -> Option<Self> {
        let path = serial_of(&fs::read_to_string(ACTIVE).ok()?)?;
        Self::open(&path).ok()
    }

    fn open(path: &Path) -> io::Result<Self> {
        // Two descriptions, so that writing may wait while reading does not.
        let open = |flags| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC | flags)
                .open(path)
        };
        let keys = open(libc::O_NONBLOCK)?;
        let terminal = Self {
            path: path.to_owned(),
            keys: Readable::new(keys.into())?,
            out: open(0)?,
        };
        terminal.set_modes(false)?;
        Ok(terminal)
    }

    /// Waits for a key. An error when the terminal is gone. Safe to cancel.
    pub async fn key(&self) -> io::Result<u8> {
        let mut key = [0];
        let read = self
            .keys
            .read(|terminal| Ok(rustix::io::read(terminal, &mut key)?))
            .await?;
        match read {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(key[0]),
        }
    }

    /// The terminal for another program's input, output and errors, as programs expect it: lines, echoed, with keys
    /// that interrupt. Until [`Self::take_back`] nothing else should read from it.
    ///
    /// # Errors
    /// It is gone.
    pub fn hand_over(&mut self) -> io::Result<[Stdio; 3]> {
        self.set_modes(true)?;
        let another = || self.out.try_clone().map(Stdio::from);
        Ok([another()?, another()?, another()?])
    }

    /// The other program has ended. If the terminal was its session's, the kernel has hung it up for everybody, so it is
    /// opened anew.
    pub fn take_back(&mut self) {
        // One that is gone says so when a key is waited for.
        if let Ok(anew) = Self::open(&self.path) {
            *self = anew;
        }
    }

    fn set_modes(&self, lines: bool) -> io::Result<()> {
        let mut modes = tcgetattr(&self.out)?;
        modes.local_modes.set(
            LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG,
            lines,
        );
        Ok(tcsetattr(&self.out, OptionalActions::Now, &modes)?)
    }

    /// Writes text; what cannot be written is nobody's loss.
    pub fn write(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes());
    }
}

/// The last of the active consoles, unless that is a virtual terminal.
fn serial_of(active: &str) -> Option<PathBuf> {
    let name = active.split_whitespace().next_back()?;
    let number = name.strip_prefix("tty")?;
    let is_virtual = number.chars().all(|digit| digit.is_ascii_digit());
    (!is_virtual).then(|| Path::new("/dev").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serial_line_is_the_last_console_unless_that_is_a_screen() {
        let check = |active: &str, expected: Option<&str>| {
            assert_eq!(serial_of(active), expected.map(PathBuf::from), "{active:?}");
        };
        check("tty0 ttyS0\n", Some("/dev/ttyS0"));
        check("ttyS0 tty0\n", None);
        check("tty0\n", None);
        check("ttyS1\n", Some("/dev/ttyS1"));
        check("", None);
        check("hvc0\n", None);
    }
}
