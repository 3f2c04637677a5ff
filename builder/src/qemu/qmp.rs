//! The few words of QEMU's machine protocol that are needed: power button and quit.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// No answer takes longer, except from a hung QEMU.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// More lines than this before an answer is no conversation.
const LINES_MAX: usize = 1000;

/// The longest line that is read.
const LINE_MAX_BYTES: u64 = 1 << 20;

/// A conversation with one QEMU.
#[derive(Debug)]
pub struct Qmp {
    lines: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects and negotiates.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let mut qmp = Self {
            lines: BufReader::new(stream),
        };
        let greeting = qmp.line()?;
        if greeting.get("QMP").is_none() {
            return Err(io::Error::other(format!("no QMP greeting: {greeting}")));
        }
        qmp.execute("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Presses the power button.
    pub fn powerdown(&mut self) -> io::Result<()> {
        self.execute("system_powerdown")
    }

    /// Ends QEMU at once.
    pub fn quit(&mut self) -> io::Result<()> {
        self.execute("quit")
    }

    fn execute(&mut self, command: &str) -> io::Result<()> {
        let mut text = json!({ "execute": command }).to_string();
        text.push('\n');
        self.lines.get_mut().write_all(text.as_bytes())?;
        // Events may come before the answer.
        for _ in 0..LINES_MAX {
            let line = self.line()?;
            if line.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = line.get("error") {
                return Err(io::Error::other(format!("QEMU refuses {command}: {error}")));
            }
        }
        Err(io::Error::other(format!("QEMU never answers {command}")))
    }

    fn line(&mut self) -> io::Result<Value> {
        let mut text = String::new();
        if self
            .lines
            .by_ref()
            .take(LINE_MAX_BYTES)
            .read_line(&mut text)?
            == 0
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&text).map_err(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A QEMU that says `lines`, one after each line it hears (the first at once).
    fn check(lines: &'static [&'static str]) -> io::Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut heard = BufReader::new(stream.try_clone().unwrap());
            let mut stream = stream;
            for line in lines {
                stream.write_all(line.as_bytes()).unwrap();
                let mut text = String::new();
                if heard.read_line(&mut text).unwrap() == 0 {
                    break;
                }
            }
        });
        let result = Qmp::connect(&path).and_then(|mut qmp| qmp.powerdown());
        server.join().unwrap();
        result
    }

    const GREETING: &str = "{\"QMP\": {\"version\": {}}}\n";

    #[test]
    fn events_before_the_answer_are_passed_over() {
        check(&[
            GREETING,
            "{\"return\": {}}\n",
            "{\"event\": \"POWERDOWN\"}\n{\"return\": {}}\n",
        ])
        .unwrap();
    }

    #[test]
    fn a_refusal_is_an_error_with_its_text() {
        let error = check(&[
            GREETING,
            "{\"return\": {}}\n",
            "{\"error\": {\"desc\": \"busy\"}}\n",
        ])
        .unwrap_err();
        assert!(error.to_string().contains("busy"), "{error}");
    }

    #[test]
    fn another_protocol_is_an_error() {
        assert!(check(&["{\"hello\": 1}\n"]).is_err());
        assert!(check(&["SSH-2.0\n"]).is_err());
    }
}
