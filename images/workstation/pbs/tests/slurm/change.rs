//! qdel, qhold, qrls, qalter, qsig, qmove and qrerun.

use crate::bed::{desk, desk_alone};

#[test]
fn qdel_ends_jobs() {
    let desk = desk("qdel");
    let waiting = desk.submit("-h", "true");
    let running = desk.submit("", "sleep 300");
    desk.state(&running, 'R');
    desk.ok(&format!("qdel {waiting} {running}"));
    desk.finished(&running);
    desk.has(&running, &[("Exit_status", "271")]);
    desk.fails(
        &format!("qdel {running}"),
        35,
        &format!("qdel: Job has finished {running}"),
    );
    desk.fails("qdel 99999", 153, "qdel: Unknown Job Id 99999.head");
    desk.fails("qdel", 2, "qdel: no job identifier was given");
}

#[test]
fn qdel_ends_elements_of_arrays_alone() {
    let desk = desk("qdel-array");
    let id = desk.submit("-h -t 1-6", "true");
    let n = id.trim_end_matches("[].head").to_owned();
    let left = || {
        desk.ok(&format!(
            "squeue -h -r -o %K -j {n} | sort -n | paste -sd' '"
        ))
    };
    desk.ok(&format!("qdel '{n}[2].head'"));
    assert_eq!(left(), "1 3 4 5 6");
    desk.ok(&format!("qdel '{n}[3-4]'"));
    assert_eq!(left(), "1 5 6");
    desk.ok(&format!("qdel -t 6 {n}"));
    assert_eq!(left(), "1 5");
    desk.fails(
        &format!("qdel '{n}[9].head'"),
        153,
        &format!("qdel: Unknown Job Id {n}[9].head"),
    );
    desk.ok(&format!("qdel '{id}'"));
    assert_eq!(left(), "");
}

#[test]
fn qdel_all_ends_ones_own_jobs() {
    let alice = desk_alone("qdel-all");
    let bob = alice.other("bob");
    let of_alice = alice.submit("-h", "true");
    let of_bob = bob.submit("-h", "true");
    bob.ok("qdel all");
    bob.finished(&of_bob);
    alice.has(&of_alice, &[("job_state", "H")]);
    alice.ok(&format!("qdel {of_alice}"));
}

#[test]
fn other_peoples_jobs_are_left_alone() {
    let alice = desk("strangers");
    let bob = alice.other("bob");
    let id = alice.submit("-h", "true");
    for command in ["qdel", "qhold", "qrls", "qalter -N x", "qmove short"] {
        let name = command.split(' ').next().unwrap();
        bob.fails(
            &format!("{command} {id}"),
            159,
            &format!("{name}: Unauthorized Request {id}"),
        );
    }
    alice.has(
        &id,
        &[
            ("job_state", "H"),
            ("queue", "batch"),
            ("Job_Name", "STDIN"),
        ],
    );
    let running = alice.submit("", "sleep 300");
    alice.state(&running, 'R');
    bob.fails(
        &format!("qsig -s USR1 {running}"),
        159,
        &format!("qsig: Unauthorized Request {running}"),
    );
    alice.ok(&format!("qdel {id} {running}"));
}

#[test]
fn qhold_and_qrls_hold_and_release() {
    let desk = desk("hold");
    let id = desk.submit("-q closed", "true");
    desk.state(&id, 'Q');
    desk.ok(&format!("qhold {id}"));
    desk.has(&id, &[("job_state", "H"), ("Hold_Types", "u")]);
    desk.ok(&format!("qrls {id}"));
    desk.has(&id, &[("job_state", "Q"), ("Hold_Types", "n")]);
    desk.fails(
        &format!("qhold -h s {id}"),
        159,
        &format!("qhold: Unauthorized Request {id}"),
    );
    desk.fails(&format!("qhold -h z {id}"), 2, "qhold: illegal -h value");
    let root = desk.other("root");
    root.ok(&format!("qhold -h s {id}"));
    desk.fails(
        &format!("qrls {id}"),
        159,
        &format!("qrls: Unauthorized Request {id}"),
    );
    root.ok(&format!("qrls -h s {id}"));
    desk.has(&id, &[("job_state", "Q")]);
    desk.ok(&format!("qdel {id}"));
    desk.fails("qhold 99999", 153, "qhold: Unknown Job Id 99999.head");
    desk.fails("qrls 99999", 153, "qrls: Unknown Job Id 99999.head");
}

#[test]
fn qalter_changes_what_waits() {
    let desk = desk("qalter");
    let id = desk.submit(
        "-h -N before -l walltime=2:00:00,nodes=1:ppn=2",
        "cat $PBS_NODEFILE | wc -l",
    );
    desk.ok(&format!(
        "qalter -N after -p -5 -r n -m e -M x@y.test -l walltime=1:00:00,nodes=2:ppn=2 {id}"
    ));
    desk.has(
        &id,
        &[
            ("Job_Name", "after"),
            ("Priority", "-5"),
            ("Rerunable", "False"),
            ("Mail_Points", "e"),
            ("Mail_Users", "x@y.test"),
            ("Resource_List.walltime", "01:00:00"),
            ("Resource_List.nodes", "2:ppn=2"),
            ("Resource_List.nodect", "2"),
        ],
    );
    desk.ok(&format!("qalter -a 203012312359 -h n {id}"));
    desk.has(&id, &[("job_state", "W")]);
    let other = desk.submit("-h", "true");
    desk.ok(&format!("qalter -W depend=afterany:{other} {id}"));
    desk.has(&id, &[("depend", &format!("afterany:{other}"))]);
    desk.ok(&format!("qdel {id} {other}"));
    let id = desk.submit("-h -N named", "echo out");
    desk.ok(&format!("qalter -N renamed -e elsewhere {id}; qrls {id}"));
    desk.finished(&id);
    assert_eq!(
        desk.read(&format!("renamed.o{}", id.trim_end_matches(".head"))),
        "out"
    );
    assert_eq!(desk.read("elsewhere"), "");
}

#[test]
fn qalter_refuses_what_cannot_be_changed() {
    let desk = desk("qalter-refused");
    let id = desk.submit("-l walltime=1:00:00", "sleep 300");
    desk.state(&id, 'R');
    for options in ["-o elsewhere", "-l nodes=2"] {
        desk.fails(
            &format!("qalter {options} {id}"),
            167,
            &format!("qalter: Cannot modify attribute while job running {id}"),
        );
    }
    // Only an administrator gives more time, anybody less.
    desk.fails(
        &format!("qalter -l walltime=2:00:00 {id}"),
        159,
        &format!("qalter: Unauthorized Request {id}"),
    );
    desk.ok(&format!("qalter -l walltime=30:00 {id}"));
    desk.has(&id, &[("Resource_List.walltime", "00:30:00")]);
    desk.fails(
        &format!("qalter -l walltime=x {id}"),
        2,
        "qalter: illegal -l value",
    );
    desk.fails(
        &format!("qalter -A other {id}"),
        2,
        "qalter: -A cannot be changed here; delete the job and submit it again",
    );
    desk.fails(
        "qalter -N x 99999",
        153,
        "qalter: Unknown Job Id 99999.head",
    );
    desk.ok(&format!("qdel {id}"));
    desk.finished(&id);
    desk.fails(
        &format!("qalter -N x {id}"),
        35,
        &format!("qalter: Job has finished {id}"),
    );
}

#[test]
fn qsig_reaches_the_script_and_what_it_runs() {
    let desk = desk("qsig");
    let id = desk.submit(
        "-j oe -o got",
        "#!/bin/sh\ntrap 'echo script' USR1\nperl -e '$SIG{USR1} = sub { print \"child\\n\"; exit }; open(F, \">qsig/up\"); sleep 300'\necho end",
    );
    desk.until("test -e up");
    desk.ok(&format!("qsig -s SIGUSR1 {id}"));
    desk.finished(&id);
    assert_eq!(desk.read("got"), "child\nscript\nend");
    desk.has(&id, &[("Exit_status", "0")]);
    desk.fails(
        &format!("qsig -s NONE {id}"),
        165,
        "qsig: Unknown/illegal signal name NONE",
    );
    desk.fails(
        &format!("qsig {id}"),
        35,
        &format!("qsig: Job has finished {id}"),
    );
    let held = desk.submit("-h", "true");
    desk.fails(
        &format!("qsig -s TERM {held}"),
        168,
        &format!("qsig: Request invalid for state of job {held}"),
    );
    desk.ok(&format!("qdel {held}"));
}

#[test]
fn qsig_suspends_and_resumes() {
    let desk = desk("suspend");
    let root = desk.other("root");
    let id = desk.submit("", "sleep 300");
    desk.state(&id, 'R');
    desk.fails(
        &format!("qsig -s suspend {id}"),
        159,
        &format!("qsig: Unauthorized Request {id}"),
    );
    root.ok(&format!("qsig -s suspend {id}"));
    desk.state(&id, 'S');
    root.ok(&format!("qsig -s resume {id}"));
    desk.state(&id, 'R');
    desk.ok(&format!("qdel {id}"));
}

#[test]
fn qmove_moves_what_waits() {
    let desk = desk("qmove");
    let id = desk.submit("-h -l walltime=60", "true");
    desk.ok(&format!("qmove short {id}"));
    desk.has(&id, &[("queue", "short")]);
    desk.fails(
        &format!("qmove none {id}"),
        170,
        "qmove: Unknown queue MSG=requested queue not found",
    );
    // Slurm refuses about every other of these for no reason.
    for queue in ["batch", "short"].repeat(8) {
        desk.ok(&format!("qmove {queue} {id}"));
    }
    desk.has(&id, &[("queue", "short")]);
    desk.ok(&format!("qdel {id}"));
}

#[test]
fn qrerun_starts_again_what_may() {
    let desk = desk("qrerun");
    let again = desk.submit(
        "-j oe -o got",
        "echo run $SLURM_RESTART_COUNT; test -n \"$SLURM_RESTART_COUNT\" || sleep 300",
    );
    let once = desk.submit("-r n", "sleep 300");
    desk.state(&again, 'R');
    desk.state(&once, 'R');
    desk.fails(
        &format!("qrerun {once}"),
        190,
        &format!("qrerun: job is not rerunnable {once}"),
    );
    desk.ok(&format!("qdel {once}"));
    desk.other("root").ok(&format!("qrerun {again}"));
    // Slurm lets two minutes pass before it starts again, unless somebody asks.
    desk.until(&format!("qstat -f {again} | grep -q 'job_state = [QWR]'"));
    desk.has(&again, &[("Rerunable", "True")]);
    desk.ok(&format!("qdel {again}"));
}

#[test]
fn higher_priority_goes_first() {
    let desk = desk_alone("priority");
    let all = desk.submit("-l select=2:ncpus=4 -l place=scatter", "sleep 300");
    desk.state(&all, 'R');
    let submit = |options: &str| {
        desk.submit(
            &format!("{options} -l select=2:ncpus=4 -l place=scatter -j oe -o /dev/null"),
            "date +%s%N >>$PBS_O_WORKDIR/order; echo $PBS_JOBID >>$PBS_O_WORKDIR/order",
        )
    };
    let low = submit("-p -10");
    let first = submit("");
    let high = submit("-p 10");
    desk.ok(&format!("qdel {all}"));
    desk.finished(&low);
    assert_eq!(
        desk.ok("grep head order"),
        format!("{high}\n{first}\n{low}")
    );
}
