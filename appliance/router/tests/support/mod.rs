//! Runs the real `wow` program and cleans up after it.
#![allow(dead_code)] // Each test program uses its part.

pub mod spaces;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// For what takes milliseconds on an idle machine and much longer on a loaded one.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a finished program said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs `wow` to its end.
pub fn wow(arguments: &[&str]) -> Said {
    finish(Command::new(env!("CARGO_BIN_EXE_wow")).args(arguments))
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Said {
    let output = command
        .env_remove("WOW_SOCKET")
        .env_remove("WOW_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Said {
    /// Asserts success.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Asserts a refusal with exit code `code` whose message holds all `parts`.
    pub fn refused(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "no {part:?} in {self:?}");
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A pool's files in a directory of their own.
pub struct Pool {
    pub dir: tempfile::TempDir,
}

impl Pool {
    pub fn new(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_str().unwrap();
        wow(&[&["pool", "new", "lab", "--dir", at], arguments].concat()).ok();
        Pool { dir }
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Issues a ticket into `name` and returns its path.
    pub fn ticket(&self, name: &str, arguments: &[&str]) -> String {
        let (pool, out) = (self.path("lab.pool"), self.path(name));
        let command = ["pool", "ticket", &pool, "--out", &out];
        wow(&[&command, arguments].concat()).ok();
        out
    }
}

/// A running node. Killed when dropped.
pub struct Node {
    child: Child,
    pub socket: PathBuf,
    log: PathBuf,
}

impl Node {
    /// Starts `wow run` behind `prefix` (such as `ip netns exec NAME`).
    pub fn start(pool: &Pool, name: &str, prefix: &[&str], arguments: &[&str]) -> Node {
        let socket = PathBuf::from(pool.path(&format!("{name}.sock")));
        let log = PathBuf::from(pool.path(&format!("{name}.log")));
        let state = pool.path(&format!("{name}.state"));
        let words = [prefix, &[env!("CARGO_BIN_EXE_wow")]].concat();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(["run", "--log", "debug", "--name", name, "--state", &state])
            .arg("--socket")
            .arg(&socket)
            .args(arguments)
            .env_remove("WOW_SOCKET")
            .env_remove("WOW_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap());
        let child = command.spawn().unwrap();
        let mut node = Node { child, socket, log };
        node.until("its control socket", |node| node.socket.exists());
        node
    }

    /// Starts one without privileges on the loopback, to join by `seed` if one is given.
    pub fn without_guest(pool: &Pool, name: &str, ticket: &str, seed: Option<&str>) -> Node {
        let guest = ["--guest", "none", "--listen", "127.0.0.1:0"];
        let mut arguments = [&guest[..], &["--ticket", ticket]].concat();
        if let Some(seed) = seed {
            arguments.extend(["--seed", seed]);
        }
        Node::start(pool, name, &[], &arguments)
    }

    /// Where it listens.
    pub fn listen(&self) -> String {
        let status = self.ask(&["status", "--json"]).ok().json();
        status["listen"][0].as_str().unwrap().to_owned()
    }

    /// Asks it through the program.
    pub fn ask(&self, arguments: &[&str]) -> Said {
        let socket = self.socket.to_str().unwrap();
        wow(&[&["--socket", socket], arguments].concat())
    }

    /// Waits until it has joined; its status then.
    pub fn joined(&self) -> Value {
        let said = self.ask(&["wait", "--timeout", "60s", "--json"]);
        assert_eq!(said.code, 0, "{said:?}\n{}", self.log());
        said.json()
    }

    /// Waits for a condition.
    pub fn until(&mut self, what: &str, mut condition: impl FnMut(&Node) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended with {status} before {what}\n{}", self.log());
            }
            assert!(
                Instant::now() < deadline,
                "no {what} in time\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Ends it by SIGTERM.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "ignores SIGTERM\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// Whether a file is for its owner alone.
pub fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777 == 0o600
}
