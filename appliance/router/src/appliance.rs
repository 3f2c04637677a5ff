//! Process 1: boots the machine through [`wow_init`], waits for a usable configuration, and runs the
//! daemon until somebody ends the machine.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use wow_init::backoff::Backoff;
use wow_init::network::Plan;
use wow_init::power::{PowerEvents, Request, Shutdown};
use wow_init::watchdog::Watchdog;
use wow_init::{Boot, console, reaper, shutdown};

use crate::caretaker::{self, Caretaker};
use crate::config::Config;
use crate::keeper::Files;
use crate::logging::Logging;
use crate::screen::{Board, Phase, Screen};
use crate::timekeeping::{self, Keeping, Timekeeping};
use crate::update::{Updates, trial};
use crate::{configuration, ipc, machine, run};

/// For the daemon's goodbye; the kernel's buffers take it at once.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// Between two starts of a daemon that fails.
const RESTART: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

/// Boots and never returns.
pub fn boot() -> ! {
    console::claim();
    let logging = Logging::install(None).expect("nothing has started logging before");
    let mut boot = Boot::start();
    if let Some(setting) = boot.settings().get("log")
        && let Err(error) = logging.change(setting.value())
    {
        tracing::error!("{}: {error:#}", setting.origin());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs an epoll and a pipe");
    // The screen's task shares what it shows with this one.
    let how = tokio::task::LocalSet::new().block_on(&runtime, live(&mut boot));
    shutdown::finish(how, None)
}

/// From the first link up to the request to end.
async fn live(boot: &mut Boot) -> Shutdown {
    let mut power = PowerEvents::start().expect("signal handlers are installed once");
    tokio::spawn(reaper::run());
    let sources = boot.sources();
    // Whoever holds it keeps the links and the lease alive.
    let network = match boot.start_network().await {
        Ok(network) => Some(network),
        Err(error) => {
            tracing::error!("no network: {error}");
            None
        }
    };
    let board = Board::default();
    let status = network.as_ref().map(|network| network.status());
    let screen = Screen::new(board.clone(), status, power.sender(), ipc::default_socket());
    tokio::task::spawn_local(screen.run());
    let updates = Updates::new(power.sender());
    tokio::task::spawn_local(trial::follow(
        updates.clone(),
        power.sender(),
        ipc::default_socket(),
    ));
    let caretaker = Caretaker::new(
        board.clone(),
        Arc::clone(&sources),
        boot.state(),
        // A machine that is to have no network lacks none.
        network
            .as_ref()
            .filter(|_| boot.network_plan() != Plan::None)
            .map(|network| network.status()),
        ipc::default_socket(),
    );
    let keeper = caretaker.keeper();
    tokio::task::spawn_local(caretaker.run());
    let mut pace = RESTART;
    let mut timekeeper = Timekeeper::default();
    loop {
        let configured = sources.until("configuration", |merged| {
            board.set_problems(caretaker::CONFIGURATION, configuration::problems(merged));
            // Before the ticket is looked at, which a wrong clock makes invalid.
            timekeeper.follow(machine::time_servers(merged));
            machine::configuration(merged)
                .inspect_err(|refusal| board.set_phase(Phase::Waiting(refusal.clone())))
        });
        let config = tokio::select! {
            request = power.next() => return ended(request),
            config = configured => config,
        };
        board.set_phase(Phase::Running);
        let config = Config {
            updates: Some(updates.clone()),
            state: Files::OnDisk(keeper.clone()),
            clock: timekeeper.clock.clone(),
            ..config
        };
        match run_daemon(config, &mut power).await {
            Err(request) => return ended(request),
            Ok(outcome) => {
                let pause = pace.pause();
                let why = match outcome {
                    Ok(()) => "it ended by itself".to_owned(),
                    Err(error) => format!("{error:#}"),
                };
                board.set_phase(Phase::Stopped(why.clone()));
                tracing::error!(restart_in = ?pause, "the node stopped: {why}");
                tokio::select! {
                    request = power.next() => return ended(request),
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

/// Keeps the clock by the servers that are configured; without any the node keeps it by its pool.
struct Timekeeper {
    clock: Timekeeping,
    servers: Vec<String>,
    task: JoinSet<()>,
}

impl Default for Timekeeper {
    fn default() -> Self {
        Timekeeper {
            clock: Timekeeping::new(Keeping::Pool),
            servers: Vec::new(),
            task: JoinSet::new(),
        }
    }
}

impl Timekeeper {
    fn follow(&mut self, servers: Vec<String>) {
        if self.servers == servers {
            return;
        }
        self.task.abort_all();
        self.servers.clone_from(&servers);
        self.clock.keep_by(match servers.is_empty() {
            true => Keeping::Pool,
            false => Keeping::Servers,
        });
        if !servers.is_empty() {
            let clock = self.clock.clone();
            self.task.spawn(timekeeping::follow_servers(clock, servers));
        }
    }
}

fn ended(request: Request) -> Shutdown {
    tracing::info!(cause = request.cause, "{}", request.shutdown);
    request.shutdown
}

/// Runs the daemon until it fails (`Ok`) or the machine is to end (`Err`).
async fn run_daemon(
    config: Config,
    power: &mut PowerEvents,
) -> Result<anyhow::Result<()>, Request> {
    // Armed with the loop that makes progress, and petted by nothing else.
    let watchdog = Rc::new(RefCell::new(Watchdog::open()));
    let petted = Rc::clone(&watchdog);
    let progress = Box::new(move || {
        if let Some(watchdog) = petted.borrow_mut().as_mut() {
            watchdog.pet();
        }
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let outcome = {
        let daemon = run::serve(config, progress, async {
            // A dropped sender means the same.
            let _ = stopped.await;
        });
        let mut daemon = std::pin::pin!(daemon);
        tokio::select! {
            outcome = &mut daemon => Ok(outcome),
            request = power.next() => {
                drop(stop);
                shutdown::bounded("goodbye to the neighbours", GOODBYE_MAX, daemon).await;
                Err(request)
            }
        }
    };
    if let Some(watchdog) = watchdog.borrow_mut().take()
        && let Err(error) = watchdog.disarm()
    {
        tracing::warn!("cannot disarm the watchdog: {error}");
    }
    outcome
}

/// `wow init` outside process 1.
pub fn refuse() -> anyhow::Result<()> {
    Err(anyhow::anyhow!("this is process {}", std::process::id())).context(
        "`wow init` boots a machine and must be its process 1; to join a pool use `wow run`",
    )
}
