//! glam2 of the MEME suite as an array job: each task looks for the motif of its own sequences.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::job::Job;
use super::motif::{Alignment, Planted};
use super::shell::{Shell, quote};

/// Debian's packages that it needs on every machine.
pub const PACKAGES: &[&str] = &["glam2"];

/// What is run, and how much of it.
#[derive(Debug, Clone)]
pub struct Glam2 {
    /// How many elements the array has.
    pub tasks: usize,
    /// What the sequences follow from.
    pub seed: u64,
    /// How many sequences each task has.
    pub sequences: usize,
    /// Their length.
    pub letters: usize,
    /// How often glam2 begins anew, and how many steps without a better alignment end each time.
    pub runs: usize,
    /// See above.
    pub patience: u32,
    /// What a task may take; it is its walltime too.
    pub task_limit: Duration,
}

/// What is in progress.
#[derive(Debug)]
pub struct Running {
    workload: Glam2,
    directory: String,
    planted: Vec<Planted>,
    /// The array.
    pub job: Job,
}

/// What came of it, when all of it is right.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Tasks that succeeded: all.
    pub tasks: usize,
    /// Processors of the machines that take jobs.
    pub slots: usize,
    /// From before qsub to the last result, by the clock of the head's file system.
    pub makespan_s: f64,
    /// The tasks' times, each by its own machine's clock, divided by the processors.
    pub ideal_s: f64,
    /// The shortest task.
    pub shortest_s: f64,
    /// The middle one.
    pub median_s: f64,
    /// The longest.
    pub longest_s: f64,
    /// Tasks of each machine.
    pub hosts: BTreeMap<String, usize>,
    /// Planted motifs that were found, of all.
    pub found: (usize, usize),
}

/// What one task says of itself: its machine, and its time in seconds.
struct Record {
    host: String,
    seconds: f64,
}

impl Glam2 {
    /// For the proof: 40 tasks of some 0.2 s on a processor of 2026, some 8 s on an emulated one.
    pub const PROOF: Self = Self {
        tasks: 40,
        seed: 2006,
        sequences: 14,
        letters: 120,
        runs: 4,
        patience: 2000,
        task_limit: Duration::from_secs(1800),
    };

    /// The same with less to do in each task.
    pub const SHORT: Self = Self {
        sequences: 12,
        letters: 60,
        runs: 3,
        patience: 1000,
        ..Self::PROOF
    };

    /// Makes the inputs in a new directory of the user's, and submits the array.
    pub fn start(self, shell: &dyn Shell, directory: &str) -> Result<Running> {
        let planted: Vec<Planted> = (1..=self.tasks as u64)
            .map(|task| Planted::new(self.seed + task, self.sequences, self.letters))
            .collect();
        let files = (1..).zip(&planted);
        let files = files.map(|(task, planted)| (format!("{task}.fa"), planted.fasta()));
        shell.make(directory, &files.collect())?;
        let script = self.script();
        let begin = format!("cd {} && mkdir logs && : >submitted", quote(directory));
        shell.ok(&begin, &[])?;
        let job = Job::submit(shell, directory, &script)?;
        Ok(Running {
            workload: self,
            directory: directory.to_owned(),
            planted,
            job,
        })
    }

    /// A result appears whole or not at all, since a task may be ended and started again.
    fn script(&self) -> String {
        format!(
            r#"#!/bin/sh
#PBS -N glam2
#PBS -J 1-{tasks}
#PBS -l nodes=1:ppn=1,walltime={limit}
#PBS -j oe
#PBS -o logs
cd "$PBS_O_WORKDIR" || exit 1
task=$PBS_ARRAY_INDEX
begin=$(date +%s.%N)
{command} >"$task.$$" || exit
echo "$(hostname) $begin $(date +%s.%N)" >"$task.record.$$" || exit
mv "$task.record.$$" "$task.record" && mv "$task.$$" "$task.txt"
"#,
            tasks = self.tasks,
            limit = self.task_limit.as_secs(),
            command = self.command("$task"),
        )
    }

    fn command(&self, task: &str) -> String {
        format!(
            "glam2 -s {task} -r {} -n {} n {task}.fa",
            self.runs, self.patience
        )
    }

    /// How long all may take if two processors do it.
    fn limit(&self) -> Duration {
        self.task_limit * u32::try_from(self.tasks.div_ceil(2)).unwrap_or(u32::MAX)
    }
}

impl Running {
    /// Waits for the end.
    pub fn wait(&self, shell: &dyn Shell) -> Result<()> {
        self.job.wait(shell, self.workload.limit())
    }

    /// What came of it: an error unless every task succeeded, found its motif, at least `hosts` machines
    /// took part, and a task run by hand gives the same result to the byte.
    pub fn check(&self, shell: &dyn Shell, hosts: usize) -> Result<Report> {
        let tasks = self.workload.tasks;
        self.job.succeeded(shell, tasks)?;
        let files = shell.files(&self.directory, &["*.txt", "*.record"])?;
        let file = |task: usize, kind: &str| {
            let name = format!("{task}.{kind}");
            files
                .get(&name)
                .with_context(|| format!("{name} is missing"))
        };
        let mut records = Vec::new();
        let mut found = (0, 0);
        for (task, planted) in (1..).zip(&self.planted) {
            records.push(record(file(task, "record")?)?);
            let result = file(task, "txt")?;
            let places = self.places(planted, result);
            found.0 += places.with_context(|| format!("the result of task {task} is wrong"))?;
            found.1 += self.workload.sequences;
        }
        self.run_by_hand(shell, 1, file(1, "txt")?)?;
        let report = self.report(&records, slots(shell)?, self.makespan(shell)?, found);
        ensure!(
            report.hosts.len() >= hosts,
            "{hosts} machines were to take part, but only these did: {:?}",
            report.hosts
        );
        Ok(report)
    }

    /// In how many of the sequences the motif was found; an error if in less than most.
    fn places(&self, planted: &Planted, result: &str) -> Result<usize> {
        let alignments = Alignment::all(result)?;
        ensure!(
            alignments.len() == self.workload.runs,
            "it has {} alignments instead of {}",
            alignments.len(),
            self.workload.runs
        );
        let found = planted.found(&alignments[0]);
        let all = self.workload.sequences;
        if found * 4 < all * 3 {
            bail!("the motif was found in {found} of {all} sequences");
        }
        Ok(found)
    }

    fn run_by_hand(&self, shell: &dyn Shell, task: usize, result: &str) -> Result<()> {
        let command = self.workload.command(&task.to_string());
        let text = format!("cd {} && {command} 2>/dev/null", quote(&self.directory));
        let own = shell.ok(&text, &[])?;
        ensure!(
            own == result,
            "task {task} gave another result than `{command}` by hand:\n{result}\nand\n{own}"
        );
        Ok(())
    }

    /// One clock has both: that of the machine whose disk it is.
    fn makespan(&self, shell: &dyn Shell) -> Result<f64> {
        let text = format!(
            "cd {} && stat -c %.Y submitted && stat -c %.Y *.txt | sort -n | tail -n 1",
            quote(&self.directory)
        );
        let said = shell.ok(&text, &[])?;
        let times: Result<Vec<f64>, _> = said.lines().map(str::parse).collect();
        match times.as_deref() {
            Ok([submitted, last]) => Ok(last - submitted),
            _ => bail!("stat printed no times: {said}"),
        }
    }

    fn report(
        &self,
        records: &[Record],
        slots: usize,
        makespan_s: f64,
        found: (usize, usize),
    ) -> Report {
        let mut hosts = BTreeMap::new();
        for record in records {
            *hosts.entry(record.host.clone()).or_default() += 1;
        }
        let mut seconds: Vec<f64> = records.iter().map(|record| record.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let at = |index: usize| seconds.get(index).copied().unwrap_or_default();
        Report {
            tasks: records.len(),
            slots,
            makespan_s,
            ideal_s: seconds.iter().sum::<f64>() / slots as f64,
            shortest_s: at(0),
            median_s: at(seconds.len() / 2),
            longest_s: at(seconds.len().saturating_sub(1)),
            hosts,
            found,
        }
    }
}

fn record(line: &str) -> Result<Record> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let parsed = (|| {
        let [host, begin, end] = words.as_slice() else {
            return None;
        };
        let seconds = end.parse::<f64>().ok()? - begin.parse::<f64>().ok()?;
        let host = (*host).to_owned();
        Some(Record { host, seconds })
    })();
    parsed.with_context(|| format!("a task wrote no record, but {line:?}"))
}

/// Processors of the queue's nodes that are up.
fn slots(shell: &dyn Shell) -> Result<usize> {
    let said = shell.ok("sinfo --noheader --partition=batch --format=%C", &[])?;
    let counts: Vec<usize> = said
        .trim()
        .split('/')
        .filter_map(|word| word.parse().ok())
        .collect();
    match counts.as_slice() {
        // Allocated, idle, other and all.
        [allocated, idle, _, _] if allocated + idle > 0 => Ok(allocated + idle),
        _ => bail!("sinfo shows no processors: {said}"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self
            .hosts
            .iter()
            .map(|(host, tasks)| format!("{host} {tasks}"));
        write!(
            f,
            "{} tasks in {:.1} s on {} processors, ideally {:.1} s ({:.0}%); a task {:.1} s ({:.1} to {:.1}); \
             {}; {} of {} motifs found",
            self.tasks,
            self.makespan_s,
            self.slots,
            self.ideal_s,
            100.0 * self.ideal_s / self.makespan_s,
            self.median_s,
            self.shortest_s,
            self.longest_s,
            hosts.collect::<Vec<_>>().join(", "),
            self.found.0,
            self.found.1,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(workload: Glam2) -> Running {
        Running {
            workload,
            directory: ".".into(),
            planted: Vec::new(),
            job: Job {
                id: "1[].head".into(),
            },
        }
    }

    #[test]
    fn times_are_the_tasks_own_and_the_ideal_is_shared_by_the_processors() {
        let lines = ["w1 100.5 102.5\n", "w2 7.25 10.25\n", "w1 102.5 103.5\n"];
        let records: Vec<Record> = lines.iter().map(|line| record(line).unwrap()).collect();
        let report = running(Glam2::SHORT).report(&records, 2, 4.0, (20, 24));
        assert_eq!(
            (report.ideal_s, report.median_s, report.longest_s),
            (3.0, 2.0, 3.0)
        );
        assert_eq!(
            report.hosts,
            BTreeMap::from([("w1".into(), 2), ("w2".into(), 1)])
        );
        assert!(
            report
                .to_string()
                .starts_with("3 tasks in 4.0 s on 2 processors, ideally 3.0 s (75%)")
        );
        for wrong in ["", "w1 5", "w1 5 later", "w1 5 6 7"] {
            assert!(record(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_result_without_the_motif_or_some_of_its_runs_is_wrong() {
        let workload = Glam2 {
            runs: 1,
            sequences: 4,
            ..Glam2::SHORT
        };
        let planted = Planted::new(1, 4, 21);
        // Each sequence is hardly longer than the motif.
        let rows = |many: usize| {
            let rows = (0..many).map(|number| format!("s{number} 1 acgt 21 + 1.5\n"));
            let rows: String = rows.collect();
            format!("Score: 9.5  Columns: 20  Sequences: {many}\n\n *****\n{rows}\n acgt\n")
        };
        let running = running(workload);
        assert_eq!(running.places(&planted, &rows(4)).unwrap(), 4);
        assert!(running.places(&planted, &rows(2)).is_err());
        assert!(running.places(&planted, &rows(4).repeat(2)).is_err());
        assert!(running.places(&planted, "").is_err());
    }
}
