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
    Ok(running.check(&head, workers)?.to_string())
}

pub(super) fn likelihoods_are_equal(cluster: &mut Cluster, _: &Progress) -> Result<String> {
    let head = head(cluster);
    let workers = assembly::workers(&cluster.record).len();
    Ok(Examl::PROOF.run(&head, "examl", workers)?.to_string())
}
