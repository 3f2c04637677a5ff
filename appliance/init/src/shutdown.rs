//! The ordered end of the machine; every stage is bounded, and the end always comes.
//!
//! First the router says goodbye ([`bounded`]), then [`finish`]: watchdog off, SIGTERM, SIGKILL, sync,
//! unmount or remount read-only, power off or restart.

use std::future::Future;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::system::{RebootCommand, reboot};

use crate::power::Shutdown;
use crate::watchdog::Watchdog;
use crate::{console, mounts, process, system};

/// Time other processes have after SIGTERM.
const TERMINATE_LIMIT: Duration = Duration::from_secs(3);
/// Time for them to be gone after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(2);
/// Time for dirty data to reach the disks.
pub(crate) const SYNC_LIMIT: Duration = Duration::from_secs(10);
/// Time for unmounting all file systems.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(5);
/// How often the process table is looked at while waiting for it to empty.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Runs one stage of the router's own goodbye; gives up, with a warning, after `limit`.
pub async fn bounded<T>(what: &str, limit: Duration, stage: impl Future<Output = T>) -> Option<T> {
    let outcome = tokio::time::timeout(limit, stage).await.ok();
    if outcome.is_none() {
        tracing::warn!(
            limit_ms = limit.as_millis() as u64,
            "shutdown: gave up: {what}"
        );
    }
    outcome
}

/// Ends the machine. Outside process 1 it only ends the process.
pub fn finish(how: Shutdown, watchdog: Option<Watchdog>) -> ! {
    if !crate::is_process_one() {
        std::process::exit(0);
    }
    tracing::info!("shutting down: {how}");
    if let Some(watchdog) = watchdog
        && let Err(error) = watchdog.disarm()
    {
        tracing::warn!("cannot disarm the watchdog: {error}");
    }
    if !stop_processes(libc::SIGTERM, TERMINATE_LIMIT) {
        tracing::warn!("shutdown: processes ignore SIGTERM, killing them");
        stop_processes(libc::SIGKILL, KILL_LIMIT);
    }
    if !sync_bounded(SYNC_LIMIT) {
        tracing::error!("shutdown: sync did not finish: data may be lost");
    }
    // In a container they are the host's: remounting would change them for everybody.
    if crate::is_machine_init() {
        release_file_systems();
    }
    reboot_now(how)
}

fn release_file_systems() {
    match within(UNMOUNT_LIMIT, || mounts::release_all(UNMOUNT_LIMIT)) {
        Some(left) if left.is_empty() => {}
        Some(left) => tracing::warn!("shutdown: still mounted writable: {}", left.join(" ")),
        None => tracing::warn!("shutdown: unmounting did not finish"),
    }
}

/// Signals every other process and waits until none runs; whether that was reached.
fn stop_processes(signal: libc::c_int, limit: Duration) -> bool {
    let begun = Instant::now();
    if let Err(error) = system::signal_all(signal) {
        tracing::warn!("shutdown: cannot signal other processes: {error}");
    }
    while process::others_run() {
        if begun.elapsed() > limit {
            return false;
        }
        crate::reaper::reap_everything();
        std::thread::sleep(LOOK_EVERY);
    }
    true
}

/// Writes dirty data out, waiting at most `limit`; whether it finished.
pub(crate) fn sync_bounded(limit: Duration) -> bool {
    within(limit, rustix::fs::sync).is_some()
}

/// Runs `work` on a thread, which is abandoned after `limit`.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = mpsc::sync_channel(1);
    let spawned = std::thread::Builder::new()
        .name("shutdown".into())
        .spawn(move || {
            let _ = done.send(work());
        });
    spawned.ok()?;
    result.recv_timeout(limit).ok()
}

/// Powers off or restarts at once, with nothing before it.
pub(crate) fn reboot_now(how: Shutdown) -> ! {
    let command = match how {
        Shutdown::PowerOff if !can_power_off() => {
            console::shout(
                "This machine cannot switch itself off (no ACPI), so it restarts; \
                 QEMU started with -no-reboot ends here.",
            );
            RebootCommand::Restart
        }
        Shutdown::PowerOff => RebootCommand::PowerOff,
        Shutdown::Restart => RebootCommand::Restart,
        Shutdown::Halt => RebootCommand::Halt,
    };
    if let Err(error) = reboot(command) {
        console::shout(&format!("reboot({command:?}) failed: {error}"));
    }
    // Process 1 that ends makes the kernel panic, and with `panic=` restart; in a container it ends
    // the container. Both are better than hanging.
    std::process::exit(1)
}

/// Whether the kernel found ACPI, the only way a PC switches itself off. Without it POWER_OFF halts
/// the CPUs and a virtual machine stays around for ever.
fn can_power_off() -> bool {
    std::path::Path::new("/sys/firmware/acpi").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_hangs_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let outcome = runtime.block_on(async {
            let soon = Duration::from_millis(1);
            let hung = bounded("hangs", soon, std::future::pending::<()>()).await;
            let done = bounded("done", Duration::from_secs(20), async { 7 }).await;
            (hung, done)
        });
        assert_eq!(outcome, (None, Some(7)));
    }

    #[test]
    fn work_that_hangs_is_abandoned() {
        let hung: Option<()> = within(Duration::from_millis(1), || {
            loop {
                std::thread::park();
            }
        });
        assert_eq!(hung, None);
        assert_eq!(within(Duration::from_secs(20), || 7), Some(7));
    }

    #[test]
    fn only_process_one_may_signal_everybody() {
        assert!(system::signal_all(0).is_err());
    }
}
