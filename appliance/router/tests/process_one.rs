//! The program as process 1, in namespaces of its own where it touches nothing of the host: boots,
//! runs its node, answers, and ends in order; a refused ticket is said. Skipped, with a message,
//! where user namespaces are forbidden.

mod support;

use std::process::Command;

use support::{Pool, Said, finish};

/// In the namespaces: gives it the configuration, watches it from a second process, becomes it.
const SCRIPT: &str = r#"
    mount -t proc proc /proc && mount -t tmpfs none /etc || exit 9
    printf '%s' "$TOML" > /etc/wow.toml
    # It mounts an empty /tmp, in which this program may lie.
    exec 3<"$0"
    ( rounds=0
      until /proc/self/fd/3 status --json 2>/dev/null; do
          rounds=$((rounds + 1)); [ $rounds -lt $ROUNDS ] || break; sleep 0.1
      done
      kill -TERM 1 ) &
    exec "$0" 3<&-
"#;

fn namespaces(toml: &str, rounds: u32) -> Command {
    let mut command = Command::new("timeout");
    command.args([
        "--kill-after=5",
        "120",
        "unshare",
        "--user",
        "--map-root-user",
    ]);
    command.args([
        "--pid",
        "--fork",
        "--kill-child",
        "--mount",
        "--uts",
        "--net",
    ]);
    command.args(["/bin/sh", "-c"]);
    command.env("TOML", toml).env("ROUNDS", rounds.to_string());
    command
}

fn boot(toml: &str, rounds: u32) -> Option<Said> {
    let probe = finish(namespaces("", 0).arg("mount -t proc proc /proc"));
    if probe.code != 0 {
        eprintln!("skipped: no user namespaces here: {}", probe.err);
        return None;
    }
    let wow = env!("CARGO_BIN_EXE_wow");
    Some(finish(namespaces(toml, rounds).arg(SCRIPT).arg(wow)))
}

#[test]
fn it_boots_runs_its_node_and_ends_the_machine_in_order() {
    let pool = Pool::new(&[]);
    let ticket = std::fs::read_to_string(pool.ticket("n.ticket", &[])).unwrap();
    let ticket = ticket.trim();
    let toml =
        format!("ticket = \"{ticket}\"\nname = \"alpha\"\nnet = \"none\"\nguest = \"none\"\n");
    let Some(said) = boot(&toml, 600) else { return };
    let status = said.json();
    assert_eq!(status["name"], "alpha", "{said:?}");
    assert_eq!(status["pool"], "lab");
    assert_eq!(status["listen"][0], "0.0.0.0:4001");
    for part in ["starting", "leaving the pool", "shutting down"] {
        assert!(said.err.contains(part), "no {part:?} in:\n{}", said.err);
    }
    assert!(!said.err.contains(ticket), "the ticket is never logged");
}

#[test]
fn a_refused_ticket_is_said_on_the_console_with_its_place() {
    let pool = Pool::new(&[]);
    let ticket = std::fs::read_to_string(pool.ticket("n.ticket", &[])).unwrap();
    let cut = &ticket.trim()[..40];
    let toml = format!("ticket = \"{cut}\"\nnet = \"none\"\n");
    // No node will answer; long enough for the first refusal, however slow the machine.
    let Some(said) = boot(&toml, 80) else { return };
    for part in [
        "/etc/wow.toml, line 1",
        "refused",
        "cut off",
        "shutting down",
    ] {
        assert!(said.err.contains(part), "no {part:?} in:\n{}", said.err);
    }
}
