//! The smallest process 1 on this library: boots, brings the network up, reports, waits for a request
//! to end. For trying the library on a kernel without the router; the key `log` chooses an act: `panic`,
//! `poweroff`, `restart`, `orphans`, `ticket`.

use std::time::Duration;

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
        command
    };
    let mut kept = reaper::spawn(&mut shell("exit 7")).expect("a shell");
    // Orphans end while the kept child is already a zombie that nobody waits for yet.
    let mut parent = reaper::spawn(&mut shell("for n in 1 2 3; do (sleep 0.05; exit 3) & done"))
        .expect("a shell");
    let parent = parent.wait().await.expect("its status is ours").code();
    let begun = std::time::Instant::now();
    while zombies() > 1 && begun.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (left, kept) = (
        zombies(),
        kept.wait().await.expect("its status is ours").code(),
    );
    tracing::info!("parent {parent:?}, kept {kept:?}, zombies left {left}");
}

/// Zombies and sleepers that are our children.
fn zombies() -> usize {
    std::fs::read_dir("/proc")
        .map(|entries| {
            entries
                .flatten()
                .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
                .filter(|stat| {
                    stat.rsplit_once(") ").is_some_and(|(_, rest)| {
                        rest.starts_with("Z 1 ") || rest.starts_with("S 1 ")
                    })
                })
                .count()
        })
        .unwrap_or(0)
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
