//! Brings a daemon up from its configuration, and down again.

use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use wow_control::{Control, ControlConfig, Names};
use wow_guest::ethernet;
use wow_guest::{
    EthernetGuest, Guest, PacketPort, TapConfig, TapPort, TunConfig, TunGuest, VirtioOrPacket,
};
use wow_init::network::SECOND_CARD;
use wow_overlay::membership::addresses::{control_v4, control_v6};
use wow_overlay::membership::{Addresses, NodeName, SeedAddr, Ticket};
use wow_underlay::portmap::{Transport, Wanted};
use wow_underlay::{InterfaceWatch, Lan, PortMapper, TcpUnderlay, UdpUnderlay, Underlay};

use crate::config::{self, Config, GuestKind, GuestMtu};
use crate::daemon::command::Command;
use crate::daemon::{Alarm, Daemon, Guests, Parts, Settings, guests, host, overlap, seeds};
use crate::ipc::{self, Operator, Server};
use crate::keeper::Files;
use crate::services::{Gateway, Services, StackGuest};
use crate::state::{self, State};
use crate::timekeeping::{self, Way};
use crate::{random, remembered, syslog, wall_clock};

/// Ends when the process is told to.
pub type Stop = Pin<Box<dyn Future<Output = ()>>>;

/// Commands of clients that wait for the loop.
const COMMANDS_MAX: usize = 64;

/// The MTU of the stack in the place of a guest: IPv6's least.
const STACK_MTU_BYTES: u16 = 1280;

/// Runs `wow run` until SIGTERM or SIGINT.
pub fn run(config: Config) -> Result<()> {
    until_told(async |stop| serve(config, Box::new(|| {}), stop).await)
}

/// Runs `work` on an event loop of its own; what it is given ends with SIGTERM or SIGINT.
pub fn until_told<W>(work: W) -> Result<()>
where
    W: AsyncFnOnce(Stop) -> Result<()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
        let stop = Box::pin(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        work(stop).await
    })
}

/// Runs a daemon until `stop`; `progress` is called whenever its loop has done what was due.
pub async fn serve(
    config: Config,
    progress: Box<dyn FnMut()>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let facts = config.ticket.facts().clone();
    config
        .ticket
        .check(wall_clock::now())
        .context("the ticket is refused")?;
    let control_address = control_v4(facts.range);
    if config.dns.iter().any(|at| at.ip() == control_address) {
        bail!("the DNS server {control_address} is this node itself: give one outside the pool");
    }

    let state = match config.state {
        Files::Nowhere => State::in_memory(),
        Files::In(directory) => State::open(&directory)?,
        Files::OnDisk(keeper) => State::on_disk(keeper, &facts),
    };
    let identity = state.identity(&facts)?;
    let name = config
        .name
        .unwrap_or_else(|| host_name(&identity.node_id().short(), config.booted));
    let certificate = state.certificate(
        &identity,
        &config.ticket,
        &name,
        config::certified_roles(config.ticket.roles(), config.role),
        config.address,
        wall_clock::now(),
    )?;
    let addresses = Addresses::new(&facts, &certificate);

    let server = Server::bind(&config.socket)?;
    let underlay = UdpUnderlay::bind(config.listen, config.offload)?;
    let lan = match config.lan {
        true => Lan::open()
            .inspect_err(|error| tracing::warn!(%error, "members nearby are not looked for"))
            .ok(),
        false => None,
    };
    let tcp = TcpUnderlay::bind(config.listen.ip(), &config.tcp_listen)?;
    let mapper = config.port_mapping.then(|| {
        let mut wanted = mappable(Transport::Udp, &underlay.bound());
        wanted.extend(mappable(Transport::Tcp, tcp.listening()));
        PortMapper::start(wanted)
    });
    if let GuestKind::Tun(tun) = &config.guest {
        check_overlap(&facts, tun, config.allow_overlap)?;
    }
    let (guest, control) = open_guest(
        &config.guest,
        &config.ticket,
        addresses,
        config.offload,
        config.mtu,
        !config.dns.is_empty(),
    )?;
    let (mut guest, mut control) = (guest, control);
    let clock = config.clock;
    let source = clock.clone();
    let client = clock
        .gives()
        .then(|| control.serve_time(Box::new(move || source.reading())));
    let (way, device) = match &config.guest {
        GuestKind::Tun(tun) => (Some(Way::Device(tun.clone())), Some(tun.clone())),
        _ => (client.map(Way::Stack), None),
    };
    let guests = guest.lan().map(|lan| {
        let kind = config.guest.to_string();
        let gives_time = clock.gives();
        Guests::new((kind, lan.mac()), &facts, config.mtu, gives_time, &state)
    });

    let mut all_seeds: Vec<SeedAddr> = facts.seeds.clone();
    let files = state.files().clone();
    let remembered = remembered::read(&files);
    for seed in config.seeds.into_iter().chain(remembered) {
        if !all_seeds.contains(&seed) {
            all_seeds.push(seed);
        }
    }
    if all_seeds.is_empty() {
        tracing::warn!("no seed is known: this node waits for others to come (see --seed)");
    }

    let (seeds_sender, seeds_receiver) = watch::channel(seeds::literal(&all_seeds));
    let (command_sender, commands) = mpsc::channel(COMMANDS_MAX);
    let sources = config.sources.iter();
    let problems = sources.flat_map(|report| report.problems.clone());
    tell(&command_sender, "configuration", problems.collect());
    let interfaces = InterfaceWatch::new()
        .inspect_err(
            |error| tracing::warn!(%error, "not told of changes of the machine's addresses"),
        )
        .ok();
    tracing::info!(
        pool = %facts.name,
        name = %name,
        id = identity.node_id().short(),
        v4 = %addresses.v4,
        listen = ?underlay.bound(),
        tcp = ?tcp.listening(),
        "starting"
    );

    // Elsewhere no ICMP of this machine's leads to the pool.
    let has_guest = matches!(config.guest, GuestKind::Tun(_));
    let services = Services::new(command_sender.clone(), &config.dns);
    let peers_asker = command_sender.clone();
    let timekeeper = timekeeping::follow_pool(clock.clone(), way, command_sender.clone());
    let operator = Operator::new(command_sender, has_guest.then_some(control_address))
        .with_configuration(config.sources)
        .with_updates(config.updates);
    let streams = control.streams();
    let gateway = match config.gateway.is_empty() {
        true => None,
        false => Some(Gateway::open(&config.gateway, streams, operator.clone(), &facts).await?),
    };
    let daemon = Daemon::new(
        Settings {
            ticket: config.ticket,
            state,
            identity,
            certificate,
            name: name.clone(),
            role: config.role,
            address: config.address,
            tun: match &config.guest {
                GuestKind::Tun(tun) => Some(tun.clone()),
                _ => None,
            },
            mtu: config.mtu,
            booted: config.booted,
            clock: clock.clone(),
        },
        Parts {
            underlay: Box::new(underlay),
            tcp: Some(tcp),
            lan,
            mapper,
            guest,
            control: Some(control),
            services,
            guests,
            interfaces,
            alarm: Alarm::new(),
            progress,
            seeds: seeds_receiver,
            commands,
        },
    );
    // Ended with the set, and the control socket removed with its task.
    let mut tasks = JoinSet::new();
    tasks.spawn(server.run(operator.clone()));
    tasks.spawn(seeds::follow(all_seeds, seeds_sender));
    if !matches!(files, Files::Nowhere) {
        tasks.spawn(remembered::follow(files, peers_asker));
    }
    if let Some(server) = config.syslog {
        tasks.spawn(syslog::run(server, name.clone()));
    }
    if config.booted {
        tasks.spawn(ipc::serve_port(operator));
    }
    if let Some(device) = device.filter(|_| clock.gives()) {
        tasks.spawn(timekeeping::serve(clock, device));
    }
    let gateway = async {
        match gateway {
            Some(gateway) => gateway.run().await,
            None => std::future::pending().await,
        }
    };
    // The daemon looks at its end when that has something to do, not whenever a packet comes: so these go on there.
    let stop = async {
        tokio::select! {
            () = stop => {}
            () = gateway => unreachable!("it serves for ever"),
            () = timekeeper => unreachable!("it asks for ever"),
        }
    };
    let ended = daemon.run(stop).await;
    tasks.shutdown().await;
    ended
}

/// Has the loop tell trouble that was there before it.
fn tell(commands: &mpsc::Sender<Command>, from: &str, sentences: Vec<String>) {
    if sentences.is_empty() {
        return;
    }
    let from = NodeName::new(from).expect("ours are labels");
    // Nobody asked, so nobody waits for the answer; and the channel was empty.
    let _ = commands.try_send(Command::Trouble(from, sentences, oneshot::channel().0));
}

/// The IPv4 ports that a gateway is asked to map: not those of the loopback.
fn mappable(transport: Transport, bound: &[SocketAddr]) -> Vec<Wanted> {
    let mapped = bound
        .iter()
        .filter(|a| a.is_ipv4() && !a.ip().is_loopback());
    let ports = mapped.filter_map(|address| NonZeroU16::new(address.port()));
    ports.map(|port| Wanted { transport, port }).collect()
}

/// The routes that the pool's range would take over from the host, or lose to it.
fn check_overlap(
    facts: &wow_overlay::membership::PoolFacts,
    tun: &str,
    allowed: bool,
) -> Result<()> {
    for route in host::overlapping_routes(facts.range, Some(tun)) {
        // One that is allowed, or that comes later, the daemon tells of.
        if !allowed {
            bail!(overlap(facts, &route));
        }
    }
    Ok(())
}

fn open_guest(
    kind: &GuestKind,
    ticket: &Ticket,
    addresses: Addresses,
    offload: bool,
    mtu: GuestMtu,
    forwards_dns: bool,
) -> Result<(Box<dyn Guest>, Control)> {
    let facts = ticket.facts();
    let pool = facts.pool_id();
    let prefix = facts.summary().v6_prefix;
    let stack = |v4, v6, mtu_bytes, forwards| {
        let config = ControlConfig {
            v4,
            v6,
            mtu_bytes,
            seed: random::number(),
            names: Names {
                suffix: facts.dns_suffix(),
                v4: (facts.range.addr(), facts.range.prefix_len()),
                v6: (prefix.addr(), prefix.prefix_len()),
                forwards,
            },
        };
        Control::new(config, Duration::ZERO)
    };
    let mtu_bytes = mtu.bytes();
    let (v4, v6) = (control_v4(facts.range), control_v6(pool));
    let gateway = ethernet::Gateway { v4, v6 };
    let guest: Box<dyn Guest> = match kind {
        // Every path carries this much whole, and nobody but the pool asks there, for whom this node is
        // no resolver.
        GuestKind::None => {
            let mut control = stack(addresses.v4, addresses.v6, STACK_MTU_BYTES, false);
            let guest = StackGuest::new(control.packet_port());
            return Ok((Box::new(guest), control));
        }
        GuestKind::Tun(name) => Box::new(TunGuest::open(&TunConfig {
            name: name.clone(),
            v4: (addresses.v4, facts.range.prefix_len()),
            v6: (addresses.v6, facts.summary().v6_prefix.prefix_len()),
            mtu_bytes,
            offload,
        })?),
        GuestKind::Packet(name) => {
            let port = PacketPort::open(name, offload)?;
            Box::new(EthernetGuest::new(port, gateway))
        }
        GuestKind::Virtio(card) => {
            let port = VirtioOrPacket::open(card, SECOND_CARD, offload)?;
            Box::new(EthernetGuest::new(port, gateway))
        }
        GuestKind::Tap(name) => {
            let port = TapPort::open(&TapConfig {
                name: name.clone(),
                mac: guests::own_mac(addresses.v6),
                mtu_bytes,
                offload,
            })?;
            Box::new(EthernetGuest::new(port, gateway))
        }
    };
    // Guests of a LAN are no more this machine than the pool is: its own address lives on the stack, and so must
    // get by on what every path carries.
    let mut guest = guest;
    let is_lan = guest.lan().is_some();
    let mtu_bytes = if is_lan { STACK_MTU_BYTES } else { mtu_bytes };
    let mut control = stack(v4, v6, mtu_bytes, forwards_dns);
    if is_lan {
        control.set_own(addresses.v4, addresses.v6);
    }
    Ok((guest, control))
}

fn host_name(short_id: &str, booted: bool) -> NodeName {
    let uname = rustix::system::uname();
    let mut host = uname.nodename().to_string_lossy();
    // All machines from one image would share this one.
    if booted && host == wow_init::hostname::DEFAULT {
        host = "".into();
    }
    state::name_from_host(&host, &format!("n-{short_id}"))
}
