//! What a job finds around it: interpreter, directory, environment, PBS's variables.

use crate::bed::desk;

#[test]
fn a_script_has_its_own_interpreter() {
    let desk = desk("interpreter");
    let perl = "#!/usr/bin/perl -w\n#PBS -V\nprint join(' ', map { $_ * 2 } 1 .. 3), \"\\n\"; print \"$ENV{PBS_QUEUE}\\n\";";
    assert_eq!(desk.result("", perl), "2 4 6\nbatch");
    // Without a first line it is the user's shell; arrays are bash's.
    assert_eq!(desk.result("", "a=(x y z); echo ${a[2]}"), "z");
    assert_eq!(
        desk.result(
            "-S /bin/sh",
            "#!/usr/bin/perl\necho by $(readlink /proc/$$/exe)"
        ),
        "by /usr/bin/dash"
    );
    assert_eq!(
        desk.result(
            "-S /bin/sh@elsewhere,/bin/bash",
            "echo ${BASH_VERSION:+bash}"
        ),
        "bash"
    );
}

#[test]
fn a_script_is_not_changed_on_its_way() {
    let desk = desk("bytes");
    // Bytes beyond ASCII, quotes, a here-document, no newline at the end.
    desk.ok(r#"printf '#!/bin/sh\ncat <<END\n$HOME \351 Eé \\ `echo \047x\047`\nEND\nprintf last' >odd.sh"#);
    desk.ok("HOME=/h sh odd.sh >expected");
    let id = desk.ok("qsub -v HOME=/h -j oe -o got odd.sh");
    desk.finished(&id);
    desk.ok("cmp expected got");
}

#[test]
fn a_script_gets_arguments_and_its_status_is_the_jobs() {
    let desk = desk("arguments");
    let id = desk.submit(
        "-F \"one 'two three'\" -j oe -o got",
        "echo \"$#: $2\"; exit 42",
    );
    desk.finished(&id);
    assert_eq!(desk.read("got"), "2: two three");
    desk.has(&id, &[("Exit_status", "42")]);
}

#[test]
fn a_job_starts_at_home_or_where_it_was_said() {
    let desk = desk("directory");
    assert_eq!(
        desk.result("", "pwd; echo $PBS_O_WORKDIR"),
        format!("/home/alice\n{}", desk.directory())
    );
    assert_eq!(desk.result("-d /usr", "pwd"), "/usr");
    assert_eq!(desk.result("-w /usr/bin", "pwd"), "/usr/bin");
    assert_eq!(desk.result("-W umask=027", "umask"), "0027");
}

#[test]
fn variables_arrive_as_they_are() {
    let desk = desk("variables");
    let look = "printf '%s|' \"$A\" \"$B\" \"$C\" \"$D\"";
    let options = r#"-v 'A=two
lines,B="x,y",C={"k":1},D'"#;
    desk.ok("true");
    let id = desk.ok(&format!(
        "D='from here' qsub {options} -j oe -o got <<'END'\n{look}\nEND"
    ));
    desk.finished(&id);
    assert_eq!(desk.read("got"), "two\nlines|x,y|{\"k\":1}|from here|");
}

#[test]
fn the_environment_is_handed_on_only_if_asked_for() {
    let desk = desk("environment");
    let look = "echo \"${MINE-none} $PATH\"; env | grep -c '^SLURM_EXPORT_ENV'; true";
    let with = |options: &str| {
        let id = desk.ok(&format!(
            "MINE='a\nb' PATH=$PATH:/mine qsub {options} -j oe -o got <<'END'\n{look}\nEND"
        ));
        desk.finished(&id);
        desk.read("got")
    };
    assert_eq!(
        with("-V"),
        "a\nb /usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/mine\n0"
    );
    let without = with("");
    assert!(
        without.starts_with("none ") && !without.contains("/mine"),
        "{without}"
    );
    // Without -V a job has what a login has.
    desk.ok("echo 'export FROM_PROFILE=yes' >>/home/alice/.bash_profile");
    assert_eq!(desk.result("", "echo $FROM_PROFILE"), "yes");
}

#[test]
fn pbss_variables_are_there() {
    let desk = desk("pbs-variables");
    let look = "for name in PBS_JOBID PBS_JOBNAME PBS_QUEUE PBS_ENVIRONMENT PBS_SERVER PBS_O_WORKDIR PBS_O_HOST \
                PBS_O_HOME PBS_O_LOGNAME PBS_O_SHELL PBS_O_QUEUE PBS_O_SYSTEM PBS_NODENUM PBS_TASKNUM \
                PBS_WALLTIME PBS_NUM_NODES PBS_NUM_PPN PBS_NP NCPUS OMP_NUM_THREADS; do \
                eval echo $name=\\$$name; done; ls -ld $TMPDIR | cut -c 1-10";
    let id = desk.submit("-N vars -l walltime=60,nodes=1:ppn=2 -j oe -o got", look);
    desk.finished(&id);
    let expected = format!(
        "PBS_JOBID={id}\nPBS_JOBNAME=vars\nPBS_QUEUE=batch\nPBS_ENVIRONMENT=PBS_BATCH\nPBS_SERVER=head\n\
         PBS_O_WORKDIR={}\nPBS_O_HOST=head\nPBS_O_HOME=/home/alice\nPBS_O_LOGNAME=alice\nPBS_O_SHELL=/bin/bash\n\
         PBS_O_QUEUE=batch\nPBS_O_SYSTEM=Linux\nPBS_NODENUM=0\nPBS_TASKNUM=1\nPBS_WALLTIME=60\nPBS_NUM_NODES=1\n\
         PBS_NUM_PPN=2\nPBS_NP=2\nNCPUS=2\nOMP_NUM_THREADS=1\ndrwx------",
        desk.directory()
    );
    assert_eq!(desk.read("got"), expected);
}

#[test]
fn a_job_can_submit_jobs() {
    let desk = desk("nested");
    let inner = desk.result(
        "-l nodes=1:ppn=2 -v LEAK=1",
        "echo 'echo ${LEAK-none} $PBS_NP' | qsub -V -v LEAK=2 -j oe -o nested/inner",
    );
    desk.finished(&inner);
    assert_eq!(desk.read("inner"), "2 1");
}
