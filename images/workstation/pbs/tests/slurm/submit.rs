//! qsub: where scripts come from, what their directives mean, and what is refused.

use crate::bed::desk;

#[test]
fn a_script_is_a_file_or_standard_input_or_a_command() {
    let desk = desk("scripts");
    desk.ok("printf '#!/bin/sh\\necho from a file\\n' >job.sh");
    let file = desk.ok("qsub job.sh");
    let input = desk.ok("echo 'echo from input' | qsub");
    let dash = desk.ok("echo 'echo from a dash' | qsub -");
    let command = desk.ok("qsub -N cmd -- /bin/echo 'a  b' \"it's\" -N x");
    let number = |id: &str| id.split('.').next().unwrap().to_owned();
    for (id, name, text) in [
        (&file, "job.sh", "from a file"),
        (&input, "STDIN", "from input"),
        (&dash, "STDIN", "from a dash"),
        (&command, "cmd", "a  b it's -N x"),
    ] {
        desk.finished(id);
        assert_eq!(desk.read(&format!("{name}.o{}", number(id))), text);
        desk.has(
            id,
            &[("Job_Name", name), ("job_state", "F"), ("Exit_status", "0")],
        );
    }
    desk.fails(
        "qsub nothing",
        1,
        "qsub: script file 'nothing' cannot be loaded - No such file or directory",
    );
}

#[test]
fn directives_mean_what_options_mean_and_the_command_line_wins() {
    let desk = desk("directives");
    let id = desk.submit(
        "-N outer -l walltime=120",
        "#!/bin/sh\n# a remark\n#PBS -N inner -h\n#PBS -l nodes=1:ppn=2,walltime=60 # an hour\n#PBS -joe\n##PBS -q none\n\ntrue\n#PBS -q none\n",
    );
    desk.has(
        &id,
        &[
            ("Job_Name", "outer"),
            ("job_state", "H"),
            ("Join_Path", "oe"),
            ("Resource_List.nodes", "1:ppn=2"),
            ("Resource_List.walltime", "00:02:00"),
        ],
    );
    desk.ok(&format!("qdel {id}"));
    let id = desk.submit("-C '#Q' -h", "#Q -N mine\n#PBS -N theirs\ntrue");
    desk.has(&id, &[("Job_Name", "mine")]);
    desk.ok(&format!("qdel {id}"));
}

#[test]
fn wrong_requests_are_refused_in_pbss_words_and_nothing_is_queued() {
    let desk = desk("refusals");
    let no_nodes = "qsub: Job exceeds queue resource limits MSG=cannot locate feasible nodes (nodes file is \
                    empty, all systems are busy, or no nodes have the requested feature)";
    for (options, code, words) in [
        (
            "-q none",
            170,
            "qsub: Unknown queue MSG=requested queue not found",
        ),
        (
            "-q shut",
            173,
            "qsub: Queue is not enabled MSG=queue is disabled: shut",
        ),
        ("-l nodes=3", 188, no_nodes),
        ("-l nodes=1:ppn=5", 188, no_nodes),
        ("-l nodes=1:nosuchfeature", 188, no_nodes),
        ("-l mem=100gb", 188, no_nodes),
        ("-l select=1:ncpus=64", 188, no_nodes),
        ("-l nodes=w9", 214, "qsub: Unknown node"),
        ("-l walltime=soon", 2, "qsub: illegal -l value"),
        ("-l nodes=1:ppn=x", 2, "qsub: illegal -l value"),
        (
            "-l nosuch=1",
            187,
            "qsub: Unknown resource Resource_List.nosuch",
        ),
        ("-j x", 2, "qsub: illegal -j value"),
        ("-N 'a b'", 2, "qsub: illegal -N value"),
        ("-p 5000", 2, "qsub: illegal -p value"),
        ("-a never", 2, "qsub: illegal -a value"),
        ("-t 5-1", 2, "qsub: illegal -t value"),
        (
            "-W depend=afterok:999999",
            206,
            "qsub: Invalid Job Dependency",
        ),
        (
            "-W depend=before:1",
            2,
            "qsub: illegal -W value: depend=before is not supported here",
        ),
        (
            "-W stagein=a@b:c",
            2,
            "qsub: illegal -W value: stagein is not supported here",
        ),
        ("-Y", 2, "qsub: invalid option -- 'Y'"),
    ] {
        desk.fails(
            &format!("echo true >refused; qsub {options} refused"),
            code,
            words,
        );
    }
    desk.fails(
        "qsub refused -N",
        2,
        "qsub: option requires an argument -- 'N'",
    );
    desk.ok("printf '#PBS -l walltime=x\\ntrue\\n' >refused");
    desk.fails("qsub refused", 2, "qsub: illegal -l value");
    desk.ok("printf '#PBS -Z\\ntrue\\n' >refused");
    desk.fails(
        "qsub refused",
        2,
        "qsub: directive error: invalid option -- 'Z'",
    );
    assert_eq!(desk.ok("qselect -N refused"), "");
}

#[test]
fn a_time_beyond_the_queues_is_refused() {
    let desk = desk("queue-limit");
    desk.fails(
        "echo true | qsub -q short -l walltime=1:00:00",
        188,
        "qsub: Job exceeds queue resource limits MSG=cannot satisfy queue max walltime requirement",
    );
    let id = desk.submit("-q short -l walltime=10:00 -h", "true");
    desk.has(
        &id,
        &[("queue", "short"), ("Resource_List.walltime", "00:10:00")],
    );
    desk.ok(&format!("qdel {id}"));
}

#[test]
fn names_accounts_projects_and_priorities_are_kept() {
    let desk = desk("attributes");
    let id = desk.submit(
        "-h -N a+b.c -A acct -P proj -p 7 -q batch@head -r n -m abe -M a@x.test",
        "true",
    );
    desk.has(
        &id,
        &[
            ("Job_Name", "a+b.c"),
            ("Account_Name", "acct"),
            ("project", "proj"),
            ("Priority", "7"),
            ("queue", "batch"),
            ("Rerunable", "False"),
            ("Mail_Points", "abe"),
            ("Mail_Users", "a@x.test"),
            ("Job_Owner", "alice@head"),
        ],
    );
    desk.ok(&format!("qdel {id}"));
}

#[test]
fn dependencies_hold_a_job_and_end_it_when_they_fail() {
    let desk = desk("depend");
    let first = desk.submit("-h", "exit 0");
    let second = desk.submit(&format!("-W depend=afterok:{first}"), "true");
    let third = desk.submit(
        &format!("-W depend=afternotok:{first},afterany:{second}"),
        "true",
    );
    desk.has(
        &second,
        &[("job_state", "H"), ("depend", &format!("afterok:{first}"))],
    );
    desk.ok(&format!("qrls {first}"));
    desk.finished(&second);
    desk.has(&second, &[("Exit_status", "0")]);
    // The first one did not fail, so the third can never run.
    desk.finished(&third);
    desk.has(&third, &[("Exit_status", "271")]);
    let array = desk.submit("-t 1-2 -h", "true");
    let after = desk.submit(&format!("-W depend=afterokarray:{array}"), "true");
    desk.ok(&format!("qrls {array}"));
    desk.finished(&after);
    desk.has(&after, &[("Exit_status", "0")]);
}

#[test]
fn a_job_waits_for_its_time() {
    let desk = desk("later");
    let id = desk.submit("-a 203012312359.30", "true");
    desk.has(
        &id,
        &[
            ("job_state", "W"),
            ("Execution_Time", "Tue Dec 31 23:59:30 2030"),
        ],
    );
    desk.ok(&format!("qdel {id}"));
}

#[test]
fn mail_is_sent_at_the_points_that_were_asked_for() {
    let desk = desk("mail");
    let id = desk.submit("-N mailed -m be -M somebody@pool.test", "true");
    desk.finished(&id);
    desk.until("grep -c 'mailed.*somebody@pool.test' /tmp/mail | grep -qx 2");
    let mail = desk.ok("grep mailed /tmp/mail");
    assert!(mail.contains("Began") && mail.contains("Ended"), "{mail}");
}

#[test]
fn block_waits_and_ends_as_the_job_does() {
    let desk = desk("block");
    let outcome = desk.run("echo 'exit 3' | qsub -W block=true");
    assert_eq!(outcome.code, 3, "{outcome:?}");
    assert!(outcome.output.ends_with(".head"), "{outcome:?}");
    assert_eq!(desk.ok("echo true | qsub -z -h -N silent"), "");
    desk.ok("qdel $(qselect -N silent)");
}

#[test]
fn an_interactive_job_is_a_shell_on_a_node() {
    let desk = desk("interactive");
    desk.fails(
        "qsub -I",
        1,
        "qsub: standard input and output must be a terminal for interactive job submission",
    );
    let said = desk.ok(
        "printf 'echo \"on $(hostname) in $PBS_ENVIRONMENT $(wc -l <$PBS_NODEFILE) $SECRET\"\\nexit\\n' >keys; \
         SECRET=so script -qec 'qsub -I -l nodes=1:ppn=2 -v SECRET' /dev/null <keys",
    );
    assert!(said.contains("qsub: waiting for job "), "{said}");
    assert!(
        said.contains(".head ready") && said.contains(".head completed"),
        "{said}"
    );
    assert!(
        said.contains("on w1 in PBS_INTERACTIVE 2 so")
            || said.contains("on w2 in PBS_INTERACTIVE 2 so"),
        "{said}"
    );
}
