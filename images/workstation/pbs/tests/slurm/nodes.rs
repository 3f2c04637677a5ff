//! pbsnodes.

use crate::bed::{desk, desk_alone};

#[test]
fn pbsnodes_shows_nodes_and_their_jobs() {
    let desk = desk("nodes-shown");
    let id = desk.submit("-l nodes=w1:ppn=2", "sleep 300");
    desk.state(&id, 'R');
    let text = desk.ok("pbsnodes -a");
    let (w1, w2) = text.split_once("\n\nw2\n").unwrap();
    assert!(w1.starts_with("w1\n"), "{text}");
    for line in [
        "     np = 4",
        "     ntype = PBS",
        "     resources_available.ncpus = 4",
        "     resources_available.mem = 4096000kb",
    ] {
        assert!(
            w1.lines().any(|it| it == line) && w2.lines().any(|it| it == line),
            "{line}: {text}"
        );
    }
    assert!(w1.contains(&format!("{id}/")), "{text}");
    assert!(desk.ok("pbsnodes w2").starts_with("w2\n"));
    let wrong = desk.run("pbsnodes w9");
    assert_eq!(
        (wrong.code, &*wrong.error),
        (1, "Node: w9,  Error: Unknown node")
    );
    desk.ok(&format!("qdel {id}"));
}

#[test]
fn pbsnodes_takes_nodes_offline_and_back() {
    let desk = desk_alone("offline");
    let root = desk.other("root");
    let denied = desk.run("pbsnodes -o w2");
    assert_eq!(
        (denied.code, &*denied.error),
        (159, "Node: w2,  Error: Unauthorized Request")
    );
    assert_eq!(desk.ok("pbsnodes -l"), "");
    root.ok("pbsnodes -o -N 'to be repaired' w2");
    assert_eq!(
        desk.ok("pbsnodes -l"),
        format!("{:<20} {:<22} to be repaired", "w2", "offline")
    );
    assert_eq!(desk.ok("pbsnodes -l free"), format!("{:<20} free", "w1"));
    let waits = desk.submit("-l nodes=w2", "true");
    desk.until(&format!("qstat -f {waits} | grep -q 'job_state = Q'"));
    root.ok("pbsnodes -c w2");
    desk.finished(&waits);
    root.ok("pbsnodes -o w1 w2");
    assert_eq!(desk.ok("pbsnodes -l | wc -l"), "2");
    root.ok("pbsnodes -r w1 w2");
    // Slurm asks a node first whether it is there.
    desk.until("test -z \"$(pbsnodes -l)\"");
}
