//! qstat and qselect.

use crate::bed::{Desk, desk};

/// A held job, a running one with two processors on each node, and an array of which nothing has started.
fn three(desk: &Desk, name: &str) -> [String; 3] {
    let held = desk.submit(
        &format!("-h -N {name}-held -l walltime=1:00:00,nodes=2:ppn=2,mem=2gb"),
        "true",
    );
    let running = desk.submit(&format!("-N {name}-runs -l nodes=2"), "sleep 300");
    let array = desk.submit(&format!("-h -N {name}-arr -J 1-3"), "true");
    desk.state(&running, 'R');
    [held, running, array]
}

fn delete(desk: &Desk, ids: &[String]) {
    desk.ok(&format!("qdel '{}'", ids.join("' '")));
}

#[test]
fn the_plain_table() {
    let desk = desk("plain");
    let ids = three(&desk, "plain");
    let [held, running, array] = &ids;
    let table = desk.ok(&format!("qstat '{}'", ids.join("' '")));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0],
        "Job id            Name             User              Time Use S Queue"
    );
    assert_eq!(
        lines[1],
        "----------------  ---------------- ----------------  -------- - -----"
    );
    assert_eq!(
        lines[2],
        format!(
            "{held:<17} {:<16} {:<16}  {:>8} H batch",
            "plain-held", "alice", "0"
        )
    );
    assert!(
        lines[3].starts_with(running) && lines[3].contains(" R batch"),
        "{table}"
    );
    assert_eq!(
        lines[4],
        format!(
            "{array:<17} {:<16} {:<16}  {:>8} H batch",
            "plain-arr", "alice", "0"
        )
    );
    let all = desk.ok("qstat");
    assert!(ids.iter().all(|id| all.contains(id.as_str())), "{all}");
    delete(&desk, &ids);
}

#[test]
fn the_other_table_and_its_options() {
    let desk = desk("other-table");
    let ids = three(&desk, "other");
    let [held, running, array] = &ids;
    let table = desk.ok(&format!("qstat -a {held}"));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[1], "head: ");
    assert_eq!(
        &lines[2..5],
        [
            "                                                            Req'd  Req'd   Elap",
            "Job ID          Username Queue    Jobname    SessID NDS TSK Memory Time  S Time",
            "--------------- -------- -------- ---------- ------ --- --- ------ ----- - -----",
        ]
    );
    assert_eq!(
        lines[5],
        format!("{held:<15} alice    batch    other-held    --    2   4    2gb 01:00 H   -- ")
    );
    let nodes = desk.ok(&format!("qstat -n {running}"));
    assert!(nodes.ends_with("\n   w1/0+w2/0"), "{nodes}");
    let nodes = desk.ok(&format!("qstat -n -1 {running}"));
    assert!(nodes.ends_with(" w1/0+w2/0"), "{nodes}");
    let why = desk.ok(&format!("qstat -s {held}"));
    assert!(why.ends_with("   Not Running: JobHeldUser"), "{why}");
    let shows = |options: &str, id: &str| {
        desk.ok(&format!("qstat {options}"))
            .contains(&format!("{id} "))
    };
    for (options, of_held, of_running) in [
        ("-i", true, false),
        ("-r", false, true),
        ("-a", true, true),
        ("-u alice", true, true),
        ("-u bob", false, false),
        ("-u bob,alice", true, true),
    ] {
        assert_eq!(
            (shows(options, held), shows(options, running)),
            (of_held, of_running),
            "{options}"
        );
    }
    let wide = desk.ok(&format!("qstat -aw '{array}'"));
    assert!(
        wide.contains(&format!(
            "{array:<30} alice           batch           other-arr      "
        )),
        "{wide}"
    );
    delete(&desk, &ids);
}

#[test]
fn all_attributes_of_a_job() {
    let desk = desk("full");
    let ids = three(&desk, "full");
    let [held, running, array] = &ids;
    let text = desk.ok(&format!("qstat -f {held}"));
    assert!(
        text.starts_with(&format!(
            "Job Id: {held}\n    Job_Name = full-held\n    Job_Owner = alice@head\n"
        )),
        "{text}"
    );
    assert!(text.lines().all(|line| line.len() <= 79), "{text}");
    desk.has(
        held,
        &[
            ("Hold_Types", "u"),
            ("Resource_List.ncpus", "4"),
            ("Resource_List.nodect", "2"),
            ("Resource_List.nodes", "2:ppn=2"),
            ("Resource_List.mem", "2048mb"),
            ("Resource_List.walltime", "01:00:00"),
            ("euser", "alice"),
        ],
    );
    desk.has(
        running,
        &[
            ("exec_host", "w1/0+w2/0"),
            ("exec_vnode", "(w1:ncpus=1)+(w2:ncpus=1)"),
            ("Hold_Types", "n"),
        ],
    );
    desk.has(
        array,
        &[
            ("array", "True"),
            (
                "array_state_count",
                "Queued:3 Running:0 Exiting:0 Expired:0",
            ),
            ("array_indices_submitted", "1-3"),
        ],
    );
    let variables = desk.attribute(held, "Variable_List").unwrap();
    assert!(
        variables.contains(&format!("PBS_O_WORKDIR={}", desk.directory())),
        "{variables}"
    );
    delete(&desk, &ids);
}

#[test]
fn jobs_queues_and_the_server_as_json() {
    let desk = desk("json");
    let ids = three(&desk, "json");
    // perl-base has a parser for neither, so the shell asks for lines.
    let text = desk.ok(&format!("qstat -f -F json '{}'", ids.join("' '")));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["pbs_server"], "head");
    let job = &value["Jobs"][&ids[0]];
    assert_eq!(job["job_state"], "H");
    assert_eq!(job["Resource_List"]["ncpus"], 4);
    assert_eq!(job["Variable_List"]["PBS_O_WORKDIR"], desk.directory());
    assert_eq!(value["Jobs"].as_object().unwrap().len(), 3);
    let queues: serde_json::Value = serde_json::from_str(&desk.ok("qstat -Q -f -F json")).unwrap();
    assert_eq!(
        queues["Queue"]["short"]["resources_max.walltime"],
        "00:10:00"
    );
    let server: serde_json::Value = serde_json::from_str(&desk.ok("qstat -B -f -F json")).unwrap();
    assert_eq!(server["Server"]["head"]["server_state"], "Active");
    let nodes: serde_json::Value = serde_json::from_str(&desk.ok("pbsnodes -a -F json")).unwrap();
    assert_eq!(nodes["nodes"]["w1"]["resources_available"]["ncpus"], 4);
    delete(&desk, &ids);
}

#[test]
fn queues_and_the_server() {
    let desk = desk("queues");
    let id = desk.submit("-q closed", "true");
    let table = desk.ok("qstat -Q");
    let line = |name: &str| {
        table
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        table.lines().next().unwrap(),
        "Queue              Max   Tot Ena Str   Que   Run   Hld   Wat   Trn   Ext Type"
    );
    assert_eq!(
        line("closed"),
        format!(
            "{:<16}     0     1 yes  no     1     0     0     0     0     0 Exec",
            "closed"
        )
    );
    assert!(line("shut").contains(" no  no "), "{table}");
    let full = desk.ok("qstat -Q -f short");
    for part in [
        "Queue: short\n",
        "queue_type = Execution\n",
        "resources_max.walltime = 00:10:00\n",
        "enabled = True\n",
        "started = True",
    ] {
        assert!(full.contains(part), "{full}");
    }
    let summary = desk.ok("qstat -q");
    assert!(
        summary.contains("server: head")
            && summary
                .contains("closed             --      --       --     --      0     1  --    E S"),
        "{summary}"
    );
    let server = desk.ok("qstat -B");
    assert!(
        server.contains("\nhead  ") && server.trim_end().ends_with("Active"),
        "{server}"
    );
    assert!(desk.ok("qstat -Bf").contains("    server_state = Active"));
    assert!(desk.ok("qstat closed").contains(&id));
    desk.fails("qstat -Q none", 170, "qstat: Unknown queue none");
    desk.fails("qstat none", 170, "qstat: Unknown queue none");
    desk.ok(&format!("qdel {id}"));
}

#[test]
fn finished_jobs_are_history() {
    let desk = desk("history");
    let id = desk.submit("-N past", "exit 3");
    desk.finished(&id);
    desk.fails(
        &format!("qstat {id}"),
        35,
        &format!("qstat: {id} Job has finished, use -x or -H to obtain historical job information"),
    );
    assert!(!desk.ok("qstat").contains(&id));
    assert!(desk.ok(&format!("qstat -x {id}")).contains(" F batch"));
    assert!(desk.ok("qstat -H").contains(&id));
    desk.has(&id, &[("job_state", "F"), ("Exit_status", "3")]);
}

#[test]
fn elements_of_arrays_are_shown_when_asked_for() {
    let desk = desk("elements");
    let id = desk.submit("-N many -t 1-4%1", "test $PBS_ARRAYID = 1 || sleep 300");
    let n = id.trim_end_matches("[].head").to_owned();
    desk.state(&format!("{n}[2].head"), 'R');
    let one = desk.ok(&format!("qstat '{id}'"));
    assert!(
        one.lines().count() == 3 && one.contains(" B batch"),
        "{one}"
    );
    let table = desk.ok(&format!("qstat -t '{id}'"));
    let letters: Vec<String> = table
        .lines()
        .skip(2)
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!(
                "{} {} {}",
                words[0].split_once('[').unwrap().1,
                words[1],
                words[4]
            )
        })
        .collect();
    assert_eq!(
        letters,
        [
            "].head many B",
            "1].head many-1 X",
            "2].head many-2 R",
            "3].head many-3 Q",
            "4].head many-4 Q"
        ]
    );
    assert!(
        desk.ok(&format!("qstat '{n}[3].head'"))
            .contains(" Q batch")
    );
    desk.has(
        &id,
        &[(
            "array_state_count",
            "Queued:2 Running:1 Exiting:0 Expired:1",
        )],
    );
    desk.ok(&format!("qdel '{id}'"));
    desk.finished(&id);
}

#[test]
fn unknown_jobs_are_named_and_the_others_shown() {
    let desk = desk("unknown");
    let id = desk.submit("-h", "true");
    desk.fails("qstat 99999", 153, "qstat: Unknown Job Id 99999.head");
    desk.fails(
        "qstat 1.elsewhere",
        153,
        "qstat: Unknown Job Id 1.elsewhere",
    );
    desk.fails("qstat 1x", 2, "qstat: illegally formed job identifier: 1x");
    let both = desk.run(&format!("qstat 99999 {id}"));
    assert_eq!(
        (both.code, &*both.error),
        (153, "qstat: Unknown Job Id 99999.head")
    );
    assert!(both.output.contains(&id), "{both:?}");
    assert!(desk.ok("qstat @head").contains(&id));
    desk.fails("qstat -Q -a", 2, "qstat: conflicting options.");
    desk.ok(&format!("qdel {id}"));
}

#[test]
fn qselect_lists_what_fits() {
    let desk = desk("select");
    let ids = three(&desk, "sel");
    let [held, running, array] = &ids;
    assert_eq!(desk.ok("qselect -N sel-held"), *held);
    assert_eq!(
        desk.ok("qselect -u alice -s R -N sel-runs -q batch"),
        *running
    );
    assert_eq!(desk.ok("qselect -u bob -N sel-held"), "");
    assert_eq!(desk.ok("qselect -J -N sel-arr"), *array);
    desk.fails("qselect -s Z", 2, "qselect: illegal -s value");
    delete(&desk, &ids);
}
