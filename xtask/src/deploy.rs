//! `cargo xtask deploy`: puts the router on a list of hosts over ssh.

mod report;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use wow_builder::bundle::Bundle;
use wow_builder::deploy::{
    self, Action, Deployment, Event, Guest, Limits, Login, NodeOptions, Plan, Secret, User, hosts,
};
use wow_builder::host::Purpose;
use wow_lab::interrupt;
use wow_lab::progress::{Progress, Task};

use crate::{bundle, router};

/// A ticket is far smaller.
const TICKET_BYTES_MAX: u64 = 64 * 1024;
/// A list of as many hosts as there may be is smaller.
const LIST_BYTES_MAX: u64 = 4 << 20;

/// Where, what, and how long.
///
/// Installs or upgrades unless --status, --rollback or --remove is given. Hosts that have everything already
/// are only asked whether their node is in the pool, so running it again does what is left.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The list of hosts: one a line, [USER@]HOST[:PORT]; `#` begins a comment.
    #[arg(long, value_name = "FILE")]
    hosts: PathBuf,
    /// As whom to log in where the list does not say. Root gets a systemd service where there is systemd; others
    /// get a start script.
    #[arg(long, value_name = "USER", value_parser = parse_user)]
    user: Option<User>,
    /// The ticket that the nodes join with; without it each host keeps the one it has.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["status", "rollback", "remove"])]
    ticket: Option<PathBuf>,
    /// What `cargo xtask bundle` has made, instead of making it now.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["status", "rollback", "remove"])]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArguments,
    /// Say how each host's node is.
    #[arg(long, conflicts_with_all = ["rollback", "remove"])]
    status: bool,
    /// Go back to the version before this one.
    #[arg(long, conflicts_with = "remove")]
    rollback: bool,
    /// End the nodes and remove everything from the hosts, their tickets and identities too.
    #[arg(long)]
    remove: bool,
    /// On how many hosts at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// Seconds that a host may take to answer.
    #[arg(long, default_value_t = 10, value_parser = seconds())]
    connect_timeout: u64,
    /// Seconds that a node may take to join.
    #[arg(long, default_value_t = 30, value_parser = seconds())]
    join_timeout: u64,
    /// Seconds that a host may take for everything.
    #[arg(long, default_value_t = 120, value_parser = seconds())]
    timeout: u64,
    /// Believe hosts whose keys are unknown, and keep their keys. A key that has changed is never believed.
    #[arg(long)]
    accept_new: bool,
    /// A configuration of ssh's to use instead of yours.
    #[arg(long, value_name = "FILE")]
    ssh_config: Option<PathBuf>,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

/// What the nodes are told, as `wow run` is. Without any of these each host keeps those that it has.
#[derive(Debug, clap::Args)]
#[group(id = "node", multiple = true, conflicts_with_all = ["status", "rollback", "remove"])]
struct NodeArguments {
    /// How the hosts take part: tun, or none to carry others' traffic only. Default: tun for root where there is
    /// /dev/net/tun, else none.
    #[arg(long, value_parser = parse_guest)]
    guest: Option<Guest>,
    /// The address and UDP port to listen on, such as [::]:4001. Default: any port.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// A TCP port to listen on too; may be repeated.
    #[arg(long, value_name = "PORT")]
    tcp_listen: Vec<u16>,
    /// A node to join by besides those of the ticket; may be repeated.
    #[arg(long = "seed", value_name = "HOST:PORT")]
    seeds: Vec<String>,
    /// With --guest none: where programs of each host find a SOCKS proxy into the pool, such as 127.0.0.1:1080.
    #[arg(long, value_name = "ADDR:PORT", requires = "guest")]
    socks: Option<SocketAddr>,
    /// With --guest none: a way into the pool, or out of it, such as pool:22=127.0.0.1:22; may be repeated.
    #[arg(long = "forward", value_name = "LISTEN=TARGET", requires = "guest")]
    forwards: Vec<String>,
}

fn seconds() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=3600)
}

fn parse_user(text: &str) -> Result<User, String> {
    text.parse()
}

fn parse_guest(text: &str) -> Result<Guest, String> {
    match text {
        "tun" => Ok(Guest::Tun),
        "none" => Ok(Guest::None),
        _ => Err("there are tun and none".into()),
    }
}

/// Does it; success when every host is as it was wished to be.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let shown = arguments.hosts.display();
    let list = read(&arguments.hosts, LIST_BYTES_MAX)
        .with_context(|| format!("cannot read the list of hosts {shown}"))?;
    let list = String::from_utf8(list).with_context(|| format!("{shown} is no text"))?;
    let targets = hosts::parse(&list).with_context(|| format!("{shown} is wrong"))?;
    router::ensure_packages(&[Purpose::Deploy])?;
    let plan = Plan {
        targets,
        login: Login {
            user: arguments.user.clone(),
            config: arguments.ssh_config.clone(),
            accept_new: arguments.accept_new,
        },
        action: action(arguments)?,
        parallel: arguments.parallel.into(),
        limits: Limits {
            connect: Duration::from_secs(arguments.connect_timeout),
            join: Duration::from_secs(arguments.join_timeout),
            host: Duration::from_secs(arguments.timeout),
        },
    };
    interrupt::install()?;
    let started = Instant::now();
    let display = Display::new(plan.targets.len());
    let outcomes = deploy::run(&plan, &|event| display.show(event), &interrupt::requested);
    let summary = report::Summary::new(outcomes, arguments.remove, started.elapsed());
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        println!("{}", summary.table());
    }
    Ok(match summary.all_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn action(arguments: &Arguments) -> Result<Action> {
    if arguments.status {
        return Ok(Action::Status);
    }
    if arguments.rollback {
        return Ok(Action::Rollback);
    }
    if arguments.remove {
        return Ok(Action::Remove);
    }
    let ticket = arguments.ticket.as_deref().map(read_ticket).transpose()?;
    let path = match &arguments.bundle {
        Some(path) => path.clone(),
        None => bundle::build()?.written.tar,
    };
    let bundle = Bundle::read(&path).with_context(|| format!("the bundle {}", path.display()))?;
    let options = NodeOptions {
        guest: arguments.node.guest,
        listen: arguments.node.listen,
        tcp_listen: arguments.node.tcp_listen.clone(),
        seeds: arguments.node.seeds.clone(),
        socks: arguments.node.socks,
        forwards: arguments.node.forwards.clone(),
    };
    let leads_in = options.socks.is_some() || !options.forwards.is_empty();
    ensure!(
        !leads_in || options.guest == Some(Guest::None),
        "--socks and --forward are for --guest none: with a TUN device a host's programs are in the pool by themselves"
    );
    Ok(Action::Deploy(Deployment {
        bundle,
        ticket,
        options: (options != NodeOptions::default()).then_some(options),
    }))
}

/// The ticket, if nobody else could read it.
fn read_ticket(path: &Path) -> Result<Secret> {
    let shown = path.display();
    let mode = std::fs::metadata(path)
        .with_context(|| format!("cannot read the ticket {shown}"))?
        .mode();
    ensure!(
        mode & 0o077 == 0,
        "the ticket {shown} is open to others (mode {:04o}) and holds a secret; consider it leaked if anybody \
         had access, then close it with: chmod 600 {shown}",
        mode & 0o777
    );
    let bytes = read(path, TICKET_BYTES_MAX).with_context(|| format!("the ticket {shown}"))?;
    ensure!(!bytes.is_empty(), "the ticket {shown} is empty");
    Ok(Secret::new(bytes))
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if length as u64 > limit {
        bail!("it has more than {limit} bytes");
    }
    Ok(bytes)
}

/// What happens on the hosts: a spinner for each at work, and a line for each that is done with.
struct Display {
    progress: Progress,
    /// Those at work, by their place in the list's words; and how many are done with.
    state: Mutex<(BTreeMap<String, Task>, usize)>,
    all: usize,
}

impl Display {
    fn new(all: usize) -> Self {
        Self {
            progress: Progress::to_stderr(),
            state: Mutex::default(),
            all,
        }
    }

    fn show(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (tasks, done) = &mut *state;
        match event {
            Event::Began(target) => {
                let host = target.to_string();
                tasks.insert(host.clone(), self.progress.start(&host));
            }
            Event::Step(target, step) => {
                if let Some(task) = tasks.get(&target.to_string()) {
                    task.now(step);
                }
            }
            Event::Ended(target, outcome) => {
                tasks.remove(&target.to_string());
                *done += 1;
                let error = outcome.error.as_deref();
                let error = error.map(|error| format!(": {error}")).unwrap_or_default();
                self.progress.say(&format!(
                    "[{done}/{}] {target}: {} in {:.1} s{error}",
                    self.all,
                    outcome.ended,
                    Duration::from_millis(outcome.took_ms).as_secs_f64()
                ));
            }
        }
    }
}
