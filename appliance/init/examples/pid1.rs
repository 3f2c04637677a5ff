//! The smallest process 1 on this library: boots, brings the network up, reports, waits for a request
//! to end. For trying the library on a kernel without the router; the key `log` chooses an act: `panic`,
//! `poweroff`, `restart`, `orphans`, `ticket`.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use wow_init::power::{PowerEvents, Shutdown};
use wow_init::{Boot, reaper, shutdown};

fn main() {
    if !wow_init::is_process_one() {
        eprintln!(
            "this is a process 1: give it to a kernel as /init, or to `unshare --pid --fork`"
        );
        std::process::exit(2);
    }
    wow_init::console::claim();
    let _ = tracing::subscriber::set_global_default(stderr_log::StderrLog);
    let mut boot = Boot::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs only an epoll and a pipe");
    let how = runtime.block_on(live(&mut boot));
    shutdown::finish(how, wow_init::watchdog::Watchdog::open())
}

async fn live(boot: &mut Boot) -> Shutdown {
    let mut power = PowerEvents::start().expect("signal handlers can be installed");
    tokio::spawn(reaper::run());
    let network = match boot.start_network().await {
        Ok(network) => network,
        Err(error) => panic!("no netlink: {error}"),
    };
    let mut status = network.status();
    tracing::info!("status: {:?}", *status.borrow_and_update());
    let settings = boot.settings();
    match settings.get("log").map(|act| act.value()) {
        Some("panic") => panic!("as asked"),
        Some("poweroff") => return Shutdown::PowerOff,
        Some("restart") => return Shutdown::Restart,
        Some("orphans") => {
            orphans().await;
            return Shutdown::PowerOff;
        }
        Some("ticket") => {
            let sources = boot.sources();
            let wait = sources.until("ticket", |found| {
                found.require("ticket").map(|ticket| ticket.value().len())
            });
            tokio::select! {
                bytes = wait => tracing::info!("a ticket of {bytes} bytes"),
                request = power.next() => return request.shutdown,
            }
        }
        _ => {}
    }
    tracing::info!("ready");
    loop {
        tokio::select! {
            request = power.next() => {
                let farewell = tokio::time::sleep(Duration::from_millis(10));
                shutdown::bounded("farewell", Duration::from_secs(2), farewell).await;
                return request.shutdown;
            }
            Ok(()) = status.changed() => tracing::info!("status: {:?}", *status.borrow_and_update()),
        }
    }
}

/// Makes orphans beside a child of our own, and says whether each went to the right place.
async fn orphans() {
    let shell = |script: &str| {
        let mut command = tokio::process::Command::new("/bin/sh");
        command.args(["-c", script]);
        command.stdout(std::process::Stdio::piped());
        command
    };
    // Orphans end while the kept child is already a zombie that nobody waits for yet.
    let mut kept = reaper::spawn(&mut shell("exit 7")).expect("a shell");
    let kept_id = kept.inner().id().expect("nobody waited for it");
    until(|| state(kept_id) == Some('Z')).await;

    let script = "for n in 1 2 3; do sleep 0.05 >/dev/null & echo $!; done";
    let mut parent = reaper::spawn(&mut shell(script)).expect("a shell");
    let mut printed = String::new();
    let output = parent.inner().stdout.as_mut().expect("it is piped");
    output
        .read_to_string(&mut printed)
        .await
        .expect("a pipe can be read");
    let parent = parent.wait().await.expect("its status is ours").code();
    let orphans: Vec<u32> = printed
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    until(|| orphans.iter().all(|&id| state(id).is_none())).await;

    let left = orphans.iter().filter(|&&id| state(id).is_some()).count();
    let kept = kept.wait().await.expect("its status is ours").code();
    tracing::info!(
        "parent {parent:?}, kept {kept:?}, orphans {}, left {left}",
        orphans.len()
    );
}

/// Waits for a condition, with a deadline that only a hang reaches.
async fn until(condition: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() && begun.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process's state letter as /proc tells it; none when it is gone.
fn state(id: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

mod stderr_log {
    //! A subscriber that writes each event on a line of standard error.

    use std::fmt::Write as _;
    use std::io::Write as _;
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    pub struct StderrLog;

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            let _ = match field.name() {
                "message" => write!(self.0, " {value:?}"),
                name => write!(self.0, " {name}={value:?}"),
            };
        }
    }

    impl Subscriber for StderrLog {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() <= Level::INFO || metadata.target().starts_with("wow_init")
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            line.0.push('\n');
            let _ = std::io::stderr().write_all(line.0.as_bytes());
        }
    }
}
