//! Who gets the pool's secrets: root of machines that are certified for a role of a workstation.

use crate::bed::POOL;

/// Asks the head's service as the agent does: from which port, and as which host.
fn ask(machine: &str, user: &str, port: u16) -> String {
    let head = POOL.ok(
        "head",
        "root",
        "wow status --json | sed -n 's/.*\"v6\": \"\\(.*\\)\".*/\\1/p'",
    );
    let boot = POOL
        .run(machine, "root", "cat /run/wow-workstation/boot")
        .output;
    let text = format!(
        r#"perl -MIO::Socket::IP -e '$s = IO::Socket::IP->new(PeerAddr => "{head}", PeerPort => 816, LocalAddr => "::", LocalPort => {port}, Timeout => 20) or die "connect: $@"; print $s "{{\"host\":\"{machine}\",\"kind\":\"member\",\"boot\":\"{boot}\"}}\n"; print while <$s>' 2>&1"#
    );
    POOL.run(machine, user, &text).output
}

#[test]
fn the_key_is_for_root_of_certified_workstations_only() {
    POOL.assembled();
    let told = ask("w1", "root", 700);
    assert!(
        told.contains("slurm_key"),
        "the question itself works: {told}"
    );
    let router = ask("r", "root", 700);
    assert!(router.contains("no role of a workstation"), "{router}");
    assert!(!router.contains("slurm_key"));
    let user = ask("w1", "alice", 7000);
    assert!(!user.contains("slurm_key"), "{user}");
    // The head's own users are none of its members either.
    let own = ask("head", "alice", 7000);
    assert!(!own.contains("slurm_key"), "{own}");
    for machine in ["head", "w1", "login"] {
        let mode = POOL.ok(machine, "root", "stat -c '%a %U:%G' /etc/slurm/slurm.key");
        assert_eq!(mode, "600 slurm:slurm", "{machine}");
    }
    let same = |machine: &str| POOL.ok(machine, "root", "sha256sum </etc/slurm/slurm.key");
    assert_eq!(same("head"), same("w1"));
}

#[test]
fn a_role_outside_the_ticket_is_refused_where_users_look() {
    POOL.until("r", "wow status | grep -q 'the role head is refused'");
    POOL.until(
        "r",
        "grep -q 'does not allow the role head' /var/log/agent.log",
    );
    assert_ne!(
        POOL.run("r", "root", "test -e /etc/slurm/slurm.key").code,
        0
    );
    // The head's ticket would have made a worker too.
    let roles = POOL.ok("head", "root", "wow status --json | grep '\"roles\"'");
    assert!(roles.contains("\"head\""), "{roles}");
}

#[test]
fn a_member_without_a_head_says_so_until_it_is_back() {
    POOL.assembled();
    POOL.kill("head");
    POOL.until("w1", "wow status | grep -q 'head'");
    POOL.until("w1", "wow status | grep -q 'does not answer\\|no head'");
    POOL.boot("head");
    POOL.until("w1", "! wow status | grep -q trouble");
    POOL.assembled();
}
