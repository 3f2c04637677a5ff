//! Machines lose their power while jobs run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{LOOK, head, jobs};
use crate::cluster::Cluster;
use crate::cluster::shell::Shell;
use crate::command::wait_until;
use crate::progress::Progress;
use crate::workloads::job::{Job, Known};

/// A machine boots, jobs end: minutes under the translator.
const LIMIT: Duration = Duration::from_secs(1200);

/// Until Slurm gives a silent worker up, and the jobs have run elsewhere.
const GIVEN_UP_LIMIT: Duration = Duration::from_secs(1800);

/// Counts to 60 and writes what it counted; says how often it was started.
const JOB: &str = "#!/bin/sh\n\
    #PBS -N @name@\n\
    cd $PBS_O_WORKDIR\n\
    echo start >>$PBS_JOBNAME.starts\n\
    for i in $(seq 60); do echo $i; sleep 1; done >$PBS_JOBNAME.part\n\
    mv $PBS_JOBNAME.part $PBS_JOBNAME.done\n";

pub(super) fn the_head_dies(cluster: &mut Cluster, progress: &Progress) -> Result<String> {
    let head = head(cluster);
    // More than run at once: some are in the queue when the head goes.
    let names: Vec<String> = (1..=4).map(|number| format!("kept{number}")).collect();
    let ids = submit_all(&head, &names)?;
    jobs::wait(&head, "jobs run", &ids, LIMIT, |jobs| {
        jobs.values().any(Known::runs)
    })?;
    let began = Instant::now();
    cluster.kill("head")?;
    cluster.boot("head")?;
    wait_until("the head answers", LIMIT, || {
        Ok(head.ask("qstat", LOOK).ok())
    })?;
    let back = began.elapsed();
    progress.say(&format!(
        "  the head answers after {:.0} s",
        back.as_secs_f64()
    ));
    jobs::wait_done(&head, &ids, LIMIT)?;
    let took = began.elapsed();
    let starts = check_results(&head, &names)?;
    ensure!(
        starts == names.len(),
        "{starts} starts of {} jobs",
        names.len()
    );
    Ok(format!(
        "{} jobs, none lost and none run twice; the queue answers {:.0} s after the plug was pulled, all ended after {:.0} s",
        names.len(),
        back.as_secs_f64(),
        took.as_secs_f64()
    ))
}

pub(super) fn a_worker_dies(cluster: &mut Cluster, progress: &Progress) -> Result<String> {
    const VICTIM: &str = "w2";
    let head = head(cluster);
    let names = ["requeued1".to_owned(), "requeued2".to_owned()];
    let ids = submit_all(&head, &names)?;
    let on_victim = |jobs: &BTreeMap<String, Known>| {
        jobs.values().any(|job| job.runs() && job.host() == VICTIM)
    };
    jobs::wait(&head, "a job runs on the worker", &ids, LIMIT, on_victim)?;
    let began = Instant::now();
    cluster.kill(VICTIM)?;
    let jobs = jobs::wait_done(&head, &ids, GIVEN_UP_LIMIT)?;
    let took = began.elapsed();
    let starts = check_results(&head, &names)?;
    ensure!(starts > names.len(), "no job was started again");
    let elsewhere = jobs.values().all(|job| job.host() != VICTIM);
    ensure!(elsewhere, "a job ended on the dead worker: {jobs:?}");
    progress.say("  the worker gets its power back");
    cluster.boot(VICTIM)?;
    let began = Instant::now();
    wait_until("the worker takes jobs again", LIMIT, || {
        let state = head.ask(&format!("pbsnodes -l all {VICTIM}"), LOOK);
        Ok(state.ok().filter(|state| state.ends_with(" free")))
    })?;
    Ok(format!(
        "its job was started again elsewhere, and all had ended {:.0} s after the plug was pulled; the worker takes jobs \
         {:.0} s after its next power-on",
        took.as_secs_f64(),
        began.elapsed().as_secs_f64()
    ))
}

fn script(name: &str) -> String {
    JOB.replace("@name@", name)
}

fn submit_all(head: &Shell, names: &[String]) -> Result<Vec<Job>> {
    head.ask("rm -rf crash && mkdir crash", LOOK)?;
    let submit = |name: &String| Job::submit(head, "crash", &script(name));
    names.iter().map(submit).collect()
}

/// Every job has written all it had to; how often they were started together.
fn check_results(head: &Shell, names: &[String]) -> Result<usize> {
    let mut starts = 0;
    for name in names {
        let text = head.ask(
            &format!("cd crash && seq 60 | cmp - {name}.done && wc -l <{name}.starts"),
            LOOK,
        );
        let text = text.with_context(|| format!("the result of {name}"))?;
        starts += text.parse::<usize>().context("a number of starts")?;
    }
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn each_job_writes_files_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            let quick = script(name).replace("sleep 1", ":");
            assert!(quick.contains(&format!("#PBS -N {name}\n")), "{quick}");
            let mut shell = Command::new("sh");
            shell.args(["-c", &quick]).env("PBS_JOBNAME", name);
            shell.env("PBS_O_WORKDIR", directory.path());
            assert!(shell.status().unwrap().success());
        }
        let entries = std::fs::read_dir(directory.path()).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["one.done", "one.starts", "two.done", "two.starts"]);
    }
}
