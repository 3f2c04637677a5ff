//! The trial of an update, as seen by the machine that runs it: it is confirmed when the node has joined its pool,
//! and else the machine restarts, which brings the earlier version back.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use wow_init::power::{Request, Shutdown};
use wow_init::since_boot;
use wow_init::slots;
use wow_overlay::membership::NodeName;

use super::{SlotsReport, Updates, aside};
use crate::api::{Op, Status};
use crate::ipc::client::ask;

/// Between two attempts at what failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Disks that appear late are waited for so long.
const DISK_MAX: Duration = Duration::from_secs(60);
/// A node that runs has answered by then.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A node that has been restarted has forgotten what it was told.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Follows the machine's slots: for as long as a trial lasts, and to tell the node of one that failed. `socket` is
/// the node's, which may not run yet.
pub async fn follow(updates: Updates, power: mpsc::Sender<Request>, socket: PathBuf) {
    if slots::booted().is_err() {
        return;
    }
    let Some(report) = read(&updates).await else {
        return;
    };
    match &*report.state {
        "on_trial" => {
            tracing::warn!(slot = report.running, "{}", report.told);
            let limit = Duration::from_secs(report.within_s.into());
            let rest = limit.saturating_sub(since_boot());
            match tokio::time::timeout(rest, joined(&socket, &report)).await {
                Ok(()) => {
                    confirm().await;
                    tell(&socket, Vec::new()).await;
                    tracing::info!("the update has joined the pool: it stays");
                }
                Err(_) => {
                    tracing::error!(within = ?limit, "the update has not joined: going back");
                    if let Err(error) = aside(|| slots::open()?.give_up()).await {
                        // What matters is on the disk already.
                        tracing::warn!("the reason is not kept: {error}");
                    }
                    let _ = power.try_send(Request {
                        shutdown: Shutdown::Restart,
                        cause: "the update on trial has not joined",
                    });
                }
            }
        }
        "died" | "too_late" | "stray" => {
            tracing::error!(slot = report.running, "{}", report.told);
            loop {
                tell(&socket, vec![report.told.clone()]).await;
                tokio::time::sleep(TELL_EVERY).await;
            }
        }
        _ => tracing::info!(slot = report.running, "{}", report.told),
    }
}

/// Reads the slots, also from a disk that appears late.
async fn read(updates: &Updates) -> Option<SlotsReport> {
    let reading = async {
        let mut said = String::new();
        loop {
            match updates.report().await {
                Ok(report) => return report,
                Err(error) if error != said => {
                    tracing::warn!("slots: {error}");
                    said = error;
                }
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(DISK_MAX, reading).await.ok()
}

/// Waits until the node has joined, however often it is started meanwhile.
async fn joined(socket: &std::path::Path, report: &SlotsReport) {
    let mut told = false;
    loop {
        if !told {
            told = tell(socket, vec![report.told.clone()]).await;
        }
        let timeout_ms = ANSWER_MAX.as_millis() as u64;
        let wait = Op::Wait {
            joined: true,
            timeout_ms,
        };
        match ask::<Status>(socket, wait, ANSWER_MAX + PAUSE).await {
            Ok(status) if status.joined => return,
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Until the disk has taken it; where it does not, the next start goes back.
async fn confirm() {
    let mut said = false;
    while let Err(error) = aside(|| slots::open()?.confirm(slots::booted()?)).await {
        if !said {
            tracing::error!("the update has joined, and cannot be confirmed: {error}");
            said = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Has the node show this as its trouble; whether it did.
async fn tell(socket: &std::path::Path, sentences: Vec<String>) -> bool {
    let from = NodeName::new("update").expect("a label").to_string();
    let op = Op::Trouble { from, sentences };
    ask::<bool>(socket, op, ANSWER_MAX).await.is_ok()
}
