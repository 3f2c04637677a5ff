//! SSH between any two members, without prompts and without known hosts.

use crate::bed::POOL;

const MEMBERS: [&str; 4] = ["head", "w1", "w2", "login"];

#[test]
fn members_reach_each_other_by_ssh_without_prompts() {
    POOL.assembled();
    for machine in MEMBERS {
        POOL.until(
            machine,
            "getent passwd alice && getent hosts w1 w2 login head",
        );
    }
    for from in MEMBERS {
        for to in MEMBERS {
            // The other may still be about to learn of this one.
            let ssh = format!(
                "setpriv --reset-env --init-groups --reuid alice --regid alice ssh -o BatchMode=yes {to} true"
            );
            POOL.until(from, &ssh);
        }
    }
    let address = POOL.ok(
        "w1",
        "root",
        "getent ahostsv4 w2 | head -n1 | cut -d' ' -f1",
    );
    for name in ["w2", "w2.lab.wow", &address] {
        let text = format!("ssh -o BatchMode=yes {name} 'hostname; id -un'");
        assert_eq!(POOL.ok("w1", "alice", &text), "w2\nalice", "{name}");
    }
    assert_ne!(POOL.run("w1", "alice", "test -e .ssh/known_hosts").code, 0);
    // Not for root, and not for what is no member: r has no certificate.
    assert_ne!(
        POOL.run("w1", "root", "ssh -o BatchMode=yes w2 true").code,
        0
    );
}

#[test]
fn users_of_the_head_come_and_go_everywhere() {
    POOL.assembled();
    POOL.ok(
        "head",
        "root",
        "groupadd -g 2000 team; useradd -u 1007 -M -G team carol",
    );
    for machine in ["w1", "login"] {
        POOL.until(machine, "test \"$(id carol)\" = 'uid=1007(carol) gid=1007(carol) groups=1007(carol),2000(team)'");
    }
    POOL.ok("head", "root", "userdel carol");
    for machine in ["w1", "login"] {
        POOL.until(machine, "! getent passwd carol");
    }
}
