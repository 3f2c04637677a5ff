//! Process 1: boots the machine through [`wow_init`], waits for a usable configuration, and runs the
//! daemon until somebody ends the machine.

use std::cell::RefCell;
use std::net::{Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::oneshot;
use wow_init::backoff::Backoff;
use wow_init::config::Merged;
use wow_init::power::{PowerEvents, Request, Shutdown};
use wow_init::watchdog::Watchdog;
use wow_init::{Boot, clock, console, reaper, shutdown};
use wow_overlay::membership::{SeedAddr, Ticket};

use crate::config::{Config, GuestKind, WorkstationRole, check_ports};
use crate::logging::Logging;
use crate::{ipc, run, wall_clock};

/// Where appliances listen, by IPv4 and IPv6, so that one with a known address can be a seed for the others.
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 4001);

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
    let how = runtime.block_on(live(&mut boot));
    shutdown::finish(how, None)
}

/// From the first link up to the request to end.
async fn live(boot: &mut Boot) -> Shutdown {
    let mut power = PowerEvents::start().expect("signal handlers are installed once");
    tokio::spawn(reaper::run());
    let sources = boot.sources();
    // Whoever holds it keeps the links and the lease alive.
    let _network = match boot.start_network().await {
        Ok(network) => Some(network),
        Err(error) => {
            tracing::error!("no network: {error}");
            None
        }
    };
    let mut pace = RESTART;
    loop {
        let configured = sources.until("configuration", configuration);
        let config = tokio::select! {
            request = power.next() => return ended(request),
            config = configured => config,
        };
        match run_daemon(config, &mut power).await {
            Err(request) => return ended(request),
            Ok(outcome) => {
                let pause = pace.pause();
                let why = match outcome {
                    Ok(()) => "it ended by itself".to_owned(),
                    Err(error) => format!("{error:#}"),
                };
                tracing::error!(restart_in = ?pause, "the node stopped: {why}");
                tokio::select! {
                    request = power.next() => return ended(request),
                    () = tokio::time::sleep(pause) => {}
                }
            }
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

/// The daemon's configuration from the machine's, or a message for whoever looks at the console.
fn configuration(merged: &Merged) -> Result<Config, String> {
    let setting = merged.require("ticket")?;
    let refuse = |error: &dyn std::fmt::Display| {
        format!("the ticket from {} is refused: {error}", setting.origin())
    };
    let ticket = Ticket::parse(setting.value()).map_err(|error| refuse(&error))?;
    // A machine without a clock knows by its ticket that it is at least this late.
    if clock::raise_to(ticket.not_before().0) {
        tracing::warn!("the machine has no clock: set to the beginning of its ticket");
    }
    ticket
        .check(wall_clock::now())
        .map_err(|error| refuse(&error))?;
    let guest = match merged.get("guest").map(|setting| setting.value()) {
        None | Some("tun") => GuestKind::Tun("wow0".into()),
        Some("none") => GuestKind::None,
        Some(other) => {
            return Err(malformed(
                merged,
                "guest",
                &format!("{other:?} is neither tun nor none"),
            ));
        }
    };
    Ok(Config {
        ticket,
        // The machine has no disk of its own: each boot is a new node.
        state: None,
        name: parsed(merged, "name")?,
        role: parsed(merged, "role")?.map(WorkstationRole::role),
        listen: parsed(merged, "listen")?.unwrap_or(DEFAULT_LISTEN),
        tcp_listen: tcp_ports(merged)?,
        seeds: seeds(merged)?,
        guest,
        address: parsed(merged, "address")?,
        socket: ipc::default_socket(),
        lan: switch(merged, "lan")?,
        port_mapping: switch(merged, "port-mapping")?,
        offload: switch(merged, "offload")?,
        // Nobody else uses this machine's routes, and those it has lead to the underlay.
        allow_overlap: true,
        booted: true,
    })
}

fn seeds(merged: &Merged) -> Result<Vec<SeedAddr>, String> {
    list(merged, "seeds")
}

/// None unless they are asked for: most appliances are where nobody could connect to them.
fn tcp_ports(merged: &Merged) -> Result<Vec<u16>, String> {
    check_ports(list(merged, "tcp-listen")?)
        .map_err(|error| malformed(merged, "tcp-listen", &error))
}

/// A setting that is on unless it is `off`.
fn switch(merged: &Merged, key: &str) -> Result<bool, String> {
    match merged.get(key).map(|setting| setting.value()) {
        None | Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => {
            let error = format!("{other:?} is neither on nor off");
            Err(malformed(merged, key, &error))
        }
    }
}

/// A setting of several values with commas between them.
fn list<T: FromStr>(merged: &Merged, key: &str) -> Result<Vec<T>, String>
where
    T::Err: std::fmt::Display,
{
    let Some(setting) = merged.get(key) else {
        return Ok(Vec::new());
    };
    setting
        .value()
        .split(',')
        .map(|item| {
            item.trim()
                .parse()
                .map_err(|error| malformed(merged, key, &error))
        })
        .collect()
}

fn parsed<T: FromStr>(merged: &Merged, key: &str) -> Result<Option<T>, String>
where
    T::Err: std::fmt::Display,
{
    merged
        .get(key)
        .map(|setting| {
            setting
                .value()
                .parse()
                .map_err(|error| malformed(merged, key, &format!("{:?}: {error}", setting.value())))
        })
        .transpose()
}

fn malformed(merged: &Merged, key: &str, error: &dyn std::fmt::Display) -> String {
    match merged.get(key) {
        Some(setting) => format!("{key} from {} is malformed: {error}", setting.origin()),
        None => format!("{key} is malformed: {error}"),
    }
}

/// `wow init` outside process 1.
pub fn refuse() -> anyhow::Result<()> {
    Err(anyhow::anyhow!("this is process {}", std::process::id())).context(
        "`wow init` boots a machine and must be its process 1; to join a pool use `wow run`",
    )
}
