//! What `wow run` is to do: the command line over the configuration file over defaults.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use wow_guest::virtio;
use wow_overlay::membership::{NodeName, Roles, SeedAddr, Ticket};
use wow_overlay::node::{GUEST_MTU_DEFAULT, GUEST_MTU_MAX, GUEST_MTU_MIN};
use wow_underlay::tcp::PORTS_MAX;

use crate::cli::RunArgs;
use crate::keeper::Files;
use crate::services::{DNS_SERVERS_MAX, Forward, GatewayPlan};
use crate::timekeeping::{GiveTime, Keeping, Timekeeping};
use crate::{ipc, pool};

const DEFAULT_TUN: &str = "wow0";

/// The configuration file is read up to this size.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The configuration file, as written. Paths are relative to the working directory.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawConfig {
    /// The ticket's file.
    ticket: Option<PathBuf>,
    state: Option<PathBuf>,
    name: Option<NodeName>,
    role: Option<WorkstationRole>,
    listen: Option<SocketAddr>,
    #[serde(default)]
    tcp_listen: Vec<u16>,
    #[serde(default)]
    seeds: Vec<SeedAddr>,
    guest: Option<GuestArg>,
    tun: Option<String>,
    mtu: Option<GuestMtu>,
    address: Option<Ipv4Addr>,
    socket: Option<PathBuf>,
    #[serde(default)]
    no_lan: bool,
    #[serde(default)]
    no_port_mapping: bool,
    #[serde(default)]
    no_offload: bool,
    #[serde(default)]
    allow_overlap: bool,
    /// Each ADDRESS or ADDRESS:PORT.
    #[serde(default)]
    dns: Vec<String>,
    give_time: Option<GiveTime>,
    socks: Option<SocketAddr>,
    #[serde(default)]
    forward: Vec<Forward>,
    #[serde(default)]
    gateway_for_all: bool,
}

/// Who takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestKind {
    /// This machine, by a TUN device of this name.
    Tun(String),
    /// The machines behind a network card of this name.
    Packet(String),
    /// The same, with the card driven from here; else by a packet socket.
    Virtio(virtio::Choice),
    /// The machines behind a TAP device of this name.
    Tap(String),
    /// Without a device: the node's own address lives on a stack in the daemon.
    None,
}

impl std::fmt::Display for GuestKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            GuestKind::Tun(name) => write!(f, "tun {name}"),
            GuestKind::Packet(name) => write!(f, "packet {name}"),
            GuestKind::Virtio(card) => write!(f, "virtio {card}"),
            GuestKind::Tap(name) => write!(f, "tap {name}"),
            GuestKind::None => f.write_str("none"),
        }
    }
}

/// A [`GuestKind`] as people write it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum GuestArg {
    /// `tun`, whose name has a setting of its own.
    Tun,
    /// `packet:IFACE`; without a name an appliance's second card.
    Packet(Option<String>),
    /// `virtio:CARD`, by a PCI address or an interface; the same without it.
    Virtio(Option<virtio::Choice>),
    /// `tap:NAME`
    Tap(String),
    /// `none`
    None,
}

/// A kind of guest that there is none of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of guest: give tun, packet:IFACE, virtio:CARD, tap:NAME or none")]
pub struct NoGuestKind(String);

impl FromStr for GuestArg {
    type Err = NoGuestKind;

    fn from_str(text: &str) -> Result<Self, NoGuestKind> {
        match text
            .split_once(':')
            .map_or((text, None), |(kind, name)| (kind, Some(name)))
        {
            ("tun", None) => Ok(GuestArg::Tun),
            ("none", None) => Ok(GuestArg::None),
            ("packet", None) => Ok(GuestArg::Packet(None)),
            ("packet", Some(name)) if !name.is_empty() => {
                Ok(GuestArg::Packet(Some(name.to_owned())))
            }
            ("virtio", None) => Ok(GuestArg::Virtio(None)),
            ("virtio", Some(card)) if !card.is_empty() => {
                let Ok(card) = card.parse();
                Ok(GuestArg::Virtio(Some(card)))
            }
            ("tap", Some(name)) if !name.is_empty() => Ok(GuestArg::Tap(name.to_owned())),
            _ => Err(NoGuestKind(text.to_owned())),
        }
    }
}

impl TryFrom<String> for GuestArg {
    type Error = NoGuestKind;

    fn try_from(text: String) -> Result<Self, NoGuestKind> {
        text.parse()
    }
}

/// Everything that a daemon is started with.
#[derive(Debug)]
pub struct Config {
    /// Verified, but not yet checked against the time.
    pub ticket: Ticket,
    /// Where identity, certificate, peers and leases are kept over restarts.
    pub state: Files,
    /// `None` takes the host's.
    pub name: Option<NodeName>,
    /// What the machine is in the pool of workstations, if it was said.
    pub role: Option<Roles>,
    /// Where to listen.
    pub listen: SocketAddr,
    /// TCP ports to listen on, on the same addresses.
    pub tcp_listen: Vec<u16>,
    /// Besides the ticket's.
    pub seeds: Vec<SeedAddr>,
    /// Who takes part.
    pub guest: GuestKind,
    /// The longest packet that the guest sends.
    pub mtu: GuestMtu,
    /// A fixed address, or one derived from the id.
    pub address: Option<Ipv4Addr>,
    /// The control socket.
    pub socket: PathBuf,
    /// Whether members are looked for on the local networks.
    pub lan: bool,
    /// Whether the gateway is asked to map ports.
    pub port_mapping: bool,
    /// Whether kernels and devices may take many packets as one.
    pub offload: bool,
    /// DNS servers for names outside the pool.
    pub dns: Vec<SocketAddr>,
    /// The clock, and whether its time is given to others.
    pub clock: Timekeeping,
    /// How this machine's programs reach the pool without a device.
    pub gateway: GatewayPlan,
    /// Whether routes of the host that overlap the pool's range are only warned of.
    pub allow_overlap: bool,
    /// Whether this process is the machine's own node: it booted it, or a service of it runs this.
    pub booted: bool,
    /// Where log messages are shipped to.
    pub syslog: Option<crate::syslog::Server>,
    /// The slots of the machine's disk, if this process may update the machine.
    pub updates: Option<crate::update::Updates>,
    /// Where it came from, if from the machine's own sources.
    pub sources: Option<crate::configuration::Report>,
}

impl Config {
    /// From the command line and the file that it may name.
    pub fn from_args(args: RunArgs, socket: Option<PathBuf>) -> Result<Self> {
        let raw = match &args.config {
            Some(path) => read(path)?,
            None => RawConfig::default(),
        };
        let Some(ticket) = args.ticket.or(raw.ticket) else {
            bail!(
                "a node needs a ticket: --ticket FILE; the pool's owner makes one with `wow pool ticket`"
            );
        };
        let mut seeds = args.seeds;
        seeds.extend(raw.seeds);
        let mut dns = args.dns;
        if dns.is_empty() {
            let servers = raw.dns.iter().map(|server| dns_server(server));
            dns = servers
                .collect::<Result<_, _>>()
                .map_err(anyhow::Error::msg)?;
        }
        let gateway = GatewayPlan {
            socks: args.socks.or(raw.socks),
            forwards: match args.forwards.is_empty() {
                true => raw.forward,
                false => args.forwards,
            },
            for_all: args.gateway_for_all || raw.gateway_for_all,
        };
        let guest = args.guest.or(raw.guest).unwrap_or(GuestArg::Tun);
        gateway.check(&guest)?;
        let tun = args.tun.or(raw.tun).unwrap_or_else(|| DEFAULT_TUN.into());
        Ok(Config {
            ticket: pool::read_ticket(&ticket)?,
            state: Files::In(args.state.or(raw.state).map_or_else(default_state, Ok)?),
            name: args.name.or(raw.name),
            role: args.role.or(raw.role).map(WorkstationRole::role),
            // Both families, and any port: a node that others join by sets its own.
            listen: args
                .listen
                .or(raw.listen)
                .unwrap_or_else(|| (Ipv6Addr::UNSPECIFIED, 0).into()),
            tcp_listen: check_ports(match args.tcp_listen.is_empty() {
                true => raw.tcp_listen,
                false => args.tcp_listen,
            })?,
            seeds,
            guest: match guest {
                GuestArg::Tun => GuestKind::Tun(tun),
                GuestArg::Packet(Some(name)) => GuestKind::Packet(name),
                GuestArg::Packet(None) => {
                    bail!("say which network card the guests are behind: --guest packet:IFACE")
                }
                GuestArg::Virtio(Some(card)) => GuestKind::Virtio(card),
                GuestArg::Virtio(None) => {
                    bail!(
                        "say which network card the guests are behind: --guest virtio:PCI-ADDRESS or \
                         virtio:IFACE"
                    )
                }
                GuestArg::Tap(name) => GuestKind::Tap(name),
                GuestArg::None => GuestKind::None,
            },
            mtu: args.mtu.or(raw.mtu).unwrap_or_default(),
            address: args.address.or(raw.address),
            socket: socket.or(raw.socket).unwrap_or_else(ipc::default_socket),
            lan: !(args.no_lan || raw.no_lan),
            port_mapping: !(args.no_port_mapping || raw.no_port_mapping),
            offload: !(args.no_offload || raw.no_offload),
            dns: check_dns(dns)?,
            clock: Timekeeping::new(Keeping::Host(
                args.give_time.or(raw.give_time).unwrap_or_default(),
            )),
            gateway,
            allow_overlap: args.allow_overlap || raw.allow_overlap,
            booted: false,
            syslog: None,
            updates: None,
            sources: None,
        })
    }
}

/// A DNS server as people write it: its address, with another port than 53 if there is one.
pub fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let plain = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    plain
        .or_else(|_| text.parse())
        .map_err(|_| format!("{text:?} is no DNS server: write ADDRESS or ADDRESS:PORT"))
}

/// The DNS servers to forward to.
pub fn check_dns(servers: Vec<SocketAddr>) -> Result<Vec<SocketAddr>> {
    if servers.len() > DNS_SERVERS_MAX {
        bail!("a node forwards to {DNS_SERVERS_MAX} DNS servers at most; give fewer of --dns");
    }
    Ok(servers)
}

/// The guest's MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u16")]
pub struct GuestMtu(u16);

/// A number of bytes that no guest can have as MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest's MTU is a number of bytes from {GUEST_MTU_MIN} to {GUEST_MTU_MAX}")]
pub struct NoGuestMtu;

impl GuestMtu {
    /// In bytes.
    pub fn bytes(self) -> u16 {
        self.0
    }
}

impl Default for GuestMtu {
    fn default() -> Self {
        GuestMtu(GUEST_MTU_DEFAULT as u16)
    }
}

impl TryFrom<u16> for GuestMtu {
    type Error = NoGuestMtu;

    fn try_from(bytes: u16) -> Result<Self, NoGuestMtu> {
        let possible = (GUEST_MTU_MIN..=GUEST_MTU_MAX).contains(&bytes.into());
        possible.then_some(Self(bytes)).ok_or(NoGuestMtu)
    }
}

impl FromStr for GuestMtu {
    type Err = NoGuestMtu;

    fn from_str(text: &str) -> Result<Self, NoGuestMtu> {
        Self::try_from(text.parse::<u16>().map_err(|_| NoGuestMtu)?)
    }
}

/// What a workstation can be: one of them.
pub const WORKSTATION_ROLES: [Roles; 3] = [Roles::HEAD, Roles::WORKER, Roles::LOGIN];

/// One of [`WORKSTATION_ROLES`], as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Roles")]
pub struct WorkstationRole(Roles);

/// A role that is none of a workstation, or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a workstation's role is one of head, worker and login")]
pub struct NoWorkstationRole;

impl WorkstationRole {
    /// As the certificate names it.
    pub fn role(self) -> Roles {
        self.0
    }
}

impl TryFrom<Roles> for WorkstationRole {
    type Error = NoWorkstationRole;

    fn try_from(role: Roles) -> Result<Self, NoWorkstationRole> {
        let known = WORKSTATION_ROLES.contains(&role);
        known.then_some(Self(role)).ok_or(NoWorkstationRole)
    }
}

impl FromStr for WorkstationRole {
    type Err = NoWorkstationRole;

    fn from_str(text: &str) -> Result<Self, NoWorkstationRole> {
        let role = text.parse::<Roles>().map_err(|_| NoWorkstationRole)?;
        Self::try_from(role)
    }
}

/// What a node is certified for: of a workstation's roles only the one that was chosen, if the ticket
/// allows it. Others trust the certificate, so a worker must not pass for a head because its ticket
/// could make one.
pub fn certified_roles(ticket: Roles, chosen: Option<Roles>) -> Roles {
    let [head, worker, login] = WORKSTATION_ROLES;
    match chosen {
        Some(role) if ticket.contains(role) => (ticket - (head | worker | login)) | role,
        _ => ticket,
    }
}

/// The ports to listen on by TCP, each once.
pub fn check_ports(mut ports: Vec<u16>) -> Result<Vec<u16>> {
    ports.sort_unstable();
    ports.dedup();
    if ports.len() > PORTS_MAX {
        bail!("a node listens on {PORTS_MAX} TCP ports at most; give fewer of --tcp-listen");
    }
    Ok(ports)
}

fn read(path: &Path) -> Result<RawConfig> {
    let shown = path.display();
    let metadata = std::fs::metadata(path)
        .with_context(|| format!("cannot open the configuration {shown}"))?;
    if metadata.len() > FILE_BYTES_MAX {
        bail!("{shown} is no configuration: it has more than {FILE_BYTES_MAX} bytes");
    }
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {shown}"))?;
    // toml's error names line, column and the known keys.
    toml::from_str(&text).with_context(|| format!("the configuration {shown} is malformed"))
}

/// Where a node of this user keeps its identity.
pub fn default_state() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/wow".into());
    }
    let home = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(state) = home("XDG_STATE_HOME") {
        return Ok(PathBuf::from(state).join("wow"));
    }
    match home("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".local/state/wow")),
        None => {
            bail!("no home directory is known; say where to keep the identity with --state DIR")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_files_are_checked_strictly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wow.toml");
        let parse = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path).map_err(|error| format!("{error:#}"))
        };
        let raw = parse(
            "name = \"n1\"\nlisten = \"0.0.0.0:4001\"\nguest = \"none\"\ntcp-listen = [443]\n",
        )
        .unwrap();
        assert_eq!(raw.tcp_listen, [443]);
        assert_eq!(raw.guest, Some(GuestArg::None));
        let error = parse("name = \"n1\"\nlisten-on = 5\n").unwrap_err();
        assert!(
            error.contains("line 2") && error.contains("listen-on"),
            "{error}"
        );
        let error = parse("name = \"Not A Label\"\n").unwrap_err();
        assert!(error.contains("line 1"), "{error}");
        assert!(parse("seeds = [\"x\"]").is_err());
        assert!(parse("tcp-listen = [65536]").is_err());
        assert_eq!(check_ports(vec![443, 80, 443]).unwrap(), [80, 443]);
        assert!(check_ports((1..=5).collect()).is_err());
    }

    #[test]
    fn a_guests_mtu_is_within_its_bounds() {
        for (text, bytes) in [("1280", Some(1280)), ("8939", Some(8939))] {
            assert_eq!(text.parse().ok().map(GuestMtu::bytes), bytes);
        }
        for wrong in ["1279", "8940", "65536", "-1", "", "auto"] {
            let error = wrong.parse::<GuestMtu>().unwrap_err().to_string();
            assert!(error.contains("1280 to 8939"), "{error}");
        }
        assert_eq!(GuestMtu::default().bytes(), 1419);
        assert!(toml::from_str::<RawConfig>("mtu = 9000").is_err());
    }

    #[test]
    fn kinds_of_guests_are_written_with_their_interfaces() {
        let name = || "eth1".to_owned();
        for (text, kind) in [
            ("tun", GuestArg::Tun),
            ("none", GuestArg::None),
            ("packet", GuestArg::Packet(None)),
            ("packet:eth1", GuestArg::Packet(Some(name()))),
            ("virtio", GuestArg::Virtio(None)),
            (
                "virtio:0000:00:03.0",
                GuestArg::Virtio(Some(virtio::Choice::Address("00:03.0".parse().unwrap()))),
            ),
            (
                "virtio:eth1",
                GuestArg::Virtio(Some(virtio::Choice::Interface(name()))),
            ),
            ("tap:eth1", GuestArg::Tap(name())),
        ] {
            assert_eq!(text.parse(), Ok(kind), "{text}");
        }
        for wrong in [
            "", "tap", "tap:", "packet:", "virtio:", "tun:wow0", "none:x", "vde:x",
        ] {
            let error = wrong.parse::<GuestArg>().unwrap_err().to_string();
            assert!(error.contains("packet:IFACE"), "{error}");
        }
        let raw: RawConfig = toml::from_str("guest = \"packet:eth1\"").unwrap();
        assert_eq!(raw.guest, Some(GuestArg::Packet(Some(name()))));
        assert!(toml::from_str::<RawConfig>("guest = \"eth1\"").is_err());
    }

    #[test]
    fn a_chosen_role_leaves_out_the_others_of_a_workstation() {
        let check = |ticket: &str, chosen: Option<Roles>, certified: &str| {
            let roles = certified_roles(ticket.parse().unwrap(), chosen);
            assert_eq!(roles.to_string(), certified, "{ticket}");
        };
        check(
            "head,worker,login,router",
            Some(Roles::WORKER),
            "worker,router",
        );
        check("head", Some(Roles::HEAD), "head");
        check("head,worker", None, "head,worker");
        // Not allowed: told as trouble, and certified for nothing that the ticket does not say.
        check("worker,router", Some(Roles::HEAD), "worker,router");
    }

    #[test]
    fn a_workstation_has_one_of_its_roles() {
        for role in ["head", "worker", "login"] {
            let parsed: WorkstationRole = role.parse().unwrap();
            assert_eq!(parsed.role().to_string(), role);
        }
        for wrong in ["router", "head,worker", "king", ""] {
            let error = wrong.parse::<WorkstationRole>().unwrap_err().to_string();
            assert!(error.contains("head, worker and login"), "{error}");
        }
    }
}
