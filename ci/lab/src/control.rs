//! A conversation with a control socket, a router's or the emulator's: JSON lines, one at a time.
//! For what is measured in milliseconds; anything else can run the `wow` program.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::interrupt;

/// How often a wait for a reply looks at Ctrl-C.
const SLICE: Duration = Duration::from_millis(500);

/// Longest reply that is read: all peers of a router with their details fit.
const REPLY_BYTES_MAX: u64 = 4 << 20;

/// A connection.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
    next_id: u64,
}

impl Control {
    /// Connects; an error when nobody listens there (yet).
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("nobody serves {}", socket.display()))?;
        stream.set_read_timeout(Some(SLICE))?;
        Ok(Self {
            stream: BufReader::new(stream),
            // A machine's port may still answer somebody who asked before.
            next_id: 1 + (RandomState::new().build_hasher().finish() >> 12),
        })
    }

    /// Sends `request`, an object with `op`, and gives the `ok` of its reply. A refusal is an error, as
    /// is no reply within `limit`.
    pub fn ask<T: DeserializeOwned>(&mut self, mut request: Value, limit: Duration) -> Result<T> {
        let id = self.next_id;
        self.next_id += 1;
        request["id"] = id.into();
        // What somebody else left unfinished ends here.
        let line = format!("\n{request}\n");
        self.stream.get_mut().write_all(line.as_bytes())?;
        let deadline = Instant::now() + limit;
        loop {
            let line = self.read_line(deadline);
            let line = line.with_context(|| request.to_string())?;
            // What answers an earlier question comes too late, and perhaps in part.
            let Ok(mut reply) = serde_json::from_slice::<Value>(&line) else {
                continue;
            };
            if reply["id"] != id {
                continue;
            }
            if let Some(error) = reply["error"].as_str() {
                bail!("{error}");
            }
            return serde_json::from_value(reply["ok"].take())
                .with_context(|| format!("an unexpected reply to {request}"));
        }
    }

    fn read_line(&mut self, deadline: Instant) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            let mut rest = (&mut self.stream).take(REPLY_BYTES_MAX);
            match rest.read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => break,
                Ok(0) => bail!("the control socket was closed"),
                Ok(_) if line.len() as u64 >= REPLY_BYTES_MAX => bail!("an endless reply"),
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the control socket broke"),
            }
            interrupt::check()?;
            if Instant::now() >= deadline {
                bail!("no reply in time");
            }
        }
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// A server that sends `replies` for one request, in two parts each, with the request's id for ID.
    fn ask(replies: &'static [&'static str], limit: Duration) -> Result<Value> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
            assert_eq!(lines.next().unwrap().unwrap(), "");
            let request: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            for reply in replies {
                let reply = reply.replace("ID", &request["id"].to_string());
                let (a, b) = reply.split_at(reply.len() / 2);
                client.write_all(a.as_bytes()).unwrap();
                client.write_all(b.as_bytes()).unwrap();
                client.write_all(b"\n").unwrap();
            }
            // Until the client hangs up.
            let _ = client.read(&mut [0; 1]);
        });
        let answer = Control::connect(&socket)
            .unwrap()
            .ask(json!({"op": "x"}), limit);
        server.join().unwrap();
        answer
    }

    #[test]
    fn replies_to_others_are_passed_over_and_refusals_are_errors() {
        let minute = Duration::from_secs(60);
        let answer = ask(
            &[
                r#"ter": 17}}"#,
                "",
                r#"{"id":"other","error":"late"}"#,
                r#"{"id":ID,"ok":{"n":5}}"#,
            ],
            minute,
        );
        assert_eq!(answer.unwrap()["n"], 5);
        let refused = ask(&[r#"{"id":ID,"error":"no such op"}"#], minute);
        assert_eq!(refused.unwrap_err().to_string(), "no such op");
        let silent = ask(&[], Duration::ZERO).unwrap_err();
        assert!(format!("{silent:#}").contains("no reply in time"));
    }
}
