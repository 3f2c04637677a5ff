//! The boot of the appliance: the table of its steps and what they leave behind.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::{Merged, Sources};
use crate::network::{Network, Plan, SECOND_CARD};
use crate::step::{Blocking, Eventual, Last, OnFailure, Step, StepError, StepReport};
use crate::step::{run_blocking, run_eventual};
use crate::{clock, console, entropy, hostname, mounts, panic, state};

/// How long boot waits for the first lease before it goes on; the network keeps asking.
const ADDRESS_LIMIT: Duration = Duration::from_secs(3);

/// The steps before the event loop, in their order.
const EARLY: &[Step<Blocking<Machine>>] = &[
    Step {
        name: "console",
        deadline: Duration::from_secs(2),
        on_failure: OnFailure::Continue,
        run: |_| console::step(),
    },
    Step {
        name: "mounts",
        deadline: Duration::from_secs(5),
        on_failure: OnFailure::Retry {
            attempts: 3,
            pause: Duration::from_millis(200),
            last: Last::Fatal,
        },
        run: |_| mounts::step(),
    },
    Step {
        name: "entropy",
        deadline: Duration::from_secs(20),
        on_failure: OnFailure::Retry {
            attempts: 3,
            pause: Duration::from_millis(100),
            last: Last::Fatal,
        },
        run: |_| entropy::step(),
    },
    Step {
        name: "clock",
        deadline: Duration::from_secs(5),
        on_failure: OnFailure::Continue,
        run: |_| clock::step(),
    },
    Step {
        name: "state",
        deadline: Duration::from_secs(5),
        on_failure: OnFailure::Continue,
        run: |machine| {
            let partition = state::attach(|_| Ok(()));
            let told = state::told(&partition);
            *lock(&machine.state) = partition;
            told
        },
    },
    Step {
        name: "configuration",
        deadline: Duration::from_secs(10),
        on_failure: OnFailure::Retry {
            attempts: 2,
            pause: Duration::from_millis(200),
            last: Last::Continue,
        },
        run: read_configuration,
    },
    Step {
        name: "hostname",
        deadline: Duration::from_secs(2),
        on_failure: OnFailure::Continue,
        run: |machine| hostname::step(&machine.settings()),
    },
];

/// The steps on the event loop, in their order.
const NETWORK: &[Step<Eventual<Network>>] = &[
    Step {
        name: "links",
        deadline: Duration::from_secs(5),
        on_failure: OnFailure::Continue,
        run: |network| {
            Box::pin(async {
                match network.links_ready().await {
                    Some(names) if names.is_empty() => Err(StepError::new(
                        "no Ethernet interface yet; one is used when it appears",
                    )),
                    Some(names) => Ok(format!("up: lo {}", names.join(" "))),
                    None => Err(StepError::new("the network's task ended")),
                }
            })
        },
    },
    Step {
        name: "address",
        deadline: ADDRESS_LIMIT,
        on_failure: OnFailure::Continue,
        run: |network| {
            Box::pin(async {
                match network.underlay().await {
                    Some(underlay) => Ok(format!("{} on {}", underlay.address, underlay.interface)),
                    None => Err(StepError::new("the network's task ended")),
                }
            })
        },
    },
];

/// What the early steps work on.
#[derive(Debug, Default)]
struct Machine {
    sources: Arc<Sources>,
    state: Mutex<state::Partition>,
    settings: Mutex<Merged>,
}

impl Machine {
    fn settings(&self) -> Merged {
        lock(&self.settings).clone()
    }
}

/// A machine whose early boot is done.
#[derive(Debug)]
pub struct Boot {
    machine: Arc<Machine>,
    reports: Vec<StepReport>,
}

impl Boot {
    /// Installs the panic hook and runs the early steps: console, mounts, entropy, clock, configuration,
    /// host name. A fatal failure restarts the machine. For process 1 only, before any
    /// event loop, after a subscriber for `tracing` is installed.
    pub fn start() -> Self {
        panic::install();
        let machine = Arc::new(Machine::default());
        let mut reports = Vec::with_capacity(EARLY.len() + NETWORK.len());
        if let Err(fatal) = run_blocking(EARLY, &machine, &mut reports) {
            panic::die(&fatal.to_string());
        }
        Self { machine, reports }
    }

    /// The configuration as read at boot. Its problems have been logged.
    pub fn settings(&self) -> Merged {
        self.machine.settings()
    }

    /// What became of the state partition.
    pub fn state(&self) -> state::Partition {
        lock(&self.machine.state).clone()
    }

    /// The sources, to read them again or wait for a usable ticket ([`Sources::until`]).
    pub fn sources(&self) -> Arc<Sources> {
        Arc::clone(&self.machine.sources)
    }

    /// The key `net`; a malformed value is said and means DHCP.
    pub fn network_plan(&self) -> Plan {
        let settings = self.settings();
        let Some(setting) = settings.get("net") else {
            return Plan::default();
        };
        setting.value().parse().unwrap_or_else(|error| {
            tracing::error!("configuration: {}: {error}; using dhcp", setting.origin());
            Plan::default()
        })
    }

    /// Starts the network and waits, at most a few seconds, for links and the first address. It goes on
    /// by itself after that: watch [`Network::status`].
    pub async fn start_network(&mut self) -> std::io::Result<Network> {
        let plan = self.network_plan();
        let with_address = plan != Plan::None;
        let guests = guests_interface(&self.settings());
        let network = Network::start(plan, guests)?;
        let steps = if with_address { NETWORK } else { &NETWORK[..1] };
        // No step of these is fatal: a machine without network waits for one.
        let _ = run_eventual(steps, &network, &mut self.reports).await;
        Ok(network)
    }

    /// What became of each step so far.
    pub fn reports(&self) -> &[StepReport] {
        &self.reports
    }
}

/// The interface that the key `guest` gives to guests. What else it says is the router's to check.
fn guests_interface(settings: &Merged) -> Option<String> {
    let value = settings.get("guest")?.value();
    let (kind, name) = match value.split_once(':') {
        Some((kind, name)) => (kind, Some(name)),
        None => (value, None),
    };
    match kind {
        "tap" => name.map(str::to_owned),
        "packet" | "virtio" => Some(name.unwrap_or(SECOND_CARD).to_owned()),
        _ => None,
    }
}

fn read_configuration(machine: &Machine) -> Result<String, StepError> {
    let merged = machine.sources.read();
    for problem in merged.problems() {
        tracing::error!("configuration: {problem}");
    }
    for lost in merged.lost().iter().filter(|lost| lost.is_contradiction()) {
        tracing::warn!("configuration: {}", merged.contradiction(lost));
    }
    if let Some(ticket) = merged.get("ticket")
        && ticket.origin().is_kernel_command_line()
    {
        tracing::warn!(
            "the ticket stands on the kernel command line, where every process and boot log shows it; \
             better give it by fw_cfg"
        );
    }
    let found: Vec<String> = merged
        .iter()
        .map(|setting| format!("{setting:?}"))
        .collect();
    *lock(&machine.settings) = merged;
    Ok(if found.is_empty() {
        "nothing configured".into()
    } else {
        found.join("; ")
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
