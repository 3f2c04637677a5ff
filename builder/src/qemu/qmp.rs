//! The few words of QEMU's machine protocol that are needed: power button, cables, migration.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// No answer takes longer, except from a hung QEMU: writing a stopped guest's disk out may take its time.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// More lines than this before an answer is no conversation.
const LINES_MAX: usize = 1000;

/// The longest line that is read.
const LINE_MAX_BYTES: u64 = 1 << 20;

/// How far a guest's migration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Migration {
    /// Not at its end.
    UnderWay,
    /// The guest is at the other QEMU.
    Completed,
    /// It is where it was, for this reason.
    Failed(String),
}

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
        self.execute("system_powerdown").map(drop)
    }

    /// Presses the reset button.
    pub fn reset(&mut self) -> io::Result<()> {
        self.execute("system_reset").map(drop)
    }

    /// Attaches a raw disk, which the guest writes to or not, to a machine with a SCSI controller
    /// ([`super::Hardware::Vmware`]).
    pub fn attach_scsi_disk(&mut self, id: &str, file: &Path, writable: bool) -> io::Result<()> {
        let file = json!({ "driver": "file", "filename": file });
        self.attach_scsi(id, file, writable)
    }

    fn attach_scsi(&mut self, id: &str, file: Value, writable: bool) -> io::Result<()> {
        let node =
            json!({ "driver": "raw", "node-name": id, "read-only": !writable, "file": file });
        self.execute_with("blockdev-add", node)?;
        let device = json!({ "driver": "scsi-hd", "bus": "scsi0.0", "drive": id, "id": format!("device-{id}") });
        self.execute_with("device_add", device).map(drop)
    }

    /// The same for one that can be read and fails whatever is written to it.
    pub fn attach_failing_scsi_disk(&mut self, id: &str, file: &Path) -> io::Result<()> {
        let io_error = 5;
        let file = json!({
            "driver": "blkdebug",
            "image": { "driver": "file", "filename": file },
            "inject-error": [{ "event": "pwritev", "iotype": "write", "errno": io_error }],
        });
        self.attach_scsi(id, file, true)
    }

    /// Pulls such a disk. The guest loses it at once; see [`Self::forget_disk`].
    pub fn detach_scsi_disk(&mut self, id: &str) -> io::Result<()> {
        let device = json!({ "id": format!("device-{id}") });
        self.execute_with("device_del", device).map(drop)
    }

    /// Closes the file of a disk that was pulled, so that it can be attached again; refused while the guest's last
    /// request is under way.
    pub fn forget_disk(&mut self, id: &str) -> io::Result<()> {
        let node = json!({ "node-name": id });
        self.execute_with("blockdev-del", node).map(drop)
    }

    /// Puts a network card, whose cable ends in QEMU's own NAT, into a port of the machine
    /// ([`super::VmSpec::ports`]).
    pub fn attach_card(&mut self, id: &str, port: u8, mac: &str) -> io::Result<()> {
        let netdev = json!({ "type": "user", "id": format!("net-{id}") });
        self.execute_with("netdev_add", netdev)?;
        let device = json!({
            "driver": "virtio-net-pci", "id": id, "bus": format!("port{port}"), "netdev": format!("net-{id}"),
            "mac": mac, "romfile": "",
        });
        self.execute_with("device_add", device).map(drop)
    }

    /// Asks the guest to let such a card go; see [`Self::forget_card`].
    pub fn detach_card(&mut self, id: &str) -> io::Result<()> {
        self.execute_with("device_del", json!({ "id": id }))
            .map(drop)
    }

    /// Ends the cable of a card that the guest has let go; an error as long as it has not.
    pub fn forget_card(&mut self, id: &str) -> io::Result<()> {
        let known = self.execute_with("qom-list", json!({ "path": "/machine/peripheral" }))?;
        let is_there = known
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["name"] == id));
        if is_there {
            return Err(io::Error::other(format!(
                "the guest still has the card {id}"
            )));
        }
        let netdev = json!({ "id": format!("net-{id}") });
        self.execute_with("netdev_del", netdev).map(drop)
    }

    /// Stops the guest's processors.
    pub fn stop(&mut self) -> io::Result<()> {
        self.execute("stop").map(drop)
    }

    /// Lets them go on.
    pub fn resume(&mut self) -> io::Result<()> {
        self.execute("cont").map(drop)
    }

    /// Plugs the cable of a network card in, or pulls it.
    pub fn set_link(&mut self, netdev: &str, up: bool) -> io::Result<()> {
        self.execute_with("set_link", json!({ "name": netdev, "up": up }))
            .map(drop)
    }

    /// Leads a TCP port of the host's loopback to one of a guest whose cable `netdev` ends in QEMU's own NAT.
    pub fn forward(&mut self, netdev: &str, host: u16, guest: u16) -> io::Result<()> {
        let line = format!("hostfwd_add {netdev} tcp:127.0.0.1:{host}-:{guest}");
        let said = self.execute_with("human-monitor-command", json!({ "command-line": line }))?;
        match said.as_str() {
            None | Some("") => Ok(()),
            Some(complaint) => Err(io::Error::other(complaint.trim().to_owned())),
        }
    }

    /// Begins to send the guest to a QEMU that waits for it on a Unix socket.
    pub fn migrate(&mut self, socket: &Path) -> io::Result<()> {
        let uri = format!("unix:{}", socket.display());
        self.execute_with("migrate", json!({ "uri": uri }))
            .map(drop)
    }

    /// How far that is.
    pub fn migration(&mut self) -> io::Result<Migration> {
        let answer = self.execute("query-migrate")?;
        Ok(match answer["status"].as_str() {
            Some("completed") => Migration::Completed,
            Some(status @ ("failed" | "cancelled")) => {
                let reason = answer["error-desc"].as_str().unwrap_or(status);
                Migration::Failed(reason.to_owned())
            }
            _ => Migration::UnderWay,
        })
    }

    fn execute(&mut self, command: &str) -> io::Result<Value> {
        self.execute_with(command, json!({}))
    }

    fn execute_with(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        let mut text = json!({ "execute": command, "arguments": arguments }).to_string();
        text.push('\n');
        self.lines.get_mut().write_all(text.as_bytes())?;
        // Events may come before the answer.
        for _ in 0..LINES_MAX {
            let mut line = self.line()?;
            if let Some(answer) = line.get_mut("return") {
                return Ok(answer.take());
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

    /// What comes of a question to a QEMU that says `lines`, one after each line it hears (the first at once).
    fn ask<T>(
        lines: &'static [&'static str],
        question: impl FnOnce(&mut Qmp) -> io::Result<T>,
    ) -> io::Result<T> {
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
        let result = Qmp::connect(&path).and_then(|mut qmp| question(&mut qmp));
        server.join().unwrap();
        result
    }

    fn check(lines: &'static [&'static str]) -> io::Result<()> {
        ask(lines, Qmp::powerdown)
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
    fn a_migration_ends_one_way_or_the_other() {
        let after = |answer: &'static str| {
            let lines = Box::leak(Box::new([GREETING, "{\"return\": {}}\n", answer]));
            ask(lines, Qmp::migration).unwrap()
        };
        assert_eq!(
            after("{\"return\": {\"status\": \"active\"}}\n"),
            Migration::UnderWay
        );
        assert_eq!(
            after("{\"return\": {\"status\": \"completed\"}}\n"),
            Migration::Completed
        );
        let failed = "{\"return\": {\"status\": \"failed\", \"error-desc\": \"broken pipe\"}}\n";
        assert_eq!(after(failed), Migration::Failed("broken pipe".into()));
    }

    #[test]
    fn another_protocol_is_an_error() {
        assert!(check(&["{\"hello\": 1}\n"]).is_err());
        assert!(check(&["SSH-2.0\n"]).is_err());
    }
}
