//! The one reaper: collects the orphans process 1 inherits, and no child anybody here waits for.
//!
//! A child of ours is told from an orphan by a claim: [`spawn`] starts it and claims its id under the
//! lock the reaper also takes, so no exit falls in between. (`waitpid(-1)` would steal the status that
//! `tokio::process` waits for.) Children started in other ways are reaped like orphans.

use std::collections::BTreeSet;
use std::io;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, waitid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::process::{self, Process};
use crate::system::peek_zombie;

static CLAIMS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Most zombies collected in one go; a fork bomb among the orphans must not stop the event loop.
const BATCH: usize = 256;

/// A running child whose exit status belongs to the holder.
#[derive(Debug)]
pub struct OwnedChild {
    child: Child,
    claim: i32,
}

/// Starts a child whose status the caller waits for. std gives it default SIGPIPE and an empty signal
/// mask; nothing in this crate sets other signals to be ignored, which children would inherit.
pub fn spawn(command: &mut Command) -> io::Result<OwnedChild> {
    let mut claims = claims();
    let child = command.spawn()?;
    let claim = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .unwrap_or(0);
    claims.insert(claim);
    Ok(OwnedChild { child, claim })
}

impl OwnedChild {
    /// Waits for its end.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// The child itself, for its pipes and for killing it.
    pub fn inner(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        // Unwaited children become the reaper's.
        claims().remove(&self.claim);
    }
}

/// Collects orphans whenever a child ends, for ever; spawn it once.
pub async fn run() {
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => {
            tracing::error!("no reaper: cannot handle SIGCHLD: {error}");
            return;
        }
    };
    loop {
        // Before waiting: signals coalesce, and some may be older than the handler.
        while reap_orphans() == BATCH {
            tokio::task::yield_now().await;
        }
        if ended.recv().await.is_none() {
            return;
        }
    }
}

/// Collects every zombie that nobody claims, at most [`BATCH`]; how many.
fn reap_orphans() -> usize {
    let claims = claims();
    let mut reaped = 0;
    while reaped < BATCH {
        match peek_zombie() {
            None => break,
            Some(pid) if !claims.contains(&pid) => {
                collect(pid);
                reaped += 1;
            }
            // A claimed zombie waits for its owner and hides those behind it: look for each.
            Some(_) => {
                for pid in zombie_children() {
                    if !claims.contains(&pid) && reaped < BATCH {
                        collect(pid);
                        reaped += 1;
                    }
                }
                break;
            }
        }
    }
    reaped
}

/// Collects every zombie, claimed or not: for the end of the machine.
pub(crate) fn reap_everything() {
    for _ in 0..BATCH {
        let Some(pid) = peek_zombie() else { return };
        collect(pid);
    }
}

fn collect(pid: i32) {
    let Some(id) = Pid::from_raw(pid) else { return };
    if let Ok(Some(status)) = waitid(
        WaitId::Pid(id),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    ) {
        tracing::debug!(
            pid,
            exit = status.exit_status(),
            signal = status.terminating_signal(),
            "reaped an orphan"
        );
    }
}

/// Our children that are zombies.
fn zombie_children() -> Vec<i32> {
    let own = getpid().as_raw_nonzero().get();
    let ours = |process: &Process| process.is_zombie && process.parent == own;
    process::all()
        .unwrap_or_default()
        .into_iter()
        .filter(ours)
        .map(|process| process.pid)
        .collect()
}

fn claims() -> MutexGuard<'static, BTreeSet<i32>> {
    CLAIMS.lock().unwrap_or_else(PoisonError::into_inner)
}
