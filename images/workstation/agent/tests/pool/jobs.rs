//! Jobs run on workers that nobody listed, and outlive the machines' failures.

use crate::bed::POOL;

#[test]
fn a_pool_assembles_from_tickets_and_runs_jobs_on_all_workers() {
    POOL.assembled();
    // From the login host, which takes no jobs itself.
    POOL.until("login", "getent passwd alice && scontrol ping");
    let hosts = POOL.ok(
        "login",
        "alice",
        "srun -N2 -n2 hostname | sort | paste -sd' '",
    );
    assert_eq!(hosts, "w1 w2");
    let processors = POOL.ok("w1", "root", "nproc");
    let told = POOL.ok("head", "root", "sinfo -h -N -n w1 -o '%c %m'");
    let (cpus, megabytes) = told.split_once(' ').unwrap();
    assert_eq!(cpus, processors);
    assert!(megabytes.parse::<u64>().unwrap() > 100, "{told}");
    assert!(POOL.run("login", "alice", "srun -w login hostname").code != 0);
}

#[test]
fn a_worker_that_loses_power_comes_back_and_its_job_starts_again() {
    POOL.assembled();
    let id = POOL.ok(
        "head",
        "alice",
        "sbatch --parsable -w w1 --requeue -o again.out --wrap 'echo begun >>again; test $(wc -l <again) -gt 1 || sleep 600; echo finished'",
    );
    POOL.until("head", "test -s /home/alice/again");
    POOL.kill("w1");
    POOL.boot("w1");
    // Slurm lets two minutes pass before a job starts again.
    POOL.until(
        "head",
        &format!("scontrol show job {id} | grep -q 'JobState=PENDING\\|Restarts=1'"),
    );
    POOL.until("head", &format!("scontrol update jobid={id} starttime=now; scontrol show job {id} | grep -q JobState=COMPLETED"));
    assert_eq!(POOL.ok("head", "alice", "tail -n1 again.out"), "finished");
    POOL.assembled();
}

#[test]
fn a_head_that_loses_power_keeps_its_queue_and_running_jobs() {
    POOL.assembled();
    let held = POOL.ok("head", "alice", "sbatch --parsable -H --wrap true");
    let running = POOL.ok(
        "head",
        "alice",
        "sbatch --parsable -o kept.out --wrap 'touch started; until test -e goon; do sleep 0.2; done; echo finished'",
    );
    // Slurm writes its state some seconds later.
    POOL.until(
        "head",
        "cd /var/lib/slurm/controller && test -e /home/alice/started && test job_state -nt /home/alice/started && test -s node_state",
    );
    POOL.kill("head");
    POOL.boot("head");
    POOL.until("head", "scontrol ping | grep -q UP");
    let queue = POOL.ok(
        "head",
        "alice",
        "squeue -h -o '%i %t' | sort | paste -sd' '",
    );
    assert!(queue.contains(&format!("{held} PD")), "{queue}");
    POOL.ok("head", "alice", &format!("touch goon; scancel {held}"));
    POOL.until(
        "head",
        &format!("scontrol show job {running} | grep -q JobState=COMPLETED"),
    );
    assert_eq!(POOL.ok("head", "alice", "cat kept.out"), "finished");
    POOL.assembled();
}

#[test]
fn a_worker_that_leaves_is_forgotten_and_one_that_returns_works() {
    POOL.assembled();
    POOL.ok("w2", "root", "kill $(cat /run/agent.pid)");
    POOL.until("head", "! scontrol show node w2");
    POOL.kill("w2");
    POOL.boot("w2");
    POOL.assembled();
    assert_eq!(POOL.ok("login", "alice", "srun -w w2 hostname"), "w2");
}

#[test]
fn a_full_disk_on_the_head_closes_the_queue_until_there_is_room() {
    POOL.assembled();
    let state = "/var/lib/slurm/controller";
    POOL.ok(
        "head",
        "root",
        &format!("mount -t tmpfs -o size=1m,uid=$(id -u slurm) full {state}"),
    );
    POOL.until("head", "wow status | grep -q 'disk of the head is full'");
    let refused = POOL.run("login", "alice", "sbatch --wrap true");
    assert_ne!(refused.code, 0, "{refused:?}");
    POOL.ok("head", "root", &format!("umount -l {state}"));
    POOL.until("head", "! wow status | grep -q trouble");
    assert_eq!(POOL.ok("login", "alice", "srun -w w1 hostname"), "w1");
}
