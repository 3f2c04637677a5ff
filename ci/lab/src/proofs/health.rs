//! Every workstation runs whole: systemd has started all there is, and the file server serves.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::LOOK;
use crate::cluster::Cluster;
use crate::cluster::assembly::workers;
use crate::cluster::shell::Shell;
use crate::command::wait_until;
use crate::progress::Progress;

/// What starts last on a slow machine.
const START_LIMIT: Duration = Duration::from_secs(600);
/// A file that was closed on the head is looked for anew by a worker within a minute.
const FILE_LIMIT: Duration = Duration::from_secs(180);

const FILE: &str = "/shared/healthy";

pub(super) fn everything_runs(cluster: &mut Cluster, _: &Progress) -> Result<String> {
    let record = cluster.record.clone();
    let mut count = 0;
    for member in record.members.iter().filter(|one| one.role.is_some()) {
        let shell = Shell::new(&record, &member.name);
        // It also tells by its exit status, which is not asked for.
        let state = "systemctl is-system-running || :";
        wait_until("systemd has started everything", START_LIMIT, || {
            cluster.check_running()?;
            match &*shell.ask(state, LOOK)? {
                "running" => Ok(Some(())),
                "starting" | "initializing" => Ok(None),
                state => {
                    let failed = shell.ask("systemctl --failed --no-legend --plain", LOOK)?;
                    bail!("{} is {state}: {failed}", member.name)
                }
            }
        })?;
        count += 1;
    }
    let head = super::head(cluster);
    let written = head.ask(&format!("date +%s%N | tee {FILE}"), LOOK)?;
    ensure!(!written.is_empty(), "the head has no clock");
    let workers = workers(&record);
    for name in &workers {
        let shell = Shell::new(&record, name);
        let look = format!("cat {FILE} 2>/dev/null || :");
        let there = wait_until("the head's file is there", FILE_LIMIT, || {
            cluster.check_running()?;
            Ok((shell.ask(&look, LOOK)? == written).then_some(()))
        });
        there.with_context(|| format!("on {name}"))?;
    }
    Ok(format!(
        "{count} workstations are running, without a failed unit; {} workers read the head's file",
        workers.len()
    ))
}
