//! A worker moves while it runs a job that writes to the file server, is copied to, and holds a session.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::{LOOK, head, jobs};
use crate::cluster::Cluster;
use crate::cluster::migrate::Notice;
use crate::cluster::shell::Shell;
use crate::command::wait_until;
use crate::progress::Progress;
use crate::workloads::job::{Job, Known};

const WORKER: &str = "w1";

/// All three take some tens of seconds without a move.
const LIMIT: Duration = Duration::from_secs(900);

/// What is copied.
const COPY_MIB: u32 = 24;

/// Makes the directory and the file to copy.
const PREPARE: &str = "rm -rf moved && mkdir moved && head -c COPYM /dev/urandom >moved/original";

/// Writes its file in 200 pieces.
const JOB: &str = "#!/bin/sh\n\
    #PBS -N moved -l nodes=NODE\n\
    cd $PBS_O_WORKDIR\n\
    for i in $(seq 200); do\n\
      seq $((i * 1000)) $((i * 1000 + 999)) >>data\n\
      sleep 0.2\n\
    done\n";

/// The same at once.
const EXPECTED: &str =
    "for i in $(seq 200); do seq $((i * 1000)) $((i * 1000 + 999)); done | sha256sum";

/// At 1 MB/s, so that the move falls into it.
const COPY: &str = "scp -q -l 8000 moved/original w1:/tmp/copied";

/// Questions are typed; a shell on the worker answers each with a number, noted with the head's clock in µs.
const SESSION: &str = "(for i in $(seq 150); do echo $i; sleep 0.2; done; echo end) \
    | ssh -tt w1 'stty -echo; while read -r n && [ \"$n\" != end ]; do echo $((n + 1000)); done' \
    | while IFS= read -r line; do \
        line=${line%$'\\r'}; \
        case $line in 1[0-9][0-9][0-9]) echo \"${EPOCHREALTIME/[.,]/} $line\";; esac; \
      done >moved/session; cat moved/session";
const ANSWERS: std::ops::RangeInclusive<u32> = 1001..=1150;

const BEGUN: &str = "test -s moved/session && test -s moved/data && pgrep -x scp >/dev/null";

pub(super) fn a_worker_moves(cluster: &mut Cluster, _: &Progress) -> Result<String> {
    let head = head(cluster);
    head.ask(&PREPARE.replace("COPY", &COPY_MIB.to_string()), LOOK)?;
    let script = JOB.replace("NODE", WORKER);
    let job = [Job::submit(&head, "moved", &script)?];
    jobs::wait(&head, "the job starts", &job, LIMIT, |jobs| {
        jobs.values().any(Known::runs)
    })?;
    let copy = beside(&head, COPY);
    let session = beside(&head, SESSION);
    wait_until("the copy and the session are under way", LIMIT, || {
        Ok(head.ask(BEGUN, LOOK).ok())
    })?;
    let index = cluster.record.index(WORKER)?;
    let from = cluster.record.members[index].domain.clone();
    let domains = cluster.record.domains.iter().rev();
    let to = domains.clone().find(|domain| **domain != from);
    let to = to.context("there is no other domain")?.clone();
    let began = Instant::now();
    let stopped = cluster.migrate(WORKER, &to, Notice::Cable)?;
    ended(copy).context("the copy")?;
    let session = ended(session).context("the session")?;
    let silence = longest_silence(&session)?;
    jobs::wait_done(&head, &job, LIMIT)?;
    let took = began.elapsed();
    let same = |what: &str, a: &str, b: &str| -> Result<()> {
        let (a, b) = (head.ask(a, LOOK)?, head.ask(b, LOOK)?);
        ensure!(a == b, "{what}: {a} instead of {b}");
        Ok(())
    };
    same(
        "the copy",
        "ssh w1 'sha256sum </tmp/copied'",
        "sha256sum <moved/original",
    )?;
    same("the job's file", "sha256sum <moved/data", EXPECTED)?;
    Ok(format!(
        "from {from} to {to}: it stood still for {:.2} s, the session was silent for {:.1} s at most; job, copy of {} MiB \
         and session ended well {:.0} s after the move began, checksums equal",
        stopped.as_secs_f64(),
        silence.as_secs_f64(),
        COPY_MIB,
        took.as_secs_f64()
    ))
}

fn beside(shell: &Shell, line: &'static str) -> JoinHandle<Result<String>> {
    let shell = shell.clone();
    thread::spawn(move || shell.ask(line, LIMIT))
}

fn ended(work: JoinHandle<Result<String>>) -> Result<String> {
    work.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// The longest time between two answers, of which none may be missing.
fn longest_silence(session: &str) -> Result<Duration> {
    let lines = session.lines().filter_map(|line| line.split_once(' '));
    let answers: Vec<(u64, u32)> = lines
        .map(|(at, answer)| Ok((at.parse()?, answer.parse()?)))
        .collect::<Result<_>>()
        .context("a line of the session")?;
    let numbers = answers.iter().map(|(_, answer)| *answer);
    ensure!(
        numbers.eq(ANSWERS),
        "the session has {} answers of {}, or they are out of order",
        answers.len(),
        ANSWERS.count()
    );
    let gaps = answers
        .windows(2)
        .map(|pair| pair[1].0.saturating_sub(pair[0].0));
    Ok(Duration::from_micros(gaps.max().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_must_have_every_answer() {
        let all: String = ANSWERS
            .map(|answer| {
                let late = if answer > 1100 { 3_000_000 } else { 0 };
                format!("{} {answer}\n", u64::from(answer) * 200_000 + late)
            })
            .collect();
        assert_eq!(longest_silence(&all).unwrap(), Duration::from_millis(3200));
        let missing = all.replacen("1050\n", "", 1);
        assert!(longest_silence(&missing).is_err());
        assert!(longest_silence("").is_err());
    }
}
