//! Scientific programs on the workers, their results checked.

use anyhow::Result;

use super::head;
use crate::cluster::{Cluster, assembly};
use crate::progress::Progress;
use crate::workloads::examl::Examl;
use crate::workloads::glam2::Glam2;

pub(super) fn motifs_are_found(cluster: &mut Cluster, _: &Progress) -> Result<String> {
    let head = head(cluster);
    let workers = assembly::workers(&cluster.record).len();
    let running = Glam2::PROOF.start(&head, "glam2")?;
    running.wait(&head)?;
    let report = running.check(&head, workers)?;
    let hosts: Vec<String> = report
        .hosts
        .iter()
        .map(|(host, tasks)| format!("{tasks} on {host}"))
        .collect();
    Ok(format!(
        "{} tasks ({}), {} of {} planted motifs found; makespan {:.0} s, ideal {:.0} s ({:.2} of it); a task took {:.1} s \
         (median)",
        report.tasks,
        hosts.join(", "),
        report.found.0,
        report.found.1,
        report.makespan_s,
        report.ideal_s,
        report.makespan_s / report.ideal_s,
        report.median_s
    ))
}

pub(super) fn likelihoods_are_equal(cluster: &mut Cluster, _: &Progress) -> Result<String> {
    let head = head(cluster);
    let workers = assembly::workers(&cluster.record).len();
    let report = Examl::PROOF.run(&head, "examl", workers)?;
    Ok(format!(
        "log likelihood {:.6} by one process on {}, {:.6} by {} on {}; {:.1} s and {:.1} s",
        report.one.log_likelihood,
        report.one.hosts.join(", "),
        report.several.log_likelihood,
        report.several.hosts.len(),
        report.several.hosts.join(", "),
        report.one.seconds,
        report.several.seconds
    ))
}
