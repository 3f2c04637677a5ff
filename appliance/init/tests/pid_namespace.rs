//! Process 1 for real, in PID, mount, network and user namespaces of its own: no privileges, nothing of
//! the host is touched, and the kernel ends whatever is left. Skipped, with a message, where user
//! namespaces are forbidden.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Far above what it takes; only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(120);

fn example() -> PathBuf {
    let mut path = std::env::current_exe().expect("a running test has a path");
    path.pop();
    path.pop();
    // `cargo test` builds examples along, unless it is told to build one test alone.
    let path = path.join("examples/pid1");
    assert!(
        path.exists(),
        "no {}: run `cargo build -p wow-init --examples`",
        path.display()
    );
    path
}

fn namespaces() -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount",
    ]);
    command.args(["--uts", "--net", "/bin/sh", "-c"]);
    command
}

fn can_unshare() -> bool {
    let made = namespaces().arg("mount -t proc proc /proc").output();
    let reason = match made {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("skipped: no user namespaces for this user here: {reason}");
    false
}

/// Runs the example as process 1 with this /etc/wow.toml until it ends; returns what it wrote.
fn run(toml: &str) -> String {
    let script = format!(
        "mount -t proc proc /proc && mount -t tmpfs none /etc && \
         printf '%s' '{toml}' > /etc/wow.toml && exec \"$0\""
    );
    let mut child = namespaces()
        .arg(script)
        .arg(example())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare was there a moment ago");
    let mut console = child.stderr.take().expect("it is piped");
    let (done, text) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        // It ends when process 1 does, since all others end with it.
        let _ = console.read_to_string(&mut text);
        let _ = done.send(text);
    });
    let text = text.recv_timeout(LIMIT);
    let _ = child.kill();
    let _ = child.wait();
    text.expect("process 1 ended in time")
}

fn expect(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn it_boots_and_ends_the_machine_in_order() {
    if !can_unshare() {
        return;
    }
    let text = run("name = \"alpha\"\nlog = \"poweroff\"\nnet = \"none\"\nnmae = \"x\"\n");
    expect(
        &text,
        &[
            "step=\"console\"",
            "step=\"mounts\"",
            "step=\"entropy\"",
            "step=\"clock\"",
            "/etc/wow.toml, line 4, `nmae`: unknown key",
            "alpha step=\"hostname\"",
            "step=\"links\"",
            "shutting down: power off",
        ],
    );
    assert!(
        !text.contains("killing them"),
        "nothing ran but process 1:\n{text}"
    );
}

#[test]
fn it_reaps_orphans_and_leaves_its_own_children_alone() {
    if !can_unshare() {
        return;
    }
    let text = run("log = \"orphans\"\nnet = \"none\"\n");
    expect(&text, &["parent Some(0), kept Some(7), orphans 3, left 0"]);
}

#[test]
fn a_panic_is_said_and_restarts_it() {
    if !can_unshare() {
        return;
    }
    let text = run("log = \"panic\"\nnet = \"none\"\n");
    expect(
        &text,
        &["wow cannot go on", "as asked", "restarts in 3 seconds"],
    );
}
