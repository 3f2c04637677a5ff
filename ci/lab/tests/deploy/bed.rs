//! Hosts out of namespaces, each with a real OpenSSH server; gone with this value and with this process.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::path;

/// Waiting ends well before this, unless something is broken.
const LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);

/// See the module.
pub struct Bed {
    hosts: Vec<String>,
    directory: tempfile::TempDir,
    secrets: tempfile::TempDir,
    /// Its process 1 as seen from here. It ends when its standard input does, which is with us.
    pid: u32,
    orders: (ChildStdin, BufReader<ChildStdout>),
    unshare: Child,
}

impl Bed {
    /// Boots hosts; `bed.sh` tells what their names mean.
    pub fn start(hosts: &[&str]) -> Self {
        let (directory, secrets) = (tempfile::tempdir().unwrap(), secrets());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deploy/bed.sh");
        let flags = [
            "--mount",
            "--net",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
        ];
        let log = std::fs::File::create(secrets.path().join("bed.log")).unwrap();
        let mut unshare = Command::new("unshare")
            .args(flags)
            .args(["--mount-proc", "sh"])
            .arg(script)
            .arg(directory.path())
            .arg(path("WOW_TEST_HOST"))
            .arg(path("WOW_TEST_WOW"))
            .arg(secrets.path())
            .arg(control_group())
            .args(hosts)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdin = unshare.stdin.take().unwrap();
        let mut stdout = BufReader::new(unshare.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let pid = std::fs::read_to_string(children).unwrap_or_default();
        let said = std::fs::read_to_string(secrets.path().join("bed.log")).unwrap();
        assert_eq!(first, "ready\n", "the hosts cannot be made: {said}");
        let bed = Self {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            pid: pid.trim().parse().unwrap(),
            directory,
            secrets,
            orders: (stdin, stdout),
            unshare,
        };
        for host in hosts {
            bed.listens(host);
        }
        bed
    }

    /// Waits until something listens on a host's port for logins.
    fn listens(&self, host: &str) {
        let port = if host.starts_with("root") {
            "08AE"
        } else {
            "0016"
        };
        self.until(
            host,
            &format!("grep -q ':{port} 00000000:0000 0A' /proc/net/tcp"),
        );
    }

    /// Boots, kills or heals a host.
    pub fn order(&mut self, verb: &str, host: &str) {
        writeln!(self.orders.0, "{verb} {host}").unwrap();
        let mut said = String::new();
        self.orders.1.read_line(&mut said).unwrap();
        assert_eq!(said, "done\n", "{verb} {host}");
        if verb != "kill" {
            self.listens(host);
        }
    }

    /// The hosts' lines for the list.
    pub fn list(&self) -> String {
        let mut list = String::from("# The dozen.\n");
        for (index, host) in self.hosts.iter().enumerate() {
            let address = format!("192.0.2.{}", 11 + index);
            list += &match host.trim_end_matches(char::is_numeric) {
                "root" => format!("root@{address}:2222\n"),
                "unit" => format!("root@{address}\n"),
                _ => format!("{address}  # {host}\n"),
            };
        }
        list
    }

    /// A file beside the tickets: known_hosts, the ticket.
    pub fn secret(&self, name: &str) -> PathBuf {
        self.secrets.path().join(name)
    }

    /// Runs `xtask deploy` as a person on the internet would, with more patience; its JSON.
    pub fn deploy(&self, more: &[&str]) -> Value {
        let list = self.secret("hosts");
        std::fs::write(&list, self.list()).unwrap();
        let output = Command::new("nsenter")
            .args(["--target", &self.pid.to_string()])
            .args(["--net", "--mount", "--pid", "--"])
            .arg(path("WOW_TEST_XTASK"))
            .args(["deploy", "--json", "--user", "slice", "--hosts"])
            .arg(list)
            .arg("--ssh-config")
            .arg(self.secret("ssh_config"))
            .args(["--connect-timeout", "60", "--timeout", "600"])
            .args(more)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        println!("--- deploy {}\n{error}", more.join(" "));
        let all: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("no JSON from deploy: {output:?}"));
        assert_eq!(output.status.success(), all["bad"] == 0, "{all:#}");
        all
    }

    /// Runs shell text on a host as root.
    pub fn run(&self, host: &str, text: &str) -> Output {
        let inside = r#"pid=$(cat "$1.pid") || exit 99; shift; exec nsenter --target "$pid" --all --root --wd "$@""#;
        Command::new("nsenter")
            .args(["--target", &self.pid.to_string()])
            .args(["--all", "--root", "--wd", "--", "sh", "-c", inside, "sh"])
            .arg(self.directory.path().join(host))
            .args([
                "--",
                "env",
                "-i",
                "PATH=/usr/bin:/bin:/usr/sbin:/sbin",
                "sh",
                "-c",
                text,
            ])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What shell text that must succeed prints.
    pub fn ok(&self, host: &str, text: &str) -> String {
        let output = self.run(host, text);
        assert!(output.status.success(), "{text} on {host}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Waits until shell text succeeds.
    pub fn until(&self, host: &str, text: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let output = self.run(host, text);
            if output.status.success() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "waited on {host} for {text}: {output:?}"
            );
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // Process 1 of the bed is killed with it, and by that all there is in it.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        remove_control_group();
    }
}

/// The group of hosts that run systemd.
fn control_group() -> String {
    format!("wow-deploy-{}", std::process::id())
}

/// Groups outlive their processes.
fn remove_control_group() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut mounts = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let found = mounts.find(|words| words.get(2) == Some(&"cgroup2"));
    let Some(group) = found.map(|words| Path::new(words[1]).join(control_group())) else {
        return;
    };
    let deadline = Instant::now() + LIMIT;
    while group.exists() && Instant::now() < deadline {
        // The deepest first. One whose last process just ends is busy for a moment.
        let _ = Command::new("find")
            .arg(&group)
            .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
            .stderr(Stdio::null())
            .status();
        std::thread::sleep(POLL);
    }
}

/// A pool whose seed the bed runs, a ticket, a key to log in with, and ssh's configuration.
fn secrets() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let seeds = ["192.0.2.1:4001".to_owned()];
    wow_lab::pool::create(&path("WOW_TEST_WOW"), here, "lab", &seeds).unwrap();
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(here.join("login"))
        .status()
        .unwrap();
    assert!(made.success());
    let config = format!(
        "IdentityFile {0}/login\nIdentitiesOnly yes\nUserKnownHostsFile {0}/known_hosts\nGlobalKnownHostsFile none\n",
        here.display()
    );
    std::fs::write(here.join("ssh_config"), config).unwrap();
    directory
}
